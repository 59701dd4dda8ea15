package targetlist

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// loadedLists records which tasks have their long lists in memory. The lists themselves
// are in the tasks of the TaskStore. Take its lock after the TaskStore's.
type loadedLists struct {
	mu   sync.Mutex
	list map[client.ObjectKey]loadedList
	size int // total size, in bytes
}

// loadedList is the entry of one task.
type loadedList struct {
	uid  types.UID
	size int       // in bytes
	at   time.Time // last progress of the task
}

// addList adds the list of a task, or replaces its entry.
func (l *loadedLists) addList(key client.ObjectKey, task *v1alpha1.PrefetchTask) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.size -= l.list[key].size
	l.list[key] = loadedList{task.UID, taskstate.TargetsSize(task), time.Now()}
	l.size += l.list[key].size
}

// removeList removes the entry of a task, and reports whether there was one.
func (l *loadedLists) removeList(key client.ObjectKey) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	known, ok := l.list[key]
	l.size -= known.size
	delete(l.list, key)
	return ok
}

// touchList records that a task has made progress, which keeps its list in memory.
func (l *loadedLists) touchList(key client.ObjectKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if known, ok := l.list[key]; ok {
		known.at = time.Now()
		l.list[key] = known
	}
}

// hasList reports whether a task has an entry. A recreated task has none.
func (l *loadedLists) hasList(task *v1alpha1.PrefetchTask) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	known, ok := l.list[client.ObjectKeyFromObject(task)]
	return ok && known.uid == task.UID
}

// isFull reports whether there is no room for another list. It also returns the task
// without progress for the longest time, and the time of its last progress.
func (l *loadedLists) isFull() (full bool, idlest client.ObjectKey, since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, list := range l.list {
		if since.IsZero() || list.at.Before(since) {
			idlest, since = key, list.at
		}
	}
	return l.size >= MaxLoaded, idlest, since
}
