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

// expiringTask is the newest version of a task that is to be deleted at a time.
type expiringTask struct {
	types.NamespacedName
	uid             types.UID
	resourceVersion string
	at              int64 // Unix time
}

// expiringTaskOf returns a task in the cache as one that expires, if it ever does.
func expiringTaskOf(cached client.Object) (expiringTask, bool) {
	at, ok := kube.ExpiryOf(cached)
	if !ok {
		return expiringTask{}, false
	}
	return expiringTask{client.ObjectKeyFromObject(cached), cached.GetUID(), cached.GetResourceVersion(), at.Unix()}, true
}

// expiryRetry is when a task is tried again that could not be deleted.
const expiryRetry = time.Minute

// maxExpiries is how many tasks a pass deletes, so that it does not take long.
const maxExpiries = 100

// ttlController deletes tasks that have expired. It keeps one version of each task that will,
// and none of a task that is gone: the key of a task in the controller's queue would
// stay there until the time has come, which may be in ten years. So the queue has one
// key, due when the next task is.
type ttlController struct {
	client.Client

	mu    sync.Mutex // for tasks
	tasks map[types.UID]expiringTask
}

// expiryRequest is the key.
type expiryRequest struct{}

// Setup adds the controller to the manager.
func Setup(mgr manager.Manager) error {
	type queue = workqueue.TypedRateLimitingInterface[expiryRequest]
	r := &ttlController{Client: mgr.GetClient(), tasks: map[types.UID]expiringTask{}}
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

// trackExpiry takes what an event did to the cache: nil is before a task was there, or after
// it is gone. It returns when the task is to be deleted, if ever.
func (r *ttlController) trackExpiry(before, after client.Object) (at time.Time, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if before != nil {
		delete(r.tasks, before.GetUID()) // which may not be that of after: an event may leave a deletion out
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

// Reconcile deletes what has expired, each task if it is still as it was when it was
// seen to be over. A task that cannot be deleted does not keep the others.
func (r *ttlController) Reconcile(ctx context.Context, _ expiryRequest) (reconcile.Result, error) {
	expired, next := r.takeExpired(time.Now())
	for _, e := range expired {
		r.deleteTask(ctx, e)
	}
	if next.IsZero() {
		return reconcile.Result{}, nil
	}
	return reconcile.Result{RequeueAfter: max(time.Until(next), time.Second)}, nil // the seconds of Unix time
}

// takeExpired returns tasks whose time has come, and when to look again, if ever.
func (r *ttlController) takeExpired(now time.Time) (expired []expiringTask, next time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.tasks {
		at := time.Unix(e.at, 0)
		if !at.After(now) && len(expired) < maxExpiries {
			expired = append(expired, e)
			at = now.Add(expiryRetry) // unless it is gone by then
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return expired, next
}

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
		return // it has changed meanwhile
	}
	delete(r.tasks, e.uid)
	if retried {
		e.at = time.Now().Add(expiryRetry).Unix()
		r.tasks[e.uid] = e
	}
}

// ignoreChanged takes it for done if the task has changed or is gone.
func ignoreChanged(err error) error {
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
