package schedule

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// lostCall is what shared a call of unknown outcome. Once it is known that EdgeOne did
// not execute the call, its tasks are tried again by halves, as after a rejection: one
// of them may be what makes calls fail. After a restart the number of lost calls in
// their status keeps them apart from others.
type lostCall struct {
	parts []lostPart
	open  map[types.NamespacedName]bool // tasks that still carry the claim
	at    time.Time
	due   bool // to be split soon
}

type lostPart struct {
	key       types.NamespacedName
	uid       types.UID
	run       string
	positions Positions
}

// splitPatience is how long tasks that are settled wait for the others of their call.
const splitPatience = 10 * time.Second

// Lost tells that nobody knows what became of the call. Its tasks keep their claim.
func (q *Queue) Lost(call *Call, claimID string, tasks []*v1alpha1.PrefetchTask, now time.Time) {
	q.Hold(claimID, call.Lane.ZoneID, call.URLs, now)
	lost := &lostCall{open: map[types.NamespacedName]bool{}, at: now}
	for i, task := range tasks {
		part := call.Parts[i]
		if task == nil || part.item.deleted {
			continue
		}
		q.trackClaim(part.item.key, task, now)
		if q.holders[part.item.key].claim == claimID {
			lost.open[part.item.key] = true
			lost.parts = append(lost.parts, lostPart{part.item.key, task.UID, task.Status.Run, part.Positions})
		}
	}
	if len(lost.open) > 0 {
		q.lost[claimID] = lost
	}
	q.keepApart(call, now)
	if c := q.claims[claimID]; c.lane == nil && !call.test {
		c.lane = q.ownLane(call)
		c.lane.unknown++
	}
	q.finish(call, tasks, now)
}

// ownLane is the lane that a call of unknown outcome counts in: where all tasks are of
// one namespace, that which it has for itself.
func (q *Queue) ownLane(call *Call) *lane {
	key := call.Lane
	if names := call.namespaces(); len(names) == 1 {
		key.apart = names[0]
	}
	return q.lane(key)
}

// settle notes that a task of a lost call carries its claim no more.
func (q *Queue) settle(key types.NamespacedName, now time.Time) {
	id := q.holders[key].claim
	lost := q.lost[id]
	if lost == nil || !lost.open[key] {
		return
	}
	delete(lost.open, key)
	q.returned[key] = lost
	switch {
	case len(lost.open) == 0:
		delete(q.lost, id)
		q.settled = append(q.settled, lost)
	case !lost.due:
		lost.due = true
		q.expireAt(now.Add(splitPatience), func(time.Time) {
			lost.due = false
			q.settled = append(q.settled, lost)
		})
	}
}

// setAway notes that the list of a task of a call that was not executed is out of memory:
// the others of its call do not wait for it. comeBack has it tried by halves when the
// list is here again.
func (q *Queue) setAway(key types.NamespacedName) {
	lost := q.returned[key]
	if lost == nil {
		return
	}
	delete(q.returned, key)
	for _, part := range lost.parts {
		if part.key == key {
			q.away[key] = &lostCall{parts: []lostPart{part}, at: lost.at}
		}
	}
}

func (q *Queue) comeBack(key types.NamespacedName) {
	if lost := q.away[key]; lost != nil {
		delete(q.away, key)
		q.returned[key] = lost
		q.settled = append(q.settled, lost)
	}
}

// splitLost makes groups of the tasks of calls that were not executed.
func (q *Queue) splitLost(now time.Time) {
	for len(q.settled) > 0 {
		lost := q.settled[0]
		q.settled = q.settled[1:]
		q.split(lost, now)
	}
}

func (q *Queue) split(lost *lostCall, now time.Time) {
	var parts []Part
	var others []group // targets of the tasks that the call did not have
	for _, part := range lost.parts {
		it := q.items[part.key]
		if q.returned[part.key] != lost {
			continue
		}
		delete(q.returned, part.key)
		if it == nil || it.inFlight || it.parked || it.strand != nil {
			continue
		}
		same := it.task.UID == part.uid && it.task.Status.Run == part.run && Waiting(it.task) && !NewRun(it.task)
		var open, tried Positions
		if same {
			open = Open(it.task)
			tried = part.positions.in(open)
		}
		if len(tried) == 0 {
			q.place(it, it.task, Waiting(it.task), now)
			continue
		}
		parts = append(parts, Part{it.task, tried, it})
		if rest := open.Minus(tried); len(rest) > 0 {
			others = append(others, accuse([]Part{{it.task, rest, it}}))
		}
	}
	if len(parts) == 0 {
		return
	}
	q.lastTest = now // who stands in line goes first
	for _, part := range parts {
		part.item.lane = q.lane(part.item.lane.Lane) // nobody used it, so it may have been forgotten
	}
	l := parts[0].item.lane
	q.suspectLast(l, others...)
	if len(parts) == 1 && q.distinct(parts[0]) == 1 && OftenLost(parts[0].Task) {
		q.postpone(l, accuse(parts), lost.at.Add(2*q.limits.SettleTime))
		return
	}
	q.suspectLast(l, q.halve(parts)...)
}
