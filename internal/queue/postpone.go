package queue

import (
	"time"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// postponement keeps a single task out of calls because of a problem with that task.
type postponement struct {
	taskstate.Cause
	until time.Time // no call before this time
	times int       // number of consecutive postponements
	isNew bool      // the call that caused it has not returned yet
	firm  bool      // an edit of the task does not end it
}

// maxPostponed is the longest time for which a task or a suspect group is postponed.
const maxPostponed = 10 * time.Minute

// PostponeTask keeps the task of a call out of further calls because of a problem with
// that task. The wait starts at 1 s, or at StallAfter if the problem needs user action.
// It doubles each time, up to maxPostponed. An edit of the task ends it. Other tasks in
// the lane continue. Call PostponeTask before you record the outcome of the call.
func (q *Queue) PostponeTask(part CallPart, why taskstate.Cause, now time.Time) {
	it := part.item
	wait := time.Second
	if why.NeedsUser {
		wait = q.limits.StallAfter
	}
	times := it.postponed.times
	q.PostponeTaskUntil(part, why, now.Add(min(wait<<min(times, 10), maxPostponed)))
	it.postponed.times, it.postponed.firm = times+1, false
}

// PostponeTaskUntil is like PostponeTask, but the wait has a fixed end. An edit of the
// task does not shorten it.
func (q *Queue) PostponeTaskUntil(part CallPart, why taskstate.Cause, until time.Time) {
	it := part.item
	it.postponed = postponement{Cause: why, until: until, isNew: true, firm: true}
	q.postponed[it] = true
	q.runAt(it.postponed.until, func(now time.Time) { q.endPostponement(it, now) })
	q.clearSuspect(it) // suspect groups do not wait for a postponed item
}

// endPostponement returns an item to its namespace queue when its postponement has ended.
// An item in flight returns when its call ends.
func (q *Queue) endPostponement(it *queueItem, now time.Time) {
	if q.postponed[it] && !it.isPostponed(now) && !it.inFlight {
		q.placeItem(it, it.task, q.isWaiting(it.task), now)
	}
}

// endPostponedCall records that a call of the item has returned. This ends the
// postponement, unless this call caused it.
func (it *queueItem) endPostponedCall() {
	if !it.postponed.isNew {
		it.postponed = postponement{}
	}
	it.postponed.isNew = false
}

// isPostponed reports whether the item stays out of calls because of its own problem.
func (it *queueItem) isPostponed(now time.Time) bool { return now.Before(it.postponed.until) }

// isEdited reports whether the later of two versions of a task comes from an edit and not
// from the operator. A new resourceVersion with an equal status is an edit, because each
// status write of the operator changes the status.
func isEdited(before, after *v1alpha1.PrefetchTask) bool {
	return before.UID != after.UID || before.Generation != after.Generation ||
		before.ResourceVersion != after.ResourceVersion && equality.Semantic.DeepEqual(before.Status, after.Status)
}
