package controller

import (
	"context"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// taskEvents is the only handler of the events of tasks. It runs in every process, also in
// one that does not lead, so that a new leader has everything in memory already.
type taskEvents struct {
	events source.SyncingSource
	synced chan struct{} // closed once all tasks that were there at the start have been seen
	err    error         // why they will not be; read it after synced
}

// newTaskEvents brings what the cache sees to these versions, and to count what each event
// makes of what.
func newTaskEvents(tasks cache.Cache, versions *taskStore, count func(before, after client.Object)) *taskEvents {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request] // unused: the controllers have their own
	return &taskEvents{synced: make(chan struct{}), events: source.Kind[client.Object](tasks, &v1alpha1.PrefetchTask{}, handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, _ queue) {
			count(nil, e.Object)
			versions.observeTask(cachedTask(e.Object))
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, _ queue) {
			count(e.ObjectOld, e.ObjectNew)
			versions.observeTask(cachedTask(e.ObjectNew))
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, _ queue) {
			count(e.Object, nil)
			versions.removeTask(cachedTask(e.Object))
		},
	})}
}

// NeedLeaderElection is false: the tasks come to those that do not lead as well.
func (*taskEvents) NeedLeaderElection() bool { return false }

// Start asks for the events and returns when those of the start have been handled.
func (f *taskEvents) Start(ctx context.Context) error {
	defer close(f.synced)
	if f.err = f.events.Start(ctx, nil); f.err == nil {
		f.err = f.events.WaitForSync(ctx)
	}
	return nil // to those who wait
}

// waitForSync returns when all tasks that were there at the start have been seen.
func (f *taskEvents) waitForSync(ctx context.Context) error {
	select {
	case <-f.synced:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// delayedQueue makes keys of a controller due. It remembers those that become due before
// the controller has its queue.
type delayedQueue[key comparable] struct {
	mu    sync.Mutex
	queue workqueue.TypedRateLimitingInterface[key]
	early map[key]time.Time
}

// enqueueAfter makes a key due after a while. Its priority is that of all others, whatever
// made it due.
func (w *delayedQueue[key]) enqueueAfter(k key, after time.Duration) {
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

func (w *delayedQueue[key]) addAfter(k key, after time.Duration) {
	if queue, ok := w.queue.(priorityqueue.PriorityQueue[key]); ok {
		queue.AddWithOpts(priorityqueue.AddOpts{After: after, Priority: ptr.To(0)}, k)
		return
	}
	w.queue.AddAfter(k, after)
}

// useQueue gives the delayedQueue the controller's queue.
func (w *delayedQueue[key]) useQueue(queue workqueue.TypedRateLimitingInterface[key]) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = queue
	for k, at := range w.early {
		w.addAfter(k, max(0, time.Until(at)))
	}
	w.early = nil
}

// delayedQueueSource is the source of a controller's keys. The controller does not start before
// all tasks have been seen.
type delayedQueueSource[key comparable] struct {
	*delayedQueue[key]
	feed *taskEvents
}

// Start begins to make keys due.
func (w delayedQueueSource[key]) Start(_ context.Context, queue workqueue.TypedRateLimitingInterface[key]) error {
	w.useQueue(queue)
	return nil
}

// WaitForSync waits for the feed.
func (w delayedQueueSource[key]) WaitForSync(ctx context.Context) error {
	return w.feed.waitForSync(ctx)
}
