// Package taskstate defines the meaning of a PrefetchTask's spec and status, and the
// transitions of a status.
//
// Its functions are pure. They take a task, and return a fact or a changed status:
//
//   - purge, call_targets: the purge before a prefetch; what the positions of a call refer to
//   - history_start: what a run need not submit, because EdgeOne's history shows it
//   - run, positions: the run that the spec asks for; the targets that are handed over,
//     refused or open; whether the task waits, is claimed, suspended or finished
//   - transitions: claim, record, refuse, release, adopt
//   - purge: how far the purge of a run is, and what may be purged or prefetched next
//   - history_start: what a new run keeps of EdgeOne's history
//   - claim_match: whether EdgeOne's history shows the call of a claim
//   - history_read, outcomes: the outcomes of a job's targets in EdgeOne's history
//   - retry: how failed targets are queued again
//   - waiting, cause, ahead: the status of a task that waits
//   - summary, conditions, failed_targets, status_size: counts, conditions, and their bounds
//   - derived, elide: values of long lists, computed once per list; the short stand-in for a
//     list that is not in memory
//
// The hashes that a status stores must never change. A change would resubmit every
// finished task of every cluster.
//
// The package uses the history records of package teo. It does not use the queue, the
// Kubernetes API server, or the clock: its callers pass the time.
package taskstate
