package targetlist

import (
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// Resolver keeps the targets that tasks take from ConfigMaps while the tasks need them. It
// reads a ConfigMap when a run starts, and again after a restart. It does not watch
// ConfigMaps, so the operator needs no permission to list them. A run that has submitted
// targets continues only with the same content.
//
// The TaskStore asks for the targets of each new version of a task. If the Resolver has
// them, it returns them at once. Otherwise, it reads the ConfigMap, and then passes the
// task with its targets to the TaskStore.
type Resolver struct {
	Config

	mu           sync.Mutex // taken after the TaskStore's lock
	pendingTasks map[client.ObjectKey]*pendingTask
	known        map[string]*targetList // by hash; tasks with the same targets share a list
	size         int                    // total size of known, in bytes
	readers      map[configMapKey]*configMapReader
	waiting      queue.RoundRobin[configMapKey] // sources that are queued for a read
	reading      int                            // number of sources being read
	again        *time.Timer                    // calls startReads when a list becomes idle
	seen         map[configMapKey]seenList      // last reads of sources; see rememberRead

	checks singleflight.Group // reads of IsFresh, by source
}

// pendingTask is a task that needs its targets from a ConfigMap.
type pendingTask struct {
	task *v1alpha1.PrefetchTask // the newest version
	run  string                 // RunHash of the task
	list *targetList            // nil until it is read

	failures int         // consecutive failed reads
	since    time.Time   // start of a problem that needs user action
	told     int64       // generation whose status reports the problem; 0 means none
	again    *time.Timer // for the next try
}

// targetList is a list from a ConfigMap. Tasks with the same targets share it.
type targetList struct {
	hash    string // HashTargets of the list
	targets []v1alpha1.Target
	size    int       // size of the text, in bytes
	users   int       // number of tasks that use the list
	at      time.Time // last progress of one of these tasks
}

const (
	// MaxReaders is the maximum number of ConfigMaps that are read concurrently. Each may
	// have up to 1 MiB.
	MaxReaders = 8
	// reportAfter is the wait between two tries beyond which the status reports the failure.
	reportAfter = 10 * time.Second
	// MaxListed is the number of bytes of targets from ConfigMaps in memory from which no
	// further ConfigMap is read.
	MaxListed = 32 << 20
)

// NewResolver returns a Resolver, and adds it to the store as a target source.
func NewResolver(config Config) *Resolver {
	l := &Resolver{
		Config:       config,
		pendingTasks: map[client.ObjectKey]*pendingTask{}, known: map[string]*targetList{}, readers: map[configMapKey]*configMapReader{},
		seen: map[configMapKey]seenList{},
	}
	config.Tasks.AddSource(l)
	return l
}

// AddTargets returns the task with its targets. If the task needs no targets from a
// ConfigMap, or they are unknown, it returns the task unchanged. It starts to read
// unknown targets. The store calls it only with newer versions, and with its lock held.
func (l *Resolver) AddTargets(_, task *v1alpha1.PrefetchTask) *v1alpha1.PrefetchTask {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := client.ObjectKeyFromObject(task)
	w := l.pendingTasks[key]
	if w == nil && !taskstate.IsFromConfigMap(task) {
		return task
	}
	run := taskstate.RunHash(task)
	switch {
	case !taskstate.NeedsTargetList(task):
		l.forgetTask(key)
		return task
	case w == nil || w.needsOtherList(task, run):
		l.forgetTask(key)
		w = &pendingTask{task: task, run: run}
		l.pendingTasks[key] = w
		l.requestRead(w)
	default:
		w.updateTask(task)
	}
	if w.list == nil || !taskstate.MatchesList(task, w.list.hash) {
		return task
	}
	return taskstate.WithTargets(task, w.list.targets)
}

// needsOtherList reports whether a newer version of the task needs another list: it was
// recreated, asks for another run, or is bound to other targets.
func (w *pendingTask) needsOtherList(task *v1alpha1.PrefetchTask, run string) bool {
	return w.task.UID != task.UID || w.run != run || w.list != nil && !taskstate.MatchesList(task, w.list.hash)
}

// updateTask takes a newer version of the task. If the spec has changed since the status
// reported a failed read, it retries the read at once.
func (w *pendingTask) updateTask(task *v1alpha1.PrefetchTask) {
	if w.list != nil && hasProgress(w.task, task) {
		w.list.at = time.Now()
	}
	w.task = task
	if w.list == nil && w.told > 0 && w.told != task.Generation {
		w.told = 0
		w.again.Reset(0) // the user may have fixed the ConfigMap as well
	}
}

// RemoveTask forgets a task that is gone. A recreated task with the same name stays.
func (l *Resolver) RemoveTask(task *v1alpha1.PrefetchTask) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := client.ObjectKeyFromObject(task)
	if w := l.pendingTasks[key]; w != nil && w.task.UID == task.UID {
		l.forgetTask(key)
	}
}

