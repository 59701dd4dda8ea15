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
	Lane  BatchKey
	Parts []CallPart
	// URLs are the distinct targets of all parts.
	URLs []string
	// Refusal is why EdgeOne would refuse these targets, if that is known.
	Refusal string
	// Planned is when the call was planned.
	Planned time.Time
	// Sequence orders calls that are planned and wait for a slot: the lowest goes first.
	Sequence int64

	lane     *laneState
	test     bool         // it tries suspects
	suspects suspectGroup // those
	probe    bool         // it tries whether the account works again
	refused  bool         // EdgeOne refused its only URL
}

// CallPart is what a task has in a call.
type CallPart struct {
	Task      *v1alpha1.PrefetchTask
	Positions Positions
	item      *queueItem
}

// PlanNext plans one thing to do.
func (q *Queue) PlanNext(now time.Time) Decision {
	if q.accountBackOff.isActive(now) {
		return Decision{Wait: q.accountBackOff.until.Sub(now)}
	}
	if q.probeInFlight {
		return Decision{} // its answer tells
	}
	q.runDueTimers(now)
	q.bisectSettledCalls(now)
	q.now = now
	q.dropIdleNamespaces(now)
	if read := q.planQuotaRead(now); read.ReadQuota != "" {
		return read
	}
	decision, found, test := q.planNextTest(now)
	if !found {
		decision, found = q.planNextCall(now)
	}
	if found {
		if call := decision.Call; call != nil {
			call.Planned = now
			if call.Refusal == "" && q.accountBackOff.probe {
				call.probe, q.probeInFlight = true, true
			}
		}
		return decision
	}
	next := q.timers.nextTime()
	if !test.IsZero() && (next.IsZero() || test.Before(next)) {
		next = test
	}
	if next.IsZero() {
		return Decision{}
	}
	return Decision{Wait: max(next.Sub(now), time.Millisecond)}
}

// Sequence is that of the next call in line, unless there is none. Calls that are planned
// already and have later turns are to let it go first.
func (q *Queue) NextSequence() (turn int64, ok bool) {
	if ns := q.firstNamespace(); ns != nil {
		return ns.sequence, true
	}
	return 0, false
}

// MarkSent tells that a call goes out now.
func (q *Queue) MarkSent(call *Call) { q.sequence = max(q.sequence, call.Sequence) }

// planNextCall plans a call of the namespace whose turn it is.
func (q *Queue) planNextCall(now time.Time) (decision Decision, found bool) {
	for ns := q.firstNamespace(); ns != nil; ns = q.firstNamespace() {
		first, turn := ns.readyQueues[0], ns.sequence
		l := first.lane
		if q.refreshLane(l, now); !l.ready {
			continue
		}
		if decision, stop := q.checkQuota(l, now); stop {
			if decision.ReadQuota != "" {
				return decision, true
			}
			continue
		}
		if call := q.fillCall(first, now); call != nil {
			if call.Sequence = turn; call.Refusal == "" {
				q.enqueueNamespace(ns, turn+1)
			}
			return Decision{Call: call}, true
		}
	}
	return Decision{}, false
}

// IsBackedOff says whether what has happened since the call was planned keeps its lane
// from a call now.
func (q *Queue) IsBackedOff(call *Call, now time.Time) bool {
	return slices.ContainsFunc(q.activeBackOffs(call.lane), func(h *backOff) bool { return h.isActive(now) })
}

// RetryQuotaRead tells that reading a zone's quota failed in a way that is worth
// another try before any call.
func (q *Queue) RetryQuotaRead(zoneID string, now time.Time) {
	q.quotaReads.endRead(zoneID)
	q.setQuotaReading(zoneID, false, now)
}

// setQuotaReading keeps both modes of a zone waiting while its quota is read.
func (q *Queue) setQuotaReading(zoneID string, underWay bool, now time.Time) {
	for _, edge := range []bool{false, true} {
		if p := q.zoneQuotas[zoneMode{zoneID, edge}]; p != nil {
			p.readInFlight = underWay
			q.refreshMode(p, now)
		}
	}
}

