package controller

import (
	"maps"
	"unique"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	corev1 "k8s.io/api/core/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/schedule"
)

// CacheOptions are those of the manager's cache: of the tasks of these
// namespaces, or of all if there are none, it keeps what is still needed.
func CacheOptions(namespaces ...string) cache.Options {
	options := cache.Options{DefaultTransform: slim}
	for _, ns := range namespaces {
		if options.DefaultNamespaces == nil {
			options.DefaultNamespaces = map[string]cache.Config{}
		}
		options.DefaultNamespaces[ns] = cache.Config{}
	}
	return options
}

var stripManagedFields toolscache.TransformFunc = cache.TransformStripManagedFields()

// slim drops what nobody reads from the cache's copy of an object. Of a finished
// task hardly anything is left: a cluster that keeps a hundred thousand of them
// shall not pay for their URLs. Nothing is ever written from such a copy, and a
// change of the spec brings the whole task again.
func slim(obj any) (any, error) {
	task, ok := obj.(*v1alpha1.PrefetchTask)
	if !ok {
		return stripManagedFields(obj)
	}
	if !over(task) || task.Status.Submission != nil || task.Status.ObservedGeneration != task.Generation || schedule.NewRun(task) {
		task.ManagedFields = nil
		maps.DeleteFunc(task.Annotations, func(name, _ string) bool { return name == corev1.LastAppliedConfigAnnotation })
		return task, nil
	}
	slimmed := &v1alpha1.PrefetchTask{
		ObjectMeta: metav1.ObjectMeta{
			Name: task.Name, Namespace: unique.Make(task.Namespace).Value(), UID: task.UID,
			ResourceVersion: task.ResourceVersion, Generation: task.Generation,
		},
		Status: v1alpha1.PrefetchTaskStatus{ObservedGeneration: task.Status.ObservedGeneration},
	}
	if len(task.Status.Jobs) > 0 {
		slimmed.Status.Jobs = make([]v1alpha1.Job, len(task.Status.Jobs))
	}
	for i, job := range task.Status.Jobs {
		slimmed.Status.Jobs[i] = v1alpha1.Job{
			ID: unique.Make(job.ID).Value(), ClaimID: unique.Make(job.ClaimID).Value(), SubmitTime: job.SubmitTime,
		}
	}
	return slimmed, nil
}
