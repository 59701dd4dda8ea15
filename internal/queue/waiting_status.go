package queue

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

const (
	// reportPatience is how long a task waits before its status reports the reason. No
	// write is needed for tasks that are submitted sooner.
	reportPatience = 10 * time.Second
	// queuePatience is how long a task waits before its status reports that it is queued.
	// Writing the statuses of thousands of queued tasks would delay all of them.
	queuePatience = time.Minute
)

// delayedReport is a report that becomes due at a time. It is either the report of one
// item or the report of a back-off.
type delayedReport struct {
	at   time.Time
	item *queueItem // reported if it still waits
	turn time.Time  // when to report the item even if it is only queued
	all  func()     // reports a back-off; nil for a report of an item
}

// needsStatusWrite reports whether the status of a task needs a write apart from any
// call. This is the case if its observed generation is old and nothing else will write
// it, or if the status does not yet report that the task is suspended.
//
// Only the queue of prefetches writes such a status.
func (q *Queue) needsStatusWrite(task *v1alpha1.PrefetchTask) bool {
	if q.limits.Kind != v1alpha1.JobPrefetch || !task.DeletionTimestamp.IsZero() || !taskstate.IsElided(task) && taskstate.NeedsCall(task) ||
		taskstate.IsUnresolved(task) && taskstate.NeedsTargetList(task) {
		return false
	}
	saysSuspended := taskstate.ReadyReason(task) == v1alpha1.ReasonSuspended
	return task.Status.ObservedGeneration != task.Generation || taskstate.IsSuspended(task) && isHeldBySuspend(task) && !saysSuspended
}

// isHeldBySuspend reports whether only spec.suspend prevents the submission of a
// suspended task.
func isHeldBySuspend(task *v1alpha1.PrefetchTask) bool {
	return !taskstate.HasClaim(task) && (len(taskstate.OpenPositions(task)) > 0 || taskstate.IsUnresolved(task) && !taskstate.IsFinished(task))
}

// reportIf makes the report of an item due if its status must be written. If the task
// awaits its target list, the report waits for reportPatience, because a call of the task
// may write the status sooner.
func (q *Queue) reportIf(it *queueItem, must bool, now time.Time) {
	switch {
	case must && (q.awaitsList(it.task) || taskstate.NeedsHistory(it.task)):
		q.reportLater(it, now)
	case must:
		q.reportNow(it)
	}
}

// reportNow makes the report of an item due. An item is in the list of due reports only
// once.
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
// delayed reports becomes too long, only the latest report of each item stays.
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
// queue before they are cleaned up. While another process is the leader, the lists are
// not drained.
const spareReports = 1024

// reportLane makes the reports of all items in a lane due, including suspects.
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

// WaitingStatuses returns at most n statuses to write, and the time when the next one is
// due (zero if there is none). It omits a status that the task already has.
func (q *Queue) WaitingStatuses(n int, now time.Time) (notes []taskstate.WaitingStatus, next time.Time) {
	q.startDueReports(now)
	for len(q.reportsDue) > 0 && len(notes) < n {
		it := q.reportsDue[0]
		q.reportsDue = q.reportsDue[1:]
		it.reportQueued = false
		if it.deleted || it.inFlight || q.items[it.key] != it {
			continue
		}
		note := q.waitingStatusOf(it, now)
		if note.IsQueued() {
			note.Ahead = q.aheadOf(it, now)
		}
		if !note.IsWritten() {
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

// startDueReports makes the delayed reports due whose time has come. For a task that is
// only queued, the time is queuePatience.
func (q *Queue) startDueReports(now time.Time) {
	for len(q.delayedReports) > 0 && !now.Before(q.delayedReports[0].at) {
		l := q.delayedReports[0]
		q.delayedReports = q.delayedReports[1:]
		switch {
		case l.all != nil:
			l.all()
		case l.item.deleted || l.item.inFlight:
		case now.Before(l.turn) && l.item.blockedBy == nil && q.waitingStatusOf(l.item, now).Reason == v1alpha1.ReasonWaiting:
			l.at = now.Add(reportPatience)
			q.delayedReports = append(q.delayedReports, l)
		default:
			q.reportNow(l.item)
		}
	}
}

// RequeueStatus schedules another write of a status that could not be written.
func (q *Queue) RequeueStatus(note taskstate.WaitingStatus, now time.Time) {
	if it := q.items[types.NamespacedName{Namespace: note.Task.Namespace, Name: note.Task.Name}]; it != nil {
		q.reportLater(it, now)
	}
}

// waitingStatusOf returns the status that reports why a task waits. The Cause is empty if
// the status needs no reason or already has it.
func (q *Queue) waitingStatusOf(it *queueItem, now time.Time) taskstate.WaitingStatus {
	note := taskstate.WaitingStatus{Task: it.task}
	if !q.isWaiting(it.task) {
		if taskstate.IsSuspended(it.task) && isHeldBySuspend(it.task) {
			note.Cause = taskstate.Cause{Reason: v1alpha1.ReasonSuspended, Message: "Nothing is submitted while spec.suspend is true"}
		}
		return note
	}
	if it.isKeptOut(now) {
		q.setKeptOut(&note, it, now)
		return note
	}
	h := q.reportedBackOff(it, now)
	switch {
	case it.blockedBy != nil && (h == nil || !h.isActive(now)):
		note.Cause = taskstate.Cause{Reason: v1alpha1.ReasonWaiting, Message: q.blockedMessage(it)}
	case h != nil:
		note.Cause, note.Stalled = h.Cause, q.isStalled(*h, now) || h.NeedsUser && h.Quota
		if h.Quota && !h.NeedsUser { // a plan without quota gets none on any day
			note.NextAttempt = h.next
		}
	case taskstate.HasRepeatedLosses(it.task) && taskstate.ReadyReason(it.task) == v1alpha1.ReasonOutcomeUnknown:
		// Its status already reports the lost calls, until a call gets a response.
	default:
		note.Cause = taskstate.QueuedCause
	}
	return note
}

// setKeptOut sets why an item stays out of calls because of its account or its own problem.
func (q *Queue) setKeptOut(note *taskstate.WaitingStatus, it *queueItem, now time.Time) {
	if it.denied.Reason == "" {
		note.Cause, note.Stalled = it.postponed.Cause, it.postponed.NeedsUser
		return
	}
	note.Cause, note.Stalled = it.denied.Cause, q.isDenialStalled(it, now)
	if note.Quota {
		note.NextAttempt = q.nextReset(now)
	}
}

// reportedBackOff returns the back-off that an item reports, or nil. It prefers an active
// one. Otherwise it takes one that has ended, but whose cause no call has checked yet.
func (q *Queue) reportedBackOff(it *queueItem, now time.Time) *backOff {
	holds := append(q.activeBackOffs(it.lane), &it.backOff)
	i := slices.IndexFunc(holds, func(h *backOff) bool { return h.isActive(now) })
	if i < 0 {
		i = slices.IndexFunc(holds, func(h *backOff) bool { return h.Reason != "" })
	}
	if i < 0 {
		return nil
	}
	return holds[i]
}
