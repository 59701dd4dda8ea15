package schedule

import (
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// group is a part of a call that failed as a whole. It is tried apart from all others.
type group []suspect

// suspect is a task's part in a group. It counts only while the item's trial is
// the one it was made for: an edit acquits, and may be followed by a new suspicion.
type suspect struct {
	item      *item
	trial     int
	positions Positions
	tries     int // how often this single target could not be sent
}

func (s suspect) valid() bool { return s.trial == s.item.trial && !s.item.deleted }

// Rejected tells that EdgeOne refused the whole call for something in it. The
// tasks are halved, and then the targets of a single task, until what is wrong
// stands alone; neighbours are submitted on the way. A call of one URL is not for
// this: that URL's refusal is to be recorded, and Refused and Accepted told.
func (q *Queue) Rejected(call *Call, tasks []*v1alpha1.PrefetchTask, now time.Time) {
	q.answered(call, now)
	q.suspectFirst(call.lane, q.halve(call.Parts)...)
	q.finish(call, tasks, now)
}

// CutOff tells that the path to EdgeOne took a part of the call and not the whole: a
// proxy limits the size of requests, say. What shared the call is tried again by
// halves, behind all others. A single target that cannot be sent waits for itself
// alone, longer each time.
func (q *Queue) CutOff(call *Call, tasks []*v1alpha1.PrefetchTask, why Why, now time.Time) {
	if len(call.group) == 0 { // what its tasks have beyond the call does not wait for it
		for _, part := range call.Parts {
			if rest := Open(part.Task).Minus(part.Positions); len(rest) > 0 {
				q.suspectLast(call.lane, accuse([]Part{{part.Task, rest, part.item}}))
			}
		}
	}
	if len(call.URLs) > 1 {
		q.suspectLast(call.lane, q.halve(call.Parts)...)
		q.lastTest = now // who stands in line goes first
		q.finish(call, tasks, now)
		return
	}
	g, tries := accuse(call.Parts), 0
	if len(call.group) > 0 {
		tries = call.group[0].tries
	}
	until := now.Add(min(time.Second<<min(tries, 20), maxPostponed))
	for i := range g {
		g[i].tries = tries + 1
		g[i].item.hold = g[i].item.hold.renew(why, now, until)
		q.sayLater(g[i].item, now)
	}
	q.postpone(call.lane, g, until)
	q.finish(call, tasks, now)
}

// halve makes groups of what shared a call: of halves of the tasks, or of the
// targets of the only task. All spellings of a URL are in one group, and a single URL
// is one group.
func (q *Queue) halve(parts []Part) []group {
	if n := len(parts); n > 1 {
		return []group{accuse(parts[:n/2]), accuse(parts[n/2:])}
	}
	part, targets := parts[0], Targets(parts[0].Task)
	urls := q.distinct(part)
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
		return []group{accuse(parts)}
	}
	return []group{accuse([]Part{first}), accuse([]Part{second})}
}

// distinct is how many URLs a part has, in however many spellings.
func (q *Queue) distinct(part Part) int {
	urls, targets := q.newURLSet(), Targets(part.Task)
	for _, i := range part.Positions {
		urls.add(targets[i])
	}
	return urls.len()
}

// accuse makes a group of parts. An item is out of line while it is in a group.
func accuse(parts []Part) group {
	g := make(group, len(parts))
	for i, part := range parts {
		part.item.suspects++
		g[i] = suspect{item: part.item, trial: part.item.trial, positions: part.Positions}
	}
	return g
}

// suspectFirst puts groups first in the lane's list of what is to be tried: what a
// rejection concerns is found out soonest that way.
func (q *Queue) suspectFirst(l *lane, groups ...group) {
	l.suspects = slices.Concat(groups, l.suspects)
	q.listSuspicious(l)
}

