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
	// MayStillBeSeen reports whether the run ended with unread outcomes that the operator
	// may still read.
	MayStillBeSeen(task *v1alpha1.PrefetchTask) bool
}

// CacheOptions returns the options of the manager's cache. The cache covers the given
// namespaces, or all namespaces if none are given. It keeps only the parts of a task that
// the operator still needs.
//
// Do not read tasks from this cache: it keeps only a finishedTask of each finished task.
// Read them from the TaskStore.
func CacheOptions(jobs JobRecorder, namespaces ...string) cache.Options {
	transform := func(obj any) (any, error) {
		if task, ok := obj.(*v1alpha1.PrefetchTask); ok {
			NormalizeTask(task)
			jobs.ObserveTask(task)
			if jobs.MayStillBeSeen(task) {
				return pruneTask(task), nil
			}
			return PruneFinishedTask(task), nil
		}
		if metadata, ok := obj.(*metav1.PartialObjectMetadata); ok { // a namespace: only its labels count
			metadata.Annotations, metadata.OwnerReferences, metadata.Finalizers = nil, nil, nil
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

// TasksSynced returns a readiness check that passes once the cache has read the tasks from
// the API server. It stops a rollout if the manager has no permission to read tasks, or if
// the CRD is missing. Without this check, such a manager would look healthy.
func TasksSynced(tasks cache.Cache) healthz.Checker {
	return func(req *http.Request) error {
		informer, err := tasks.GetInformer(req.Context(), &v1alpha1.PrefetchTask{}, cache.BlockUntilSynced(false))
		if err == nil && !informer.HasSynced() {
			err = errors.New("the tasks have not been read from the API server yet")
		}
		return err
	}
}

// stripManagedFields is the transform for objects other than tasks.
var stripManagedFields toolscache.TransformFunc = cache.TransformStripManagedFields()

// pagedLister lists tasks page by page, and prunes each page before it reads the next
// one. A single list of a hundred thousand tasks would briefly need several times the
// memory of the cache. A streamed list would need twice the CPU, because the client
// parses each event twice: as an event, and then as a task.
type pagedLister struct {
	toolscache.ListerWatcherWithContext
	transform toolscache.TransformFunc
}

// pageSize is the number of tasks per page. Pages of large tasks have fewer; see
// NewReadAhead.
const pageSize = 1000

// IsWatchListSemanticsUnSupported makes the informer list tasks instead of streaming them.
func (pagedLister) IsWatchListSemanticsUnSupported() bool { return true }

// List calls ListWithContext with a background context.
func (p pagedLister) List(options metav1.ListOptions) (runtime.Object, error) {
	return p.ListWithContext(context.Background(), options)
}

// Watch calls WatchWithContext with a background context.
func (p pagedLister) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return p.WatchWithContext(context.Background(), options)
}

// ListWithContext returns all tasks in the form that the cache keeps. It ignores the
// requested resourceVersion and always lists the latest version: with a resourceVersion,
// the API server would return all tasks in one page.
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
		for _, task := range tasks.Items { // task is a copy, so the page can be freed
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

// maxAnnotation is the length, in bytes, of the longest annotation value that the cache
// keeps. The operator reads only shorter values. A longer value of the retry annotation is
// replaced by its hash.
const maxAnnotation = 1024

// pruneTask drops the metadata that the operator never reads, and a target list that is
// too long for the cache.
func pruneTask(task *v1alpha1.PrefetchTask) client.Object {
	NormalizeTask(task)
	if taskstate.HasLongList(task) {
		return taskstate.ElideTargets(task)
	}
	return task
}

// NormalizeTask upgrades a status that a former version of the operator wrote, and drops
// the metadata that the operator never reads. It changes the task. Call it for each task
// that comes from the API server before anything else reads the task.
func NormalizeTask(task *v1alpha1.PrefetchTask) {
	taskstate.UpgradeStatus(&task.Status)
	task.ManagedFields, task.OwnerReferences, task.Finalizers = nil, nil, nil
	if len(task.Annotations[v1alpha1.RetryAnnotation]) > maxAnnotation {
		task.Annotations[v1alpha1.RetryAnnotation] = taskstate.RequestedRetry(task) // the hash of a hash is the same
	}
	maps.DeleteFunc(task.Annotations, func(name, value string) bool {
		return name == corev1.LastAppliedConfigAnnotation || len(value) > maxAnnotation
	})
	maps.DeleteFunc(task.Labels, func(name, _ string) bool { return !slices.Contains(taskstate.OwnerLabels, name) })
}
