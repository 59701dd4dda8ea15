package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/backoff"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// listConfig is what readers of target lists need.
type listConfig struct {
	versions *kube.TaskStore
	store    kube.StatusWriter
	*kube.EventReporter
	live     client.Reader
	leads    <-chan struct{} // closed once this process may write and submit
	critical context.Context // ends when nothing more may be read

	recheckInterval time.Duration // how long a ConfigMap that was read counts as fresh
	readTimeout     time.Duration // of one request
}

// targetsResolver has the targets of tasks that take them from ConfigMaps, for as long as
// those are needed. ConfigMaps are read, not watched, so that the operator needs
// no right to list them: when a run starts, and again after a restart. A run that
// has submitted something goes on with the same content only.
//
// The versions ask for each new version of a task. One whose targets are known gets
// them at once. Else the ConfigMap is read, and the versions learn the task with its
// targets when they are there.
type targetsResolver struct {
	listConfig

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

// seenList is what a source had when it was read.
type seenList struct {
	hash string
	at   time.Time
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

// configMapKey is where tasks take their targets from.
type configMapKey struct{ namespace, name, key string }

func configMapKeyOf(task *v1alpha1.PrefetchTask) configMapKey {
	ref := task.Spec.TargetsFrom.ConfigMapKeyRef
	return configMapKey{task.Namespace, ref.Name, ref.Key}
}

// configMapReader reads one source. Those who ask while it reads share its next read: what
// the one under way finds may be older than the task.
type configMapReader struct{ next []*pendingTask }

const (
	// readers is how many ConfigMaps, of up to 1 MiB each, are read at once.
	readers = 8
	// reportAfter is the wait between two tries from which the status reports them.
	reportAfter = 10 * time.Second
	// maxListed is how many bytes of targets from ConfigMaps are kept before another
	// ConfigMap is read.
	maxListed = 32 << 20
)

func newTargetsResolver(config listConfig) *targetsResolver {
	l := &targetsResolver{
		listConfig:   config,
		pendingTasks: map[client.ObjectKey]*pendingTask{}, known: map[string]*targetList{}, readers: map[configMapKey]*configMapReader{},
		seen: map[configMapKey]seenList{},
	}
	config.versions.AddSource(l)
	return l
}

// AddTargets returns the task with its targets, or as it is if it needs none or they
// are not known. In the latter case they are read. It is asked for newer versions only.
func (l *targetsResolver) AddTargets(_, task *v1alpha1.PrefetchTask) *v1alpha1.PrefetchTask {
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
	case w == nil || w.task.UID != task.UID || w.run != run || w.list != nil && !taskstate.MatchesList(task, w.list.hash):
		l.forgetTask(key)
		w = &pendingTask{task: task, run: run}
		l.pendingTasks[key] = w
		l.requestRead(w)
	default:
		if w.list != nil && hasProgress(w.task, task) {
			w.list.at = time.Now()
		}
		w.task = task
		if w.list == nil && w.told > 0 && w.told != task.Generation {
			w.told = 0
			w.again.Reset(0) // its user may have mended the ConfigMap, too
		}
	}
	if w.list == nil || !taskstate.MatchesList(task, w.list.hash) {
		return task
	}
	return taskstate.WithTargets(task, w.list.targets)
}

// RemoveTask forgets a task that is gone.
func (l *targetsResolver) RemoveTask(task *v1alpha1.PrefetchTask) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := client.ObjectKeyFromObject(task)
	if w := l.pendingTasks[key]; w != nil && w.task.UID == task.UID {
		l.forgetTask(key)
	}
}

