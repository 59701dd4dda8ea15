package targetlist

import (
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/backoff"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// deliverTargets gives tasks their targets, or says why they cannot have them.
func (l *Resolver) deliverTargets(asked []*pendingTask, read *targetList, err error) {
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
		l.Tasks.LearnVersion(task)
	}
	if len(failed) > 0 { // other sources are read meanwhile
		go kube.WriteInParallel(len(failed), func(i int) { l.reportFailure(failed[i], why[i]) })
	}
}

// reportFailure tells a task why it cannot have its targets, and asks again later.
func (l *Resolver) reportFailure(w *pendingTask, err error) {
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
	stalled := person && (why.reason != v1alpha1.ReasonTargetsMissing || time.Since(w.since) >= 2*l.RecheckInterval)
	tell := person || wait > reportAfter
	l.mu.Unlock()
	told := tell && l.writeUnavailable(task, why, stalled)
	l.mu.Lock()
	defer l.mu.Unlock()
	if told {
		w.told = task.Generation
	}
	if told && person {
		w.failures, wait = 0, l.RecheckInterval
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
		if l.pendingTasks[client.ObjectKeyFromObject(w.task)] == w && l.Critical.Err() == nil {
			l.requestRead(w)
		}
	})
}

// writeUnavailable returns whether the task's status says why it has no targets.
func (l *Resolver) writeUnavailable(task *v1alpha1.PrefetchTask, why *targetsError, stalled bool) bool {
	select {
	case <-l.Leads:
	default:
		return true // as far as this process may
	}
	cause := taskstate.Cause{Reason: why.reason, Message: taskstate.UpperFirst(why.Error())}
	after, err := l.Writer.WriteStatus(l.Critical, task, taskstate.TargetsUnavailable(cause, stalled))
	l.ReportRefusedWrite(task, after, err)
	if err == nil && stalled && !taskstate.IsStalledFor(task, why.reason) {
		l.RecordEvent(after, corev1.EventTypeWarning, cause.Reason, "ReadTargets", cause.Message)
	}
	return err == nil
}
