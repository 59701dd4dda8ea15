// Package queue decides which EdgeOne call is made next.
//
// A Queue belongs to one account. Its inputs are task versions, failures and the time.
// Its outputs are planned calls and the statuses of waiting tasks. The package does no
// I/O, starts no goroutines and reads no clock: its callers pass the time and hold a
// lock.
//
// A Queue makes calls of one kind: prefetches or purges. An account has a Queue for each.
//
// Namespaces take turns. Within a namespace, the oldest task goes first. The call is
// filled from the lane of that task, with the tasks of all namespaces in turn. Each lane
// has at most one unanswered call. Tasks that arrive in the meantime share the next call.
// The cost of planning a call depends on the size of the call, not on the size of the
// queue.
//
// Terms of this package:
//
//   - lane: the tasks that can share a call, because EdgeOne fetches their targets in the
//     same way
//   - mode: default or edge; EdgeOne meters the two modes of a zone separately
//   - tenant: a namespace in one mode of a zone
//   - probe: a call after a back-off that checks whether the problem is solved
//   - suspect: a task from a call that failed as a whole; the queue tests it apart from
//     others
//
// The files, in the order of a call's life:
//
//   - queue: which tasks are in the queue, and where
//   - batch_key, fairness: lanes, and the order of namespaces and tasks
//   - plan, call: the next decision, and the targets of a call
//   - outcome: how the response to a call changes the queue
//   - quota, quota_reads, refused_hosts: what EdgeOne allows in a zone
//   - attribution, tenants, backoff, postpone: which tasks wait after a failure, and how
//     long
//   - bisect, rejections, lost_calls: how the queue isolates the targets that make a call
//     fail
//   - reservations: URLs that a call of unknown outcome may have submitted
//   - kind, promises, purge_reservations: what differs between purges and prefetches, the
//     quota that purged URLs are promised, and the URLs that a purge may still delete
//   - waiting_status, ahead, stats: what the tasks and the metrics report
//   - round_robin, timers: the building blocks
//
// The meaning of a task's spec and status comes from taskstate. The package does not
// depend on EdgeOne's API or on the Kubernetes API server, and it writes no statuses.
package queue
