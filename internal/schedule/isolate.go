package schedule

import (
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// group is what shared a rejected call and is tried apart from all others.
type group []*suspect

type suspect struct {
	item      *item
	positions Positions
}

// Rejected tells that EdgeOne refused the whole call for something in it. The
// tasks are halved, and then the targets of a single task, until what is wrong
// stands alone; neighbours are submitted on the way. A call of one URL is not for
// this: that URL's refusal is to be recorded, and Accepted told.
func (q *Queue) Rejected(call *Call, tasks []*v1alpha1.PrefetchTask, now time.Time) {
	var halves []group
	if n := len(call.Parts); n > 1 {
		halves = []group{suspects(call.Parts[:n/2]), suspects(call.Parts[n/2:])}
	} else {
		part := call.Parts[0]
		half := len(part.Positions) / 2
		halves = []group{
			{{part.item, part.Positions[:half]}},
			{{part.item, part.Positions[half:]}},
		}
	}
	l := call.lane
	for _, g := range halves {
		for _, s := range g {
			s.item.suspects++
		}
	}
	q.suspect(l, halves...)
	q.finish(call, tasks, now)
}

// suspect puts groups first in the lane's list of what is to be tried.
func (q *Queue) suspect(l *lane, groups ...group) {
	l.suspects = slices.Concat(groups, l.suspects)
	q.suspicious[l] = true
}

func suspects(parts []Part) group {
	g := make(group, len(parts))
	for i, part := range parts {
		g[i] = &suspect{part.item, part.Positions}
	}
	return g
}

// nextSuspects returns the next group to try, or when one may be tried: at most a
// quarter of the account's calls go to what others did wrong.
func (q *Queue) nextSuspects(now time.Time) (call *Call, at time.Time) {
	at = q.lastTest.Add(4 * time.Second / time.Duration(max(1, q.limits.QPS)))
	for l := range q.suspicious {
		if len(l.suspects) == 0 {
			delete(q.suspicious, l)
			continue
		}
		if l.testing || l.hold.at(now) || l.pool.hold.at(now) || l.pool.left == 0 && !l.pool.edge {
			continue
		}
		if now.Before(at) {
			return nil, at
		}
		for len(l.suspects) > 0 {
			g := l.suspects[0]
			if slices.ContainsFunc(g, func(s *suspect) bool { return s.item.inFlight }) {
				break
			}
			l.suspects = l.suspects[1:]
			if call := q.try(l, g, now); call != nil {
				if call.Refusal == "" {
					q.lastTest = now
				}
				return call, at
			}
		}
	}
	return nil, time.Time{}
}

// try makes a call of a group, or records its refusal where that is known.
func (q *Queue) try(l *lane, g group, now time.Time) *Call {
	call := &Call{Lane: l.Lane, lane: l, test: true}
	urls := map[string]bool{}
	for _, s := range g {
		if s.item.deleted || s.item.lane != l || s.item.suspects == 0 {
			continue
		}
		targets := Targets(s.item.task)
		open := s.positions.Minus(s.positions.Minus(Open(s.item.task)))
		open, bad, message := l.pool.refused(open, targets, now)
		if len(bad) > 0 {
			q.suspect(l, g) // the rest of it comes next
			s.item.inFlight = true
			call.Refusal, call.Parts, call.URLs, call.test = message, []Part{{s.item.task, bad, s.item}}, nil, false
			for _, part := range g {
				if part != s && part.item.inFlight && !s.item.deleted {
					part.item.inFlight = false
				}
			}
			return call
		}
		if len(open) > 0 {
			s.item.inFlight = true
			call.add(s.item, open, targets, urls, len(urls)+len(open))
		}
	}
	if len(call.Parts) == 0 {
		q.cleared(g)
		for _, s := range g {
			if !s.item.deleted && s.item.suspects == 0 && q.items[s.item.key] == s.item {
				q.place(s.item, s.item.task, Waiting(s.item.task), now)
			}
		}
		return nil
	}
	call.group = g
	l.testing = true
	return call
}

// cleared takes the members of a group off suspicion as far as it goes.
func (q *Queue) cleared(g group) {
	for _, s := range g {
		if s.item.suspects > 0 {
			s.item.suspects--
		}
	}
}

// acquit takes an item off all suspicion: what it asks for has changed.
func (q *Queue) acquit(it *item) { it.suspects = 0 }
