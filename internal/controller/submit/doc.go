// Package submit turns waiting tasks into calls to EdgeOne.
//
// The Submitter is a controller whose key is an account, because EdgeOne limits the rate of
// calls per account. One pass plans the calls that can get a slot soon. internal/queue decides
// which targets go into a call. An account has two queues with a rate limit each: one for purges
// and one for prefetches. Each call runs as an attempt in the background.
//
//   - submitter.go: one pass over an account.
//   - account_queue.go: the queue of one account, with its lock.
//   - attempt.go: one call from claim to record. Its steps are in claim.go, outcome.go and
//     late_outcome.go.
//   - waiting_status.go: reports in the statuses of waiting tasks why they wait.
//   - quota.go: reads how much a zone may still submit today.
//   - backoff.go: decides which tasks wait after a failure.
//   - zone_use.go: what the gauges report about zones.
//   - shutdown.go: records calls in flight before the process gives up the lease.
//
// The package does not import internal/controller/follow, which reads outcomes and settles
// calls whose answer was lost.
//
// Lock order: Submitter.mu before an accountQueue's mu, and both before the locks of
// internal/kube.
package submit
