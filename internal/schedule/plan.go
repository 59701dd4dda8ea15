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
	// Planned is when the call was planned.
	Planned time.Time
	// Turn orders calls that are planned and wait for a slot: the lowest goes first.
	Turn int64

	lane    *lane
	test    bool  // it tries suspects
	group   group // those
	probe   bool  // it tries whether the account works again
	refused bool  // EdgeOne refused its only URL
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
	if q.probing {
		return Decision{} // its answer tells
	}
	q.expire(now)
	q.splitLost(now)
	q.now = now
	q.dropIdle(now)
	if read := q.nextRead(now); read.ReadQuota != "" {
		return read
	}
	decision, found, test := q.nextSuspects(now)
	if !found {
		decision, found = q.nextInLine(now)
	}
	if found {
		if call := decision.Call; call != nil {
			call.Planned = now
			if call.Refusal == "" && q.account.probe {
				call.probe, q.probing = true, true
			}
		}
		return decision
	}
	next := q.expiries.next()
	if !test.IsZero() && (next.IsZero() || test.Before(next)) {
		next = test
	}
	if next.IsZero() {
		return Decision{}
	}
	return Decision{Wait: max(next.Sub(now), time.Millisecond)}
}

// Turn is that of the next call in line, unless there is none. Calls that are planned
// already and have later turns are to let it go first.
func (q *Queue) Turn() (turn int64, ok bool) {
	if ns := q.first(); ns != nil {
		return ns.turn, true
	}
	return 0, false
}

// Sent tells that a call goes out now.
func (q *Queue) Sent(call *Call) { q.turn = max(q.turn, call.Turn) }

// nextInLine plans a call of the namespace whose turn it is.
func (q *Queue) nextInLine(now time.Time) (decision Decision, found bool) {
	for ns := q.first(); ns != nil; ns = q.first() {
		first, turn := ns.ready[0], ns.turn
		l := first.lane
		if q.refresh(l, now); !l.ready {
			continue
		}
		if decision, stop := q.metered(l, now); stop {
			if decision.ReadQuota != "" {
				return decision, true
			}
			continue
		}
		if call := q.fill(first, now); call != nil {
			if call.Turn = turn; call.Refusal == "" {
				q.stand(ns, turn+1)
			}
			return Decision{Call: call}, true
		}
	}
	return Decision{}, false
}

// Held says whether what has happened since the call was planned keeps its lane
// from a call now.
func (q *Queue) Held(call *Call, now time.Time) bool {
	return slices.ContainsFunc(q.holds(call.lane), func(h *hold) bool { return h.at(now) })
}

// QuotaUnread tells that reading a zone's quota failed in a way that is worth
// another try before any call.
func (q *Queue) QuotaUnread(zoneID string, now time.Time) {
	q.reads.ended(zoneID)
	q.reading(zoneID, false, now)
}

// reading keeps both modes of a zone waiting while its quota is read.
func (q *Queue) reading(zoneID string, underWay bool, now time.Time) {
	for _, edge := range []bool{false, true} {
		if p := q.pools[poolKey{zoneID, edge}]; p != nil {
			p.reading = underWay
			q.refreshAll(p, now)
		}
	}
}

// metered stops a lane whose zone has no quota left, or none that is known.
func (q *Queue) metered(l *lane, now time.Time) (decision Decision, stop bool) {
	switch p := l.pool; {
	case q.needsQuota(p, now):
		q.reading(l.ZoneID, true, now)
		q.queueRead(p)
		return q.nextRead(now), true
	case p.left == 0 && !p.edge:
		q.holdPool(p, dailyQuota, now, p.readAt.Add(q.limits.QuotaInterval))
		return Decision{}, true
	}
	return Decision{}, false
}

// fill makes a call of the lane, starting with the given strand's oldest task and
// going on with the lane's namespaces in turn.
func (q *Queue) fill(first *strand, now time.Time) *Call {
	l := first.lane
	call := &Call{Lane: l.Lane, lane: l}
	size, tasks := l.size(q.limits, now), max(1, q.tasksPerCall()>>l.lost)
	if slices.ContainsFunc(q.holds(l), func(h *hold) bool { return h.probe }) {
		tasks = 1 // trouble may not be over: a probe should cost one claim, not 500
	}
	refusal := &Call{Lane: l.Lane, lane: l}
	if i := slices.Index(l.turn, first); i > 0 {
		l.turn = slices.Concat(l.turn[i:], l.turn[:i])
	}
	urls := q.newURLSet()
	for len(l.strands) > 0 && len(call.Parts) < tasks && len(refusal.Parts) < tasks {
		s := l.turn[0]
		if len(s.items) == 0 {
			l.turn = l.turn[1:]
			continue
		}
		l.turn = append(l.turn[1:], s)
		it := s.items[0]
		targets, open := Targets(it.task), Open(it.task)
		if q.park(it, open, targets) {
			continue
		}
		open, bad, message := q.refused(it, l, open, targets, now)
		if len(bad) > 0 && len(call.Parts) > 0 || len(bad) == 0 && len(refusal.Parts) > 0 {
			break // its turn comes right after this call
		}
		if urls.len() >= size && (len(bad) > 0 || !urls.has(targets[open[0]])) {
			break // the call is full, and only takes those who want what it has
		}
		if len(bad) > 0 {
			if !refusal.refuse(it, bad, message) {
				break
			}
			q.take(it)
			continue
		}
		q.take(it)
		it.inFlight = true
		call.add(it, open, targets, urls, size)
	}
	switch {
	case len(refusal.Parts) > 0:
		return refusal // asks for nothing, so the lane is not busy
	case len(call.Parts) == 0:
		q.refresh(l, now)
		q.drop(l, now)
		return nil
	}
	l.busy = true
	if l.pool.hold.probe {
		l.pool.prober = l
		q.refreshAll(l.pool, now)
	}
	if l.tenant != nil && l.tenant.hold.probe {
		l.tenant.prober = l
		q.refreshTenant(l.tenant, now)
	}
	q.refresh(l, now)
	return call
}

