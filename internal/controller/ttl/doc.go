// Package ttl deletes finished tasks when spec.ttlSecondsAfterFinished has passed.
//
// It works on the reduced form in which the cache keeps finished tasks; see kube.ExpiryOf. It
// never deletes a task that a GitOps tool or Helm would create again; taskstate.RecreatedBy
// detects such a task.
package ttl
