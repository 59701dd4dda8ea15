package kube

import (
	"maps"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// TaskStore has the newest version of each task for which there is something left to do. It is
// the only place that decides which version of a task is the newest, and whether the task
// exists.
//
// Only the watch adds tasks (ObserveTask) and removes them (RemoveTask). A version from a write,
// a live read or a resolved list counts only as a newer version of a task that is here
// (LearnVersion), so that no deleted task comes back.
//
// Subscribers hear of each change without a lock and in any order. They get the newest version
// from here while they hold their own lock, so the last of them always gets the newest version.
// The store's lock comes after every other lock, except those of the sources of targets.
type TaskStore struct {
	subscribers []func(before, after *v1alpha1.PrefetchTask)
	sources     []targetSource // in the order in which they are asked

	mu       sync.Mutex
	tasks    map[client.ObjectKey]*v1alpha1.PrefetchTask
	deleted  map[client.ObjectKey]types.UID // deleted by a live read; the watch does not show it yet
	accounts map[taskstate.AccountKey]int   // number of tasks of each account
}

// targetSource knows targets that the watch does not bring.
type targetSource interface {
	// AddTargets returns next with its targets, if they are known and kept. known is the
	// version before, nil if there is none.
	AddTargets(known, next *v1alpha1.PrefetchTask) *v1alpha1.PrefetchTask
	// RemoveTask forgets a task that is gone.
	RemoveTask(task *v1alpha1.PrefetchTask)
}

// AddSource adds a source that is asked for the targets of each new version. Call it before the
// first change.
func (v *TaskStore) AddSource(source targetSource) { v.sources = append(v.sources, source) }

// NewTaskStore returns an empty store.
func NewTaskStore() *TaskStore {
	return &TaskStore{
		tasks: map[client.ObjectKey]*v1alpha1.PrefetchTask{}, deleted: map[client.ObjectKey]types.UID{}, accounts: map[taskstate.AccountKey]int{},
	}
}

// Subscribe calls f for each task in the store, and after each change. before is nil for a new
// task, after is nil for one that was removed. Call it before the first change.
func (v *TaskStore) Subscribe(f func(before, after *v1alpha1.PrefetchTask)) {
	v.subscribers = append(v.subscribers, f)
	for _, task := range v.AllTasks() {
		f(nil, task)
	}
}

// ObserveTask takes a version from the watch. A slimmed one says that nothing is left to do
// for the task.
func (v *TaskStore) ObserveTask(task *v1alpha1.PrefetchTask) {
	key := client.ObjectKeyFromObject(task)
	v.changeVersion(key, task, func(known *v1alpha1.PrefetchTask) bool {
		if v.deleted[key] == task.UID && task.UID != "" {
			return false
		}
		delete(v.deleted, key)
		return known == nil || isNewerVersion(task, known) || taskstate.IsSlimmed(task) && task.ResourceVersion == known.ResourceVersion
	})
}

// RemoveTask takes from the watch that a task is gone. One that was made again under its
// name, and is known already, stays.
func (v *TaskStore) RemoveTask(task *v1alpha1.PrefetchTask) {
	key := client.ObjectKeyFromObject(task)
	v.changeVersion(key, nil, func(known *v1alpha1.PrefetchTask) bool {
		if v.deleted[key] == task.UID {
			delete(v.deleted, key)
		}
		return known != nil && known.UID == task.UID
	})
}

// LearnVersion takes a version that did not come from the watch, and returns the newest one
// of that task. A task that is not here stays unknown, and is returned as it is.
func (v *TaskStore) LearnVersion(task *v1alpha1.PrefetchTask) (newest *v1alpha1.PrefetchTask) {
	newest = v.changeVersion(client.ObjectKeyFromObject(task), task, func(known *v1alpha1.PrefetchTask) bool {
		return known != nil && known.UID == task.UID && isNewerVersion(task, known)
	})
	if newest == nil || newest.UID != task.UID {
		return task
	}
	return newest
}

// learnDeleted takes from a live read that a task is gone. It does not come back when
// the watch brings an older version late.
func (v *TaskStore) learnDeleted(task *v1alpha1.PrefetchTask) {
	key := client.ObjectKeyFromObject(task)
	v.changeVersion(key, nil, func(known *v1alpha1.PrefetchTask) bool {
		if known == nil || known.UID != task.UID {
			return false
		}
		v.deleted[key] = task.UID
		return true
	})
}

// DropTargets forgets the targets of a task that are not in its spec, so that they are
// read again.
func (v *TaskStore) DropTargets(task *v1alpha1.PrefetchTask) {
	key := client.ObjectKeyFromObject(task)
	known := v.NewestVersion(key)
	if known == nil || known.UID != task.UID || !taskstate.IsFromConfigMap(known) {
		return
	}
	v.changeVersion(key, taskstate.WithTargets(known, nil), func(newest *v1alpha1.PrefetchTask) bool { return newest == known })
}

// ElideTargets forgets the targets of a task that are in its spec.
func (v *TaskStore) ElideTargets(key client.ObjectKey) {
	if known := v.NewestVersion(key); known != nil && taskstate.HasLongList(known) {
		v.changeVersion(key, taskstate.ElideTargets(known), func(newest *v1alpha1.PrefetchTask) bool { return newest == known })
	}
}

// changeVersion puts next in place of the version that is known, if that is accepted, and
// calls the subscribers. It returns the newest version.
func (v *TaskStore) changeVersion(key client.ObjectKey, next *v1alpha1.PrefetchTask, accept func(known *v1alpha1.PrefetchTask) bool) *v1alpha1.PrefetchTask {
	v.mu.Lock()
	known := v.tasks[key]
	if !accept(known) {
		v.mu.Unlock()
		return known
	}
	if next != nil && taskstate.IsSlimmed(next) {
		next = nil
	}
	for _, source := range v.sources {
		if next != nil {
			next = source.AddTargets(known, next)
		}
	}
	v.putVersion(key, known, next)
	v.mu.Unlock()
	if known != nil || next != nil {
		for _, tell := range v.subscribers {
			tell(known, next)
		}
	}
	return next
}

func (v *TaskStore) putVersion(key client.ObjectKey, known, next *v1alpha1.PrefetchTask) {
	if known != nil {
		a := taskstate.AccountKeyOf(known)
		if v.accounts[a]--; v.accounts[a] == 0 {
			delete(v.accounts, a)
		}
		if next == nil || next.UID != known.UID {
			for _, source := range v.sources {
				source.RemoveTask(known)
			}
		}
	}
	if next == nil {
		delete(v.tasks, key)
		return
	}
	v.tasks[key] = next
	v.accounts[taskstate.AccountKeyOf(next)]++
}

// NewestVersion returns the newest version of a task, nil if nothing is left to do for it.
func (v *TaskStore) NewestVersion(key client.ObjectKey) *v1alpha1.PrefetchTask {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.tasks[key]
}

// AllTasks returns the newest versions of all tasks.
func (v *TaskStore) AllTasks() map[client.ObjectKey]*v1alpha1.PrefetchTask {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.tasks)
}

// HasAccount says whether there are tasks of an account.
func (v *TaskStore) HasAccount(a taskstate.AccountKey) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.accounts[a] > 0
}

// isNewerVersion says whether a is a later version than b, or the same and has the targets.
// Versions are numbers that grow with each write to the API server, whatever is
// written.
func isNewerVersion(a, b *v1alpha1.PrefetchTask) bool {
	order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err != nil || order > 0 || order == 0 && taskstate.LacksTargets(b) && !taskstate.LacksTargets(a)
}
