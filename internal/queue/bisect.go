package queue

import (
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// suspectGroup is a part of a call that failed as a whole. The queue tests each group in
// a call of its own, without other tasks.
type suspectGroup []suspect

// suspect is a task's part in a group. The suspicion applies only while its trial equals
// the item's trial. An edit of the task changes the item's trial and so clears the
// suspicion. The edited task can become a suspect again.
type suspect struct {
	item      *queueItem
	trial     int
	positions taskstate.Positions // the suspected targets
	tries     int                 // number of failed attempts to send a group of a single URL
}

// isCurrent reports whether the suspicion still applies to the item.
func (s suspect) isCurrent() bool { return s.trial == s.item.trial && !s.item.deleted }

// BisectRejected records that EdgeOne refused a whole call because of something in it.
// The queue halves the tasks, and then the targets of a single task, until it has
// isolated the cause. It submits the other targets on the way. For a call of one URL,
// record the refusal in the status and call RecordRejection and RecordAccepted instead.
func (q *Queue) BisectRejected(call *Call, tasks []*v1alpha1.PrefetchTask, now time.Time) {
	q.endBackOffs(call, now)
	q.queueSuspectsFirst(call.lane, q.splitParts(call.Parts)...)
	q.finishCall(call, tasks, now)
}

// BisectCutOff records that the network path to EdgeOne transmitted only a part of the
// call. For example, a proxy limits the size of requests. The queue tests the halves of
// the call after all other groups. A single URL that cannot be sent waits alone. Its wait
// starts at 1 s and doubles after each attempt, up to maxPostponed.
func (q *Queue) BisectCutOff(call *Call, tasks []*v1alpha1.PrefetchTask, why taskstate.Cause, now time.Time) {
	if len(call.suspects) == 0 { // the other targets of the tasks do not wait for these
		for _, part := range call.Parts {
			if rest := q.openPositions(part.Task).Minus(part.Positions); len(rest) > 0 {
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

// splitParts splits a call into two groups: the halves of its tasks, or the halves of the
// targets of its only task. All spellings of a URL go to the same group. If the parts have
// only one URL, splitParts returns a single group.
func (q *Queue) splitParts(parts []CallPart) []suspectGroup {
	if n := len(parts); n > 1 {
		if q.countDistinctURLs(parts...) == 1 {
			return []suspectGroup{markSuspects(parts)}
		}
		return []suspectGroup{markSuspects(parts[:n/2]), markSuspects(parts[n/2:])}
	}
	part, targets := parts[0], q.targetsOf(parts[0].Task)
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

// countDistinctURLs returns the number of URLs in parts. Different spellings of a URL count
// as one.
func (q *Queue) countDistinctURLs(parts ...CallPart) int {
	urls := q.newURLSet()
	for _, part := range parts {
		targets := q.targetsOf(part.Task)
		for _, i := range part.Positions {
			urls.insert(targets[i])
		}
	}
	return urls.len()
}

// markSuspects makes a suspect group of parts. An item in a group is in no namespace
// queue.
func markSuspects(parts []CallPart) suspectGroup {
	g := make(suspectGroup, len(parts))
	for i, part := range parts {
		part.item.suspectGroups++
		g[i] = suspect{item: part.item, trial: part.item.trial, positions: part.Positions}
	}
	return g
}

// queueSuspectsFirst puts groups before all other groups of the lane. This order isolates
// the cause of a rejection soonest.
func (q *Queue) queueSuspectsFirst(l *laneState, groups ...suspectGroup) {
	l.suspects = slices.Concat(groups, l.suspects)
	q.listLaneWithSuspects(l)
}

// queueSuspectsLast puts groups after all other groups of the lane.
func (q *Queue) queueSuspectsLast(l *laneState, groups ...suspectGroup) {
	l.suspects = append(l.suspects, groups...)
	q.listLaneWithSuspects(l)
}

// listLaneWithSuspects adds the lane to the rotation of lanes with suspects, unless it is
// already there.
func (q *Queue) listLaneWithSuspects(l *laneState) {
	if !l.suspectsListed {
		l.suspectsListed = true
		q.lanesWithSuspects = append(q.lanesWithSuspects, l)
	}
}

// postponeGroup sets a group aside until a time. The group then goes after all other
// groups.
func (q *Queue) postponeGroup(l *laneState, g suspectGroup, until time.Time) {
	l.setAsideGroup(&g)
	q.runAt(until, func(time.Time) { q.resumeGroup(l, &g) })
}

// setAsideBlocked sets aside the members of a group that share a URL with a call of
// unknown outcome. They wait until that call is settled. setAsideBlocked returns the
// other members.
func (q *Queue) setAsideBlocked(l *laneState, g suspectGroup) (free suspectGroup) {
	blocked := map[*reservation]suspectGroup{}
	for _, s := range g {
		if c := q.findReservation(s.item, s.positions.Intersect(q.openPositions(s.item.task)), q.targetsOf(s.item.task)); c != nil {
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

// setAsideGroup keeps a group from being tested until resumeGroup is called.
func (l *laneState) setAsideGroup(g *suspectGroup) {
	if l.postponed == nil {
		l.postponed = map[*suspectGroup]bool{}
	}
	l.postponed[g] = true
}

// resumeGroup puts a group that was set aside after all other groups of the lane.
func (q *Queue) resumeGroup(l *laneState, g *suspectGroup) {
	delete(l.postponed, g)
	q.queueSuspectsLast(l, *g)
}

// maxLanesScanned is the maximum number of lanes that one decision scans for a test. It
// bounds the cost of the decision when many lanes have suspects that must wait.
const maxLanesScanned = 256

// planNextTest plans a test of the next suspect group. Lanes with suspects take turns. If
// the rate limit delays the next test, planNextTest returns the time of that test. Tests
// use at most a quarter of the calls that EdgeOne allows per second, so that the faults
// of some tasks do not slow down all other tasks.
func (q *Queue) planNextTest(now time.Time) (decision Decision, found bool, at time.Time) {
	// A test every 4/QPS seconds is a quarter of the calls.
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
	// Some lanes were not scanned: decide again soon.
	if len(q.lanesWithSuspects) > maxLanesScanned {
		return Decision{}, false, now.Add(50 * time.Millisecond)
	}
	return Decision{}, false, time.Time{}
}

// planGroup plans a call of the lane's first group that still has something to test. It
// returns nil while a member of the first group is in another call.
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

// planTestCall plans a call that tests a group. If EdgeOne is known to refuse some of the
// group's targets, planTestCall returns a refusal of those targets instead. It returns
// nil if nothing in the group is left to test.
func (q *Queue) planTestCall(l *laneState, g suspectGroup, now time.Time) *Call {
	g = q.setAsideBlocked(l, slices.DeleteFunc(g, func(s suspect) bool { return !s.isCurrent() }))
	refusal := &Call{Lane: l.BatchKey, lane: l}
	for _, s := range g {
		open, targets := s.positions.Intersect(q.openPositions(s.item.task)), q.targetsOf(s.item.task)
		if _, bad, message := q.splitRejected(s.item, l, open, targets, now); len(bad) > 0 {
			refusal.addRefused(s.item, bad, message)
		}
	}
	if len(refusal.Parts) > 0 {
		q.queueSuspectsFirst(l, g) // the next plan tests the other targets
		return refusal
	}
	call := &Call{Lane: l.BatchKey, lane: l, test: true, Sequence: q.sequence}
	urls, size := q.newURLSet(), l.callSize(q.limits, now)
	for i, s := range g {
		open, targets := s.positions.Intersect(q.openPositions(s.item.task)), q.targetsOf(s.item.task)
		if len(open) == 0 {
			call.suspects = append(call.suspects, s)
			continue
		}
		if urls.len() >= size { // the zone accepts fewer URLs per call than before
			q.queueSuspectsFirst(l, g[i:])
			break
		}
		room := q.admitItem(s.item, now)
		if room <= 0 {
			continue
		}
		s.item.inFlight = true
		before := urls.len()
		s.positions = call.addPart(s.item, open, targets, urls, min(size, before+min(room, size)))
		q.planURLs(call, s.item.key.Namespace, urls.len()-before)
		q.takeFree(call, s.item, urls.len()-before)
		call.suspects = append(call.suspects, s)
		// The call is full: the rest of this task and of the group goes to the next test.
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

// clearGroup ends the suspicion against the members of a group. A member that is in no
// other group returns to its namespace queue. If the member is in a call, it returns when
// that call ends.
func (q *Queue) clearGroup(g suspectGroup, now time.Time) {
	for _, s := range g {
		if !s.isCurrent() {
			continue
		}
		if s.item.suspectGroups--; s.item.suspectGroups == 0 && !s.item.inFlight {
			q.placeItem(s.item, s.item.task, q.isWaiting(s.item.task), now)
		}
	}
}

// clearSuspect clears an item of all suspicions, of its own back-off and of EdgeOne's
// verdict. This is necessary when the task was edited, no longer waits, or is postponed.
// The new trial number invalidates the item's entries in existing groups.
func (q *Queue) clearSuspect(it *queueItem) {
	it.suspectGroups, it.backOff, it.verdict = 0, backOff{}, rejectionRecord{}
	it.trial++
}
