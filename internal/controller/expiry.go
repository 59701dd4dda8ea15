package controller

import (
	"context"
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
)

// expiryAnnotation is when a finished task is to be deleted. Only the cache's slim
// copies have it, and of those only the ones that are to be deleted: the others
// cost nothing more.
const expiryAnnotation = "expiry"

// expiry is when a task is to be deleted, if ever.
func expiry(task *v1alpha1.PrefetchTask) (time.Time, bool) {
	ttl := task.Spec.TTLSecondsAfterFinished
	if ttl == 0 || task.Status.CompletionTime.IsZero() || !task.DeletionTimestamp.IsZero() || madeAgainBy(task) != "" {
		return time.Time{}, false
	}
	return task.Status.CompletionTime.Add(time.Duration(ttl) * time.Second), true
}

// madeAgainBy names who would make the task again if it were deleted, by the marks
// that they put on what they keep as it is in their sources. What they run as a
// hook they make anew each time anyway, and of a generated name nobody makes another.
func madeAgainBy(task *v1alpha1.PrefetchTask) string {
	has := func(marks map[string]string, names ...string) bool {
		for _, name := range names {
			if marks[name] != "" {
				return true
			}
		}
		return false
	}
	switch {
	case task.GenerateName != "":
		return ""
	case has(task.Labels, "kustomize.toolkit.fluxcd.io/name"): // to which a hook is nothing special
		return "Flux"
	case has(task.Annotations, "argocd.argoproj.io/hook", "helm.sh/hook"):
		return ""
	case has(task.Labels, "helm.toolkit.fluxcd.io/name"):
		return "Flux"
	case has(task.Annotations, "argocd.argoproj.io/tracking-id"), has(task.Labels, "argocd.argoproj.io/instance"):
		return "Argo CD"
	case has(task.Annotations, "meta.helm.sh/release-name"):
		return "Helm"
	case has(task.Labels, "app.kubernetes.io/instance"): // the label by which Argo CD tracks if told so
		return "Argo CD or Helm"
	}
	return ""
}

// expiring is a version of a task to be deleted at a time. It is all that deleting
// takes, so that the controller's queue is the only memory of it; a task that has
// changed meanwhile comes again as another version.
type expiring struct {
	types.NamespacedName
	uid             types.UID
	resourceVersion string
	at              int64 // Unix time
}

// expiringOf reads what the cache keeps of a task. The annotation of a whole task
// would be its user's.
func expiringOf(obj client.Object) (expiring, bool) {
	kept, slim := obj.(*metav1.PartialObjectMetadata)
	if !slim || kept.Annotations == nil {
		return expiring{}, false
	}
	at, err := time.Parse(time.RFC3339, kept.Annotations[expiryAnnotation])
	return expiring{client.ObjectKeyFromObject(kept), kept.UID, kept.ResourceVersion, at.Unix()}, err == nil
}

// reaper deletes tasks that have expired.
type reaper struct{ client.Client }

func setupReaper(mgr manager.Manager) error {
	type queue = workqueue.TypedRateLimitingInterface[expiring]
	add := func(obj client.Object, q queue) {
		if e, ok := expiringOf(obj); ok {
			q.AddAfter(e, time.Until(time.Unix(e.at, 0)))
		}
	}
	return builder.TypedControllerManagedBy[expiring](mgr).
		Named("reaper").
		Watches(&v1alpha1.PrefetchTask{}, handler.TypedFuncs[client.Object, expiring]{
			CreateFunc: func(_ context.Context, e event.TypedCreateEvent[client.Object], q queue) { add(e.Object, q) },
			UpdateFunc: func(_ context.Context, e event.TypedUpdateEvent[client.Object], q queue) { add(e.ObjectNew, q) },
		}).
		Complete(&reaper{mgr.GetClient()})
}

// Reconcile deletes a task if it is still the one that was seen to be over.
func (r *reaper) Reconcile(ctx context.Context, e expiring) (reconcile.Result, error) {
	if wait := time.Until(time.Unix(e.at, 0)); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	task := &v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Namespace: e.Namespace, Name: e.Name}}
	err := r.Delete(ctx, task,
		client.Preconditions{UID: &e.uid, ResourceVersion: ptr.To(e.resourceVersion)}, client.PropagationPolicy(metav1.DeletePropagationBackground))
	if err == nil {
		log.FromContext(ctx).V(1).Info("Deleted a task that is over", "task", e.NamespacedName)
	}
	return reconcile.Result{}, ignoreChanged(err)
}

// ignoreChanged takes it for done if the task has changed or is gone.
func ignoreChanged(err error) error {
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
