package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

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

// JobRecorder sees each version of a task before the cache drops what it does not need.
type JobRecorder interface {
	// ObserveTask remembers the jobs of a task.
	ObserveTask(task *v1alpha1.PrefetchTask)
	// MayStillBeSeen says whether outcomes of a task that ended unseen may still be read.
	MayStillBeSeen(task *v1alpha1.PrefetchTask) bool
}

// CacheOptions returns the options of the manager's cache. It keeps what is still needed of
// the tasks in these namespaces, or in all namespaces if there are none. Do not read tasks
// from it: of a finished task it has only a FinishedTask.
func CacheOptions(jobs JobRecorder, namespaces ...string) cache.Options {
	transform := func(obj any) (any, error) {
		if task, ok := obj.(*v1alpha1.PrefetchTask); ok {
			jobs.ObserveTask(task)
			if jobs.MayStillBeSeen(task) {
				return pruneTask(task), nil
			}
			return PruneFinishedTask(task), nil
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

// TasksSynced is ready once the tasks have been read from the API server. A manager that may not
// read them, or finds no CRD, would otherwise look healthy, and a rollout should stop there.
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

// pagedLister lists tasks page by page, and drops at once what the cache does not keep. All of a
// hundred thousand tasks would for a moment take several times the memory of the cache. A
// streamed list would take twice the CPU: each event is parsed as an event, and then as a task.
type pagedLister struct {
	toolscache.ListerWatcherWithContext
	transform toolscache.TransformFunc
}

// pageSize is the number of tasks in a page. If they are large, it has fewer; see NewReadAhead.
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
	PruneMetadata(task)
	if taskstate.HasLongList(task) {
		return taskstate.ElideTargets(task)
	}
	return task
}

// PruneMetadata drops what the operator never reads.
func PruneMetadata(task *v1alpha1.PrefetchTask) {
	task.ManagedFields, task.OwnerReferences, task.Finalizers = nil, nil, nil
	if len(task.Annotations[v1alpha1.RetryAnnotation]) > maxAnnotation {
		task.Annotations[v1alpha1.RetryAnnotation] = taskstate.RequestedRetry(task) // which stays the same
	}
	maps.DeleteFunc(task.Annotations, func(name, value string) bool {
		return name == corev1.LastAppliedConfigAnnotation || len(value) > maxAnnotation
	})
	maps.DeleteFunc(task.Labels, func(name, _ string) bool { return !slices.Contains(taskstate.OwnerLabels, name) })
}
