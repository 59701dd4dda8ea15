package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// life is the history of a task as an observer sees it.
type life struct {
	asked     time.Time // the request that creates it was sent
	created   time.Time // the response to this request arrived
	claimed   time.Time // a claim was seen in the status
	submitted time.Time // a JobId was seen in the status
	finished  time.Time
	changes   int // of the object, as a watch shows them
}

// counts are the numbers of tasks that have reached each step.
type counts struct{ asked, created, submitted, finished int }

func (c counts) String() string {
	return fmt.Sprintf("%d tasks created, %d with JobId, %d finished", c.created, c.submitted, c.finished)
}

// kind describes how to watch objects and what to read from them.
type kind struct {
	schema.GroupVersionKind
	resource string
	hasJob   func(*unstructured.Unstructured) bool
}

var prefetchTasks = kind{v1alpha1.GroupVersion.WithKind("PrefetchTask"), "prefetchtasks", func(u *unstructured.Unstructured) bool {
	jobs, _, _ := unstructured.NestedFieldNoCopy(u.Object, "status", "jobs")
	list, _ := jobs.([]any)
	return len(list) > 0
}}

// tracker follows the tasks of a scenario with its own watch.
type tracker struct {
	mu      sync.Mutex
	kind    kind
	tasks   map[string]*life
	n       counts
	endLast context.CancelFunc
}

// track watches objects of the given kind from now on, and stops the previous watch.
func (w *world) track(ctx context.Context, k kind) error {
	t := w.tasks
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(k.GroupVersionKind)
	if err := w.client.List(ctx, list, client.Limit(1)); err != nil {
		return err
	}
	from := list.GetResourceVersion()
	ctx, cancel := context.WithCancel(ctx)
	t.mu.Lock()
	if t.endLast != nil {
		t.endLast()
	}
	t.kind, t.endLast = k, cancel
	t.mu.Unlock()
	w.group.Go(func() {
		for ctx.Err() == nil {
			var err error
			from, err = t.follow(ctx, w.client, list, from)
			if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
				w.fail(fmt.Errorf("the watch of the benchmark is too slow: %w", err))
				return
			}
		}
	})
	return nil
}

// follow processes events until the watch ends, and returns the version to continue from.
func (t *tracker) follow(ctx context.Context, c client.WithWatch, list client.ObjectList, from string) (string, error) {
	w, err := c.Watch(ctx, list, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: from, AllowWatchBookmarks: true}})
	if err != nil {
		_ = pause(ctx, 100*time.Millisecond)
		return from, err
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		if event.Type == watch.Error {
			return from, apierrors.FromObject(event.Object)
		}
		object := event.Object.(*unstructured.Unstructured)
		from = object.GetResourceVersion()
		if event.Type != watch.Bookmark {
			t.see(object, time.Now())
		}
	}
	return from, nil
}

func (t *tracker) see(object *unstructured.Unstructured, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.tasks[object.GetName()]
	if l == nil {
		return
	}
	l.changes++
	first := func(seen *time.Time, n *int, is bool) {
		if is && seen.IsZero() {
			*seen = at
			*n++
		}
	}
	_, claimed, _ := unstructured.NestedMap(object.Object, "status", "submission")
	first(&l.claimed, new(int), claimed)
	first(&l.submitted, &t.n.submitted, t.kind.hasJob(object))
	first(&l.finished, &t.n.finished, isFinished(object))
}

func isFinished(object *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
	for _, c := range conditions {
		if condition, ok := c.(map[string]any); ok && condition["type"] == v1alpha1.ConditionFinished {
			return condition["status"] == string(metav1.ConditionTrue)
		}
	}
	return false
}

// expect records that a task is about to be created.
func (t *tracker) expect(name string, at time.Time) *life {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := &life{asked: at}
	t.tasks[name] = l
	t.n.asked++
	return l
}

func (t *tracker) created(l *life, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l.created = at
	t.n.created++
}

func (t *tracker) counts() counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n
}

// reset forgets all tasks so far.
func (t *tracker) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tasks, t.n = map[string]*life{}, counts{}
}

// lives returns a copy of what has been seen so far, by name.
func (t *tracker) lives() map[string]life {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make(map[string]life, len(t.tasks))
	for name, l := range t.tasks {
		all[name] = *l
	}
	return all
}

// submitted returns whether n tasks have their JobIds. finished returns whether n tasks
// have finished.
func submitted(n int) func(counts) bool { return func(c counts) bool { return c.submitted >= n } }
func finished(n int) func(counts) bool  { return func(c counts) bool { return c.finished >= n } }

// submittedAt records the JobId of a task that is not an API object.
func (t *tracker) submittedAt(name string, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.tasks[name]; l != nil && l.submitted.IsZero() {
		l.submitted = at
		t.n.submitted++
	}
}
