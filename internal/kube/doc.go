// Package kube is the API server's side of the operator: what it reads and keeps of tasks,
// and how it writes statuses.
//
//   - cache.go: the options of the manager's cache, and what it drops of each task.
//   - finished_task.go: what the cache keeps of a finished task.
//   - readahead.go: the transport that reads the pages of a list ahead.
//   - task_events.go: the only handler of the events of tasks.
//   - task_store.go: which version of each task is the newest. No other place decides that.
//   - status_writer.go: how a status is written, under the task's resourceVersion.
//   - write_priority.go: claims and records go before reports.
//   - refused_writes.go: statuses that the API server refuses.
//   - events.go: Kubernetes Events about tasks, bounded by time.
//   - rate.go: how often runs start, and how often a report is written.
//   - delayed_queue.go: keys of a controller that become due later.
//
// The package knows nothing of EdgeOne's calls, of queues or of quotas. Statuses change only
// by transitions of internal/taskstate.
//
// Lock order: a lock of a controller, then the TaskStore's, then those of the sources of
// targets that the store asks. Subscribers of the store run without its lock.
package kube