// forgetTask forgets a task and its list. The caller holds the lock.
func (l *Resolver) forgetTask(key client.ObjectKey) {
	w := l.pendingTasks[key]
	if w == nil {
		return
	}
	delete(l.pendingTasks, key)
	if w.again != nil {
		w.again.Stop()
	}
	if w.list != nil {
		l.releaseList(w)
		l.startReads()
	}
}

// releaseList takes the list from a task, and drops the list if no other task uses it. The
// caller holds the lock.
func (l *Resolver) releaseList(w *pendingTask) {
	if w.list.users--; w.list.users == 0 {
		delete(l.known, w.list.hash)
		l.size -= w.list.size
	}
	w.list = nil
}

// requestRead adds a task to the next read of its source. The caller holds the lock.
func (l *Resolver) requestRead(w *pendingTask) {
	from := configMapKeyOf(w.task)
	r := l.readers[from]
	if r == nil {
		r = &configMapReader{}
		l.readers[from] = r
		l.waiting.Push(from.namespace, from)
	}
	r.next = append(r.next, w)
	l.startReads()
}

// startReads starts to read sources while there are free slots and memory. Namespaces take
// turns. The caller holds the lock.
func (l *Resolver) startReads() {
	for !l.waiting.IsEmpty() && l.reading < MaxReaders && l.Critical.Err() == nil {
		for l.size >= MaxListed {
			if !l.evictIdlest() {
				return
			}
		}
		l.reading++
		go l.readConfigMap(l.waiting.Pop())
	}
}

// evictIdlest drops the list whose tasks have had no progress for the longest time. Their
// zone may be backed off for hours. The tasks request the list again, behind the others.
// If all lists had progress within MaxLoadedIdle, evictIdlest drops none, schedules
// startReads, and returns false. The caller holds the lock, and known is not empty.
func (l *Resolver) evictIdlest() bool {
	var idlest *targetList
	for _, known := range l.known {
		if idlest == nil || known.at.Before(idlest.at) {
			idlest = known
		}
	}
	if wait := MaxLoadedIdle - time.Since(idlest.at); wait > 0 {
		if l.again != nil {
			l.again.Stop()
		}
		l.again = time.AfterFunc(wait, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.startReads()
		})
		return false
	}
	for _, w := range l.pendingTasks {
		if w.list == idlest {
			l.releaseList(w)
			go l.dropList(w, w.task)
		}
	}
	return true
}

// dropList drops the targets of a task from the store, and requests them again. It runs
// in its own goroutine, because the store's lock comes before the Resolver's.
func (l *Resolver) dropList(w *pendingTask, task *v1alpha1.PrefetchTask) {
	l.Tasks.DropTargets(task)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pendingTasks[client.ObjectKeyFromObject(w.task)] == w && w.list == nil {
		l.requestRead(w)
	}
}

// IsEmpty reports whether no list is in memory or being read, and no task waits for one.
func (l *Resolver) IsEmpty() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size == 0 && len(l.known)+len(l.pendingTasks)+len(l.readers)+l.reading == 0 && l.waiting.IsEmpty()
}