func (l *targetsResolver) forgetTask(key client.ObjectKey) {
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
func (l *targetsResolver) releaseList(w *pendingTask) {
	if w.list.users--; w.list.users == 0 {
		delete(l.known, w.list.hash)
		l.size -= w.list.size
	}
	w.list = nil
}

// requestRead has the source of a task read.
func (l *targetsResolver) requestRead(w *pendingTask) {
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
func (l *targetsResolver) startReads() {
	for !l.waiting.IsEmpty() && l.reading < readers && l.critical.Err() == nil {
		for l.size >= maxListed {
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
func (l *targetsResolver) evictIdlest() bool {
	var idlest *targetList
	for _, known := range l.known {
		if idlest == nil || known.at.Before(idlest.at) {
			idlest = known
		}
	}
	if wait := maxLoadedIdle - time.Since(idlest.at); wait > 0 {
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
func (l *targetsResolver) dropList(w *pendingTask, task *v1alpha1.PrefetchTask) {
	l.versions.DropTargets(task)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pendingTasks[client.ObjectKeyFromObject(w.task)] == w && w.list == nil {
		l.requestRead(w)
	}
}

// readConfigMap reads a source for as long as somebody asks.
func (l *targetsResolver) readConfigMap(from configMapKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for r := l.readers[from]; len(r.next) > 0 && l.critical.Err() == nil; { // or the process ends
		asked := r.next
		r.next = nil
		l.mu.Unlock()
		read, err := l.getList(from)
		l.rememberRead(from, read, err)
		l.deliverTargets(asked, read, err)
		l.mu.Lock()
	}
	delete(l.readers, from)
	l.reading--
	l.startReads()
}

// rememberRead remembers what a source has, and forgets what others had a while ago.
func (l *targetsResolver) rememberRead(from configMapKey, read *targetList, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.seen, func(_ configMapKey, known seenList) bool { return time.Since(known.at) > l.recheckInterval })
	if err == nil {
		l.seen[from] = seenList{read.hash, time.Now()}
	}
}

// isFresh says whether a task may start its run with the targets that it has in memory.
// Its ConfigMap may have been read hours ago, while the task was held. So it is read
// again if that was longer ago than credentials may be old. If the list has changed, or
// cannot be read, the task waits for it as if it had never been read.
func (l *targetsResolver) isFresh(task *v1alpha1.PrefetchTask) bool {
	if !taskstate.IsFromConfigMap(task) || taskstate.IsBoundToList(task) {
		return true
	}
	from, hash := configMapKeyOf(task), taskstate.HashTargets(task)
	l.mu.Lock()
	known, ok := l.seen[from]
	l.mu.Unlock()
	if !ok || time.Since(known.at) > l.recheckInterval {
		_, _, _ = l.checks.Do(fmt.Sprint(from), func() (any, error) {
			read, err := l.getList(from)
			l.rememberRead(from, read, err)
			return nil, err
		})
		l.mu.Lock()
		known = l.seen[from]
		l.mu.Unlock()
	}
	if known.hash == hash {
		return true
	}
	l.RemoveTask(task)
	l.versions.DropTargets(task)
	return false
}

// deliverTargets gives tasks their targets, or says why they cannot have them.
func (l *targetsResolver) deliverTargets(asked []*pendingTask, read *targetList, err error) {
	var resolved []*v1alpha1.PrefetchTask
	var failed []*pendingTask
	var why []error
	l.mu.Lock()
	for _, w := range asked {
		switch {
		case l.pendingTasks[client.ObjectKeyFromObject(w.task)] != w || w.list != nil: // things have changed meanwhile
		case err == nil && taskstate.MatchesList(w.task, read.hash):
			if l.known[read.hash] == nil {
				l.known[read.hash] = read
				l.size += read.size
			}
			w.list = l.known[read.hash]
			w.list.at = time.Now()
			w.list.users++
			resolved = append(resolved, taskstate.WithTargets(w.task, w.list.targets))
		default:
			failed, why = append(failed, w), append(why, err)
			if err == nil {
				why[len(why)-1] = changedError(configMapKeyOf(w.task))
			}
		}
	}
	l.mu.Unlock()
	for _, task := range resolved {
		l.versions.LearnVersion(task)
	}
	if len(failed) > 0 { // other sources are read meanwhile
		go kube.WriteInParallel(len(failed), func(i int) { l.reportFailure(failed[i], why[i]) })
	}
}

// reportFailure tells a task why it cannot have its targets, and asks again later.
func (l *targetsResolver) reportFailure(w *pendingTask, err error) {
	l.mu.Lock()
	w.failures++
	task := w.task
	var why *targetsError
	person := errors.As(err, &why)
	switch {
	case !person:
		w.since, why = time.Time{}, &targetsError{v1alpha1.ReasonUnavailable, err}
	case w.since.IsZero():
		w.since = time.Now()
	}
	wait := backoff.Delay(w.failures)
	// A ConfigMap is often applied together with its task, or a little later.
	stalled := person && (why.reason != v1alpha1.ReasonTargetsMissing || time.Since(w.since) >= 2*l.recheckInterval)
	tell := person || wait > reportAfter
	l.mu.Unlock()
	told := tell && l.writeUnavailable(task, why, stalled)
	l.mu.Lock()
	defer l.mu.Unlock()
	if told {
		w.told = task.Generation
	}
	if told && person {
		w.failures, wait = 0, l.recheckInterval
	}
	if told && w.task.Generation != task.Generation {
		wait = 0
	}
	if w.again != nil {
		w.again.Stop()
	}
	w.again = time.AfterFunc(wait, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.pendingTasks[client.ObjectKeyFromObject(w.task)] == w && l.critical.Err() == nil {
			l.requestRead(w)
		}
	})
}

// writeUnavailable returns whether the task's status says why it has no targets.
func (l *targetsResolver) writeUnavailable(task *v1alpha1.PrefetchTask, why *targetsError, stalled bool) bool {
	select {
	case <-l.leads:
	default:
		return true // as far as this process may
	}
	cause := taskstate.Cause{Reason: why.reason, Message: taskstate.UpperFirst(why.Error())}
	after, err := l.store.WriteStatus(l.critical, task, taskstate.TargetsUnavailable(cause, stalled))
	l.ReportRefusedWrite(task, after, err)
	if err == nil && stalled && !taskstate.IsStalledFor(task, why.reason) {
		l.RecordEvent(after, corev1.EventTypeWarning, cause.Reason, "ReadTargets", cause.Message)
	}
	return err == nil
}

// targetsError is what a person has to mend. Its text is fit for a status.
type targetsError struct {
	reason string
	error
}

func missingError(format string, args ...any) error {
	return &targetsError{v1alpha1.ReasonTargetsMissing, fmt.Errorf(format, args...)}
}

func invalidError(from configMapKey, format string, args ...any) error {
	return &targetsError{v1alpha1.ReasonTargetsInvalid, fmt.Errorf("key %q of ConfigMap %q: %w", from.key, from.name, fmt.Errorf(format, args...))}
}

func changedError(from configMapKey) error {
	return &targetsError{v1alpha1.ReasonTargetsChanged, fmt.Errorf("key %q of ConfigMap %q has other URLs than when this run started, which cannot go on with them. "+
		"Restore the list, or set spec.revision to a new value to submit the new one as a new run", from.key, from.name)}
}

// getList reads a source and checks every line of it: nothing of a list with a
// mistake is submitted.
func (l *targetsResolver) getList(from configMapKey) (*targetList, error) {
	ctx, cancel := context.WithTimeout(l.critical, l.readTimeout)
	defer cancel()
	var configMap corev1.ConfigMap
	err := l.live.Get(ctx, types.NamespacedName{Namespace: from.namespace, Name: from.name}, &configMap)
	switch {
	case apierrors.IsNotFound(err):
		return nil, missingError("ConfigMap %q does not exist in namespace %q; create it with the key %s", from.name, from.namespace, from.key)
	case apierrors.IsForbidden(err):
		return nil, missingError("the operator may not read ConfigMap %q in namespace %q; grant it get on it", from.name, from.namespace)
	case err != nil:
		return nil, fmt.Errorf("cannot read ConfigMap %q from the Kubernetes API", from.name) // not why, which may differ each time
	}
	text, ok := configMap.Data[from.key]
	if _, binary := configMap.BinaryData[from.key]; binary {
		return nil, invalidError(from, "it is binary data; the list must be text in UTF-8")
	}
	if !ok {
		return nil, missingError("ConfigMap %q in namespace %q has no key %s; add it", from.name, from.namespace, from.key)
	}
	targets, err := parseTargets(text)
	if err != nil {
		return nil, invalidError(from, "%w", err)
	}
	spec := v1alpha1.PrefetchTaskSpec{Targets: targets}
	return &targetList{hash: taskstate.HashTargets(&v1alpha1.PrefetchTask{Spec: spec}), targets: targets, size: len(text)}, nil
}

// parseTargets reads a list of URLs, one a line, and returns the distinct ones in
// order. Blank lines do not count, nor do those that start with a #.
func parseTargets(text string) ([]v1alpha1.Target, error) {
	var targets []v1alpha1.Target
	seen := map[v1alpha1.Target]bool{}
	number := 0
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		number++
		line = strings.Trim(line, " \t\r\n\v\f") // what else cannot be seen is no format, but a mistake in the URL
		u := v1alpha1.Target(line)
		if line == "" || line[0] == '#' || seen[u] {
			continue
		}
		if problem := target.Check(line); problem != "" {
			return nil, fmt.Errorf("line %d, %q: %s", number, startOfLine(line), problem)
		}
		if len(targets) == taskstate.MaxTargets {
			return nil, fmt.Errorf("line %d: a task has at most %d URLs; split the list", number, taskstate.MaxTargets)
		}
		seen[u] = true
		targets = append(targets, u)
	}
	if len(targets) == 0 {
		return nil, errors.New("it has no URLs")
	}
	return targets, nil
}

// startOfLine is as much of a line as a message has room for.
func startOfLine(line string) string {
	const room = 80
	if len(line) <= room {
		return line
	}
	return strings.ToValidUTF8(line[:room], "") + "…"
}
