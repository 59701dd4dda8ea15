package queue

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

const (
	// reportPatience is how long a task waits without being told what keeps it. Those that
	// go out at once are spared the write.
	reportPatience = 10 * time.Second
	// queuePatience is how long a task waits without being told that only its turn is to
	// come. A write for each of thousands would keep all of them waiting longer.
	queuePatience = time.Minute
)

type delayedReport struct {
	at   time.Time
	item *queueItem // to be told if it still waits
	turn time.Time  // when it is told also if it waits for nothing but its turn
	all  func()     // or what else to do
}

// needsStatusWrite says whether the task's status must be written for another reason
// than a call: it speaks of an old generation and nothing else will write it, or
// does not say that the task is suspended.
func needsStatusWrite(task *v1alpha1.PrefetchTask) bool {
	if !task.DeletionTimestamp.IsZero() || taskstate.IsWaiting(task) || taskstate.IsUnresolved(task) && taskstate.NeedsTargetList(task) {
		return false
	}
	saysSuspended := taskstate.ReadyReason(task) == v1alpha1.ReasonSuspended
	return task.Status.ObservedGeneration != task.Generation || taskstate.IsSuspended(task) && isHeldBySuspend(task) && !saysSuspended
}

// isHeldBySuspend says whether a suspended task would be submitted if it were not.
func isHeldBySuspend(task *v1alpha1.PrefetchTask) bool {
	return !taskstate.HasClaim(task) && (len(taskstate.OpenPositions(task)) > 0 || taskstate.IsUnresolved(task) && !taskstate.IsFinished(task))
}

// reportIf has a task told that must be: at once, or in a while if its call would tell it and
// only its list is to be read before.
func (q *Queue) reportIf(it *queueItem, must bool, now time.Time) {
	switch {
	case must && taskstate.AwaitsList(it.task):
		q.reportLater(it, now)
	case must:
		q.reportNow(it)
	}
}

func (q *Queue) reportNow(it *queueItem) {
	if !it.reportQueued {
		it.reportQueued = true
		q.reportsDue = append(q.reportsDue, it)
	}
	if len(q.reportsDue) > 2*len(q.items)+spareReports {
		q.reportsDue = slices.DeleteFunc(q.reportsDue, func(it *queueItem) bool { return it.deleted })
	}
}

func (q *Queue) reportLater(it *queueItem, now time.Time) {
	q.delayedReports = append(q.delayedReports, delayedReport{at: now.Add(reportPatience), item: it, turn: now.Add(queuePatience)})
	if len(q.delayedReports) > 2*len(q.items)+spareReports {
		times := map[*queueItem]int{}
		for _, l := range q.delayedReports {
			times[l.item]++
		}
		q.delayedReports = slices.DeleteFunc(q.delayedReports, func(l delayedReport) bool {
			times[l.item]--
			return l.item != nil && (l.item.deleted || times[l.item] > 0)
		})
	}
}

// spareReports is how much longer than the queue the lists of what is to be told may
// get. Nobody reads them while another process leads.
const spareReports = 1024

func (q *Queue) reportLane(l *laneState) {
	for _, s := range l.rotation {
		for _, it := range s.items {
			q.reportNow(it)
		}
	}
	for _, g := range l.suspects {
		for _, s := range g {
			q.reportNow(s.item)
		}
	}
	for g := range l.postponed {
		for _, s := range *g {
			q.reportNow(s.item)
		}
	}
}

// WaitingStatuses returns at most n things to tell, and when the next one is due (zero if
// none is). What a task's status already says is not told again.
func (q *Queue) WaitingStatuses(n int, now time.Time) (notes []taskstate.WaitingStatus, next time.Time) {
	q.startDueReports(now)
	for len(q.reportsDue) > 0 && len(notes) < n {
		it := q.reportsDue[0]
		q.reportsDue = q.reportsDue[1:]
		it.reportQueued = false
		if it.deleted || it.inFlight || q.items[it.key] != it {
			continue
		}
		if note := q.waitingStatusOf(it, now); !note.IsWritten() {
			notes = append(notes, note)
		}
	}
	switch {
	case len(q.reportsDue) > 0:
		next = now
	case len(q.delayedReports) > 0:
		next = q.delayedReports[0].at
	}
	return notes, next
}

// startDueReports makes the delayed reports due whose time has come. A task that only waits for
// its turn is reported when that has not come for a while.
func (q *Queue) startDueReports(now time.Time) {
	for len(q.delayedReports) > 0 && !now.Before(q.delayedReports[0].at) {
		l := q.delayedReports[0]
		q.delayedReports = q.delayedReports[1:]
		switch {
		case l.all != nil:
			l.all()
		case l.item.deleted || l.item.inFlight:
		case now.Before(l.turn) && !l.item.blocked && q.waitingStatusOf(l.item, now).Reason == v1alpha1.ReasonWaiting:
			l.at = now.Add(reportPatience)
			q.delayedReports = append(q.delayedReports, l)
		default:
			q.reportNow(l.item)
		}
	}
}

// RequeueStatus puts back a note that could not be written.
func (q *Queue) RequeueStatus(note taskstate.WaitingStatus, now time.Time) {
	if it := q.items[types.NamespacedName{Namespace: note.Task.Namespace, Name: note.Task.Name}]; it != nil {
		q.reportLater(it, now)
	}
}

// waitingStatusOf says why a task waits.
func (q *Queue) waitingStatusOf(it *queueItem, now time.Time) taskstate.WaitingStatus {
	note := taskstate.WaitingStatus{Task: it.task}
	if !taskstate.IsWaiting(it.task) {
		if taskstate.IsSuspended(it.task) && isHeldBySuspend(it.task) {
			note.Cause = taskstate.Cause{Reason: v1alpha1.ReasonSuspended, Message: "Nothing is submitted while spec.suspend is true"}
		}
		return note
	}
	if it.isPostponed(now) {
		note.Cause, note.Stalled = it.postponed.Cause, it.postponed.NeedsUser
		return note
	}
	// What keeps it now, or what its next call is to find out about.
	holds := append(q.activeBackOffs(it.lane), &it.backOff)
	i := slices.IndexFunc(holds, func(h *backOff) bool { return h.isActive(now) })
	if i < 0 {
		i = slices.IndexFunc(holds, func(h *backOff) bool { return h.Reason != "" })
	}
	switch {
	case i < 0 && taskstate.HasRepeatedLosses(it.task) && taskstate.ReadyReason(it.task) == v1alpha1.ReasonOutcomeUnknown:
		return note // its status says so, until a call of it gets an answer
	case i < 0:
		note.Cause = taskstate.Cause{Reason: v1alpha1.ReasonWaiting, Message: "Queued; will be submitted when its turn comes"}
		return note
	}
	h := *holds[i]
	note.Cause, note.Stalled = h.Cause, q.isStalled(h, now) || h.NeedsUser && h.Quota
	if h.Quota {
		note.NextAttempt = h.next
	}
	return note
}
