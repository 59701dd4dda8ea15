package schedule

import (
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// group is what shared a rejected call and is tried apart from all others.
type group []suspect

// suspect is a task's part in a group. It counts only while the item's trial is
// the one it was made for: an edit acquits, and may be followed by a new suspicion.
type suspect struct {
	item      *item
	trial     int
	positions Positions
}

func (s suspect) valid() bool { return s.trial == s.item.trial && !s.item.deleted }

// Rejected tells that EdgeOne refused the whole call for something in it. The
// tasks are halved, and then the targets of a single task, until what is wrong
// stands alone; neighbours are submitted on the way. A call of one URL is not for
// this: that URL's refusal is to be recorded, and Accepted told.
func (q *Queue) Rejected(call *Call, tasks []*v1alpha1.PrefetchTask, now time.Time) {
	q.answered(call, now)
	if n := len(call.Parts); n > 1 {
		q.suspect(call.lane, accuse(call.Parts[:n/2]), accuse(call.Parts[n/2:]))
	} else {
		first, second := call.Parts[0], call.Parts[0]
		half := len(first.Positions) / 2
		first.Positions, second.Positions = first.Positions[:half], first.Positions[half:]
		q.suspect(call.lane, accuse([]Part{first}), accuse([]Part{second}))
	}
	q.finish(call, tasks, now)
}

// accuse makes a group of parts. An item is out of line while it is in a group.
func accuse(parts []Part) group {
	g := make(group, len(parts))
	for i, part := range parts {
		part.item.suspects++
		g[i] = suspect{part.item, part.item.trial, part.Positions}
	}
	return g
}

// suspect puts groups first in the lane's list of what is to be tried.
func (q *Queue) suspect(l *lane, groups ...group) {
	l.suspects = slices.Concat(groups, l.suspects)
	q.suspicious[l] = true
}

// nextSuspects decides about the next group to try, or says when one may be
// tried: at most a quarter of the account's calls go to what others did wrong.
func (q *Queue) nextSuspects(now time.Time) (decision Decision, found bool, at time.Time) {
	at = q.lastTest.Add(4 * time.Second / time.Duration(max(1, q.limits.QPS)))
	for l := range q.suspicious {
		if len(l.suspects) == 0 {
			delete(q.suspicious, l)
			q.drop(l, now)
			continue
		}
		if l.testing || l.hold.at(now) || l.pool.waits(now) {
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
		for len(l.suspects) > 0 {
			g := l.suspects[0]
			if slices.ContainsFunc(g, func(s suspect) bool { return s.valid() && s.item.inFlight }) {
				break
			}
			l.suspects = l.suspects[1:]
			if call := q.try(l, g, now); call != nil {
				if call.Refusal == "" {
					q.lastTest = now
				}
				return Decision{Call: call}, true, at
			}
		}
	}
	return Decision{}, false, time.Time{}
}

// try makes a call of a group, or records its refusal where that is known.
func (q *Queue) try(l *lane, g group, now time.Time) *Call {
	g = slices.DeleteFunc(g, func(s suspect) bool { return !s.valid() })
	refusal := &Call{Lane: l.Lane, lane: l}
	for _, s := range g {
		open, targets := s.positions.in(Open(s.item.task)), Targets(s.item.task)
		if _, bad, message := l.pool.refused(open, targets, now); len(bad) > 0 {
			refusal.refuse(s.item, bad, message)
		}
	}
	if len(refusal.Parts) > 0 {
		q.suspect(l, g) // what is not refused comes next
		return refusal
	}
	call := &Call{Lane: l.Lane, lane: l, test: true, Turn: q.turn}
	urls, size := map[string]bool{}, l.size(q.limits, now)
	for i, s := range g {
		open, targets := s.positions.in(Open(s.item.task)), Targets(s.item.task)
		if len(open) == 0 {
			call.group = append(call.group, s)
			continue
		}
		if len(urls) >= size { // the zone takes less than it did
			q.suspect(l, g[i:])
			break
		}
		s.item.inFlight = true
		s.positions = call.add(s.item, open, targets, urls, size)
		call.group = append(call.group, s)
		if rest := open.Minus(s.positions); len(rest) > 0 {
			s.item.suspects++
			q.suspect(l, append(group{{s.item, s.trial, rest}}, g[i+1:]...))
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
	it.suspects = 0
	it.trial++
}
