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

// TaskEvents is the only handler of watch events of tasks. It runs in every process, also
// without the lease, so a new leader already has all tasks in memory.
type TaskEvents struct {
	events source.SyncingSource
	ready  func(context.Context) error
	synced chan struct{} // closed when Start is done
	err    error         // the error of Start; read it only after synced is closed
}

// NewTaskEvents returns a handler that passes each version in the cache to the TaskStore.
// For each event, it also calls count with the cached objects before and after it. before
// is nil for a new task, and after is nil for a deleted task. The first event comes when
// ready has returned.
func NewTaskEvents(
	tasks cache.Cache, versions *TaskStore, ready func(context.Context) error, count func(before, after client.Object),
) *TaskEvents {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request] // unused: the controllers have their own
	return &TaskEvents{synced: make(chan struct{}), ready: ready, events: source.Kind[client.Object](tasks, &v1alpha1.PrefetchTask{}, handler.Funcs{
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

// NeedLeaderElection returns false: processes without the lease handle events as well.
func (*TaskEvents) NeedLeaderElection() bool { return false }

// Start starts the watch, and returns when all tasks that existed at the start have been
// handled. It reports an error only through WaitForSync.
func (f *TaskEvents) Start(ctx context.Context) error {
	defer close(f.synced)
	if f.err = f.ready(ctx); f.err != nil {
		return nil // WaitForSync returns it
	}
	if f.err = f.events.Start(ctx, nil); f.err == nil {
		f.err = f.events.WaitForSync(ctx)
	}
	return nil // WaitForSync returns f.err
}

// WaitForSync waits until all tasks that existed at the start have been handled. It
// returns the error of Start, if any.
func (f *TaskEvents) WaitForSync(ctx context.Context) error {
	select {
	case <-f.synced:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
