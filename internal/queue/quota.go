package queue

import (
	"cmp"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// zoneQuota is what EdgeOne meters by zone and mode: a day's quota and the size of a
// call.
type zoneQuota struct {
	zoneMode
	lanes    map[*laneState]bool
	tenants  map[string]*tenantState // namespaces that something is remembered about
	backOff  backOff
	failures failureCounts

	batch        int // targets in a call, as EdgeOne says; 0 is not known
	sizeLimit    int // targets in a call, as its refusals say; 0 is no limit
	sizeLimitAt  time.Time
	remaining    int // of today's quota; -1 is not known
	learnedLimit int // learned from refusals where left does not tell; 0 is none
	readAt       time.Time
	needsReread  bool // the last read brought nothing, and the next may
	readInFlight bool
	proven       bool                   // EdgeOne has accepted a call
	readQueued   bool                   // it waits until its quota may be read
	prober       *laneState             // whose call tries whether the trouble is over
	refusedHosts map[string]refusedHost // that EdgeOne does not know in this zone
}

type zoneMode struct {
	zoneID string
	edge   bool
}

func (q *Queue) zoneQuotaFor(zoneID string, edge bool) *zoneQuota {
	key := zoneMode{zoneID, edge}
	p := q.zoneQuotas[key]
	if p == nil {
		p = &zoneQuota{zoneMode: key, lanes: map[*laneState]bool{}, tenants: map[string]*tenantState{}, remaining: -1, refusedHosts: map[string]refusedHost{}}
		q.zoneQuotas[key] = p
	}
	return p
}

// nextReset is when the day's quota is expected to return. It is only told; what
// counts is what EdgeOne says at the next look.
func (q *Queue) nextReset(now time.Time) time.Time {
	reset := now.UTC().Truncate(24 * time.Hour).Add(q.limits.QuotaReset)
	if !reset.After(now) {
		reset = reset.Add(24 * time.Hour)
	}
	return reset
}

// lastReset is when the quota of this day is expected to have returned.
func (q *Queue) lastReset(now time.Time) time.Time { return q.nextReset(now).Add(-24 * time.Hour) }

// dropZoneQuota forgets a zone and mode that has no tasks and where nothing was accepted.
func (q *Queue) dropZoneQuota(p *zoneQuota, now time.Time) {
	if q.zoneQuotas[p.zoneMode] == p && len(p.lanes) == 0 && len(p.tenants) == 0 && !p.proven && !p.readInFlight && !p.backOff.isActive(now) {
		delete(q.zoneQuotas, p.zoneMode)
	}
}

// SetQuota tells what EdgeOne says of a zone: targets in a call, and left today
// in the default mode (the edge mode's quota cannot be read). A batch of 0 keeps
// what is known; a left of -1 is unknown.
func (q *Queue) SetQuota(zoneID string, batch, left int, now time.Time) {
	if q.accountBackOff.Reason == "" {
		q.accountBackOff.probe = false // EdgeOne knows the key
	}
	q.setQuota(zoneID, batch, left, now)
}

func (q *Queue) setQuota(zoneID string, batch, left int, now time.Time) {
	q.quotaReads.endRead(zoneID)
	for _, edge := range []bool{false, true} {
		p := q.zoneQuotaFor(zoneID, edge) // made if need be: one read serves both
		p.readInFlight, p.readAt, p.needsReread = false, now, false
		if batch > 0 {
			p.batch = batch
		}
		if !edge {
			p.remaining = left
			if left > 0 {
				p.learnedLimit = 0
			}
		}
		switch {
		case !edge && left == 0:
			q.backOffMode(p, dailyQuota, now, now.Add(q.limits.QuotaInterval))
		case p.backOff.Quota && left > 0 && !edge:
			p.backOff = backOff{}
		}
		q.refreshMode(p, now)
		q.runAt(now.Add(q.limits.QuotaInterval), func(now time.Time) { q.dropZoneQuota(p, now) })
	}
}

// SetQuotaUnknown tells that the quota of a zone could not be read this time. Calls go on
// without knowing it, until it is read again an interval later.
func (q *Queue) SetQuotaUnknown(zoneID string, now time.Time) {
	q.setQuota(zoneID, 0, -1, now)
	for _, edge := range []bool{false, true} {
		q.zoneQuotaFor(zoneID, edge).needsReread = true
	}
}

var dailyQuota = taskstate.Cause{Reason: "DailyQuota", Message: "The daily quota of this zone is used up; the task continues when it returns", Quota: true}

// needsQuota says whether the zone's quota must be read before a call: when it was never
// read, and when that was long enough ago and is of the day before, or used up, or
// brought nothing.
func (q *Queue) needsQuota(p *zoneQuota, now time.Time) bool {
	return now.Sub(p.readAt) >= q.limits.QuotaInterval && (p.remaining == 0 || p.needsReread || p.readAt.Before(q.lastReset(now)))
}

// RecordQuotaExhausted tells that EdgeOne refused a call for the quota of the day. What is
// left is read again where it can be and that was long ago. Else the size is
// halved to use what may be left; for a single URL the zone is held.
func (q *Queue) RecordQuotaExhausted(call *Call, now time.Time) {
	p := call.lane.pool
	q.endBackOffs(call, now)
	if p.remaining >= 0 && !p.edge && now.Sub(p.readAt) >= q.limits.QuotaInterval {
		p.readAt = time.Time{}
		return
	}
	if n := len(call.URLs); n > 1 {
		p.learnedLimit = n / 2
		return
	}
	p.learnedLimit, p.remaining = 1, min(p.remaining, 0)
	q.backOffMode(p, dailyQuota, now, now.Add(q.limits.QuotaInterval))
}

// batchMemory is how long calls stay as small as EdgeOne's refusals made them, until
// twice as many targets are tried.
const batchMemory = time.Hour

// RecordTooLarge tells that EdgeOne found the call too large: its plan may have changed
// since its limit was read, so that is read again. It returns false for a
// single URL, which nothing can make smaller: the zone's plan has no quota.
func (q *Queue) RecordTooLarge(call *Call, now time.Time) bool {
	p := call.lane.pool
	q.endBackOffs(call, now)
	if now.Sub(p.readAt) >= q.limits.QuotaInterval {
		p.readAt = time.Time{}
	}
	if n := len(call.URLs); n > 1 {
		p.sizeLimit, p.sizeLimitAt = n/2, now
		return true
	}
	// What was learned no longer counts once the plan is changed.
	p.batch, p.sizeLimit, p.learnedLimit, p.readAt = 0, 0, 1, time.Time{}
	q.BackOffZone(p.zoneID, noQuota, now, now.Add(q.limits.QuotaInterval))
	return false
}

var noQuota = taskstate.Cause{
	Reason: "BatchQuota", Quota: true, NeedsUser: true,
	Message: "EdgeOne does not take even a single URL: the zone's plan has no prefetch quota. Change the plan, or the task's zoneID",
}

// RecordNoQuota tells that the plan of a zone has no quota for prefetch in the default mode. It
// is read again an interval later.
func (q *Queue) RecordNoQuota(zoneID string, now time.Time) {
	q.SetQuota(zoneID, 0, -1, now)
	q.zoneQuotaFor(zoneID, false).needsReread = true
	q.backOffMode(q.zoneQuotaFor(zoneID, false), noQuota, now, now.Add(q.limits.QuotaInterval))
}

// callSize is how many URLs the next call of the lane may hold.
func (l *laneState) callSize(limits Limits, now time.Time) int {
	p := l.pool
	n := cmp.Or(p.batch, limits.Batch)
	for p.sizeLimit > 0 && now.Sub(p.sizeLimitAt) >= batchMemory {
		if p.sizeLimitAt, p.sizeLimit = p.sizeLimitAt.Add(batchMemory), 2*p.sizeLimit; p.sizeLimit >= n {
			p.sizeLimit = 0
		}
	}
	if p.sizeLimit > 0 {
		n = min(n, p.sizeLimit)
	}
	if p.learnedLimit > 0 {
		n = min(n, p.learnedLimit)
	}
	if p.remaining >= 0 && !p.edge {
		n = min(n, p.remaining)
	}
	return max(1, n>>l.lost)
}

// chargeCall takes what a call used from the day's quota.
func (p *zoneQuota) chargeCall(n, called, batch int) {
	if p.remaining >= 0 && !p.edge {
		p.remaining = max(0, p.remaining-n)
	}
	if p.learnedLimit > 0 && called >= p.learnedLimit {
		p.learnedLimit *= 2
		if p.learnedLimit >= cmp.Or(p.batch, batch) {
			p.learnedLimit = 0
		}
	}
}
