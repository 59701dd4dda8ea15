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

// Resolver keeps the targets of tasks that take them from ConfigMaps, for as long as they are
// needed. It reads ConfigMaps when a run starts, and again after a restart. It does not watch
// them, so that the operator needs no right to list them. A run that has submitted something
// continues only with the same content.
//
// The TaskStore asks for the targets of each new version of a task. If they are known, the task
// gets them at once. If not, the ConfigMap is read, and the TaskStore then learns the task with
// its targets.
type Resolver struct {
	Config

	mu           sync.Mutex
	pendingTasks map[client.ObjectKey]*pendingTask
	known        map[string]*targetList // by hash: one for all tasks that have the same targets
	size         int                    // of all that are known, in bytes
	readers      map[configMapKey]*configMapReader
	waiting      queue.RoundRobin[configMapKey] // sources to be read
	reading      int                            // sources that are being read
	again        *time.Timer                    // to look for lists that are idle
	seen         map[configMapKey]seenList      // of sources that were read lately

	checks singleflight.Group // by source
}

// pendingTask is a task whose targets are needed.
type pendingTask struct {
	task *v1alpha1.PrefetchTask // the newest version
	run  string
	list *targetList // nil until it is read

	failures int
	since    time.Time   // when the trouble began that only a person can end
	told     int64       // the generation whose status says so
	again    *time.Timer // to its next try
}

type targetList struct {
	hash    string
	targets []v1alpha1.Target
	size    int // in bytes
	users   int
	at      time.Time // when something happened to one of its tasks last
}

const (
	// MaxReaders is how many ConfigMaps, of up to 1 MiB each, are read at once.
	MaxReaders = 8
	// reportAfter is the wait between two tries from which the status reports them.
	reportAfter = 10 * time.Second
	// MaxListed is how many bytes of targets from ConfigMaps are kept before another
	// ConfigMap is read.
	MaxListed = 32 << 20
)

// NewResolver returns a Resolver that the store asks for targets from now on.
func NewResolver(config Config) *Resolver {
	l := &Resolver{
		Config:       config,
		pendingTasks: map[client.ObjectKey]*pendingTask{}, known: map[string]*targetList{}, readers: map[configMapKey]*configMapReader{},
		seen: map[configMapKey]seenList{},
	}
	config.Tasks.AddSource(l)
	return l
}

// AddTargets returns the task with its targets, or as it is if it needs none or they
// are not known. In the latter case they are read. It is asked for newer versions only.
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

// needsOtherList says whether a newer version of the task may not go on with this list.
func (w *pendingTask) needsOtherList(task *v1alpha1.PrefetchTask, run string) bool {
	return w.task.UID != task.UID || w.run != run || w.list != nil && !taskstate.MatchesList(task, w.list.hash)
}

// updateTask takes a newer version of the task.
func (w *pendingTask) updateTask(task *v1alpha1.PrefetchTask) {
	if w.list != nil && hasProgress(w.task, task) {
		w.list.at = time.Now()
	}
	w.task = task
	if w.list == nil && w.told > 0 && w.told != task.Generation {
		w.told = 0
		w.again.Reset(0) // its user may have mended the ConfigMap, too
	}
}

// RemoveTask forgets a task that is gone.
func (l *Resolver) RemoveTask(task *v1alpha1.PrefetchTask) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := client.ObjectKeyFromObject(task)
	if w := l.pendingTasks[key]; w != nil && w.task.UID == task.UID {
		l.forgetTask(key)
	}
}

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

// releaseList takes a task's list away, and forgets it if no other task has it.
func (l *Resolver) releaseList(w *pendingTask) {
	if w.list.users--; w.list.users == 0 {
		delete(l.known, w.list.hash)
		l.size -= w.list.size
	}
	w.list = nil
}

// requestRead has the source of a task read.
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

// startReads starts to read sources while there is room, those of all namespaces in turn.
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

// evictIdlest lets go of the list to whose tasks nothing has happened for longest: their
// zone may be held for hours. They ask for it again, behind the others. It returns false
// if something has happened to all of them a moment ago.
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

// dropList takes the targets away that a task has in memory, and has them read again.
func (l *Resolver) dropList(w *pendingTask, task *v1alpha1.PrefetchTask) {
	l.Tasks.DropTargets(task)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pendingTasks[client.ObjectKeyFromObject(w.task)] == w && w.list == nil {
		l.requestRead(w)
	}
}

// IsEmpty says whether no list is kept or read, and no task waits for one.
func (l *Resolver) IsEmpty() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size == 0 && len(l.known)+len(l.pendingTasks)+len(l.readers)+l.reading == 0 && l.waiting.IsEmpty()
}
