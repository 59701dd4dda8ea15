package controller

import (
	"maps"
	"unique"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/schedule"
)

// CacheOptions are those of the manager's cache: of the tasks of these
// namespaces, or of all if there are none, it keeps what is still needed. It is
// not for reading: its copies of finished tasks are their metadata alone.
func CacheOptions(jobs *Jobs, namespaces ...string) cache.Options {
	options := cache.Options{DefaultTransform: func(obj any) (any, error) {
		if task, ok := obj.(*v1alpha1.PrefetchTask); ok {
			jobs.see(task)
			return slim(task), nil
		}
		return stripManagedFields(obj)
	}}
	for _, ns := range namespaces {
		if options.DefaultNamespaces == nil {
			options.DefaultNamespaces = map[string]cache.Config{}
		}
		options.DefaultNamespaces[ns] = cache.Config{}
	}
	return options
}

var stripManagedFields toolscache.TransformFunc = cache.TransformStripManagedFields()

// slim drops what nobody reads from the cache's copy of a task. Of a finished one
// hardly anything is left: a cluster that keeps a hundred thousand of them shall
// not pay for their URLs. Nothing is ever written from such a copy, and a change
// of the spec brings the whole task again.
func slim(task *v1alpha1.PrefetchTask) client.Object {
	if !over(task) || task.Status.Submission != nil || task.Status.ObservedGeneration != task.Generation || schedule.NewRun(task) {
		task.ManagedFields = nil
		maps.DeleteFunc(task.Annotations, func(name, _ string) bool { return name == corev1.LastAppliedConfigAnnotation })
		return task
	}
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Name: task.Name, Namespace: unique.Make(task.Namespace).Value(), UID: task.UID,
		ResourceVersion: task.ResourceVersion, Generation: task.Generation,
	}}
}

// cached is what the cache has of a task; of one that is slimmed, a task that
// has nothing but its metadata.
func cached(obj client.Object) *v1alpha1.PrefetchTask {
	if task, ok := obj.(*v1alpha1.PrefetchTask); ok {
		return task
	}
	return &v1alpha1.PrefetchTask{
		ObjectMeta: metav1.ObjectMeta{
			Name: obj.GetName(), Namespace: obj.GetNamespace(), UID: obj.GetUID(),
			ResourceVersion: obj.GetResourceVersion(), Generation: obj.GetGeneration(),
		},
		Status: v1alpha1.PrefetchTaskStatus{ObservedGeneration: obj.GetGeneration()},
	}
}
