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

// DelayedQueue makes keys of a controller due. It remembers those that become due before
// the controller has its queue.
type DelayedQueue[key comparable] struct {
	mu    sync.Mutex
	queue workqueue.TypedRateLimitingInterface[key]
	early map[key]time.Time
}

// EnqueueAfter makes a key due after a while. Its priority is that of all others, whatever
// made it due.
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

func (w *DelayedQueue[key]) addAfter(k key, after time.Duration) {
	if queue, ok := w.queue.(priorityqueue.PriorityQueue[key]); ok {
		queue.AddWithOpts(priorityqueue.AddOpts{After: after, Priority: ptr.To(0)}, k)
		return
	}
	w.queue.AddAfter(k, after)
}

// UseQueue gives the DelayedQueue the controller's queue.
func (w *DelayedQueue[key]) UseQueue(queue workqueue.TypedRateLimitingInterface[key]) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = queue
	for k, at := range w.early {
		w.addAfter(k, max(0, time.Until(at)))
	}
	w.early = nil
}

// delayedQueueSource is the source of a controller's keys.
type delayedQueueSource[key comparable] struct {
	*DelayedQueue[key]
	tasks *TaskEvents
}

// NewDelayedQueueSource returns the source of a controller's keys. The controller starts once
// all tasks that were there at the start have been seen.
func NewDelayedQueueSource[key comparable](queue *DelayedQueue[key], tasks *TaskEvents) source.TypedSyncingSource[key] {
	return delayedQueueSource[key]{queue, tasks}
}

// Start gives the delayed queue the controller's queue.
func (s delayedQueueSource[key]) Start(_ context.Context, queue workqueue.TypedRateLimitingInterface[key]) error {
	s.UseQueue(queue)
	return nil
}

// WaitForSync waits until all tasks have been seen.
func (s delayedQueueSource[key]) WaitForSync(ctx context.Context) error {
	return s.tasks.WaitForSync(ctx)
}
