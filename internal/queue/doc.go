// Package queue decides which EdgeOne call is made next.
//
// A Queue belongs to one account. Task versions, failures and the time go in; planned
// calls and the statuses of waiting tasks come out. The package does no I/O, starts no
// goroutine and reads no clock: its callers pass the time and hold a lock.
//
// Namespaces take turns; within a namespace, the oldest task goes first. The lane of the
// chosen task then fills the call from all namespaces in turn. At most one call of a lane
// waits for its answer; tasks that arrive in the meantime share the next call. The cost
// of planning a call depends on the size of the call, not on the size of the queue.
//
// The files, in the order of a call's life:
//
//   - queue: which tasks are in the queue, and where
//   - batch_key, fairness: lanes, and the order of namespaces and tasks
//   - plan, call: the next decision, and the targets of a call
//   - outcome: what the answer to a call changes
//   - quota, quota_reads, refused_hosts: what EdgeOne allows in a zone
//   - attribution, tenants, backoff, postpone: who waits after a failure, and how long
//   - bisect, rejections, lost_calls: how the queue isolates the targets that spoil a call
//   - reservations: URLs that a call of unknown outcome may have submitted
//   - waiting_status, stats: what the tasks and the metrics report
//   - round_robin, timers: the building blocks
//
// The meaning of a task's spec and status comes from taskstate. The package does not know
// EdgeOne's API, the Kubernetes API server, or how a status is written.
package queue
