package targetlist

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// loadedLists are the long lists that are kept. Its lock comes after that of versions.
type loadedLists struct {
	mu   sync.Mutex
	list map[client.ObjectKey]loadedList
	size int // of all, in bytes
}

type loadedList struct {
	uid  types.UID
	size int
	at   time.Time // when something happened to its task last
}

func (l *loadedLists) addList(key client.ObjectKey, task *v1alpha1.PrefetchTask) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.size -= l.list[key].size
	l.list[key] = loadedList{task.UID, taskstate.TargetsSize(task), time.Now()}
	l.size += l.list[key].size
}

// removeList makes room for another list, and says whether this one was there.
func (l *loadedLists) removeList(key client.ObjectKey) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	known, ok := l.list[key]
	l.size -= known.size
	delete(l.list, key)
	return ok
}

// touchList notes that something happened to a task.
func (l *loadedLists) touchList(key client.ObjectKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if known, ok := l.list[key]; ok {
		known.at = time.Now()
		l.list[key] = known
	}
}

func (l *loadedLists) hasList(task *v1alpha1.PrefetchTask) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	known, ok := l.list[client.ObjectKeyFromObject(task)]
	return ok && known.uid == task.UID
}

// isFull says whether there is no room for another list, and if so to which task nothing
// has happened for longest.
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
