// Package submit turns waiting tasks into calls to EdgeOne.
//
// The Submitter is a controller whose key is an account, because EdgeOne meters calls by
// account. One pass plans the calls for which there will be slots soon; internal/queue decides
// what goes into them. Each call runs as an attempt in the background.
//
//   - submitter.go: one pass over an account.
//   - account_queue.go: the queue of one account, with its lock.
//   - attempt.go: one call from claim to record. claim.go, outcome.go and late_outcome.go are
//     its steps.
//   - waiting_status.go: waiting tasks say why they wait.
//   - quota.go: what a zone may still submit today.
//   - backoff.go: who waits after a failure.
//   - zone_use.go: what the gauges say of zones.
//   - shutdown.go: calls in flight are recorded before the lease is given up.
//
// The package does not know internal/controller/follow, which reads outcomes and settles calls
// whose answer was lost.
//
// Lock order: Submitter.mu before an accountQueue's mu, and both before the locks of
// internal/kube.
package submit