// checkQuota stops a lane whose zone has no quota left, or none that is known.
func (q *Queue) checkQuota(l *laneState, now time.Time) (decision Decision, stop bool) {
	switch p := l.pool; {
	case q.needsQuota(p, now):
		q.setQuotaReading(l.ZoneID, true, now)
		q.enqueueQuotaRead(p)
		return q.planQuotaRead(now), true
	case p.remaining == 0 && !p.edge:
		q.backOffMode(p, dailyQuota, now, p.readAt.Add(q.limits.QuotaInterval))
		return Decision{}, true
	}
	return Decision{}, false
}

// fillCall makes a call of the lane, starting with the given strand's oldest task and
// going on with the lane's namespaces in turn.
func (q *Queue) fillCall(first *namespaceQueue, now time.Time) *Call {
	l := first.lane
	call := &Call{Lane: l.BatchKey, lane: l}
	size, tasks := l.callSize(q.limits, now), max(1, q.tasksPerCall()>>l.lost)
	if slices.ContainsFunc(q.activeBackOffs(l), func(h *backOff) bool { return h.probe }) {
		tasks = 1 // failureCount may not be over: a probe should cost one claim, not 500
	}
	refusal := &Call{Lane: l.BatchKey, lane: l}
	if i := slices.Index(l.rotation, first); i > 0 {
		l.rotation = slices.Concat(l.rotation[i:], l.rotation[:i])
	}
	urls := q.newURLSet()
	for len(l.queues) > 0 && len(call.Parts) < tasks && len(refusal.Parts) < tasks {
		s := l.rotation[0]
		if len(s.items) == 0 {
			l.rotation = l.rotation[1:]
			continue
		}
		l.rotation = append(l.rotation[1:], s)
		it := s.items[0]
		targets, open := DistinctTargets(it.task), OpenPositions(it.task)
		if q.blockItem(it, open, targets) {
			continue
		}
		open, bad, message := q.splitRejected(it, l, open, targets, now)
		if len(bad) > 0 && len(call.Parts) > 0 || len(bad) == 0 && len(refusal.Parts) > 0 {
			break // its turn comes right after this call
		}
		if urls.len() >= size && (len(bad) > 0 || !urls.contains(targets[open[0]])) {
			break // the call is full, and only takes those who want what it has
		}
		if len(bad) > 0 {
			if !refusal.addRefused(it, bad, message) {
				break
			}
			q.removeFromLine(it)
			continue
		}
		q.removeFromLine(it)
		it.inFlight = true
		call.addPart(it, open, targets, urls, size)
	}
	switch {
	case len(refusal.Parts) > 0:
		return refusal // asks for nothing, so the lane is not busy
	case len(call.Parts) == 0:
		q.refreshLane(l, now)
		q.dropLane(l, now)
		return nil
	}
	l.inFlight = true
	if l.pool.backOff.probe {
		l.pool.prober = l
		q.refreshMode(l.pool, now)
	}
	if l.tenant != nil && l.tenant.backOff.probe {
		l.tenant.prober = l
		q.refreshTenantLanes(l.tenant, now)
	}
	q.refreshLane(l, now)
	return call
}

// addRefused adds targets that EdgeOne is known to refuse. What it refuses in other
// words does not fit in.
func (c *Call) addRefused(it *queueItem, bad Positions, message string) bool {
	if len(c.Parts) > 0 && c.Refusal != message {
		return false
	}
	it.inFlight = true
	c.Refusal = message
	c.Parts = append(c.Parts, CallPart{it.task, bad, it})
	return true
}

