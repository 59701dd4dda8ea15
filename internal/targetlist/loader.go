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
	// MaxLoaded is the number of bytes of long lists in memory from which no further list is
	// read. It is enough for 20 lists of 1.5 MB, the longest that etcd accepts.
	MaxLoaded = 32 << 20
	// MaxLoads is the maximum number of concurrent reads of long lists.
	MaxLoads = 4
	// MaxLoadedIdle is how long a list of a task without progress stays in memory while other
	// tasks wait for memory. The zone of such a task may be backed off for hours.
	MaxLoadedIdle = 30 * time.Second
	// LoadAgain is the wait before a failed read of a list is repeated.
	LoadAgain = 2 * time.Second
)

// Loader reads the long lists of tasks that need a call, and decides which lists stay in
// memory. The cache keeps these tasks without their lists, because the lists of all
// tenants do not fit in memory. Namespaces take turns, and the tasks of a namespace are
// served in the order of their requests. An account queue gets a task only after its list
// is loaded, so tasks with short lists do not wait for it.
type Loader struct {
	Config

	mu      sync.Mutex // guards waiting, queued, reading, again; taken before the TaskStore's
	waiting queue.RoundRobin[client.ObjectKey]
	queued  map[client.ObjectKey]bool // tasks in waiting, and tasks whose list is being read
	reading int                       // number of lists being read
	again   *time.Timer               // calls StartLoads when a list becomes idle

	loaded loadedLists
}

// NewLoader returns a Loader, and adds it to the store as a target source and a
// subscriber.
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

// RemoveTask does nothing, because the store calls onChange for each task that is gone.
func (*Loader) RemoveTask(*v1alpha1.PrefetchTask) {}

// AddTargets returns next with its long list if the Loader keeps the list, and otherwise
// without it. The watch delivers next without its list. Then AddTargets takes the list of
// the known version, if both versions have the same run. The store calls AddTargets with
// its lock held.
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

// onChange requests the list of a task that needs it, and drops the list of a task that no
// longer does. A task with an open call keeps its list.
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

// needsList reports whether the operator needs the URLs of a task: to submit them, or to
// identify the failed targets for a retry.
func needsList(task *v1alpha1.PrefetchTask) bool {
	return taskstate.NeedsCall(task) || taskstate.IsRetryDue(task) || taskstate.NeedsHistory(task)
}

// hasProgress reports whether a call of a task started or ended between two versions.
// Only such progress keeps a list in memory. Changes by users do not: they could keep the
// lists of other tenants out of memory.
func hasProgress(before, after *v1alpha1.PrefetchTask) bool {
	claimOf := func(task *v1alpha1.PrefetchTask) string {
		if task.Status.Submission == nil {
			return ""
		}
		return task.Status.Submission.ClaimID
	}
	return claimOf(before) != claimOf(after) || len(before.Status.Jobs) != len(after.Status.Jobs) ||
		before.Status.RefusedPositions != after.Status.RefusedPositions
}

// requestList adds a task behind the others of its namespace, unless it is already
// queued. The caller holds the lock.
func (l *Loader) requestList(key client.ObjectKey) {
	if l.queued[key] {
		return
	}
	l.queued[key] = true
	l.waiting.Push(key.Namespace, key)
}

// StartLoads starts to read lists while there are free slots and memory. It drops idle
// lists if the memory is full. It does nothing in a process without the lease.
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
		l.Tasks.ElideTargets(key) // onChange then requests the list again, behind the others
	}
}

// startLoadsAfter schedules a call of StartLoads, and replaces an earlier schedule. The
// caller holds the lock.
func (l *Loader) startLoadsAfter(wait time.Duration) {
	if l.again != nil {
		l.again.Stop()
	}
	l.again = time.AfterFunc(wait, l.StartLoads)
}

// loadList reads the list of a task that still needs it, and frees the slot. If the task
// then still has no list, loadList requests it again after LoadAgain.
func (l *Loader) loadList(key client.ObjectKey) {
	if task := l.Tasks.NewestVersion(key); task != nil && taskstate.IsElided(task) && needsList(task) {
		l.readList(key, task)
	}
	l.mu.Lock()
	l.reading--
	delete(l.queued, key)
	// The read failed, or the task was changed or recreated meanwhile.
	if task := l.Tasks.NewestVersion(key); task != nil && taskstate.IsElided(task) && needsList(task) {
		time.AfterFunc(LoadAgain, func() {
			l.onChange(&v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}, nil)
		})
	}
	l.mu.Unlock()
	l.StartLoads()
}

// readList reads a task past the cache and passes it to the store, with its list. It adds
// the list before the store asks for it. A failed read has no effect; see loadList.
func (l *Loader) readList(key client.ObjectKey, task *v1alpha1.PrefetchTask) {
	ctx, cancel := context.WithTimeout(l.Critical, l.ReadTimeout)
	defer cancel()
	var now v1alpha1.PrefetchTask
	if err := l.Live.Get(ctx, key, &now); err != nil || now.UID != task.UID {
		return // if the task is gone, the watch shows it
	}
	kube.NormalizeTask(&now)
	l.loaded.addList(key, &now)
	l.Tasks.LearnVersion(&now)
	if newest := l.Tasks.NewestVersion(key); newest == nil || taskstate.LacksTargets(newest) { // the task has changed meanwhile
		l.loaded.removeList(key)
	}
}

// IsEmpty reports whether no list is in memory, and no task waits for one.
func (l *Loader) IsEmpty() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loaded.mu.Lock()
	defer l.loaded.mu.Unlock()
	return len(l.queued) == 0 && l.waiting.IsEmpty() && l.loaded.size == 0 && len(l.loaded.list) == 0
}
