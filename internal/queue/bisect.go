package queue

import (
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// suspectGroup is a part of a call that failed as a whole. The queue tests it separately
// from all other tasks.
type suspectGroup []suspect

// suspect is a task's part in a group. It counts only while its trial equals the trial of
// the item: an edit of the task clears the suspicion, and a new suspicion may follow.
type suspect struct {
	item      *queueItem
	trial     int
	positions taskstate.Positions
	tries     int // failed attempts to send this single target
}

// isCurrent says whether the suspicion still applies to the item.
func (s suspect) isCurrent() bool { return s.trial == s.item.trial && !s.item.deleted }

// BisectRejected records that EdgeOne refused a whole call because of something in it.
// The queue halves the tasks, and then the targets of a single task, until the cause is
// isolated. The other targets are submitted on the way. For a call of one URL, record the
// refusal in the status and call RecordRejection and RecordAccepted instead.
func (q *Queue) BisectRejected(call *Call, tasks []*v1alpha1.PrefetchTask, now time.Time) {
	q.endBackOffs(call, now)
	q.queueSuspectsFirst(call.lane, q.splitParts(call.Parts)...)
	q.finishCall(call, tasks, now)
}

// BisectCutOff records that the network path to EdgeOne passed on a part of the call and
// not the whole; for example, a proxy limits the size of requests. The queue tests the
// halves of the call behind all other groups. A single target that cannot be sent waits
// alone, twice as long after each attempt, up to maxPostponed.
func (q *Queue) BisectCutOff(call *Call, tasks []*v1alpha1.PrefetchTask, why taskstate.Cause, now time.Time) {
	if len(call.suspects) == 0 { // other targets of the tasks do not wait for these
		for _, part := range call.Parts {
			if rest := taskstate.OpenPositions(part.Task).Minus(part.Positions); len(rest) > 0 {
				q.queueSuspectsLast(call.lane, markSuspects([]CallPart{{part.Task, rest, part.item}}))
			}
		}
	}
	if len(call.URLs) > 1 {
		q.queueSuspectsLast(call.lane, q.splitParts(call.Parts)...)
		q.lastTestAt = now // queued tasks go first
		q.finishCall(call, tasks, now)
		return
	}
	g, tries := markSuspects(call.Parts), 0
	if len(call.suspects) > 0 {
		tries = call.suspects[0].tries
	}
	until := now.Add(min(time.Second<<min(tries, 20), maxPostponed))
	for i := range g {
		g[i].tries = tries + 1
		g[i].item.backOff = g[i].item.backOff.extend(why, now, until)
		q.reportLater(g[i].item, now)
	}
	q.postponeGroup(call.lane, g, until)
	q.finishCall(call, tasks, now)
}

// splitParts splits a call into groups: the halves of its tasks, or the halves of the
// targets of its only task. All spellings of a URL go to the same group, so a single URL
// makes a single group.
func (q *Queue) splitParts(parts []CallPart) []suspectGroup {
	if n := len(parts); n > 1 {
		return []suspectGroup{markSuspects(parts[:n/2]), markSuspects(parts[n/2:])}
	}
	part, targets := parts[0], taskstate.DistinctTargets(parts[0].Task)
	urls := q.countDistinctURLs(part)
	first, second := part, part
	first.Positions, second.Positions = nil, nil
	// order numbers the distinct URLs; the first half of them goes to the first group.
	order := map[string]int{}
	for _, i := range part.Positions {
		u := q.limits.Normalize(targets[i])
		if _, ok := order[u]; !ok {
			order[u] = len(order)
		}
		if order[u] < urls/2 {
			first.Positions = append(first.Positions, i)
		} else {
			second.Positions = append(second.Positions, i)
		}
	}
	if len(first.Positions) == 0 {
		return []suspectGroup{markSuspects(parts)}
	}
	return []suspectGroup{markSuspects([]CallPart{first}), markSuspects([]CallPart{second})}
}

// countDistinctURLs returns the number of URLs in a part. All spellings of a URL count
// once.
func (q *Queue) countDistinctURLs(part CallPart) int {
	urls, targets := q.newURLSet(), taskstate.DistinctTargets(part.Task)
	for _, i := range part.Positions {
		urls.insert(targets[i])
	}
	return urls.len()
}

// markSuspects makes a group of parts. While an item is in a group, it is not in its
// namespace queue.
func markSuspects(parts []CallPart) suspectGroup {
	g := make(suspectGroup, len(parts))
	for i, part := range parts {
		part.item.suspectGroups++
		g[i] = suspect{item: part.item, trial: part.item.trial, positions: part.Positions}
	}
	return g
}

// queueSuspectsFirst puts groups ahead of all others in the lane. This order isolates the
// cause of a rejection soonest.
func (q *Queue) queueSuspectsFirst(l *laneState, groups ...suspectGroup) {
	l.suspects = slices.Concat(groups, l.suspects)
	q.listLaneWithSuspects(l)
}

// queueSuspectsLast puts groups behind all others in the lane.
func (q *Queue) queueSuspectsLast(l *laneState, groups ...suspectGroup) {
	l.suspects = append(l.suspects, groups...)
	q.listLaneWithSuspects(l)
}

// listLaneWithSuspects adds the lane to the rotation of lanes with suspects, once.
func (q *Queue) listLaneWithSuspects(l *laneState) {
	if !l.suspectsListed {
		l.suspectsListed = true
		q.lanesWithSuspects = append(q.lanesWithSuspects, l)
	}
}

// postponeGroup keeps a group from being tested until a time, and then puts it behind all
// others.
func (q *Queue) postponeGroup(l *laneState, g suspectGroup, until time.Time) {
	l.setAsideGroup(&g)
	q.runAt(until, func(time.Time) { q.resumeGroup(l, &g) })
}

// setAsideBlocked sets aside the members of a group that share a URL with a call of
// unknown outcome, until that call is settled. It returns the other members.
func (q *Queue) setAsideBlocked(l *laneState, g suspectGroup) (free suspectGroup) {
	blocked := map[*reservation]suspectGroup{}
	for _, s := range g {
		if c := q.findReservation(s.item, s.positions.Intersect(taskstate.OpenPositions(s.item.task)), taskstate.DistinctTargets(s.item.task)); c != nil {
			blocked[c] = append(blocked[c], s)
		} else {
			free = append(free, s)
		}
	}
	for c, waiting := range blocked {
		l.setAsideGroup(&waiting)
		c.onRelease = append(c.onRelease, func() { q.resumeGroup(l, &waiting) })
	}
	return free
}

// setAsideGroup keeps a group from being tested until resumeGroup.
func (l *laneState) setAsideGroup(g *suspectGroup) {
	if l.postponed == nil {
		l.postponed = map[*suspectGroup]bool{}
	}
	l.postponed[g] = true
}

// resumeGroup puts a group that was set aside behind all others.
func (q *Queue) resumeGroup(l *laneState, g *suspectGroup) {
	delete(l.postponed, g)
	q.queueSuspectsLast(l, *g)
}

// maxLanesScanned bounds the cost of one decision when many lanes have suspects that must
// wait.
const maxLanesScanned = 256

// planNextTest plans a test of the next group, lane by lane in turn, or returns when the
// next test is allowed. Tests use at most a quarter of the account's calls, so that the
// faults of some tasks do not slow down all others.
func (q *Queue) planNextTest(now time.Time) (decision Decision, found bool, at time.Time) {
	at = q.lastTestAt.Add(4 * time.Second / time.Duration(max(1, q.limits.QPS)))
	for range min(len(q.lanesWithSuspects), maxLanesScanned) {
		l := q.lanesWithSuspects[0]
		if q.lanesWithSuspects = q.lanesWithSuspects[1:]; len(l.suspects) == 0 {
			l.suspectsListed = false
			q.dropLane(l, now)
			continue
		}
		q.lanesWithSuspects = append(q.lanesWithSuspects, l)
		if l.testInFlight || l.isBackedOff(now) {
			continue
		}
		if now.Before(at) {
			return Decision{}, false, at
		}
		if decision, stop := q.checkQuota(l, now); stop {
			if decision.ReadQuota != "" {
				return decision, true, at
			}
			continue
		}
		if call := q.planGroup(l, now); call != nil {
			if call.Refusal == "" {
				q.lastTestAt = now
			}
			return Decision{Call: call}, true, at
		}
	}
	// Some lanes were not scanned: continue soon.
	if len(q.lanesWithSuspects) > maxLanesScanned {
		return Decision{}, false, now.Add(50 * time.Millisecond)
	}
	return Decision{}, false, time.Time{}
}

// planGroup plans a call of the lane's first group that has something to test. It waits
// while a member of the group is in another call.
func (q *Queue) planGroup(l *laneState, now time.Time) *Call {
	for len(l.suspects) > 0 {
		g := l.suspects[0]
		if slices.ContainsFunc(g, func(s suspect) bool { return s.isCurrent() && s.item.inFlight }) {
			return nil
		}
		l.suspects = l.suspects[1:]
		if call := q.planTestCall(l, g, now); call != nil {
			return call
		}
	}
	return nil
}

// planTestCall plans a call of a group. If EdgeOne is known to refuse some of the group's
// targets, it returns a refusal of those targets instead.
func (q *Queue) planTestCall(l *laneState, g suspectGroup, now time.Time) *Call {
	g = q.setAsideBlocked(l, slices.DeleteFunc(g, func(s suspect) bool { return !s.isCurrent() }))
	refusal := &Call{Lane: l.BatchKey, lane: l}
	for _, s := range g {
		open, targets := s.positions.Intersect(taskstate.OpenPositions(s.item.task)), taskstate.DistinctTargets(s.item.task)
		if _, bad, message := q.splitRejected(s.item, l, open, targets, now); len(bad) > 0 {
			refusal.addRefused(s.item, bad, message)
		}
	}
	if len(refusal.Parts) > 0 {
		q.queueSuspectsFirst(l, g) // the other targets come next
		return refusal
	}
	call := &Call{Lane: l.BatchKey, lane: l, test: true, Sequence: q.sequence}
	urls, size := q.newURLSet(), l.callSize(q.limits, now)
	for i, s := range g {
		open, targets := s.positions.Intersect(taskstate.OpenPositions(s.item.task)), taskstate.DistinctTargets(s.item.task)
		if len(open) == 0 {
			call.suspects = append(call.suspects, s)
			continue
		}
		if urls.len() >= size { // the zone accepts fewer URLs per call than before
			q.queueSuspectsFirst(l, g[i:])
			break
		}
		s.item.inFlight = true
		s.positions = call.addPart(s.item, open, targets, urls, size)
		call.suspects = append(call.suspects, s)
		if rest := open.Minus(s.positions); len(rest) > 0 {
			s.item.suspectGroups++
			q.queueSuspectsFirst(l, append(suspectGroup{{item: s.item, trial: s.trial, positions: rest}}, g[i+1:]...))
			break
		}
	}
	if len(call.Parts) == 0 {
		q.clearGroup(call.suspects, now)
		return nil
	}
	l.testInFlight = true
	return call
}

// clearGroup clears the members of a group of this suspicion. A member that is under no
// other suspicion returns to its namespace queue, unless it is in a call: the end of that
// call returns it.
func (q *Queue) clearGroup(g suspectGroup, now time.Time) {
	for _, s := range g {
		if !s.isCurrent() {
			continue
		}
		if s.item.suspectGroups--; s.item.suspectGroups == 0 && !s.item.inFlight {
			q.placeItem(s.item, s.item.task, taskstate.IsWaiting(s.item.task), now)
		}
	}
}

// clearSuspect clears an item of all suspicions, because what its task asks for has
// changed. The new trial number makes the item's existing groups ignore it.
func (q *Queue) clearSuspect(it *queueItem) {
	it.suspectGroups, it.backOff, it.verdict = 0, backOff{}, rejectionRecord{}
	it.trial++
}
