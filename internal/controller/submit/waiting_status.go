package submit

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/retry"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// maxStatusWrites is how many waiting tasks are reported in one go. It is small, so that claims
// and records do not wait behind these writes.
const maxStatusWrites = 64

// writeWaitingStatuses writes in the background to waiting tasks why they wait. It returns after
// how long there is more to report; 0 if the end of these writes enqueues the account, or if
// there is nothing. The queue must be locked.
func (s *Submitter) writeWaitingStatuses(l *accountQueue) time.Duration {
	if l.reporting {
		return 0
	}
	notes, next := l.queue.WaitingStatuses(maxStatusWrites, time.Now())
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
					l.queue.RequeueStatus(notes[i], time.Now())
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

// writeWaitingStatus writes one report, and returns false if that failed or comes too soon after
// the last one. After a conflict the newer version of the task brings a new report.
func (s *Submitter) writeWaitingStatus(note taskstate.WaitingStatus) (told bool) {
	if s.reports.WaitTime(note.Task) > 0 {
		return false
	}
	s.reports.CountEvent(note.Task)
	var task *v1alpha1.PrefetchTask
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
	if note.Stalled || note.Quota {
		s.Events.RecordEvent(task, corev1.EventTypeWarning, note.Reason, "Submit", note.Message)
	}
	return true
}
