package targetlist

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// seenList identifies the list that a source had at its last read.
type seenList struct {
	hash string
	at   time.Time // when it was read
}

// configMapKey identifies a source of targets: a key of a ConfigMap.
type configMapKey struct{ namespace, name, key string }

// configMapKeyOf returns the source of a task's targets.
func configMapKeyOf(task *v1alpha1.PrefetchTask) configMapKey {
	ref := task.Spec.TargetsFrom.ConfigMapKeyRef
	return configMapKey{task.Namespace, ref.Name, ref.Key}
}

// configMapReader collects the tasks for the next read of one source. A task that is
// added during a read waits for the next one, because the current read may return content
// older than the task.
type configMapReader struct{ next []*pendingTask }

// readConfigMap reads a source until no task waits for it, and then frees its slot.
func (l *Resolver) readConfigMap(from configMapKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for r := l.readers[from]; len(r.next) > 0 && l.Critical.Err() == nil; { // until the process ends
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

// rememberRead remembers the list of a source after a successful read. It also forgets the
// entries that are older than RecheckInterval.
func (l *Resolver) rememberRead(from configMapKey, read *targetList, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.seen, func(_ configMapKey, known seenList) bool { return time.Since(known.at) > l.RecheckInterval })
	if err == nil {
		l.seen[from] = seenList{read.hash, time.Now()}
	}
}

// IsFresh reports whether a task may start its run with its targets in memory. The task
// may have been backed off for hours since its ConfigMap was read. So IsFresh reads the
// ConfigMap again if the last read is older than RecheckInterval. Concurrent calls for
// one source share that read. If the list has changed or cannot be read, the task waits
// for its targets as if they had never been read. A run that has submitted targets is
// always fresh: it is bound to its list.
func (l *Resolver) IsFresh(task *v1alpha1.PrefetchTask) bool {
	if !taskstate.IsFromConfigMap(task) || taskstate.IsBoundToList(task) {
		return true
	}
	from, hash := configMapKeyOf(task), taskstate.HashTargets(task)
	l.mu.Lock()
	known, ok := l.seen[from]
	l.mu.Unlock()
	if !ok || time.Since(known.at) > l.RecheckInterval {
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
	l.Tasks.DropTargets(task)
	return false
}

// getList reads a source and checks every line. One invalid line makes the whole list
// invalid, so that no part of it is submitted.
func (l *Resolver) getList(from configMapKey) (*targetList, error) {
	ctx, cancel := context.WithTimeout(l.Critical, l.ReadTimeout)
	defer cancel()
	var configMap corev1.ConfigMap
	err := l.Live.Get(ctx, types.NamespacedName{Namespace: from.namespace, Name: from.name}, &configMap)
	switch {
	case apierrors.IsNotFound(err):
		return nil, missingError("create it with the key "+from.key, "ConfigMap %q does not exist in namespace %q", from.name, from.namespace)
	case apierrors.IsForbidden(err):
		return nil, missingError("grant it get on it", "the operator may not read ConfigMap %q in namespace %q", from.name, from.namespace)
	case err != nil:
		return nil, fmt.Errorf("cannot read ConfigMap %q from the Kubernetes API", from.name) // without err, whose text may differ each time
	}
	text, ok := configMap.Data[from.key]
	if _, binary := configMap.BinaryData[from.key]; binary {
		return nil, invalidError(from, "it is binary data; the list must be text in UTF-8")
	}
	if !ok {
		return nil, missingError("add it", "ConfigMap %q in namespace %q has no key %s", from.name, from.namespace, from.key)
	}
	targets, err := ParseTargets(text)
	if err != nil {
		return nil, invalidError(from, "%w", err)
	}
	spec := v1alpha1.PrefetchTaskSpec{Targets: targets}
	return &targetList{hash: taskstate.HashTargets(&v1alpha1.PrefetchTask{Spec: spec}), targets: targets, size: len(text)}, nil
}
