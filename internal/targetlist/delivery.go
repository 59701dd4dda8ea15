package targetlist

import (
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/backoff"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// deliverTargets passes the result of a read to the tasks that requested it. Tasks get
// their targets, and their list is shared by its hash. Other tasks get a status that
// reports why they have no targets: the read failed, or their run started with another
// list.
func (l *Resolver) deliverTargets(asked []*pendingTask, read *targetList, err error) {
	var resolved []*v1alpha1.PrefetchTask
	var failed []*pendingTask
	var why []error
	l.mu.Lock()
	for _, w := range asked {
		switch {
		case l.pendingTasks[client.ObjectKeyFromObject(w.task)] != w || w.list != nil: // the task was changed, removed or served meanwhile
		case err == nil && taskstate.MatchesList(w.task, read.hash):
			if l.known[read.hash] == nil {
				l.known[read.hash] = read
				l.size += read.size
			}
			w.list = l.known[read.hash] // an equal list, if there is one in memory
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
	if len(failed) > 0 { // in the background, so that other sources can be read
		go kube.WriteInParallel(len(failed), func(i int) { l.reportFailure(failed[i], why[i]) })
	}
}

// reportFailure reports in a task's status why the task has no targets, and schedules the
// next read. A problem that needs user action is reported at once and rechecked every
// RecheckInterval. Any other failure is retried after the usual delay, and reported only
// if the delay is longer than reportAfter.
func (l *Resolver) reportFailure(w *pendingTask, err error) {
	l.mu.Lock()
	w.failures++
	task := w.task
	var why *targetsError
	person := errors.As(err, &why)
	switch {
	case !person:
		w.since, why = time.Time{}, &targetsError{reason: v1alpha1.ReasonUnavailable, fact: err}
	case w.since.IsZero():
		w.since = time.Now()
	}
	wait := backoff.Delay(w.failures)
	// A missing ConfigMap stalls the task only after a while, because a ConfigMap is often
	// applied together with its task or shortly after it.
	stalled := person && (why.reason != v1alpha1.ReasonTargetsMissing || time.Since(w.since) >= 2*l.RecheckInterval)
	tell := person || wait > reportAfter
	l.mu.Unlock() // the lock is not held during the write
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
		wait = 0 // the spec changed during the write, and the user may have fixed the ConfigMap
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

// writeUnavailable writes to the status why the task has no targets, and reports whether
// the status contains it. It also sends an Event when the task becomes stalled.
func (l *Resolver) writeUnavailable(task *v1alpha1.PrefetchTask, why *targetsError, stalled bool) bool {
	select {
	case <-l.Leads:
	default:
		return true // without the lease, this process may not write
	}
	cause := why.cause()
	isNews := stalled && !taskstate.IsStalledFor(task, cause.Reason)
	after, err := l.Writer.WriteStatus(l.Critical, task, taskstate.TargetsUnavailable(cause, stalled))
	l.ReportRefusedWrite(task, after, err)
	if err == nil && isNews && l.RecordEvent(after, corev1.EventTypeWarning, cause.Reason, "ReadTargets", cause.FullMessage()) {
		// The limits of Events bound the log as well.
		log.Log.WithName("targets").Info("A task has no target list", "task", client.ObjectKeyFromObject(task).String(), "reason", cause.Reason, "message", cause.FullMessage())
	}
	return err == nil
}
