package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"
	"unique"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// CacheOptions are those of the manager's cache: of the tasks of these
// namespaces, or of all if there are none, it keeps what is still needed. It is
// not for reading: its copies of finished tasks are their metadata alone.
func CacheOptions(jobs *RecordedJobs, namespaces ...string) cache.Options {
	transform := func(obj any) (any, error) {
		if task, ok := obj.(*v1alpha1.PrefetchTask); ok {
			jobs.observeTask(task)
			if jobs.mayStillBeSeen(task) {
				return pruneTask(task), nil
			}
			return pruneFinishedTask(task), nil
		}
		return stripManagedFields(obj)
	}
	options := cache.Options{
		DefaultTransform: transform,
		NewInformer: func(lw toolscache.ListerWatcher, example runtime.Object, resync time.Duration, indexers toolscache.Indexers) toolscache.SharedIndexInformer {
			if _, ok := example.(*v1alpha1.PrefetchTask); ok {
				lw = pagedLister{toolscache.ToListerWatcherWithContext(lw), transform}
			}
			return toolscache.NewSharedIndexInformer(lw, example, resync, indexers)
		},
	}
	for _, ns := range namespaces {
		if options.DefaultNamespaces == nil {
			options.DefaultNamespaces = map[string]cache.Config{}
		}
		options.DefaultNamespaces[ns] = cache.Config{}
	}
	return options
}

// TasksSynced is ready once the tasks have been read from the API server: a manager that may
// not read them, or finds no CRD, would look at work for ever, and a rollout should stop
// at it.
func TasksSynced(tasks cache.Cache) healthz.Checker {
	return func(req *http.Request) error {
		informer, err := tasks.GetInformer(req.Context(), &v1alpha1.PrefetchTask{}, cache.BlockUntilSynced(false))
		if err == nil && !informer.HasSynced() {
			err = errors.New("the tasks have not been read from the API server yet")
		}
		return err
	}
}

var stripManagedFields toolscache.TransformFunc = cache.TransformStripManagedFields()

// pagedLister lists tasks page by page and slims each page at once. To have all of a
// hundred thousand tasks in memory for a moment takes several times what the cache
// keeps of them, and to have the API server stream them takes twice the CPU: each
// event of a stream is parsed as one, and then as what it holds.
type pagedLister struct {
	toolscache.ListerWatcherWithContext
	transform toolscache.TransformFunc
}

// pageSize is in tasks. Of large ones a page has fewer: see NewReadAhead.
const pageSize = 1000

// IsWatchListSemanticsUnSupported tells the informer to list.
func (pagedLister) IsWatchListSemanticsUnSupported() bool { return true }

// List lists without a context.
func (p pagedLister) List(options metav1.ListOptions) (runtime.Object, error) {
	return p.ListWithContext(context.Background(), options)
}

// Watch watches without a context.
func (p pagedLister) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return p.WatchWithContext(context.Background(), options)
}

// ListWithContext returns all tasks as the cache keeps them, and as they are now:
// for any resourceVersion the API server would give them in one page.
func (p pagedLister) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	options.ResourceVersion, options.ResourceVersionMatch, options.Limit = "", "", pageSize
	all := &metav1.List{}
	for {
		page, err := p.ListerWatcherWithContext.ListWithContext(ctx, options)
		if err != nil {
			return nil, err
		}
		tasks, ok := page.(*v1alpha1.PrefetchTaskList)
		if !ok {
			return nil, fmt.Errorf("a list of tasks is a %T", page)
		}
		for _, task := range tasks.Items { // a copy of each, which the others can be freed without
			kept, err := p.transform(&task)
			if err != nil {
				return nil, err
			}
			all.Items = append(all.Items, runtime.RawExtension{Object: kept.(runtime.Object)})
		}
		all.ResourceVersion, options.Continue = tasks.ResourceVersion, tasks.Continue
		if options.Continue == "" {
			return all, nil
		}
	}
}

// maxAnnotation is the length, in bytes, up to which an annotation is kept. The operator
// reads shorter ones only; of a longer request for a retry it keeps the hash.
const maxAnnotation = 1024

// pruneTask drops only what the operator does not read now.
func pruneTask(task *v1alpha1.PrefetchTask) client.Object {
	pruneMetadata(task)
	if taskstate.HasLongList(task) {
		return taskstate.ElideTargets(task)
	}
	return task
}

// pruneMetadata drops what the operator never reads.
func pruneMetadata(task *v1alpha1.PrefetchTask) {
	task.ManagedFields, task.OwnerReferences, task.Finalizers = nil, nil, nil
	if len(task.Annotations[v1alpha1.RetryAnnotation]) > maxAnnotation {
		task.Annotations[v1alpha1.RetryAnnotation] = taskstate.RequestedRetry(task) // which stays the same
	}
	maps.DeleteFunc(task.Annotations, func(name, value string) bool {
		return name == corev1.LastAppliedConfigAnnotation || len(value) > maxAnnotation
	})
	maps.DeleteFunc(task.Labels, func(name, _ string) bool { return !slices.Contains(taskstate.OwnerLabels, name) })
}

// pruneFinishedTask drops what nobody reads from the cache's copy of a task. Of a finished one
// hardly anything is left: a cluster that keeps a hundred thousand of them shall
// not pay for their URLs. Nothing is ever written from such a copy, and a change
// of the spec or a retry that is asked for brings the whole task again.
func pruneFinishedTask(task *v1alpha1.PrefetchTask) client.Object {
	hasWork := task.Status.Submission != nil || taskstate.IsNewRun(task) || taskstate.IsRetryDue(task)
	if hasWork || !taskstate.IsRunOver(task) || task.Status.ObservedGeneration != task.Generation {
		return pruneTask(task)
	}
	kept := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		GenerateName: unique.Make(taskstate.ReadyReason(task)).Value(), // see keptOutcome
		Name:         task.Name, Namespace: unique.Make(task.Namespace).Value(), UID: task.UID,
		ResourceVersion: task.ResourceVersion, Generation: task.Generation,
	}}
	if at, ok := taskstate.ExpiryOf(task); ok {
		kept.Annotations = map[string]string{expiryAnnotation: at.UTC().Format(time.RFC3339)}
	}
	return kept
}

// keptOutcome is the reason of the condition Ready of a task that is slimmed, for
// metrics. It stands in a field that means nothing once an object has a name: any
// more would be megabytes for a hundred thousand of them.
func keptOutcome(kept *metav1.PartialObjectMetadata) string { return kept.GenerateName }

// cachedTask is what the cache has of a task; of one that is slimmed, a task that
// has nothing but its metadata.
func cachedTask(obj client.Object) *v1alpha1.PrefetchTask {
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
