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

// TaskStore holds the newest version of each task that needs further work. No other code
// decides which version of a task is the newest, and whether the task exists.
//
// Only the watch adds tasks (ObserveTask). A task is removed by the watch (RemoveTask),
// or by a live read that does not find it. A version from a write, a live read or a
// resolved list counts only as a newer version of a task in the store (LearnVersion). So
// no deleted task comes back.
//
// The store calls its subscribers after each change, in any order. A subscriber reads the
// newest version from the store while it holds its own lock. So the last call handles the
// newest version. Take the store's lock after all other locks, except the locks of target
// sources.
type TaskStore struct {
	subscribers []func(before, after *v1alpha1.PrefetchTask) // called without mu
	sources     []targetSource                               // asked in this order, with mu held

	mu       sync.Mutex
	tasks    map[client.ObjectKey]*v1alpha1.PrefetchTask
	deleted  map[client.ObjectKey]types.UID // a live read found these deleted; the watch does not show it yet
	accounts map[taskstate.AccountKey]int   // number of tasks of each account
	// hasDefaultAccount is whether an EdgeOneAccount named default exists. Tasks that name
	// neither an account nor a Secret use it then.
	hasDefaultAccount bool
}

// targetSource provides targets that the watch does not deliver.
type targetSource interface {
	// AddTargets returns next with its targets if the source has them in memory. known is
	// the previous version, or nil if there is none.
	AddTargets(known, next *v1alpha1.PrefetchTask) *v1alpha1.PrefetchTask
	// RemoveTask forgets a task that is gone.
	RemoveTask(task *v1alpha1.PrefetchTask)
}

// AddSource adds a source of targets. The store asks it for the targets of each new
// version. Call AddSource before the first change.
func (v *TaskStore) AddSource(source targetSource) { v.sources = append(v.sources, source) }

// NewTaskStore returns an empty store.
func NewTaskStore() *TaskStore {
	return &TaskStore{
		tasks: map[client.ObjectKey]*v1alpha1.PrefetchTask{}, deleted: map[client.ObjectKey]types.UID{}, accounts: map[taskstate.AccountKey]int{},
	}
}

// Subscribe calls f for each task in the store, and after each change. before is nil for a
// new task, and after is nil for a removed task. Call Subscribe before the first change.
func (v *TaskStore) Subscribe(f func(before, after *v1alpha1.PrefetchTask)) {
	v.subscribers = append(v.subscribers, f)
	for _, task := range v.AllTasks() {
		f(nil, task)
	}
}

// ObserveTask takes a version from the watch. A slimmed version removes the task from the
// store, because the task needs no further work.
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

// RemoveTask removes a task after the watch has shown its deletion. If the store already
// has a recreated task with the same name, that task stays.
func (v *TaskStore) RemoveTask(task *v1alpha1.PrefetchTask) {
	key := client.ObjectKeyFromObject(task)
	v.changeVersion(key, nil, func(known *v1alpha1.PrefetchTask) bool {
		if v.deleted[key] == task.UID {
			delete(v.deleted, key)
		}
		return known != nil && known.UID == task.UID
	})
}

// LearnVersion takes a version from another source than the watch, and returns the newest
// version of the task. It does not add a task that the store does not have, but returns it
// unchanged.
func (v *TaskStore) LearnVersion(task *v1alpha1.PrefetchTask) (newest *v1alpha1.PrefetchTask) {
	newest = v.changeVersion(client.ObjectKeyFromObject(task), task, func(known *v1alpha1.PrefetchTask) bool {
		return known != nil && known.UID == task.UID && isNewerVersion(task, known)
	})
	if newest == nil || newest.UID != task.UID {
		return task
	}
	return newest
}

// learnDeleted removes a task that a live read did not find. A late version from the watch
// does not add the task again.
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

// DropTargets drops the targets of a task that come from a ConfigMap, so that they are
// read again.
func (v *TaskStore) DropTargets(task *v1alpha1.PrefetchTask) {
	key := client.ObjectKeyFromObject(task)
	known := v.NewestVersion(key)
	if known == nil || known.UID != task.UID || !taskstate.IsFromConfigMap(known) {
		return
	}
	v.changeVersion(key, taskstate.WithTargets(known, nil), func(newest *v1alpha1.PrefetchTask) bool { return newest == known })
}

// ElideTargets drops the targets of a task from memory if its spec has a long list.
func (v *TaskStore) ElideTargets(key client.ObjectKey) {
	if known := v.NewestVersion(key); known != nil && taskstate.HasLongList(known) {
		v.changeVersion(key, taskstate.ElideTargets(known), func(newest *v1alpha1.PrefetchTask) bool { return newest == known })
	}
}

// SetDefaultAccount takes whether an EdgeOneAccount named default exists. If that changes, the
// tasks that name neither an account nor a Secret move to another account at once.
func (v *TaskStore) SetDefaultAccount(exists bool) {
	v.mu.Lock()
	isSame := v.hasDefaultAccount == exists
	v.hasDefaultAccount = exists
	v.mu.Unlock()
	if isSame {
		return
	}
	for key, task := range v.AllTasks() {
		if taskstate.WithDefaultAccount(task, exists) != task {
			v.changeVersion(key, task, func(newest *v1alpha1.PrefetchTask) bool { return newest == task })
		}
	}
}

// changeVersion replaces the known version by next if accept allows it, and calls the
// subscribers. A next of nil removes the task. accept runs with the lock. changeVersion
// returns the newest version, or nil if there is none.
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
	if next != nil {
		next = taskstate.WithDefaultAccount(next, v.hasDefaultAccount)
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

// putVersion updates the maps, and makes the sources forget a task that is gone. The
// caller holds the lock.
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

// NewestVersion returns the newest version of a task, or nil if the task is gone or needs
// no further work.
func (v *TaskStore) NewestVersion(key client.ObjectKey) *v1alpha1.PrefetchTask {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.tasks[key]
}

// AllTasks returns the newest version of each task. The caller may change the map, but not
// the tasks.
func (v *TaskStore) AllTasks() map[client.ObjectKey]*v1alpha1.PrefetchTask {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.tasks)
}

// HasAccount reports whether the store has tasks of an account.
func (v *TaskStore) HasAccount(a taskstate.AccountKey) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.accounts[a] > 0
}

// isNewerVersion reports whether a is a later version than b, or the same version with
// targets that b lacks. Resource versions are numbers that increase with each write to the
// API server, of any object. If they are not comparable, a counts as newer.
func isNewerVersion(a, b *v1alpha1.PrefetchTask) bool {
	order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err != nil || order > 0 || order == 0 && taskstate.LacksTargets(b) && !taskstate.LacksTargets(a)
}
