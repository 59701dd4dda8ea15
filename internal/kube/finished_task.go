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

// finishedTask is the form of a finished task in the cache: its identity, its outcome and
// its expiry. So a cluster with a hundred thousand finished tasks needs no memory for
// their URLs. The operator never writes a status from this form. If a user changes the
// spec or asks for a retry, the watch delivers the whole task again.
type finishedTask struct {
	metav1.ObjectMeta
	outcome string // the reason of the condition Ready
	expires int64  // Unix time in seconds of the task's expiry; 0 means never
}

// GetObjectKind returns an empty kind. The cache knows the kind from its informer.
func (*finishedTask) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject returns a copy.
func (f *finishedTask) DeepCopyObject() runtime.Object {
	c := *f
	f.ObjectMeta.DeepCopyInto(&c.ObjectMeta)
	return &c
}

// PruneFinishedTask returns the form of a task that the cache keeps: a finishedTask if the
// task needs no further work, or else the result of pruneTask. The repeated strings of
// finished tasks share memory.
func PruneFinishedTask(task *v1alpha1.PrefetchTask) client.Object {
	hasWork := task.Status.Submission != nil || taskstate.IsNewRun(task) || taskstate.IsRetryDue(task) || taskstate.HasOpenPurge(task)
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

// ExpiryOf returns the time at which a cached task expires, and whether it expires at all.
// Only finished tasks expire.
func ExpiryOf(cached client.Object) (time.Time, bool) {
	finished, ok := cached.(*finishedTask)
	if !ok || finished.expires == 0 {
		return time.Time{}, false
	}
	return time.Unix(finished.expires, 0), true
}

// ReadyReasonOf returns the reason of the condition Ready of a cached task. It returns
// Waiting if the status has not observed the task's generation yet, and "" for nil.
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

// CachedTask returns a cached object as a task. A finishedTask becomes a task that has
// only its identity, and taskstate.IsSlimmed is true for it.
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
