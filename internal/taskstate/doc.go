// Package taskstate says what the spec and the status of a PrefetchTask mean, and what may
// happen to a status.
//
// Its functions are pure. A task goes in, and a fact or a changed status comes out:
//
//   - run, positions: which run the spec asks for; which targets are handed over, refused or
//     open; whether the task waits, is claimed, suspended or finished
//   - transitions: claim, record, refuse, release, adopt
//   - claim_match: whether EdgeOne's history shows the call of a claim
//   - history_read, outcomes: what EdgeOne's history says about the targets of a job
//   - retry: how failed targets are queued again
//   - waiting, cause: what the status says of a task that waits
//   - summary, conditions, failed_targets, status_size: counts, conditions, and their bounds
//   - derived, elide: values of long lists, computed once per list; the short stand-in for a
//     list that is not in memory
//
// The hashes that end up in a status never change: a change would submit every finished
// task of every cluster again.
//
// The package knows the records of EdgeOne's history from teo. It does not know the queue,
// the Kubernetes API server, or when anything happens: its callers pass the time.
package taskstate
