local finished, failed = false, 0
if obj.status ~= nil then
  for _, condition in ipairs(obj.status.conditions or {}) do
    if condition.type == "Finished" and condition.status == "True" then
      finished = obj.status.observedGeneration == obj.metadata.generation
    end
  end
  if obj.status.targets ~= nil then
    failed = obj.status.targets.failed or 0
  end
end
local suspended = obj.spec.suspend == true
local actions = {}
actions["retry"] = { disabled = not (finished and failed > 0), iconClass = "fa fa-fw fa-redo", displayName = "Retry what failed" }
actions["suspend"] = { disabled = suspended or finished, iconClass = "fa fa-fw fa-pause", displayName = "Suspend" }
actions["resume"] = { disabled = not suspended, iconClass = "fa fa-fw fa-play", displayName = "Resume" }
return actions
