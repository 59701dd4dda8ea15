// Package taskwatch follows PrefetchTasks by lists and watches. When a watch ends, the next one continues
// where it has ended. If that is not possible, the tasks are listed again, so that nothing is missed. Every
// list is consistent: it has all that was written before, as a cache of the API server may not.
package taskwatch

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/progress"
)

// Scope says which tasks are followed: one of a name, or those that match a selector.
type Scope struct {
	Namespace string // all, if empty
	Name      string
	Selector  labels.Selector
}

// Event says that a task exists or has changed (Key, Progress), that one has left the scope (Key, IsGone),
// that a list is complete (Listed), or that the tasks cannot be read now (Err).
type Event struct {
	Scope    Scope
	Key      client.ObjectKey
	Progress progress.Progress
	// IsGone says that the task was deleted, or does not match the selector any more.
	IsGone bool
	// Listed has all tasks of the scope. Each was reported before.
	Listed map[client.ObjectKey]bool
	// Err is why the tasks cannot be read. They are tried again.
	Err error
	// Refusals is how often in a row the API server has refused to let them be read. Once may be
	// because a token has expired, or because the API server starts.
	Refusals int
}

// pageSize is how many tasks a request asks for. A task may have 1.5 MB.
const pageSize = 50

// Follow sends the events of a scope until ctx is done. A task that is followed by its name is followed
// until it is gone.
func Follow(ctx context.Context, c client.WithWatch, scope Scope, events chan<- Event) {
	f := &follower{client: c, scope: scope, events: events}
	backoff := newBackoff()
	for refusals := 0; ; {
		isOpened, err := f.followOnce(ctx)
		switch {
		case ctx.Err() != nil || f.isGone:
			return
		case isRefusal(err):
			refusals++
		default:
			refusals = 0
		}
		if err != nil {
			f.send(ctx, Event{Err: err, Refusals: refusals})
		}
		if isOpened {
			backoff = newBackoff()
		}
		select {
		case <-time.After(backoff.Step()):
		case <-ctx.Done():
			return
		}
	}
}

// newBackoff returns the pauses between attempts: about a second, and up to half a minute while they fail.
func newBackoff() *wait.Backoff {
	return &wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.5, Steps: 100, Cap: 30 * time.Second}
}

// follower follows a scope.
type follower struct {
	client client.WithWatch
	scope  Scope
	events chan<- Event
	isGone bool // the scope is a name, and nothing has it
	// version is the resource version up to which everything was reported. If it is "", a list is next.
	version string
}

// followOnce watches the tasks until the watch ends, from where the last one has ended, or from a list. It
// reports whether it could open the watch. The error says why the tasks cannot be read, and not that a watch
// has ended.
func (f *follower) followOnce(ctx context.Context) (isOpened bool, err error) {
	if f.version == "" {
		if err := f.list(ctx); err != nil || f.isGone {
			return false, withoutExpiry(err)
		}
	}
	raw := &metav1.ListOptions{ResourceVersion: f.version, AllowWatchBookmarks: true, TimeoutSeconds: ptr.To(300 + rand.Int64N(300))}
	w, err := f.client.Watch(ctx, &v1alpha1.PrefetchTaskList{}, f.options(raw))
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		f.version = ""
	}
	if err != nil {
		return false, withoutExpiry(err)
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		task, isTask := event.Object.(*v1alpha1.PrefetchTask)
		if !isTask { // an error: the next list says what it means
			f.version = ""
			return true, nil
		}
		f.version = task.ResourceVersion
		if event.Type != watch.Bookmark {
			f.report(ctx, task, event.Type == watch.Deleted)
		}
		if f.isGone {
			break
		}
	}
	return true, nil
}

// list reports all tasks of the scope.
func (f *follower) list(ctx context.Context) error {
	listed := map[client.ObjectKey]bool{}
	for next := ""; ; {
		page := &v1alpha1.PrefetchTaskList{}
		options := f.options(&metav1.ListOptions{})
		options.Limit, options.Continue = pageSize, next
		if err := f.client.List(ctx, page, options); err != nil {
			return err
		}
		for i := range page.Items {
			listed[client.ObjectKeyFromObject(&page.Items[i])] = true
			f.report(ctx, &page.Items[i], false)
		}
		if next = page.Continue; next == "" {
			f.send(ctx, Event{Listed: listed})
			f.version, f.isGone = page.ResourceVersion, f.scope.Name != "" && len(listed) == 0
			return nil
		}
	}
}

func (f *follower) report(ctx context.Context, task *v1alpha1.PrefetchTask, isGone bool) {
	f.send(ctx, Event{Key: client.ObjectKeyFromObject(task), Progress: progress.Of(task), IsGone: isGone})
	f.isGone = isGone && f.scope.Name != ""
}

func (f *follower) send(ctx context.Context, e Event) {
	e.Scope = f.scope
	select {
	case f.events <- e:
	case <-ctx.Done():
	}
}

// options returns the options of a list or a watch of the scope.
func (f *follower) options(raw *metav1.ListOptions) *client.ListOptions {
	o := &client.ListOptions{Namespace: f.scope.Namespace, LabelSelector: f.scope.Selector, Raw: raw}
	if f.scope.Name != "" {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, f.scope.Name)
	}
	return o
}

// isRefusal reports whether the API server refuses a request.
func isRefusal(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || meta.IsNoMatchError(err) || apierrors.IsNotFound(err)
}

// withoutExpiry returns an error, or nil if it only says that what was read is old, or that a connection has
// ended: the next attempt lists again.
func withoutExpiry(err error) error {
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}
