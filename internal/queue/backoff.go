package queue

import (
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// backOff keeps tasks from being called for until a time. No event shortens it.
type backOff struct {
	taskstate.Cause
	until      time.Time
	since      time.Time
	isReported bool      // to its tasks, that they are stalled
	probe      bool      // the next call tries with a single task
	next       time.Time // when quota is expected to return, for a hold by quota
}

func (h backOff) isActive(now time.Time) bool { return now.Before(h.until) }

// extend extends a hold; one of the same reason goes on, so that its age tells
// how long the trouble has lasted.
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

// reportBackOff says to all who wait that there is a hold: at once if it is the quota's,
// else if it lasts, and once more when it turns out to need a person.
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

// isStalled says whether trouble that needs a person has lasted so long that a task
// should say so.
func (q *Queue) isStalled(h backOff, now time.Time) bool {
	return h.NeedsUser && now.Sub(h.since) >= q.limits.StallAfter
}

// BackOffAccount keeps all tasks of the account waiting.
func (q *Queue) BackOffAccount(why taskstate.Cause, now, until time.Time) {
	changed := !q.accountBackOff.hasCause(why)
	q.accountBackOff = q.accountBackOff.extend(why, now, until)
	q.reportBackOff(&q.accountBackOff, changed, now, func() {
		for _, it := range q.items {
			q.reportNow(it)
		}
	})
}

// BackOffZone keeps all tasks of a zone waiting, in either mode.
func (q *Queue) BackOffZone(zoneID string, why taskstate.Cause, now, until time.Time) {
	for _, edge := range []bool{false, true} {
		if p := q.zoneQuotas[zoneMode{zoneID, edge}]; p != nil {
			q.backOffMode(p, why, now, until)
		}
	}
}

func (q *Queue) backOffMode(p *zoneQuota, why taskstate.Cause, now, until time.Time) {
	changed := !p.backOff.hasCause(why)
	next := p.backOff.next
	p.backOff = p.backOff.extend(why, now, until)
	if why.Quota {
		if p.backOff.next = next; !now.Before(next) { // a day is over: say the next one
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

// BackOffLane keeps a lane waiting after a call of it failed.
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

func (h backOff) hasCause(why taskstate.Cause) bool {
	return h.Reason == why.Reason && h.Message == why.Message
}

// refreshLane offers the lane's tasks if nothing keeps it from a call.
func (q *Queue) refreshLane(l *laneState, now time.Time) {
	q.setLaneReady(l, len(l.queues) > 0 && !l.inFlight && l.unknownCalls < maxUnknownCalls && !l.isBackedOff(now))
}

// activeBackOffs are what may keep a lane waiting, the widest first.
func (q *Queue) activeBackOffs(l *laneState) []*backOff {
	holds := []*backOff{&q.accountBackOff, &l.pool.backOff, &l.backOff}
	if l.tenant != nil {
		holds = append(holds, &l.tenant.backOff)
	}
	return holds
}

// isBackedOff says whether no call of the lane may be planned now.
func (l *laneState) isBackedOff(now time.Time) bool {
	return l.backOff.isActive(now) || l.pool.isBackedOff(now) || l.tenant.isBackedOff(now)
}

func (q *Queue) refreshMode(p *zoneQuota, now time.Time) {
	for l := range p.lanes {
		q.refreshLane(l, now)
	}
}

// isBackedOff says whether no call of the pool may be planned now.
func (p *zoneQuota) isBackedOff(now time.Time) bool {
	return p.readInFlight || p.backOff.isActive(now) || p.prober != nil
}

// maxUnknownCalls is how many calls of unknown outcome a lane may have and still go on.
const maxUnknownCalls = 4

// BackOffScope keeps waiting whom a failed call's trouble concerns.
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
