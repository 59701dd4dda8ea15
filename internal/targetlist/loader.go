package targetlist

import (
	"context"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

const (
	// MaxLoaded is how many bytes of long lists are kept for calls. A list of 1.5 MB, the
	// longest that fits into etcd, fits in twenty times.
	MaxLoaded = 32 << 20
	// MaxLoads is how many long lists are read at once.
	MaxLoads = 4
	// MaxLoadedIdle is how long a list is kept that others wait for while nothing happens
	// to its task: its zone may be held for hours.
	MaxLoadedIdle = 30 * time.Second
	// LoadAgain is when a list is asked for again that could not be read.
	LoadAgain = 2 * time.Second
)

// Loader reads the long lists of tasks that want a call, and decides which of them stay in
// memory. The cache has these tasks without their lists: the lists of all tenants do not fit in
// memory. Namespaces take turns, and the tasks of one namespace go in the order in which they
// came. An account queue gets a task once its list is here, so tasks with short lists do not
// wait for it.
type Loader struct {
	Config

	mu      sync.Mutex
	waiting queue.RoundRobin[client.ObjectKey]
	queued  map[client.ObjectKey]bool // those of waiting, and those that are being read
	reading int
	again   *time.Timer // to look for lists that are idle

	loaded loadedLists
}

// NewLoader returns a Loader that the store asks for targets from now on.
func NewLoader(config Config) *Loader {
	l := &Loader{
		Config: config,
		queued: map[client.ObjectKey]bool{},
		loaded: loadedLists{list: map[client.ObjectKey]loadedList{}},
	}
	config.Tasks.AddSource(l)
	config.Tasks.Subscribe(l.onChange)
	return l
}

// RemoveTask has nothing to do: onChange comes for each task that is gone.
func (*Loader) RemoveTask(*v1alpha1.PrefetchTask) {}

// AddTargets returns a version of a task with its long list if that is kept, and else without
// it. The watch brings it without: then it has the list of the version that was known, if
// both are of one run.
func (l *Loader) AddTargets(known, next *v1alpha1.PrefetchTask) *v1alpha1.PrefetchTask {
	isKept := l.loaded.hasList(next)
	switch {
	case taskstate.HasLongList(next) && !isKept:
		return taskstate.ElideTargets(next)
	case isKept && taskstate.IsElided(next) && known != nil && !taskstate.IsElided(known) && taskstate.RunHash(known) == taskstate.RunHash(next):
		return taskstate.WithTargets(next, known.Spec.Targets)
	}
	return next
}

// onChange asks for the list of a task that wants a call, and lets go of the list of one
// that does not.
func (l *Loader) onChange(before, after *v1alpha1.PrefetchTask) {
	changed := before
	if after != nil {
		changed = after
	}
	key := client.ObjectKeyFromObject(changed)
	l.mu.Lock()
	task, isDropped := l.Tasks.NewestVersion(key), false
	switch {
	case task == nil || task.Status.Submission == nil && !needsList(task):
		isDropped = l.loaded.removeList(key)
		if l.queued[key] && l.waiting.Remove(key.Namespace, key) {
			delete(l.queued, key)
		}
	case taskstate.IsElided(task):
		l.loaded.removeList(key)
		if needsList(task) {
			l.requestList(key)
		}
	case before != nil && after != nil && hasProgress(before, after):
		l.loaded.touchList(key)
	}
	l.mu.Unlock()
	if isDropped {
		l.Tasks.ElideTargets(key)
	}
	l.StartLoads()
}

// needsList says whether the URLs of a task are to be known: to submit them, or to find out
// which of them a retry is of.
func needsList(task *v1alpha1.PrefetchTask) bool {
	return taskstate.NeedsCall(task) || taskstate.IsRetryDue(task)
}

// hasProgress says whether a call of a task began or ended between two versions. Only that
// keeps its list in memory: what its users write must not keep others' lists out.
func hasProgress(before, after *v1alpha1.PrefetchTask) bool {
	claimOf := func(task *v1alpha1.PrefetchTask) string {
		if task.Status.Submission == nil {
			return ""
		}
		return task.Status.Submission.ClaimID
	}
	return claimOf(before) != claimOf(after) || len(before.Status.Jobs) != len(after.Status.Jobs) ||
		before.Status.RefusedTargets != after.Status.RefusedTargets
}

// requestList puts a task behind the others of its namespace, unless it is there. The caller has
// the lock.
func (l *Loader) requestList(key client.ObjectKey) {
	if l.queued[key] {
		return
	}
	l.queued[key] = true
	l.waiting.Push(key.Namespace, key)
}

// StartLoads starts to read lists while there is room.
func (l *Loader) StartLoads() {
	select {
	case <-l.Leads:
	default:
		return
	}
	var idle []client.ObjectKey
	l.mu.Lock()
	for !l.waiting.IsEmpty() && l.reading < MaxLoads {
		if full, key, since := l.loaded.isFull(); full {
			if wait := MaxLoadedIdle - time.Since(since); wait > 0 {
				l.startLoadsAfter(wait)
				break
			}
			l.loaded.removeList(key)
			idle = append(idle, key)
			continue
		}
		l.reading++
		go l.loadList(l.waiting.Pop())
	}
	l.mu.Unlock()
	for _, key := range idle {
		l.Tasks.ElideTargets(key) // and onChange asks for it again, behind the others
	}
}

// startLoadsAfter has StartLoads called in a while. The caller has the lock.
func (l *Loader) startLoadsAfter(wait time.Duration) {
	if l.again != nil {
		l.again.Stop()
	}
	l.again = time.AfterFunc(wait, l.StartLoads)
}

// loadList reads the list of a task, if it still wants a call.
func (l *Loader) loadList(key client.ObjectKey) {
	if task := l.Tasks.NewestVersion(key); task != nil && taskstate.IsElided(task) && needsList(task) {
		l.readList(key, task)
	}
	l.mu.Lock()
	l.reading--
	delete(l.queued, key)
	// It could not be read, or there is another version or another task meanwhile.
	if task := l.Tasks.NewestVersion(key); task != nil && taskstate.IsElided(task) && needsList(task) {
		time.AfterFunc(LoadAgain, func() {
			l.onChange(&v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}, nil)
		})
	}
	l.mu.Unlock()
	l.StartLoads()
}

// readList reads the list of a task, if that is possible now.
func (l *Loader) readList(key client.ObjectKey, task *v1alpha1.PrefetchTask) {
	ctx, cancel := context.WithTimeout(l.Critical, l.ReadTimeout)
	defer cancel()
	var now v1alpha1.PrefetchTask
	if err := l.Live.Get(ctx, key, &now); err != nil || now.UID != task.UID {
		return // the watch says if it is gone
	}
	kube.PruneMetadata(&now)
	l.loaded.addList(key, &now)
	l.Tasks.LearnVersion(&now)
	if newest := l.Tasks.NewestVersion(key); newest == nil || taskstate.LacksTargets(newest) { // it has changed meanwhile
		l.loaded.removeList(key)
	}
}

// IsEmpty says whether no list is kept, and no task waits for one.
func (l *Loader) IsEmpty() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loaded.mu.Lock()
	defer l.loaded.mu.Unlock()
	return len(l.queued) == 0 && l.waiting.IsEmpty() && l.loaded.size == 0 && len(l.loaded.list) == 0
}