// suspectLast puts groups behind all others that are to be tried in the lane.
func (q *Queue) suspectLast(l *lane, groups ...group) {
	l.suspects = append(l.suspects, groups...)
	q.listSuspicious(l)
}

func (q *Queue) listSuspicious(l *lane) {
	if !l.suspicious {
		l.suspicious = true
		q.suspicious = append(q.suspicious, l)
	}
}

// postpone has a group tried at a time, behind all others.
func (q *Queue) postpone(l *lane, g group, until time.Time) {
	l.setAside(&g)
	q.expireAt(until, func(time.Time) { q.resume(l, &g) })
}

// waitForClaims sets the members of a group aside that share a URL with a call of unknown
// outcome, until that is settled, and returns the others.
func (q *Queue) waitForClaims(l *lane, g group) (free group) {
	blocked := map[*claim]group{}
	for _, s := range g {
		if c := q.claimOn(s.item, s.positions.in(Open(s.item.task)), Targets(s.item.task)); c != nil {
			blocked[c] = append(blocked[c], s)
		} else {
			free = append(free, s)
		}
	}
	for c, waiting := range blocked {
		l.setAside(&waiting)
		c.resume = append(c.resume, func() { q.resume(l, &waiting) })
	}
	return free
}

// setAside keeps a group from being tried until it is resumed.
func (l *lane) setAside(g *group) {
	if l.postponed == nil {
		l.postponed = map[*group]bool{}
	}
	l.postponed[g] = true
}

// resume puts a group that was set aside behind all others.
func (q *Queue) resume(l *lane, g *group) {
	delete(l.postponed, g)
	q.suspectLast(l, *g)
}

// lanesLookedAt bounds what one decision costs where many lanes have suspects that
// have to wait.
const lanesLookedAt = 256

// nextSuspects decides about the next group to try, lane by lane in turn, or says when
// one may be tried: at most a quarter of the account's calls go to what others did wrong.
func (q *Queue) nextSuspects(now time.Time) (decision Decision, found bool, at time.Time) {
	at = q.lastTest.Add(4 * time.Second / time.Duration(max(1, q.limits.QPS)))
	for range min(len(q.suspicious), lanesLookedAt) {
		l := q.suspicious[0]
		if q.suspicious = q.suspicious[1:]; len(l.suspects) == 0 {
			l.suspicious = false
			q.drop(l, now)
			continue
		}
		q.suspicious = append(q.suspicious, l)
		if l.testing || l.waits(now) {
			continue
		}
		if now.Before(at) {
			return Decision{}, false, at
		}
		if decision, stop := q.metered(l, now); stop {
			if decision.ReadQuota != "" {
				return decision, true, at
			}
			continue
		}
		if call := q.nextGroup(l, now); call != nil {
			if call.Refusal == "" {
				q.lastTest = now
			}
			return Decision{Call: call}, true, at
		}
	}
	if len(q.suspicious) > lanesLookedAt {
		return Decision{}, false, now.Add(50 * time.Millisecond)
	}
	return Decision{}, false, time.Time{}
}

// nextGroup makes a call of the first group of a lane that has something to try.
func (q *Queue) nextGroup(l *lane, now time.Time) *Call {
	for len(l.suspects) > 0 {
		g := l.suspects[0]
		if slices.ContainsFunc(g, func(s suspect) bool { return s.valid() && s.item.inFlight }) {
			return nil
		}
		l.suspects = l.suspects[1:]
		if call := q.try(l, g, now); call != nil {
			return call
		}
	}
	return nil
}

