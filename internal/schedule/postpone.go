package schedule

import (
	"time"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// postponement keeps one task out of calls for trouble of its own.
type postponement struct {
	Why
	until time.Time
	times int  // in a row
	isNew bool // the call that it comes from has not come back
	firm  bool // no edit ends it
}

// maxPostponed bounds how long a task is postponed.
const maxPostponed = 10 * time.Minute

// Postpone keeps the task of a call out of further calls for a while, for trouble of its
// own: each time for twice as long, and only until somebody changes the task. Those that
// share its lane go on. It is to be told before the call's outcome.
func (q *Queue) Postpone(part Part, why Why, now time.Time) {
	it := part.item
	wait := time.Second
	if why.Person {
		wait = q.limits.StallAfter
	}
	times := it.postponed.times
	q.PostponeUntil(part, why, now.Add(min(wait<<min(times, 10), maxPostponed)))
	it.postponed.times, it.postponed.firm = times+1, false
}

// PostponeUntil is Postpone until a time that no edit of the task brings nearer.
func (q *Queue) PostponeUntil(part Part, why Why, until time.Time) {
	it := part.item
	it.postponed = postponement{Why: why, until: until, isNew: true, firm: true}
	q.postponed[it] = true
	q.expireAt(it.postponed.until, func(now time.Time) { q.endPostponed(it, now) })
	q.acquit(it) // a group of suspects does not wait for it
}

// endPostponed puts an item in line whose time is over.
func (q *Queue) endPostponed(it *item, now time.Time) {
	if q.postponed[it] && !it.isPostponed(now) && !it.inFlight { // else its place is found when the call comes back
		q.place(it, it.task, Waiting(it.task), now)
	}
}

// callEnded notes that a call of the item has come back: either it postponed the item, or
// that trouble is over.
func (it *item) callEnded() {
	if !it.postponed.isNew {
		it.postponed = postponement{}
	}
	it.postponed.isNew = false
}

func (it *item) isPostponed(now time.Time) bool { return now.Before(it.postponed.until) }

// isEdited says whether somebody else than the operator made the later of two versions
// of a task.
func isEdited(before, after *v1alpha1.PrefetchTask) bool {
	return before.UID != after.UID || before.Generation != after.Generation ||
		before.ResourceVersion != after.ResourceVersion && equality.Semantic.DeepEqual(before.Status, after.Status)
}
