package queue

import (
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// backOff keeps tasks out of calls until a time. No event shortens it.
type backOff struct {
	taskstate.Cause
	until      time.Time
	since      time.Time // start of the trouble
	isReported bool      // the tasks report that they are stalled
	probe      bool      // the next call has a single task
	next       time.Time // when the quota is expected to return, for a quota back-off
}

// isActive says whether the back-off still keeps tasks out of calls.
func (h backOff) isActive(now time.Time) bool { return now.Before(h.until) }

// extend returns a back-off that ends at until or later. A back-off with the same reason
// keeps its start time, so that its age shows how long the trouble has lasted.
func (h backOff) extend(why taskstate.Cause, now, until time.Time) backOff {
	renewed := backOff{Cause: why, until: until, since: now, probe: true}
	if h.Reason == why.Reason {
		renewed.since, renewed.isReported = h.since, h.isReported
	}
	if h.until.After(until) {
		renewed.until = h.until
	}
	return renewed
}

// reportBackOff makes the waiting tasks report a back-off: at once for a quota back-off,
// otherwise after reportPatience if the same back-off still exists. The tasks report once
// more when the trouble turns out to need user action. The function all reports every
// task in the scope of the back-off.
func (q *Queue) reportBackOff(h *backOff, changed bool, now time.Time, all func()) {
	switch why, since := h.Cause, h.since; {
	case q.isStalled(*h, now) && !h.isReported:
		h.isReported = true
		all()
	case changed && why.Quota:
		all()
	case changed:
		q.delayedReports = append(q.delayedReports, delayedReport{at: now.Add(reportPatience), all: func() {
			if h.Cause == why && h.since.Equal(since) {
				all()
			}
		}})
	}
}

// isStalled says whether trouble that needs user action has lasted long enough for its
// tasks to report Stalled.
func (q *Queue) isStalled(h backOff, now time.Time) bool {
	return h.NeedsUser && now.Sub(h.since) >= q.limits.StallAfter
}

// BackOffAccount keeps all tasks of the account out of calls until a time.
func (q *Queue) BackOffAccount(why taskstate.Cause, now, until time.Time) {
	changed := !q.accountBackOff.hasCause(why)
	q.accountBackOff = q.accountBackOff.extend(why, now, until)
	q.reportBackOff(&q.accountBackOff, changed, now, func() {
		for _, it := range q.items {
			q.reportNow(it)
		}
	})
}

// BackOffZone keeps all tasks of a zone out of calls until a time, in both modes.
func (q *Queue) BackOffZone(zoneID string, why taskstate.Cause, now, until time.Time) {
	for _, edge := range []bool{false, true} {
		if p := q.zoneQuotas[zoneMode{zoneID, edge}]; p != nil {
			q.backOffMode(p, why, now, until)
		}
	}
}

// backOffMode keeps all tasks in a mode of a zone out of calls until a time. For a quota
// back-off, the tasks report the expected return of the quota, and report it again each
// day.
func (q *Queue) backOffMode(p *zoneQuota, why taskstate.Cause, now, until time.Time) {
	changed := !p.backOff.hasCause(why)
	next := p.backOff.next
	p.backOff = p.backOff.extend(why, now, until)
	if why.Quota {
		if p.backOff.next = next; !now.Before(next) { // the expected return has passed: report the next one
			p.backOff.next, changed = q.nextReset(now), true
		}
	}
	q.runAt(p.backOff.until, func(now time.Time) {
		q.refreshMode(p, now)
		q.dropZoneQuota(p, now)
	})
	q.refreshMode(p, now)
	q.reportBackOff(&p.backOff, changed, now, func() {
		for l := range p.lanes {
			q.reportLane(l)
		}
	})
}

// BackOffLane keeps a lane out of calls until a time, after one of its calls failed. The
// next call is not a probe: it may have as many tasks as before.
func (q *Queue) BackOffLane(lane BatchKey, why taskstate.Cause, now, until time.Time) {
	if l := q.lanes[lane]; l != nil {
		l.backOff = l.backOff.extend(why, now, until)
		l.backOff.probe = false
		q.runAt(l.backOff.until, func(now time.Time) {
			q.refreshLane(l, now)
			q.dropLane(l, now)
		})
		q.refreshLane(l, now)
	}
}

// hasCause says whether the back-off has the same reason and message as a cause.
func (h backOff) hasCause(why taskstate.Cause) bool {
	return h.Reason == why.Reason && h.Message == why.Message
}

// refreshLane makes the lane ready if it has tasks and nothing prevents a call, and
// withdraws it otherwise. Every change to one of the conditions must call it.
func (q *Queue) refreshLane(l *laneState, now time.Time) {
	q.setLaneReady(l, len(l.queues) > 0 && !l.inFlight && l.unknownCalls < maxUnknownCalls && !l.isBackedOff(now))
}

// activeBackOffs returns the back-offs that can keep a lane waiting, the widest scope
// first. Some of them may have ended.
func (q *Queue) activeBackOffs(l *laneState) []*backOff {
	holds := []*backOff{&q.accountBackOff, &l.pool.backOff, &l.backOff}
	if l.tenant != nil {
		holds = append(holds, &l.tenant.backOff)
	}
	return holds
}

// isBackedOff says whether no call of the lane may be planned now. The caller checks the
// back-off of the account.
func (l *laneState) isBackedOff(now time.Time) bool {
	return l.backOff.isActive(now) || l.pool.isBackedOff(now) || l.tenant.isBackedOff(now)
}

// refreshMode refreshes all lanes in a mode of a zone.
func (q *Queue) refreshMode(p *zoneQuota, now time.Time) {
	for l := range p.lanes {
		q.refreshLane(l, now)
	}
}

// isBackedOff says whether no call may be planned in this mode of the zone now, because
// its quota is being read, it backs off, or a probe is in flight.
func (p *zoneQuota) isBackedOff(now time.Time) bool {
	return p.readInFlight || p.backOff.isActive(now) || p.prober != nil
}

// maxUnknownCalls is the number of calls of unknown outcome at which a lane makes no
// further calls.
const maxUnknownCalls = 4

// BackOffScope keeps the tasks in the scope of a failed call out of calls until a time.
func (q *Queue) BackOffScope(reach Scope, call *Call, why taskstate.Cause, now, until time.Time) {
	switch reach {
	case ScopeAccount:
		q.BackOffAccount(why, now, until)
	case ScopeMode:
		q.backOffMode(call.lane.pool, why, now, until)
	case ScopeTenant:
		q.backOffTenant(q.tenantFor(call.lane.pool, call.Parts[0].Task.Namespace), why, now, until)
	case ScopeLane:
		q.BackOffLane(call.Lane, why, now, until)
	}
}