// try makes a call of a group, or records its refusal where that is known.
func (q *Queue) try(l *lane, g group, now time.Time) *Call {
	g = q.waitForClaims(l, slices.DeleteFunc(g, func(s suspect) bool { return !s.valid() }))
	refusal := &Call{Lane: l.Lane, lane: l}
	for _, s := range g {
		open, targets := s.positions.in(Open(s.item.task)), Targets(s.item.task)
		if _, bad, message := q.refused(s.item, l, open, targets, now); len(bad) > 0 {
			refusal.refuse(s.item, bad, message)
		}
	}
	if len(refusal.Parts) > 0 {
		q.suspectFirst(l, g) // what is not refused comes next
		return refusal
	}
	call := &Call{Lane: l.Lane, lane: l, test: true, Turn: q.turn}
	urls, size := q.newURLSet(), l.size(q.limits, now)
	for i, s := range g {
		open, targets := s.positions.in(Open(s.item.task)), Targets(s.item.task)
		if len(open) == 0 {
			call.group = append(call.group, s)
			continue
		}
		if urls.len() >= size { // the zone takes less than it did
			q.suspectFirst(l, g[i:])
			break
		}
		s.item.inFlight = true
		s.positions = call.add(s.item, open, targets, urls, size)
		call.group = append(call.group, s)
		if rest := open.Minus(s.positions); len(rest) > 0 {
			s.item.suspects++
			q.suspectFirst(l, append(group{{item: s.item, trial: s.trial, positions: rest}}, g[i+1:]...))
			break
		}
	}
	if len(call.Parts) == 0 {
		q.cleared(call.group, now)
		return nil
	}
	l.testing = true
	return call
}

// cleared takes the members of a group off suspicion as far as the group goes.
// Those under no other suspicion stand in line again, unless their call does that.
func (q *Queue) cleared(g group, now time.Time) {
	for _, s := range g {
		if !s.valid() {
			continue
		}
		if s.item.suspects--; s.item.suspects == 0 && !s.item.inFlight {
			q.place(s.item, s.item.task, Waiting(s.item.task), now)
		}
	}
}

// acquit takes an item off all suspicion: what it asks for has changed.
func (q *Queue) acquit(it *item) {
	it.suspects, it.hold, it.verdict = 0, hold{}, verdict{}
	it.trial++
}

// verdict is what EdgeOne's answers say about a task as a whole.
type verdict struct {
	way, url string // of the first target that was refused alone
	taken    bool   // EdgeOne took a target: the task as a whole is not refused
	refusal  string // why EdgeOne would refuse each target; "" if it may take some
}

// Refused tells that EdgeOne refused the only URL of a call. Where it complains of the
// request and not of a target, what is wrong may be what all targets of the task
// share, such as a header. Two different URLs refused in the same way, and none
// accepted, are evidence for that: then the others are refused without asking.
func (q *Queue) Refused(call *Call, way, message string, aboutTarget bool) {
	call.refused = true
	for _, part := range call.Parts {
		v := &part.item.verdict
		url := q.limits.Normalize(call.URLs[0])
		switch {
		case aboutTarget || v.taken:
		case v.way != way:
			v.way, v.url = way, url
			call.lane.reverse(part.item)
		case v.url != url:
			v.refusal = message
		}
	}
}

// reverse has the groups of an item tried in the reverse order. Halving finds neighbours
// one after the other, and neighbours may well be wrong in the same way. The witness for
// the rest is looked for where most of the rest is.
func (l *lane) reverse(it *item) {
	var at []int
	for i, g := range l.suspects {
		if slices.ContainsFunc(g, func(s suspect) bool { return s.item == it && s.valid() }) {
			at = append(at, i)
		}
	}
	for i, j := 0, len(at)-1; i < j; i, j = i+1, j-1 {
		l.suspects[at[i]], l.suspects[at[j]] = l.suspects[at[j]], l.suspects[at[i]]
	}
}

// refused splits an item's open positions into those that may be asked for and those
// that EdgeOne is known to refuse, with its words.
func (q *Queue) refused(it *item, l *lane, open Positions, targets []string, now time.Time) (rest, bad Positions, message string) {
	if it.verdict.refusal != "" {
		return nil, Open(it.task), it.verdict.refusal
	}
	return l.pool.refused(open, targets, q.limits.Normalize, now)
}