// countFailure puts as many of the item's open targets into the call as fit. A URL that is
// in it already, whatever way it is written in, costs nothing: the first spelling
// is sent. It returns the positions.
func (c *Call) addPart(it *queueItem, open Positions, targets []string, urls urlSet, size int) Positions {
	part := CallPart{Task: it.task, item: it}
	for _, i := range open {
		u := targets[i]
		if !urls.contains(u) {
			if urls.len() >= size {
				continue
			}
			urls.insert(u)
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

func (s urlSet) contains(u string) bool { return s.seen[s.normalize(u)] }
func (s urlSet) insert(u string)        { s.seen[s.normalize(u)] = true }
func (s urlSet) len() int               { return len(s.seen) }

// RecordAccepted tells that EdgeOne took the call and charged so many URLs, or that
// its refusal is recorded. Tasks are the newest versions by part, nil where a
// task is gone.
func (q *Queue) RecordAccepted(call *Call, tasks []*v1alpha1.PrefetchTask, charged int, now time.Time) {
	if p := call.lane.pool; call.Refusal == "" {
		p.chargeCall(charged, len(call.URLs), q.limits.Batch)
		q.endBackOffs(call, now)
		if !call.refused {
			q.clearFailures(call, now)
		}
		if q.taskLimit > 0 && len(call.Parts) >= q.taskLimit {
			q.taskLimit *= 2
		}
		if p.backOff.Reason != "" && !p.backOff.isActive(now) {
			p.backOff, p.prober = backOff{}, nil
			q.refreshMode(p, now)
		}
		if t := call.lane.tenant; t != nil && t.backOff.Reason != "" && !t.backOff.isActive(now) {
			t.backOff, t.prober = backOff{}, nil
			q.refreshTenantLanes(t, now)
		}
	}
	q.finishCall(call, tasks, now)
}

// LimitTasksPerCall tells that claiming the call's tasks took so long that its signature
// was too old to send. Calls get smaller until the API server keeps up.
func (q *Queue) LimitTasksPerCall(call *Call) {
	q.taskLimit = max(1, len(call.Parts)/2)
}

func (q *Queue) tasksPerCall() int {
	if q.taskLimit == 0 {
		return q.limits.TasksPerCall
	}
	return min(q.taskLimit, q.limits.TasksPerCall)
}

// endBackOffs ends what is remembered of trouble with the account and the lane: the
// call reached EdgeOne. A hold that another call has brought since goes on.
func (q *Queue) endBackOffs(call *Call, now time.Time) {
	if !q.accountBackOff.isActive(now) {
		q.accountBackOff = backOff{}
	}
	if !call.lane.backOff.isActive(now) {
		call.lane.backOff = backOff{}
	}
}

// RecordReleased tells that the call was certainly not executed.
func (q *Queue) RecordReleased(call *Call, tasks []*v1alpha1.PrefetchTask, now time.Time) {
	if call.suspects != nil { // suspectGroups are not cleared by a call that was not made
		q.queueSuspectsFirst(call.lane, call.suspects)
		call.suspects = nil
	}
	q.finishCall(call, tasks, now)
}

// finishCall takes the tasks of a call back.
func (q *Queue) finishCall(call *Call, tasks []*v1alpha1.PrefetchTask, now time.Time) {
	l := call.lane
	q.MarkSent(call) // or its turn is over without: its namespace has had it, and falls no further behind
	if call.probe {
		q.probeInFlight = false
	}
	if l.pool.prober == l && call.Refusal == "" && !call.test {
		l.pool.prober = nil
		q.refreshMode(l.pool, now)
	}
	if t := l.tenant; t != nil && t.prober == l && call.Refusal == "" && !call.test {
		t.prober = nil
		q.refreshTenantLanes(t, now)
	}
	q.clearGroup(call.suspects, now)
	switch {
	case call.test:
		l.testInFlight = false
	case call.Refusal == "":
		l.inFlight = false
	}
	for i, part := range call.Parts {
		it := part.item
		it.inFlight = false
		it.endPostponedCall()
		task := tasks[i]
		if task == nil {
			q.detachClaim(it.key, now)
			q.removeItem(it, now)
			continue
		}
		it.deleted = false
		q.trackClaim(it.key, task, now)
		if it.suspectGroups > 0 && (task.UID != part.Task.UID || RunHash(task) != RunHash(part.Task)) {
			q.clearSuspect(it) // it was edited in flight
		}
		if waits, tell := IsWaiting(task), needsStatusWrite(task); waits || tell || AwaitsList(task) {
			q.placeItem(it, task, waits, now)
			q.reportIf(it, tell, now)
		} else {
			it.task = task
			q.removeItem(it, now)
		}
	}
	q.refreshLane(l, now)
	q.dropLane(l, now)
}
