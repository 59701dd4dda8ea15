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

// feed is the only handler of the events of tasks. It runs in every process, also in
// one that does not lead, so that a new leader has everything in memory already.
type feed struct {
	events source.SyncingSource
	synced chan struct{} // closed once all tasks that were there at the start have been seen
	err    error         // why they will not be; read it after synced
}

// newFeed brings what the cache sees to these versions, and to count what each event
// makes of what.
func newFeed(tasks cache.Cache, versions *versions, count func(before, after client.Object)) *feed {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request] // unused: the controllers have their own
	return &feed{synced: make(chan struct{}), events: source.Kind[client.Object](tasks, &v1alpha1.PrefetchTask{}, handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, _ queue) {
			count(nil, e.Object)
			versions.see(cached(e.Object))
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, _ queue) {
			count(e.ObjectOld, e.ObjectNew)
			versions.see(cached(e.ObjectNew))
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, _ queue) {
			count(e.Object, nil)
			versions.remove(cached(e.Object))
		},
	})}
}

// NeedLeaderElection is false: the tasks come to those that do not lead as well.
func (*feed) NeedLeaderElection() bool { return false }

// Start asks for the events and returns when those of the start have been handled.
func (f *feed) Start(ctx context.Context) error {
	defer close(f.synced)
	if f.err = f.events.Start(ctx, nil); f.err == nil {
		f.err = f.events.WaitForSync(ctx)
	}
	return nil // to those who wait
}

// wait returns when all tasks that were there at the start have been seen.
func (f *feed) wait(ctx context.Context) error {
	select {
	case <-f.synced:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// waker makes keys of a controller due. It remembers those that become due before
// the controller has its queue.
type waker[key comparable] struct {
	mu    sync.Mutex
	queue workqueue.TypedRateLimitingInterface[key]
	early map[key]time.Time
}

// wake makes a key due after a while. Its priority is that of all others, whatever
// made it due.
func (w *waker[key]) wake(k key, after time.Duration) {
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
	w.add(k, after)
}

func (w *waker[key]) add(k key, after time.Duration) {
	if queue, ok := w.queue.(priorityqueue.PriorityQueue[key]); ok {
		queue.AddWithOpts(priorityqueue.AddOpts{After: after, Priority: ptr.To(0)}, k)
		return
	}
	w.queue.AddAfter(k, after)
}

// begin gives the waker the controller's queue.
func (w *waker[key]) begin(queue workqueue.TypedRateLimitingInterface[key]) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = queue
	for k, at := range w.early {
		w.add(k, max(0, time.Until(at)))
	}
	w.early = nil
}

// wakes is the source of a controller's keys. The controller does not start before
// all tasks have been seen.
type wakes[key comparable] struct {
	*waker[key]
	feed *feed
}

// Start begins to make keys due.
func (w wakes[key]) Start(_ context.Context, queue workqueue.TypedRateLimitingInterface[key]) error {
	w.begin(queue)
	return nil
}

// WaitForSync waits for the feed.
func (w wakes[key]) WaitForSync(ctx context.Context) error { return w.feed.wait(ctx) }