// refuse adds targets that EdgeOne is known to refuse. What it refuses in other
// words does not fit in.
func (c *Call) refuse(it *item, bad Positions, message string) bool {
	if len(c.Parts) > 0 && c.Refusal != message {
		return false
	}
	it.inFlight = true
	c.Refusal = message
	c.Parts = append(c.Parts, Part{it.task, bad, it})
	return true
}

// add puts as many of the item's open targets into the call as fit. A URL that is
// in it already, whatever way it is written in, costs nothing: the first spelling
// is sent. It returns the positions.
func (c *Call) add(it *item, open Positions, targets []string, urls urlSet, size int) Positions {
	part := Part{Task: it.task, item: it}
	for _, i := range open {
		u := targets[i]
		if !urls.has(u) {
			if urls.len() >= size {
				continue
			}
			urls.add(u)
			c.URLs = append(c.URLs, u)
		}
		part.Positions = append(part.Positions, i)
	}
	c.Parts = append(c.Parts, part)
	return part.Positions
}

// urlSet is a set of URLs, in which all spellings of one are one.
type urlSet struct {
	normalize func(string) string
	seen      map[string]bool
}

func (q *Queue) newURLSet() urlSet { return urlSet{q.limits.Normalize, map[string]bool{}} }

func (s urlSet) has(u string) bool { return s.seen[s.normalize(u)] }
func (s urlSet) add(u string)      { s.seen[s.normalize(u)] = true }
func (s urlSet) len() int          { return len(s.seen) }

// Accepted tells that EdgeOne took the call and charged so many URLs, or that
// its refusal is recorded. Tasks are the newest versions by part, nil where a
// task is gone.
func (q *Queue) Accepted(call *Call, tasks []*v1alpha1.PrefetchTask, charged int, now time.Time) {
	if p := call.lane.pool; call.Refusal == "" {
		p.spent(charged, len(call.URLs), q.limits.Batch)
		q.answered(call, now)
		if !call.refused {
			q.accepted(call, now)
		}
		if q.tasks > 0 && len(call.Parts) >= q.tasks {
			q.tasks *= 2
		}
		if p.hold.Reason != "" && !p.hold.at(now) {
			p.hold, p.prober = hold{}, nil
			q.refreshAll(p, now)
		}
		if t := call.lane.tenant; t != nil && t.hold.Reason != "" && !t.hold.at(now) {
			t.hold, t.prober = hold{}, nil
			q.refreshTenant(t, now)
		}
	}
	q.finish(call, tasks, now)
}

// TooSlow tells that claiming the call's tasks took so long that its signature
// was too old to send. Calls get smaller until the API server keeps up.
func (q *Queue) TooSlow(call *Call) {
	q.tasks = max(1, len(call.Parts)/2)
}

func (q *Queue) tasksPerCall() int {
	if q.tasks == 0 {
		return q.limits.TasksPerCall
	}
	return min(q.tasks, q.limits.TasksPerCall)
}

// answered ends what is remembered of trouble with the account and the lane: the
// call reached EdgeOne. A hold that another call has brought since goes on.
func (q *Queue) answered(call *Call, now time.Time) {
	if !q.account.at(now) {
		q.account = hold{}
	}
	if !call.lane.hold.at(now) {
		call.lane.hold = hold{}
	}
}

// Released tells that the call was certainly not executed.
func (q *Queue) Released(call *Call, tasks []*v1alpha1.PrefetchTask, now time.Time) {
	if call.group != nil { // suspects are not cleared by a call that was not made
		q.suspectFirst(call.lane, call.group)
		call.group = nil
	}
	q.finish(call, tasks, now)
}

// finish takes the tasks of a call back.
func (q *Queue) finish(call *Call, tasks []*v1alpha1.PrefetchTask, now time.Time) {
	l := call.lane
	q.Sent(call) // or its turn is over without: its namespace has had it, and falls no further behind
	if call.probe {
		q.probing = false
	}
	if l.pool.prober == l && call.Refusal == "" && !call.test {
		l.pool.prober = nil
		q.refreshAll(l.pool, now)
	}
	if t := l.tenant; t != nil && t.prober == l && call.Refusal == "" && !call.test {
		t.prober = nil
		q.refreshTenant(t, now)
	}
	q.cleared(call.group, now)
	switch {
	case call.test:
		l.testing = false
	case call.Refusal == "":
		l.busy = false
	}
	for i, part := range call.Parts {
		it := part.item
		it.inFlight = false
		it.callEnded()
		task := tasks[i]
		if task == nil {
			q.letGo(it.key, now)
			q.remove(it, now)
			continue
		}
		it.deleted = false
		q.trackClaim(it.key, task, now)
		if it.suspects > 0 && (task.UID != part.Task.UID || Run(task) != Run(part.Task)) {
			q.acquit(it) // it was edited in flight
		}
		if waits, tell := Waiting(task), mustTell(task); waits || tell || isAway(task) {
			q.place(it, task, waits, now)
			q.sayIf(it, tell, now)
		} else {
			it.task = task
			q.remove(it, now)
		}
	}
	q.refresh(l, now)
	q.drop(l, now)
}
