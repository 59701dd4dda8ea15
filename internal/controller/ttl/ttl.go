package ttl

import (
	"context"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
)

// expiringTask identifies a task to delete at a given time, in its newest version.
type expiringTask struct {
	types.NamespacedName
	uid             types.UID
	resourceVersion string
	at              int64 // Unix time
}

// expiringTaskOf returns the expiringTask of an object in the cache. It returns false if the
// task never expires.
func expiringTaskOf(cached client.Object) (expiringTask, bool) {
	at, ok := kube.ExpiryOf(cached)
	if !ok {
		return expiringTask{}, false
	}
	return expiringTask{client.ObjectKeyFromObject(cached), cached.GetUID(), cached.GetResourceVersion(), at.Unix()}, true
}

// expiryRetry is the time between two tries to delete a task.
const expiryRetry = time.Minute

// maxExpiries bounds how many tasks one pass deletes, so that a pass stays short.
const maxExpiries = 100

// ttlController deletes expired tasks. It keeps the newest version of each task that will
// expire, and drops a task that is gone. The workqueue has a single key, due when the first
// task expires. With one key per task, the key of a deleted task would stay in the workqueue
// until the task's expiry, which may be ten years away.
type ttlController struct {
	client.Client

	mu    sync.Mutex // guards tasks
	tasks map[types.UID]expiringTask
}

// expiryRequest is the only key of the workqueue.
type expiryRequest struct{}

// Setup adds the controller to the manager.
func Setup(mgr manager.Manager) error {
	type queue = workqueue.TypedRateLimitingInterface[expiryRequest]
	r := &ttlController{Client: mgr.GetClient(), tasks: map[types.UID]expiringTask{}}
	// observe tracks a task and enqueues the key for the task's expiry.
	observe := func(before, after client.Object, q queue) {
		if at, ok := r.trackExpiry(before, after); ok {
			q.AddAfter(expiryRequest{}, time.Until(at))
		}
	}
	return builder.TypedControllerManagedBy[expiryRequest](mgr).
		Named("reaper").
		Watches(&v1alpha1.PrefetchTask{}, handler.TypedFuncs[client.Object, expiryRequest]{
			CreateFunc: func(_ context.Context, e event.TypedCreateEvent[client.Object], q queue) { observe(nil, e.Object, q) },
			UpdateFunc: func(_ context.Context, e event.TypedUpdateEvent[client.Object], q queue) {
				observe(e.ObjectOld, e.ObjectNew, q)
			},
			DeleteFunc: func(_ context.Context, e event.TypedDeleteEvent[client.Object], q queue) { observe(e.Object, nil, q) },
		}).
		Complete(r)
}

// trackExpiry updates tasks after a cache event. before is nil for a new task, and after is nil
// for a task that is gone. It returns the time at which to delete the task. ok is false if the
// task never expires.
func (r *ttlController) trackExpiry(before, after client.Object) (at time.Time, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if before != nil {
		delete(r.tasks, before.GetUID()) // after may have another UID: an update event can hide a deletion
	}
	if after == nil {
		return time.Time{}, false
	}
	e, ok := expiringTaskOf(after)
	if !ok {
		return time.Time{}, false
	}
	r.tasks[e.uid] = e
	return time.Unix(e.at, 0), true
}

// Reconcile deletes expired tasks. It deletes a task only in the version that it tracks. A
// failed deletion does not delay the other tasks.
func (r *ttlController) Reconcile(ctx context.Context, _ expiryRequest) (reconcile.Result, error) {
	expired, next := r.takeExpired(time.Now())
	for _, e := range expired {
		r.deleteTask(ctx, e)
	}
	if next.IsZero() {
		return reconcile.Result{}, nil
	}
	return reconcile.Result{RequeueAfter: max(time.Until(next), time.Second)}, nil // expiry times are whole seconds
}

// takeExpired returns at most maxExpiries expired tasks, and the time of the next pass. The
// time is zero if there are no tasks.
func (r *ttlController) takeExpired(now time.Time) (expired []expiringTask, next time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.tasks {
		at := time.Unix(e.at, 0)
		if !at.After(now) && len(expired) < maxExpiries {
			expired = append(expired, e)
			at = now.Add(expiryRetry) // a deleted task is no longer tracked by then
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return expired, next
}

// deleteTask deletes a task if it is unchanged. After an error, it schedules the next try.
func (r *ttlController) deleteTask(ctx context.Context, e expiringTask) {
	task := &v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Namespace: e.Namespace, Name: e.Name}}
	err := r.Delete(ctx, task,
		client.Preconditions{UID: &e.uid, ResourceVersion: ptr.To(e.resourceVersion)}, client.PropagationPolicy(metav1.DeletePropagationBackground))
	logger := log.FromContext(ctx).WithValues("task", e.NamespacedName)
	retried := ignoreChanged(err) != nil
	switch {
	case err == nil:
		logger.V(1).Info("Deleted an expired task")
	case retried:
		logger.Info("Cannot delete an expired task; will try again", "error", err.Error())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tasks[e.uid] != e {
		return // the task changed in the meantime
	}
	delete(r.tasks, e.uid)
	if retried {
		e.at = time.Now().Add(expiryRetry).Unix()
		r.tasks[e.uid] = e
	}
}

// ignoreChanged returns nil if the task has changed or is gone: then there is nothing to
// delete, or an event brings the newer version.
func ignoreChanged(err error) error {
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
