// Package kube connects the operator to the Kubernetes API server. It reads and caches
// tasks, and writes their statuses.
//
//   - cache.go: the options of the manager's cache; the fields that the cache drops
//   - finished_task.go: the short form of a finished task in the cache
//   - readahead.go: the transport that prefetches the pages of a list
//   - task_events.go: the only handler of watch events of tasks
//   - task_store.go: the newest version of each task; no other code decides which it is
//   - status_writer.go: status writes under the task's resourceVersion
//   - write_priority.go: claims and records are written before reports
//   - refused_writes.go: statuses that the API server refuses
//   - events.go: Kubernetes Events about tasks, rate-limited
//   - rate.go: the rates of new runs and of reports
//   - delayed_queue.go: keys that a controller handles after a delay
//
// The package does not know EdgeOne's calls, the queue or quotas. It changes statuses only
// through transitions of internal/taskstate.
//
// Lock order: a lock of a controller, then the lock of the TaskStore, then the locks of
// its target sources. The store calls its subscribers without its lock.
package kube
