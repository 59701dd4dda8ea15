package queue

import (
	"time"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// postponement keeps one task out of calls for trouble of its own.
type postponement struct {
	taskstate.Cause
	until time.Time
	times int  // in a row
	isNew bool // the call that it comes from has not come back
	firm  bool // no edit ends it
}

// maxPostponed bounds how long a task is postponed.
const maxPostponed = 10 * time.Minute

// PostponeTask keeps the task of a call out of further calls for a while, for trouble of its
// own: each time for twice as long, and only until somebody changes the task. Those that
// share its lane go on. It is to be told before the call's outcome.
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

// PostponeTaskUntil is Postpone until a time that no edit of the task brings nearer.
func (q *Queue) PostponeTaskUntil(part CallPart, why taskstate.Cause, until time.Time) {
	it := part.item
	it.postponed = postponement{Cause: why, until: until, isNew: true, firm: true}
	q.postponed[it] = true
	q.runAt(it.postponed.until, func(now time.Time) { q.endPostponement(it, now) })
	q.clearSuspect(it) // a group of suspects does not wait for it
}

// endPostponement puts an item in line whose time is over.
func (q *Queue) endPostponement(it *queueItem, now time.Time) {
	if q.postponed[it] && !it.isPostponed(now) && !it.inFlight { // else its place is found when the call comes back
		q.placeItem(it, it.task, taskstate.IsWaiting(it.task), now)
	}
}

// endPostponedCall notes that a call of the item has come back: either it postponed the item, or
// that trouble is over.
func (it *queueItem) endPostponedCall() {
	if !it.postponed.isNew {
		it.postponed = postponement{}
	}
	it.postponed.isNew = false
}

func (it *queueItem) isPostponed(now time.Time) bool { return now.Before(it.postponed.until) }

// isEdited says whether somebody else than the operator made the later of two versions
// of a task.
func isEdited(before, after *v1alpha1.PrefetchTask) bool {
	return before.UID != after.UID || before.Generation != after.Generation ||
		before.ResourceVersion != after.ResourceVersion && equality.Semantic.DeepEqual(before.Status, after.Status)
}
