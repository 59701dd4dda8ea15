// Package taskwatch follows PrefetchTasks by a watch, which it opens again when it ends. Events are
// never lost: after a gap, the tasks are listed again.
package taskwatch

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/progress"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// Scope says which tasks are followed: one of a name, or those that match a selector.
type Scope struct {
	Namespace string // all, if empty
	Name      string
	Selector  labels.Selector
}

// Event says that a task exists or has changed, or that it is gone; or that all tasks of a scope that
// exist were reported (IsSynced), or that the watch failed (Err) and is opened again.
type Event struct {
	Key      client.ObjectKey
	Progress progress.Progress
	IsGone   bool // Progress is the last one
	IsSynced bool
	Scope    Scope
	Err      error
}

// Follow sends the events of a scope until ctx is done. It returns at once.
func Follow(ctx context.Context, c client.WithWatch, scope Scope, events chan<- Event) error {
	informer := toolscache.NewSharedInformer(listWatch(c, scope), &v1alpha1.PrefetchTask{}, 0)
	send := func(e Event) {
		select {
		case events <- e:
		case <-ctx.Done():
		}
	}
	report := func(object any, isGone bool) {
		if last, isUnknown := object.(toolscache.DeletedFinalStateUnknown); isUnknown {
			object = last.Obj
		}
		if task, isTask := object.(*v1alpha1.PrefetchTask); isTask {
			send(Event{Key: client.ObjectKeyFromObject(task), Progress: progress.Of(task), IsGone: isGone, Scope: scope})
		}
	}
	if err := informer.SetTransform(shrink); err != nil {
		return err
	}
	if err := informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *toolscache.Reflector, err error) {
		send(Event{Err: err, Scope: scope})
	}); err != nil {
		return err
	}
	handler, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { report(object, false) },
		UpdateFunc: func(_, object any) { report(object, false) },
		DeleteFunc: func(object any) { report(object, true) },
	})
	if err != nil {
		return err
	}
	go informer.RunWithContext(ctx)
	go func() {
		if toolscache.WaitForCacheSync(ctx.Done(), handler.HasSynced) {
			send(Event{IsSynced: true, Scope: scope})
		}
	}()
	return nil
}

// shrink leaves out of a task what progress.Of does not need: lists of targets may be long.
func shrink(object any) (any, error) {
	task, isTask := object.(*v1alpha1.PrefetchTask)
	if !isTask {
		return object, nil
	}
	shrunk := taskstate.ElideTargets(task)
	shrunk.ManagedFields, shrunk.Status.Jobs = nil, nil
	return shrunk, nil
}

// listWatch lists and watches the tasks of a scope.
func listWatch(c client.WithWatch, scope Scope) *toolscache.ListWatch {
	options := func(raw metav1.ListOptions) *client.ListOptions {
		o := &client.ListOptions{Namespace: scope.Namespace, LabelSelector: scope.Selector, Limit: raw.Limit, Continue: raw.Continue, Raw: &raw}
		if scope.Name != "" {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, scope.Name)
		}
		return o
	}
	return &toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, raw metav1.ListOptions) (runtime.Object, error) {
			list := &v1alpha1.PrefetchTaskList{}
			return list, c.List(ctx, list, options(raw))
		},
		WatchFuncWithContext: func(ctx context.Context, raw metav1.ListOptions) (watch.Interface, error) {
			return c.Watch(ctx, &v1alpha1.PrefetchTaskList{}, options(raw))
		},
	}
}
