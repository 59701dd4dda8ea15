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

// seenList is what a source had when it was read.
type seenList struct {
	hash string
	at   time.Time
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

// readConfigMap reads a source for as long as somebody asks.
func (l *Resolver) readConfigMap(from configMapKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for r := l.readers[from]; len(r.next) > 0 && l.Critical.Err() == nil; { // or the process ends
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
func (l *Resolver) rememberRead(from configMapKey, read *targetList, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.seen, func(_ configMapKey, known seenList) bool { return time.Since(known.at) > l.RecheckInterval })
	if err == nil {
		l.seen[from] = seenList{read.hash, time.Now()}
	}
}

// IsFresh says whether a task may start its run with the targets that it has in memory.
// Its ConfigMap may have been read hours ago, while the task was held. So it is read
// again if that was longer ago than credentials may be old. If the list has changed, or
// cannot be read, the task waits for it as if it had never been read.
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

// getList reads a source and checks every line of it: nothing of a list with a
// mistake is submitted.
func (l *Resolver) getList(from configMapKey) (*targetList, error) {
	ctx, cancel := context.WithTimeout(l.Critical, l.ReadTimeout)
	defer cancel()
	var configMap corev1.ConfigMap
	err := l.Live.Get(ctx, types.NamespacedName{Namespace: from.namespace, Name: from.name}, &configMap)
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
