// Package follow reads EdgeOne's prefetch history: for the outcomes of jobs, and for calls
// whose answer was lost.
//
// The Poller keeps the open work of each zone of each account. Two controllers work on it, so
// that neither keeps the other waiting: the Poller itself reads outcomes, and the lost-call
// reconciler settles calls.
//
//   - poller.go: which zones have open work. zone_state.go: what is known of one zone.
//   - jobs_due.go: which jobs to read, and when. outcomes.go: one pass for outcomes.
//   - lost_calls.go: one pass for lost calls. claim_history.go: what it reads.
//     settle.go: what it concludes, with taskstate.MatchClaim.
//   - history.go: how jobs and windows are read completely, within bounds.
//   - retries.go: a retry starts once it is known what failed.
//   - unread.go: what the status says if EdgeOne refuses to show a job.
//   - recorded_jobs.go: which claim recorded which job. garbage.go: what is gone is forgotten.
//
// The package does not know internal/controller/submit. Config.IsInFlight tells it which calls
// this process is still making.
//
// Lock order: Poller.mu before RecordedJobs.mu, and both before the locks of internal/kube.
package follow
