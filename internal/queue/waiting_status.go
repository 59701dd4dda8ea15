package queue

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

const (
	// reportPatience is how long a task waits before its status reports why. Tasks that
	// are submitted at once save the write.
	reportPatience = 10 * time.Second
	// queuePatience is how long a task waits before its status reports that it is queued.
	// Writing the status of each of thousands of queued tasks would delay all of them.
	queuePatience = time.Minute
)

// delayedReport is a report that becomes due at a time: of one item, or of a back-off.
type delayedReport struct {
	at   time.Time
	item *queueItem // reported if it still waits
	turn time.Time  // when to report the item even if it is only queued
	all  func()     // reports a back-off, instead of an item
}

// needsStatusWrite says whether the task's status needs a write apart from any call: its
// observed generation is old and nothing else will write it, or it does not report that
// the task is suspended.
func needsStatusWrite(task *v1alpha1.PrefetchTask) bool {
	if !task.DeletionTimestamp.IsZero() || taskstate.IsWaiting(task) || taskstate.IsUnresolved(task) && taskstate.NeedsTargetList(task) {
		return false
	}
	saysSuspended := taskstate.ReadyReason(task) == v1alpha1.ReasonSuspended
	return task.Status.ObservedGeneration != task.Generation || taskstate.IsSuspended(task) && isHeldBySuspend(task) && !saysSuspended
}

// isHeldBySuspend says whether a suspended task would be submitted if it were not
// suspended.
func isHeldBySuspend(task *v1alpha1.PrefetchTask) bool {
	return !taskstate.HasClaim(task) && (len(taskstate.OpenPositions(task)) > 0 || taskstate.IsUnresolved(task) && !taskstate.IsFinished(task))
}

// reportIf reports a status that must be written: at once, or after reportPatience if the
// task only awaits its target list, because its call would write the status as well.
func (q *Queue) reportIf(it *queueItem, must bool, now time.Time) {
	switch {
	case must && taskstate.AwaitsList(it.task):
		q.reportLater(it, now)
	case must:
		q.reportNow(it)
	}
}

// reportNow makes the report of an item due, once.
func (q *Queue) reportNow(it *queueItem) {
	if !it.reportQueued {
		it.reportQueued = true
		q.reportsDue = append(q.reportsDue, it)
	}
	if len(q.reportsDue) > 2*len(q.items)+spareReports {
		q.reportsDue = slices.DeleteFunc(q.reportsDue, func(it *queueItem) bool { return it.deleted })
	}
}

// reportLater makes the report of an item due after reportPatience. If the list of
// delayed reports grows too long, only the latest report of each item stays.
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

// spareReports is by how much the lists of reports may exceed twice the length of the
// queue. While another process is the leader, nothing drains these lists.
const spareReports = 1024

// reportLane makes the reports of all items in a lane due, including those of suspects.
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

// WaitingStatuses returns at most n statuses to write, and when the next one is due (zero
// if none is). It omits a status that the task already has.
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

// startDueReports makes the delayed reports due whose time has come. A task that is only
// queued waits for queuePatience instead.
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

// RequeueStatus schedules a status again that could not be written.
func (q *Queue) RequeueStatus(note taskstate.WaitingStatus, now time.Time) {
	if it := q.items[types.NamespacedName{Namespace: note.Task.Namespace, Name: note.Task.Name}]; it != nil {
		q.reportLater(it, now)
	}
}

// waitingStatusOf returns the status that says why a task waits.
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
	// Prefer a back-off that is active. Otherwise take one that is over, but whose cause
	// the next call has yet to check.
	holds := append(q.activeBackOffs(it.lane), &it.backOff)
	i := slices.IndexFunc(holds, func(h *backOff) bool { return h.isActive(now) })
	if i < 0 {
		i = slices.IndexFunc(holds, func(h *backOff) bool { return h.Reason != "" })
	}
	switch {
	case i < 0 && taskstate.HasRepeatedLosses(it.task) && taskstate.ReadyReason(it.task) == v1alpha1.ReasonOutcomeUnknown:
		return note // its status already says so, until a call gets an answer
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
