package queue

import (
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// suspectGroup is a part of a call that failed as a whole. It is tried apart from all others.
type suspectGroup []suspect

// suspect is a task's part in a group. It counts only while the item's trial is
// the one it was made for: an edit acquits, and may be followed by a new suspicion.
type suspect struct {
	item      *queueItem
	trial     int
	positions taskstate.Positions
	tries     int // how often this single target could not be sent
}

func (s suspect) isCurrent() bool { return s.trial == s.item.trial && !s.item.deleted }

// BisectRejected tells that EdgeOne refused the whole call for something in it. The
// tasks are halved, and then the targets of a single task, until what is wrong
// stands alone; neighbours are submitted on the way. A call of one URL is not for
// this: that URL's refusal is to be recorded, and Refused and Accepted told.
func (q *Queue) BisectRejected(call *Call, tasks []*v1alpha1.PrefetchTask, now time.Time) {
	q.endBackOffs(call, now)
	q.queueSuspectsFirst(call.lane, q.splitParts(call.Parts)...)
	q.finishCall(call, tasks, now)
}

// BisectCutOff tells that the path to EdgeOne took a part of the call and not the whole: a
// proxy limits the size of requests, say. What shared the call is tried again by
// halves, behind all others. A single target that cannot be sent waits for itself
// alone, longer each time.
func (q *Queue) BisectCutOff(call *Call, tasks []*v1alpha1.PrefetchTask, why taskstate.Cause, now time.Time) {
	if len(call.suspects) == 0 { // what its tasks have beyond the call does not wait for it
		for _, part := range call.Parts {
			if rest := taskstate.OpenPositions(part.Task).Minus(part.Positions); len(rest) > 0 {
				q.queueSuspectsLast(call.lane, markSuspects([]CallPart{{part.Task, rest, part.item}}))
			}
		}
	}
	if len(call.URLs) > 1 {
		q.queueSuspectsLast(call.lane, q.splitParts(call.Parts)...)
		q.lastTestAt = now // who stands in line goes first
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

// splitParts makes groups of what shared a call: of halves of the tasks, or of the
// targets of the only task. All spellings of a URL are in one group, and a single URL
// is one group.
func (q *Queue) splitParts(parts []CallPart) []suspectGroup {
	if n := len(parts); n > 1 {
		return []suspectGroup{markSuspects(parts[:n/2]), markSuspects(parts[n/2:])}
	}
	part, targets := parts[0], taskstate.DistinctTargets(parts[0].Task)
	urls := q.countDistinctURLs(part)
	first, second := part, part
	first.Positions, second.Positions = nil, nil
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

// countDistinctURLs is how many URLs a part has, in however many spellings.
func (q *Queue) countDistinctURLs(part CallPart) int {
	urls, targets := q.newURLSet(), taskstate.DistinctTargets(part.Task)
	for _, i := range part.Positions {
		urls.insert(targets[i])
	}
	return urls.len()
}

// markSuspects makes a group of parts. An item is out of line while it is in a group.
func markSuspects(parts []CallPart) suspectGroup {
	g := make(suspectGroup, len(parts))
	for i, part := range parts {
		part.item.suspectGroups++
		g[i] = suspect{item: part.item, trial: part.item.trial, positions: part.Positions}
	}
	return g
}

// queueSuspectsFirst puts groups first in the lane's list of what is to be tried: what a
// rejection concerns is found out soonest that way.
func (q *Queue) queueSuspectsFirst(l *laneState, groups ...suspectGroup) {
	l.suspects = slices.Concat(groups, l.suspects)
	q.listLaneWithSuspects(l)
}

// queueSuspectsLast puts groups behind all others that are to be tried in the lane.
func (q *Queue) queueSuspectsLast(l *laneState, groups ...suspectGroup) {
	l.suspects = append(l.suspects, groups...)
	q.listLaneWithSuspects(l)
}

func (q *Queue) listLaneWithSuspects(l *laneState) {
	if !l.suspectsListed {
		l.suspectsListed = true
		q.lanesWithSuspects = append(q.lanesWithSuspects, l)
	}
}

// postponeGroup has a group tried at a time, behind all others.
func (q *Queue) postponeGroup(l *laneState, g suspectGroup, until time.Time) {
	l.setAsideGroup(&g)
	q.runAt(until, func(time.Time) { q.resumeGroup(l, &g) })
}

// setAsideBlocked sets the members of a group aside that share a URL with a call of unknown
// outcome, until that is settled, and returns the others.
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

// setAsideGroup keeps a group from being tried until it is resumed.
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

// maxLanesScanned bounds what one decision costs where many lanes have suspects that
// have to wait.
const maxLanesScanned = 256

// planNextTest decides about the next group to try, lane by lane in turn, or says when
// one may be tried: at most a quarter of the account's calls go to what others did wrong.
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
	if len(q.lanesWithSuspects) > maxLanesScanned {
		return Decision{}, false, now.Add(50 * time.Millisecond)
	}
	return Decision{}, false, time.Time{}
}

// planGroup makes a call of the first group of a lane that has something to try.
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

// planTestCall makes a call of a group, or records its refusal where that is known.
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
		q.queueSuspectsFirst(l, g) // what is not refused comes next
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
		if urls.len() >= size { // the zone takes less than it did
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

// clearGroup takes the members of a group off suspicion as far as the group goes.
// Those under no other suspicion stand in line again, unless their call does that.
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

// clearSuspect takes an item off all suspicion: what it asks for has changed.
func (q *Queue) clearSuspect(it *queueItem) {
	it.suspectGroups, it.backOff, it.verdict = 0, backOff{}, rejectionRecord{}
	it.trial++
}

// rejectionRecord is what EdgeOne's answers say about a task as a whole.
type rejectionRecord struct {
	way, url string // of the first target that was refused alone
	taken    bool   // EdgeOne took a target: the task as a whole is not refused
	refusal  string // why EdgeOne would refuse each target; "" if it may take some
}

// RecordRejection tells that EdgeOne refused the only URL of a call. Where it complains of the
// request and not of a target, what is wrong may be what all targets of the task
// share, such as a header. Two different URLs refused in the same way, and none
// accepted, are evidence for that: then the others are refused without asking.
func (q *Queue) RecordRejection(call *Call, way, message string, aboutTarget bool) {
	call.refused = true
	for _, part := range call.Parts {
		v := &part.item.verdict
		url := q.limits.Normalize(call.URLs[0])
		switch {
		case aboutTarget || v.taken:
		case v.way != way:
			v.way, v.url = way, url
			call.lane.reverseSuspects(part.item)
		case v.url != url:
			v.refusal = message
		}
	}
}

// reverseSuspects has the groups of an item tried in the reverse order. Halving finds neighbours
// one after the other, and neighbours may well be wrong in the same way. The witness for
// the rest is looked for where most of the rest is.
func (l *laneState) reverseSuspects(it *queueItem) {
	var at []int
	for i, g := range l.suspects {
		if slices.ContainsFunc(g, func(s suspect) bool { return s.item == it && s.isCurrent() }) {
			at = append(at, i)
		}
	}
	for i, j := 0, len(at)-1; i < j; i, j = i+1, j-1 {
		l.suspects[at[i]], l.suspects[at[j]] = l.suspects[at[j]], l.suspects[at[i]]
	}
}

// splitRejected splits an item's open positions into those that may be asked for and those
// that EdgeOne is known to refuse, with its words.
func (q *Queue) splitRejected(it *queueItem, l *laneState, open taskstate.Positions, targets []string, now time.Time) (rest, bad taskstate.Positions, message string) {
	if it.verdict.refusal != "" {
		return nil, taskstate.OpenPositions(it.task), it.verdict.refusal
	}
	return l.pool.splitRefusedHosts(open, targets, q.limits.Normalize, now)
}
