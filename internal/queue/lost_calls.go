package queue

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// lostCall holds the tasks of a call of unknown outcome. When the operator finds that
// EdgeOne did not execute the call, the queue bisects its tasks as after a rejection,
// because one of them may make calls fail. After a restart, the number of lost calls in
// the statuses keeps these tasks apart from others.
type lostCall struct {
	claimID string
	parts   []lostPart
	open    map[types.NamespacedName]bool // tasks that still carry the claim
	at      time.Time                     // when the outcome became unknown
	waiting []*queueItem                  // items that wait for the outcome, because they have the same URLs
	due     bool                          // a timer will split the call soon
}

// lostPart is a task's share of a lost call, with the run that the call was for.
type lostPart struct {
	key       types.NamespacedName
	uid       types.UID
	run       string
	positions taskstate.Positions
}

// isSameRun reports whether the task is still in the run that the call was for.
func (p lostPart) isSameRun(task *v1alpha1.PrefetchTask) bool {
	return task.UID == p.uid && task.Status.Run == p.run && !taskstate.IsNewRun(task)
}

// splitPatience is how long the settled tasks of a lost call wait for its other tasks.
const splitPatience = 10 * time.Second

// TrackLostCall records that the outcome of the call is unknown. tasks holds the newest
// version of each part's task, or nil if the task is gone. The tasks keep their claim.
// The call counts towards maxUnknownCalls of its lane, unless it is a test.
func (q *Queue) TrackLostCall(call *Call, claimID string, tasks []*v1alpha1.PrefetchTask, now time.Time) {
	q.reserve(reservation{id: claimID, zoneID: call.Lane.ZoneID, purge: call.Lane.PurgeType}, call.URLs, now)
	q.loseReservation(claimID, now)
	lost := &lostCall{claimID: claimID, open: map[types.NamespacedName]bool{}, at: now}
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

// splitLane returns the lane in which a call of unknown outcome counts. If all tasks of
// the call are in one namespace, this is the namespace's own lane, so that the shared
// lane stays usable.
func (q *Queue) splitLane(call *Call) *laneState {
	key := call.Lane
	if names := call.namespaces(); len(names) == 1 {
		key.apart = names[0]
	}
	return q.laneForKey(key)
}

// settlePart records that a task of a lost call no longer carries the claim. The queue
// splits the call when all of its tasks are settled, or splitPatience after the first
// task was settled.
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

// markListAway records that the target list of a task from a lost call is no longer in
// memory. The other tasks of the call do not wait for the list.
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

// markListLoaded queues a task that markListAway recorded for bisection, once its target
// list is in memory again.
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

// takeUnexecuted returns the parts of an unexecuted call that are still to be submitted:
// the task is in the same run, and some of the part's targets are open. The other open
// targets of these tasks are returned as groups. Tasks without such targets return to
// their namespace queues.
func (q *Queue) takeUnexecuted(lost *lostCall, now time.Time) (parts []CallPart, others []suspectGroup) {
	for _, part := range lost.parts {
		it := q.items[part.key]
		if q.returnedCalls[part.key] != lost {
			continue
		}
		delete(q.returnedCalls, part.key)
		if it == nil || it.inFlight || it.blockedBy != nil || it.queue != nil {
			continue
		}
		var open, tried taskstate.Positions
		if part.isSameRun(it.task) && q.isWaiting(it.task) && it.denied.Reason == "" {
			open = q.openPositions(it.task)
			tried = part.positions.Intersect(open)
		}
		if len(tried) == 0 {
			q.placeItem(it, it.task, q.isWaiting(it.task), now)
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
// are lost repeatedly waits until 2 × SettleTime after the lost call before it is tested
// again.
func (q *Queue) bisectLostCall(lost *lostCall, now time.Time) {
	parts, others := q.takeUnexecuted(lost, now)
	if len(parts) == 0 {
		q.placeWaiting(lost, now)
		return
	}
	q.lastTestAt = now // delay the next test: queued tasks go first
	for _, part := range parts {
		part.item.lane = q.laneForKey(part.item.lane.BatchKey) // the lane may have been dropped while unused
	}
	l := parts[0].item.lane
	q.queueSuspectsLast(l, others...)
	groups := q.splitParts(parts)
	q.joinWaiting(lost, l, groups, now)
	isRepeated := slices.ContainsFunc(parts, func(part CallPart) bool { return taskstate.HasRepeatedLosses(part.Task) })
	if len(groups) == 1 && isRepeated && q.countDistinctURLs(parts...) == 1 {
		q.postponeGroup(l, groups[0], lost.at.Add(2*q.limits.SettleTime))
		return
	}
	q.queueSuspectsLast(l, groups...)
}

// takeWaiting returns the items that still wait for a lost call to be bisected.
func (q *Queue) takeWaiting(lost *lostCall) (items []*queueItem) {
	for _, it := range lost.waiting {
		if q.returnedCalls[it.key] != lost {
			continue
		}
		delete(q.returnedCalls, it.key)
		if q.items[it.key] == it && !it.inFlight && it.blockedBy == nil && it.queue == nil {
			items = append(items, it)
		}
	}
	return items
}

// placeWaiting returns the items that wait for a lost call to the queue.
func (q *Queue) placeWaiting(lost *lostCall, now time.Time) {
	for _, it := range q.takeWaiting(lost) {
		q.placeItem(it, it.task, q.isWaiting(it.task), now)
	}
}

// joinWaiting adds the items that wait for a lost call to the groups that test its URLs, so
// that each URL is in one call. Items in other lanes, without a common URL, or beyond the
// size of a call return to the queue.
func (q *Queue) joinWaiting(lost *lostCall, l *laneState, groups []suspectGroup, now time.Time) {
	groupOf := map[string]int{}
	for g, group := range groups {
		for _, s := range group {
			targets := q.targetsOf(s.item.task)
			for _, i := range s.positions {
				groupOf[q.limits.Normalize(targets[i])] = g
			}
		}
	}
	for _, it := range q.takeWaiting(lost) {
		shared, key := map[int]taskstate.Positions{}, q.laneKeyOf(it.task, now)
		key.lost = l.lost // it may share the call, as it has the same URLs
		if q.isWaiting(it.task) && !it.isKeptOut(now) && key == l.BatchKey {
			targets := q.targetsOf(it.task)
			for _, i := range q.openPositions(it.task) {
				if g, ok := groupOf[q.limits.Normalize(targets[i])]; ok && len(groups[g]) < q.tasksPerCall() {
					shared[g] = append(shared[g], i)
				}
			}
		}
		if len(shared) == 0 {
			q.placeItem(it, it.task, q.isWaiting(it.task), now)
			continue
		}
		it.lane = l
		q.reportLater(it, now) // its status still says that it waits for the lost call
		for g, positions := range shared {
			groups[g] = append(groups[g], markSuspects([]CallPart{{it.task, positions, it}})...)
		}
	}
}
