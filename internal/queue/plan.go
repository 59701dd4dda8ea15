package queue

import (
	"slices"
	"time"
)

// Decision is what to do next. At most one of Call, ReadQuota and Wait is set. The zero
// value means that there is nothing to do until the queue changes.
type Decision struct {
	// Call is the call to make. If it has a Refusal, record the refusal and send no
	// request.
	Call *Call
	// ReadQuota is the ID of the zone whose quota to read. Report the result with
	// SetQuota, SetQuotaUnknown, RecordNoQuota or RetryQuotaRead.
	ReadQuota string
	// Wait is the time until the next decision, unless the queue changes sooner; 0 means
	// no limit.
	Wait time.Duration
}

// PlanNext plans one call or one quota read. Quota reads go first, then tests of
// suspects, then queued tasks. While the account backs off or a probe of the account is
// in flight, PlanNext plans nothing.
func (q *Queue) PlanNext(now time.Time) Decision {
	q.runDueTimers(now) // also during a back-off: items that are kept out ask again, and report it
	if q.accountBackOff.isActive(now) {
		return Decision{Wait: q.waitUntil(q.accountBackOff.until, now)}
	}
	if q.probeInFlight {
		return Decision{} // wait for the result of the probe
	}
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

// waitUntil returns the time until at, or until the next timer if that is sooner.
func (q *Queue) waitUntil(at, now time.Time) time.Duration {
	if next := q.timers.nextTime(); !next.IsZero() && next.Before(at) {
		at = next
	}
	return max(at.Sub(now), time.Millisecond)
}

// RunTimers does what is due without planning anything. It returns the time until something
// is due again; 0 means never.
func (q *Queue) RunTimers(now time.Time) (wait time.Duration) {
	q.runDueTimers(now)
	if next := q.timers.nextTime(); !next.IsZero() {
		return max(next.Sub(now), time.Millisecond)
	}
	return 0
}

// NextSequence returns the sequence of the next call in the queue, if there is one.
// Planned calls with a higher sequence must let that call go first.
func (q *Queue) NextSequence() (turn int64, ok bool) {
	if ns := q.firstNamespace(); ns != nil {
		return ns.sequence, true
	}
	return 0, false
}

// MarkSent records that the caller sends a call. A namespace that becomes active later
// starts at the sequence of that call.
func (q *Queue) MarkSent(call *Call) { q.sequence = max(q.sequence, call.Sequence) }

// planNextCall plans a call of the namespace with the lowest sequence. A refusal does not
// use up the turn of the namespace, because it is not sent.
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

// IsBackedOff reports whether a back-off prevents the call from being sent now. The
// back-off may have started after the call was planned.
func (q *Queue) IsBackedOff(call *Call, now time.Time) bool {
	return slices.ContainsFunc(q.activeBackOffs(call.lane), func(h *backOff) bool { return h.isActive(now) })
}

// RetryQuotaRead records that reading a zone's quota failed with an error that is worth a
// retry. The zone makes no calls until the quota has been read again.
func (q *Queue) RetryQuotaRead(zoneID string, now time.Time) {
	q.quotaReads.endRead(zoneID)
	q.setQuotaReading(zoneID, false, now)
}

// setQuotaReading starts or ends the wait of both modes of a zone for a quota read.
func (q *Queue) setQuotaReading(zoneID string, underWay bool, now time.Time) {
	for _, mode := range q.modesOf(zoneID) {
		if p := q.zoneQuotas[mode]; p != nil {
			p.readInFlight = underWay
			q.refreshMode(p, now)
		}
	}
}

// checkQuota stops a lane if its zone has no quota left, or if the quota must be read
// first. If the read may start now, checkQuota returns it as the decision.
func (q *Queue) checkQuota(l *laneState, now time.Time) (decision Decision, stop bool) {
	switch p := l.pool; {
	case q.needsQuota(p, now):
		q.setQuotaReading(l.ZoneID, true, now)
		q.enqueueQuotaRead(p)
		return q.planQuotaRead(now), true
	case p.remaining == 0 && !p.edge:
		q.backOffMode(p, p.dailyQuota(), now, p.readAt.Add(q.limits.QuotaInterval))
		return Decision{}, true
	}
	return Decision{}, false
}

// tasksPerCall returns the limit of tasks per call. Slow claims reduce it: see
// LimitTasksPerCall.
func (q *Queue) tasksPerCall() int {
	if q.taskLimit == 0 {
		return q.limits.TasksPerCall
	}
	return min(q.taskLimit, q.limits.TasksPerCall)
}
