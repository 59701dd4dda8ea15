-- Any new value asks for a retry. That of the version which the retry is of is new
-- each time, and the same if the button is pressed twice.
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["teo.prefetch-operator.io/retry"] = "version-" .. obj.metadata.resourceVersion
return obj
