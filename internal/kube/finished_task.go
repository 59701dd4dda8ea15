package kube

import (
	"time"
	"unique"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// finishedTask is what the cache keeps of a finished task: its identity, its outcome and when
// it expires. A cluster that keeps a hundred thousand of them does not pay for their URLs.
// Nothing is ever written from it. A change of the spec, or a request for a retry, brings the
// whole task again.
type finishedTask struct {
	metav1.ObjectMeta
	outcome string // the reason of the condition Ready
	expires int64  // Unix time at which the task is to be deleted; 0 is never
}

// GetObjectKind returns no kind: the cache knows it.
func (*finishedTask) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject returns a copy.
func (f *finishedTask) DeepCopyObject() runtime.Object {
	c := *f
	f.ObjectMeta.DeepCopyInto(&c.ObjectMeta)
	return &c
}

// PruneFinishedTask returns what the cache keeps of a task: a finishedTask if nothing is left
// to do for it, else the task without what the operator never reads.
func PruneFinishedTask(task *v1alpha1.PrefetchTask) client.Object {
	hasWork := task.Status.Submission != nil || taskstate.IsNewRun(task) || taskstate.IsRetryDue(task)
	if hasWork || !taskstate.IsRunOver(task) || task.Status.ObservedGeneration != task.Generation {
		return pruneTask(task)
	}
	kept := &finishedTask{
		ObjectMeta: metav1.ObjectMeta{
			Name: task.Name, Namespace: unique.Make(task.Namespace).Value(), UID: task.UID,
			ResourceVersion: task.ResourceVersion, Generation: task.Generation,
		},
		outcome: unique.Make(taskstate.ReadyReason(task)).Value(),
	}
	if at, ok := taskstate.ExpiryOf(task); ok {
		kept.expires = at.Unix()
	}
	return kept
}

// ExpiryOf returns when a task in the cache is to be deleted, and whether it ever is.
func ExpiryOf(cached client.Object) (time.Time, bool) {
	finished, ok := cached.(*finishedTask)
	if !ok || finished.expires == 0 {
		return time.Time{}, false
	}
	return time.Unix(finished.expires, 0), true
}

// ReadyReasonOf returns the reason of the condition Ready of a task in the cache; Waiting if
// its status does not speak of its spec yet, and "" of nil.
func ReadyReasonOf(cached client.Object) string {
	switch cached := cached.(type) {
	case *v1alpha1.PrefetchTask:
		if reason := taskstate.ReadyReason(cached); reason != "" && cached.Status.ObservedGeneration == cached.Generation {
			return reason
		}
		return v1alpha1.ReasonWaiting
	case *finishedTask:
		return cached.outcome
	}
	return ""
}

// CachedTask returns what the cache has of a task. Of a finished one that is a task with
// nothing but its identity, for which taskstate.IsSlimmed holds.
func CachedTask(cached client.Object) *v1alpha1.PrefetchTask {
	if task, ok := cached.(*v1alpha1.PrefetchTask); ok {
		return task
	}
	return &v1alpha1.PrefetchTask{
		ObjectMeta: metav1.ObjectMeta{
			Name: cached.GetName(), Namespace: cached.GetNamespace(), UID: cached.GetUID(),
			ResourceVersion: cached.GetResourceVersion(), Generation: cached.GetGeneration(),
		},
		Status: v1alpha1.PrefetchTaskStatus{ObservedGeneration: cached.GetGeneration()},
	}
}
