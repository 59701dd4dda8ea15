package submit

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/retry"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// maxStatusWrites is how many waiting statuses one pass writes. It is small, so that claims and
// records do not wait behind these writes.
const maxStatusWrites = 64

// writeWaitingStatuses writes in the background the statuses of waiting tasks, which report why
// the tasks wait. It returns the time until the next status is due. It returns 0 if the end of
// the running writes enqueues the account, or if there is nothing to report. The queue must be
// locked.
func (s *Submitter) writeWaitingStatuses(l *accountQueue) time.Duration {
	if l.reporting {
		return 0
	}
	notes, next := l.prefetches.queue.WaitingStatuses(maxStatusWrites, time.Now())
	purges, nextPurge := l.purges.queue.WaitingStatuses(maxStatusWrites, time.Now())
	of := slices.Repeat([]*accountQueue{l.prefetches}, len(notes))
	notes, of = append(notes, purges...), append(of, slices.Repeat([]*accountQueue{l.purges}, len(purges))...)
	if next.IsZero() || !nextPurge.IsZero() && nextPurge.Before(next) {
		next = nextPurge
	}
	if len(notes) > 0 {
		l.reporting = true
		go func() {
			defer s.EnqueueAfter(l.account, 0)
			told := make([]bool, len(notes))
			kube.WriteInParallel(len(notes), func(i int) { told[i] = s.writeWaitingStatus(notes[i]) })
			l.mu.Lock()
			defer l.mu.Unlock()
			l.reporting = false
			for i, told := range told {
				if !told {
					of[i].queue.RequeueStatus(notes[i], time.Now())
				}
			}
		}()
		return 0
	}
	if next.IsZero() {
		return 0
	}
	return max(time.Until(next), time.Millisecond)
}

// writeWaitingStatus writes one waiting status. It returns false if the write fails or exceeds
// the rate limit for the task (kube.NoteRate). It does not retry after a conflict: the newer
// version of the task leads to a new report.
func (s *Submitter) writeWaitingStatus(note taskstate.WaitingStatus) (told bool) {
	if s.reports.WaitTime(note.Task) > 0 {
		return false
	}
	s.reports.CountEvent(note.Task)
	var task *v1alpha1.PrefetchTask
	// Retry only errors that can pass without a change of the task.
	trouble := func(err error) bool {
		return s.Critical.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) && !kube.IsRefused(err)
	}
	err := retry.OnError(retry.DefaultBackoff, trouble, func() (err error) {
		task, err = s.Writer.WithLowPriority().WriteStatus(s.Critical, note.Task, taskstate.ReportWaiting(note, time.Now()))
		return err
	})
	if err != nil {
		s.Events.ReportRefusedWrite(note.Task, nil, err)
		return false
	}
	s.Events.ReportChange(note.Task, task)
	if note.Stalled || note.Quota { // other waits are not worth an Event
		s.Events.RecordEvent(task, corev1.EventTypeWarning, note.Reason, "Submit", note.FullMessageFor(task))
	}
	return true
}
