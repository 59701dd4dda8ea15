package kube

import (
	"context"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// TaskEvents is the only handler of the events of tasks. It runs in every process, also in
// one that does not lead, so that a new leader has everything in memory already.
type TaskEvents struct {
	events source.SyncingSource
	synced chan struct{} // closed once all tasks that were there at the start have been seen
	err    error         // why they will not be; read it after synced
}

// NewTaskEvents brings what the cache sees to these versions, and to count what each event
// makes of what.
func NewTaskEvents(tasks cache.Cache, versions *TaskStore, count func(before, after client.Object)) *TaskEvents {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request] // unused: the controllers have their own
	return &TaskEvents{synced: make(chan struct{}), events: source.Kind[client.Object](tasks, &v1alpha1.PrefetchTask{}, handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, _ queue) {
			count(nil, e.Object)
			versions.ObserveTask(CachedTask(e.Object))
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, _ queue) {
			count(e.ObjectOld, e.ObjectNew)
			versions.ObserveTask(CachedTask(e.ObjectNew))
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, _ queue) {
			count(e.Object, nil)
			versions.RemoveTask(CachedTask(e.Object))
		},
	})}
}

// NeedLeaderElection is false: the tasks come to those that do not lead as well.
func (*TaskEvents) NeedLeaderElection() bool { return false }

// Start asks for the events and returns when those of the start have been handled.
func (f *TaskEvents) Start(ctx context.Context) error {
	defer close(f.synced)
	if f.err = f.events.Start(ctx, nil); f.err == nil {
		f.err = f.events.WaitForSync(ctx)
	}
	return nil // to those who wait
}

// WaitForSync returns when all tasks that were there at the start have been seen.
func (f *TaskEvents) WaitForSync(ctx context.Context) error {
	select {
	case <-f.synced:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
