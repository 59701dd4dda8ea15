package queue

import (
	"time"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// postponement keeps one task out of calls because of its own trouble.
type postponement struct {
	taskstate.Cause
	until time.Time
	times int  // consecutive postponements
	isNew bool // the call that caused it has not returned yet
	firm  bool // no edit ends it
}

// maxPostponed bounds how long a task is postponed.
const maxPostponed = 10 * time.Minute

// PostponeTask keeps the task of a call out of further calls because of its own trouble.
// The wait starts at 1 s, or at StallAfter if the trouble needs user action, and doubles
// each time. An edit of the task ends it. Other tasks in the lane continue. Call
// PostponeTask before recording the call's outcome.
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

// PostponeTaskUntil is PostponeTask with a fixed end that no edit of the task brings
// forward.
func (q *Queue) PostponeTaskUntil(part CallPart, why taskstate.Cause, until time.Time) {
	it := part.item
	it.postponed = postponement{Cause: why, until: until, isNew: true, firm: true}
	q.postponed[it] = true
	q.runAt(it.postponed.until, func(now time.Time) { q.endPostponement(it, now) })
	q.clearSuspect(it) // suspect groups do not wait for the item
}

// endPostponement returns an item to its namespace queue when its time is over.
func (q *Queue) endPostponement(it *queueItem, now time.Time) {
	if q.postponed[it] && !it.isPostponed(now) && !it.inFlight { // an item in flight gets its place when the call returns
		q.placeItem(it, it.task, taskstate.IsWaiting(it.task), now)
	}
}

// endPostponedCall records that a call of the item has returned. The postponement ends
// unless this call caused it.
func (it *queueItem) endPostponedCall() {
	if !it.postponed.isNew {
		it.postponed = postponement{}
	}
	it.postponed.isNew = false
}

// isPostponed says whether the item stays out of calls because of its own trouble.
func (it *queueItem) isPostponed(now time.Time) bool { return now.Before(it.postponed.until) }

// isEdited says whether someone other than the operator wrote the later of two versions
// of a task. A new resourceVersion with an equal status counts as such a write.
func isEdited(before, after *v1alpha1.PrefetchTask) bool {
	return before.UID != after.UID || before.Generation != after.Generation ||
		before.ResourceVersion != after.ResourceVersion && equality.Semantic.DeepEqual(before.Status, after.Status)
}
