-- Degraded only if user action is required: Argo CD then stops waiting for the task.
local hs = { status = "Progressing", message = "Waiting for the operator" }
if obj.status == nil or obj.status.conditions == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return hs
end
local ready, stalled
for _, condition in ipairs(obj.status.conditions) do
  if condition.type == "Ready" then
    ready = condition
  elseif condition.type == "Stalled" and condition.status == "True" then
    stalled = condition
  end
end
if ready == nil then
  return hs
end
hs.message = ready.message
if ready.status == "True" then
  hs.status = "Healthy"
elseif stalled ~= nil then
  hs.status = "Degraded"
  hs.message = stalled.message
elseif ready.reason == "Suspended" then
  hs.status = "Suspended"
end
return hs
