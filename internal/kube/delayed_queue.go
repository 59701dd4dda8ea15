package kube

import (
	"context"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// DelayedQueue adds keys to the queue of a controller after a delay. It remembers keys
// that are added before the controller has its queue. A process without the lease has no
// queue yet, because its controllers have not started.
type DelayedQueue[key comparable] struct {
	mu    sync.Mutex
	queue workqueue.TypedRateLimitingInterface[key] // nil until UseQueue
	early map[key]time.Time                         // keys added before UseQueue, and when they are due
}

// EnqueueAfter adds a key to the queue after a delay. If the key is added more than once,
// the earliest time counts. All keys have the same priority, whatever their cause.
func (w *DelayedQueue[key]) EnqueueAfter(k key, after time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.queue == nil {
		at := time.Now().Add(after)
		if known, ok := w.early[k]; !ok || at.Before(known) {
			if w.early == nil {
				w.early = map[key]time.Time{}
			}
			w.early[k] = at
		}
		return
	}
	w.addAfter(k, after)
}

// addAfter adds a key to the controller's queue. In a priority queue, it gives all keys
// priority 0. The caller holds the lock.
func (w *DelayedQueue[key]) addAfter(k key, after time.Duration) {
	if queue, ok := w.queue.(priorityqueue.PriorityQueue[key]); ok {
		queue.AddWithOpts(priorityqueue.AddOpts{After: after, Priority: ptr.To(0)}, k)
		return
	}
	w.queue.AddAfter(k, after)
}

// UseQueue sets the controller's queue, and adds the keys remembered so far to it.
func (w *DelayedQueue[key]) UseQueue(queue workqueue.TypedRateLimitingInterface[key]) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = queue
	for k, at := range w.early {
		w.addAfter(k, max(0, time.Until(at)))
	}
	w.early = nil
}

// delayedQueueSource is a source of a controller whose keys come from a DelayedQueue.
type delayedQueueSource[key comparable] struct {
	*DelayedQueue[key]
	tasks *TaskEvents
}

// NewDelayedQueueSource returns a source that gives the controller's queue to a
// DelayedQueue. The controller starts after tasks has handled all tasks that existed at
// the start.
func NewDelayedQueueSource[key comparable](queue *DelayedQueue[key], tasks *TaskEvents) source.TypedSyncingSource[key] {
	return delayedQueueSource[key]{queue, tasks}
}

// Start sets the controller's queue in the DelayedQueue.
func (s delayedQueueSource[key]) Start(_ context.Context, queue workqueue.TypedRateLimitingInterface[key]) error {
	s.UseQueue(queue)
	return nil
}

// WaitForSync waits until all tasks that existed at the start have been handled.
func (s delayedQueueSource[key]) WaitForSync(ctx context.Context) error {
	return s.tasks.WaitForSync(ctx)
}
