// Package follow reads EdgeOne's history for three purposes: to record the outcomes of jobs, to
// settle calls whose answer was lost, and to start runs that keep what is prefetched already.
//
// EdgeOne has a history of prefetches and one of purges. A Poller reads one of them.
//
// The Poller keeps the open work of each zone of each account. Two controllers share this
// work, so that neither delays the other: the Poller itself reads outcomes, and the lost-call
// reconciler settles calls.
//
//   - poller.go: the zones that have open work. zone_state.go: the state of one zone.
//   - jobs_due.go: which jobs to read, and when. outcomes.go: one pass for outcomes.
//   - lost_calls.go: one pass for lost calls. claim_history.go: the windows it reads.
//     settle.go: the conclusions it draws, with taskstate.MatchClaim.
//   - history.go: reads jobs and windows completely, within bounds.
//   - starts.go: starts runs with what the history shows as prefetched; start_events.go: its Events.
//   - retries.go: starts a retry once all failed targets are known.
//   - unread.go: the status of a run if EdgeOne refuses to show one of its jobs.
//   - recorded_jobs.go: which claim recorded which job. garbage.go: drops entries that
//     nothing needs any more.
//
// The package does not import internal/controller/submit. Config.IsInFlight reports which
// calls this process is still making.
//
// Lock order: Poller.mu before RecordedJobs.mu, and both before the locks of internal/kube.
package follow
