package queue

import (
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// backOff keeps tasks out of calls until a time. A later failure can only extend it. A
// quota read that finds quota left ends a quota back-off early, and an edit of a task
// ends the task's own back-off.
type backOff struct {
	taskstate.Cause
	until      time.Time // no call before this time
	since      time.Time // when the problem started
	isReported bool      // the tasks already report Stalled
	probe      bool      // limit the next call to a single task, to check whether the problem is solved
	next       time.Time // for a quota back-off: when the quota is expected to return
}

// isActive reports whether the back-off still keeps tasks out of calls.
func (h backOff) isActive(now time.Time) bool { return now.Before(h.until) }

// extend returns a back-off that ends at until, or later if it already ends later. If the
// reason stays the same, the back-off keeps its start time, so that its age is the
// duration of the problem.
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

// reportBackOff makes the waiting tasks report a back-off. If the quota or a user
// has to end it, they report it at once. They report any other back-off after
// reportPatience, if the same back-off still exists then. They report again when the problem becomes Stalled. The function all
// makes every task in the scope of the back-off report.
func (q *Queue) reportBackOff(h *backOff, where BackOffEvent, changed bool, now time.Time, all func()) {
	if changed {
		q.observeBackOff(h, where)
	}
	switch why, since := h.Cause, h.since; {
	case q.isStalled(*h, now) && !h.isReported:
		h.isReported = true
		all()
	case changed && (why.Quota || why.NeedsUser):
		all()
	case changed:
		q.delayedReports = append(q.delayedReports, delayedReport{at: now.Add(reportPatience), all: func() {
			if h.Cause == why && h.since.Equal(since) {
				all()
			}
		}})
	}
}

// isStalled reports whether a problem that needs user action has lasted for StallAfter,
// so that its tasks report Stalled.
func (q *Queue) isStalled(h backOff, now time.Time) bool {
	return h.NeedsUser && now.Sub(h.since) >= q.limits.StallAfter
}

// BackOffAccount keeps all tasks of the account out of calls until a time.
func (q *Queue) BackOffAccount(why taskstate.Cause, now, until time.Time) {
	changed := !q.accountBackOff.hasCause(why)
	q.accountBackOff = q.accountBackOff.extend(why, now, until)
	q.reportBackOff(&q.accountBackOff, accountEvent, changed, now, func() {
		for _, it := range q.items {
			q.reportNow(it)
		}
	})
}

// BackOffZone keeps all tasks of a zone out of calls until a time, in both modes.
func (q *Queue) BackOffZone(zoneID string, why taskstate.Cause, now, until time.Time) {
	for _, mode := range q.modesOf(zoneID) {
		if p := q.zoneQuotas[mode]; p != nil {
			q.backOffMode(p, why, now, until)
		}
	}
}

// backOffMode keeps all tasks in a mode of a zone out of calls until a time. During a
// quota back-off, the tasks report when the quota is expected to return. When that time
// passes without quota, they report the next expected return, a day later.
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
	q.reportBackOff(&p.backOff, p.backOffEvent(), changed, now, func() {
		for l := range p.lanes {
			q.reportLane(l)
		}
	})
}

// BackOffLane keeps a lane out of calls until a time, after one of its calls failed. The
// next call of the lane is not a probe. It may have as many tasks as before.
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

// hasCause reports whether the back-off has the same reason and message as a cause.
func (h backOff) hasCause(why taskstate.Cause) bool {
	return h.Reason == why.Reason && h.Message == why.Message
}

// refreshLane makes a lane ready if it has tasks and nothing prevents a call. Otherwise
// it withdraws the lane. Call refreshLane after every change to one of these conditions.
func (q *Queue) refreshLane(l *laneState, now time.Time) {
	q.setLaneReady(l, len(l.queues) > 0 && !l.inFlight && l.unknownCalls < maxUnknownCalls && !l.isBackedOff(now))
}

// activeBackOffs returns the back-offs that apply to a lane, the widest scope first. Some
// of them may have ended; check isActive.
func (q *Queue) activeBackOffs(l *laneState) []*backOff {
	holds := []*backOff{&q.accountBackOff, &l.pool.backOff, &l.backOff}
	if l.tenant != nil {
		holds = append(holds, &l.tenant.backOff)
	}
	return holds
}

// isBackedOff reports whether a back-off, a probe or a quota read prevents calls of the
// lane now. The caller checks the back-off of the account.
func (l *laneState) isBackedOff(now time.Time) bool {
	return l.backOff.isActive(now) || l.pool.isBackedOff(now) || l.tenant.isBackedOff(now)
}

// refreshMode refreshes all lanes in a mode of a zone.
func (q *Queue) refreshMode(p *zoneQuota, now time.Time) {
	for l := range p.lanes {
		q.refreshLane(l, now)
	}
}

// isBackedOff reports whether calls in this mode of the zone must wait now, because the
// quota is being read, the mode backs off, or a probe is in flight.
func (p *zoneQuota) isBackedOff(now time.Time) bool {
	return p.readInFlight || p.backOff.isActive(now) || p.prober != nil
}

// maxUnknownCalls is the maximum number of calls of unknown outcome in a lane. At this
// number, the lane makes no further calls.
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
