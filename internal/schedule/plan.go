package schedule

import (
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// Decision is what to do next; exactly one field is set, or only Wait.
type Decision struct {
	// Call is to be made, or, if it has a Refusal, to be recorded without asking.
	Call *Call
	// ReadQuota is a zone whose quota is to be read and told by SetQuota.
	ReadQuota string
	// Wait is when to ask again if nothing happens; 0 is not at all.
	Wait time.Duration
}

// Call is one planned call. Its tasks are out of the queue until it is told what
// became of it by Accepted, Lost, Rejected or Released.
type Call struct {
	Lane  Lane
	Parts []Part
	// URLs are the distinct targets of all parts.
	URLs []string
	// Refusal is why EdgeOne would refuse these targets, if that is known.
	Refusal string

	lane  *lane
	test  bool  // it tries suspects
	group group // those
}

// Part is what a task has in a call.
type Part struct {
	Task      *v1alpha1.PrefetchTask
	Positions Positions
	item      *item
}

// Next plans one thing to do.
func (q *Queue) Next(now time.Time) Decision {
	if q.account.at(now) {
		return Decision{Wait: q.account.until.Sub(now)}
	}
	q.expire(now)
	call, test := q.nextSuspects(now)
	if call != nil {
		return Decision{Call: call}
	}
	for len(q.ring) > 0 {
		ns := q.ring[0]
		q.ring = q.ring[1:]
		if len(ns.ready) == 0 {
			ns.inRing = false
			continue
		}
		q.ring = append(q.ring, ns)
		first := ns.ready[0]
		l := first.lane
		if q.refresh(l, now); !l.ready {
			continue
		}
		if l.pool.needsQuota(now, q.limits.QuotaInterval) {
			l.pool.reading = true
			q.refresh(l, now)
			return Decision{ReadQuota: l.ZoneID}
		}
		if l.pool.left == 0 && !l.pool.edge {
			q.holdPool(l.pool, dailyQuota, now, l.pool.readAt.Add(q.limits.QuotaInterval))
			continue
		}
		if call := q.fill(first, now); call != nil {
			return Decision{Call: call}
		}
	}
	next := q.nextExpiry
	if !test.IsZero() && (next.IsZero() || test.Before(next)) {
		next = test
	}
	if next.IsZero() {
		return Decision{}
	}
	return Decision{Wait: max(next.Sub(now), time.Millisecond)}
}

// fill makes a call of the lane, starting with the given strand's oldest task and
// going on with the lane's namespaces in turn.
func (q *Queue) fill(first *strand, now time.Time) *Call {
	l := first.lane
	call := &Call{Lane: l.Lane, lane: l}
	size, tasks := l.size(q.limits), max(1, q.limits.TasksPerCall>>l.lost)
	if q.account.probe || l.pool.hold.probe {
		tasks = 1 // trouble may not be over: a probe should cost one claim, not 500
	}
	if i := slices.Index(l.turn, first); i > 0 {
		l.turn = slices.Concat(l.turn[i:], l.turn[:i])
	}
	urls := make(map[string]bool, size)
	for len(l.turn) > 0 && len(call.Parts) < tasks && len(urls) < size {
		s := l.turn[0]
		l.turn = append(l.turn[1:], s)
		it := s.items[0]
		targets, open := Targets(it.task), Open(it.task)
		if q.park(it, open, targets) {
			continue
		}
		open, bad, message := l.pool.refused(open, targets, now)
		if len(bad) > 0 {
			if len(call.Parts) > 0 {
				break // its turn comes right after this call
			}
			q.take(it)
			it.inFlight = true
			call.Refusal = message
			call.Parts = []Part{{it.task, bad, it}}
			return call // asks for nothing, so the lane is not busy
		}
		q.take(it)
		it.inFlight = true
		call.add(it, open, targets, urls, size)
	}
	if len(call.Parts) == 0 {
		return nil
	}
	l.busy = true
	q.refresh(l, now)
	return call
}

// add puts as many of the item's open targets into the call as fit. A URL that
// another task already brought costs nothing.
func (c *Call) add(it *item, open Positions, targets []string, urls map[string]bool, size int) {
	part := Part{Task: it.task, item: it}
	for _, i := range open {
		u := targets[i]
		if !urls[u] {
			if len(urls) >= size {
				continue
			}
			urls[u] = true
			c.URLs = append(c.URLs, u)
		}
		part.Positions = append(part.Positions, i)
	}
	c.Parts = append(c.Parts, part)
}

// Accepted tells that EdgeOne took the call and charged so many URLs, or that
// its refusal is recorded. Tasks are the newest versions by part, nil where a
// task is gone.
func (q *Queue) Accepted(call *Call, tasks []*v1alpha1.PrefetchTask, charged int, now time.Time) {
	if p := call.lane.pool; call.Refusal == "" {
		held := p.hold.Reason != ""
		p.spent(charged, len(call.URLs))
		call.lane.hold, q.account = hold{}, hold{}
		for l := range p.lanes {
			if !held {
				break
			}
			q.refresh(l, now)
		}
	}
	q.finish(call, tasks, now)
}

// Lost tells that nobody knows what became of the call. Its tasks keep their
// claim, and the lane backs off when there are several such calls.
func (q *Queue) Lost(call *Call, claimID string, tasks []*v1alpha1.PrefetchTask, now time.Time) {
	q.Hold(claimID, call.Lane.ZoneID, call.URLs)
	for i, task := range tasks {
		if task != nil && !call.Parts[i].item.deleted {
			q.trackClaim(call.Parts[i].item.key, task, now)
		}
	}
	if c := q.claims[claimID]; c.lane == nil {
		c.lane = call.lane
		call.lane.unknown++
	}
	q.finish(call, tasks, now)
}

// Released tells that the call was certainly not executed.
func (q *Queue) Released(call *Call, tasks []*v1alpha1.PrefetchTask, now time.Time) {
	if call.group != nil { // suspects are not cleared by a call that was not made
		q.suspect(call.lane, call.group)
		call.group = nil
	}
	q.finish(call, tasks, now)
}

// finish takes the tasks of a call back.
func (q *Queue) finish(call *Call, tasks []*v1alpha1.PrefetchTask, now time.Time) {
	l := call.lane
	q.cleared(call.group)
	switch {
	case call.test:
		l.testing = false
	case call.Refusal == "":
		l.busy = false
	}
	for i, part := range call.Parts {
		it := part.item
		it.inFlight = false
		if it.deleted || tasks[i] == nil {
			q.remove(it)
			continue
		}
		task := Newest(tasks[i], it.task)
		if waits, tell := Waiting(task), mustTell(task); waits || tell {
			q.place(it, task, waits, now)
			if tell {
				q.sayNow(it)
			}
		} else {
			it.task = task
			q.remove(it)
		}
	}
	q.refresh(l, now)
	q.drop(l)
}
