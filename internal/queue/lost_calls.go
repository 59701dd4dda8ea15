package queue

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// lostCall holds the tasks of a call of unknown outcome. Once the operator knows that
// EdgeOne did not execute the call, the queue bisects its tasks as after a rejection: one
// of them may be what makes calls fail. After a restart, the number of lost calls in
// their status keeps these tasks apart from others.
type lostCall struct {
	parts []lostPart
	open  map[types.NamespacedName]bool // tasks that still carry the claim
	at    time.Time
	due   bool // a timer will split the call soon
}

// lostPart is a task's share of a lost call, with the run that the call was for.
type lostPart struct {
	key       types.NamespacedName
	uid       types.UID
	run       string
	positions taskstate.Positions
}

// isSameRun says whether the task is still in the run that the call was for.
func (p lostPart) isSameRun(task *v1alpha1.PrefetchTask) bool {
	return task.UID == p.uid && task.Status.Run == p.run && !taskstate.IsNewRun(task)
}

// splitPatience is how long settled tasks wait for the other tasks of their call.
const splitPatience = 10 * time.Second

// TrackLostCall records that the outcome of the call is unknown. Its tasks keep their
// claim. The call counts towards maxUnknownCalls of its lane, unless it is a test.
func (q *Queue) TrackLostCall(call *Call, claimID string, tasks []*v1alpha1.PrefetchTask, now time.Time) {
	q.ReserveURLs(claimID, call.Lane.ZoneID, call.URLs, now)
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
		q.lostCalls[claimID] = lost
	}
	q.separateTenants(call, now)
	if c := q.reservations[claimID]; c.lane == nil && !call.test {
		c.lane = q.splitLane(call)
		c.lane.unknownCalls++
	}
	q.finishCall(call, tasks, now)
}

// splitLane returns the lane in which a call of unknown outcome counts. If all tasks are
// in one namespace, it is that namespace's own lane, so that the shared lane stays
// usable.
func (q *Queue) splitLane(call *Call) *laneState {
	key := call.Lane
	if names := call.namespaces(); len(names) == 1 {
		key.apart = names[0]
	}
	return q.laneForKey(key)
}

// settlePart records that a task of a lost call no longer carries its claim. The queue
// splits the call when all of its tasks are settled, or splitPatience after the first.
func (q *Queue) settlePart(key types.NamespacedName, now time.Time) {
	id := q.holders[key].claim
	lost := q.lostCalls[id]
	if lost == nil || !lost.open[key] {
		return
	}
	delete(lost.open, key)
	q.returnedCalls[key] = lost
	switch {
	case len(lost.open) == 0:
		delete(q.lostCalls, id)
		q.settledCalls = append(q.settledCalls, lost)
	case !lost.due:
		lost.due = true
		q.runAt(now.Add(splitPatience), func(time.Time) {
			lost.due = false
			q.settledCalls = append(q.settledCalls, lost)
		})
	}
}

// markListAway records that the target list of a task from an unexecuted call is no
// longer in memory. The other tasks of the call do not wait for it.
func (q *Queue) markListAway(key types.NamespacedName) {
	lost := q.returnedCalls[key]
	if lost == nil {
		return
	}
	delete(q.returnedCalls, key)
	for _, part := range lost.parts {
		if part.key == key {
			q.awaitingLists[key] = &lostCall{parts: []lostPart{part}, at: lost.at}
		}
	}
}

// markListLoaded queues such a task for bisection once its target list is in memory
// again.
func (q *Queue) markListLoaded(key types.NamespacedName) {
	if lost := q.awaitingLists[key]; lost != nil {
		delete(q.awaitingLists, key)
		q.returnedCalls[key] = lost
		q.settledCalls = append(q.settledCalls, lost)
	}
}

// bisectSettledCalls splits all calls in settledCalls into suspect groups.
func (q *Queue) bisectSettledCalls(now time.Time) {
	for len(q.settledCalls) > 0 {
		lost := q.settledCalls[0]
		q.settledCalls = q.settledCalls[1:]
		q.bisectLostCall(lost, now)
	}
}

// takeUnexecuted returns the parts of an unexecuted call whose tasks still wait for the
// same targets. It returns the other open targets of these tasks as groups.
func (q *Queue) takeUnexecuted(lost *lostCall, now time.Time) (parts []CallPart, others []suspectGroup) {
	for _, part := range lost.parts {
		it := q.items[part.key]
		if q.returnedCalls[part.key] != lost {
			continue
		}
		delete(q.returnedCalls, part.key)
		if it == nil || it.inFlight || it.blocked || it.queue != nil {
			continue
		}
		var open, tried taskstate.Positions
		if part.isSameRun(it.task) && taskstate.IsWaiting(it.task) {
			open = taskstate.OpenPositions(it.task)
			tried = part.positions.Intersect(open)
		}
		if len(tried) == 0 {
			q.placeItem(it, it.task, taskstate.IsWaiting(it.task), now)
			continue
		}
		parts = append(parts, CallPart{it.task, tried, it})
		if rest := open.Minus(tried); len(rest) > 0 {
			others = append(others, markSuspects([]CallPart{{it.task, rest, it}}))
		}
	}
	return parts, others
}

// bisectLostCall splits an unexecuted call into suspect groups. A single URL whose calls
// are lost repeatedly is not tested at once, but 2 × SettleTime after the lost call.
func (q *Queue) bisectLostCall(lost *lostCall, now time.Time) {
	parts, others := q.takeUnexecuted(lost, now)
	if len(parts) == 0 {
		return
	}
	q.lastTestAt = now // queued tasks go first
	for _, part := range parts {
		part.item.lane = q.laneForKey(part.item.lane.BatchKey) // an unused lane may have been dropped
	}
	l := parts[0].item.lane
	q.queueSuspectsLast(l, others...)
	if len(parts) == 1 && q.countDistinctURLs(parts[0]) == 1 && taskstate.HasRepeatedLosses(parts[0].Task) {
		q.postponeGroup(l, markSuspects(parts), lost.at.Add(2*q.limits.SettleTime))
		return
	}
	q.queueSuspectsLast(l, q.splitParts(parts)...)
}
