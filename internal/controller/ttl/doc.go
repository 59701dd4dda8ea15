// Package ttl deletes finished tasks when spec.ttlSecondsAfterFinished has passed.
//
// It works from what the cache keeps of finished tasks (kube.FinishedTask). A task that a
// GitOps tool or Helm would create again is never deleted; taskstate.RecreatedBy decides that.
package ttl
