package queue

import (
	"cmp"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// zoneQuota is what EdgeOne limits by zone and mode: the day's quota and the size of a
// call. It also holds the back-off, the failures and the probe of that mode.
type zoneQuota struct {
	zoneMode
	lanes    map[*laneState]bool
	tenants  map[string]*tenantState // namespaces about which something is remembered
	backOff  backOff
	failures failureCounts

	batch        int                    // targets per call, as EdgeOne reports; 0 means unknown
	sizeLimit    int                    // targets per call, learned from size refusals; 0 means no limit
	sizeLimitAt  time.Time              // when sizeLimit last changed
	remaining    int                    // of today's quota; -1 means unknown
	learnedLimit int                    // targets per call, learned from quota refusals; 0 means no limit
	readAt       time.Time              // when the quota was last read
	needsReread  bool                   // the last read returned no quota, so the next may be due
	readInFlight bool                   // calls wait until the quota is read
	proven       bool                   // EdgeOne has accepted a call
	readQueued   bool                   // waits until its quota may be read
	prober       *laneState             // the lane whose call is the probe
	refusedHosts map[string]refusedHost // hosts that EdgeOne does not know in this zone
}

// zoneMode is one mode of a zone. EdgeOne meters the two modes of a zone separately.
type zoneMode struct {
	zoneID string
	edge   bool
}

// zoneQuotaFor returns the quota of a mode of a zone, which it creates if necessary.
func (q *Queue) zoneQuotaFor(zoneID string, edge bool) *zoneQuota {
	key := zoneMode{zoneID, edge}
	p := q.zoneQuotas[key]
	if p == nil {
		p = &zoneQuota{zoneMode: key, lanes: map[*laneState]bool{}, tenants: map[string]*tenantState{}, remaining: -1, refusedHosts: map[string]refusedHost{}}
		q.zoneQuotas[key] = p
	}
	return p
}

// nextReset returns when the day's quota is expected to return. Statuses report this
// time; the decision follows what EdgeOne says at the next read.
func (q *Queue) nextReset(now time.Time) time.Time {
	reset := now.UTC().Truncate(24 * time.Hour).Add(q.limits.QuotaReset)
	if !reset.After(now) {
		reset = reset.Add(24 * time.Hour)
	}
	return reset
}

// lastReset returns when today's quota is expected to have returned.
func (q *Queue) lastReset(now time.Time) time.Time { return q.nextReset(now).Add(-24 * time.Hour) }

// dropZoneQuota forgets a mode of a zone that has no tasks and in which EdgeOne never
// accepted a call.
func (q *Queue) dropZoneQuota(p *zoneQuota, now time.Time) {
	if q.zoneQuotas[p.zoneMode] == p && len(p.lanes) == 0 && len(p.tenants) == 0 && !p.proven && !p.readInFlight && !p.backOff.isActive(now) {
		delete(q.zoneQuotas, p.zoneMode)
	}
}

// SetQuota records what EdgeOne reports about a zone: the targets per call (batch) and
// the quota left today in the default mode (left). The edge mode's quota cannot be read.
// A batch of 0 keeps the known value; a left of -1 means unknown.
func (q *Queue) SetQuota(zoneID string, batch, left int, now time.Time) {
	if q.accountBackOff.Reason == "" {
		q.accountBackOff.probe = false // EdgeOne knows the key
	}
	q.setQuota(zoneID, batch, left, now)
}

// setQuota updates both modes of a zone, and starts or ends the back-off of the default
// mode.
func (q *Queue) setQuota(zoneID string, batch, left int, now time.Time) {
	q.quotaReads.endRead(zoneID)
	for _, edge := range []bool{false, true} {
		p := q.zoneQuotaFor(zoneID, edge) // created if necessary: one read serves both modes
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

// SetQuotaUnknown records that the quota of a zone could not be read. Calls continue
// without it until the next read, one QuotaInterval later.
func (q *Queue) SetQuotaUnknown(zoneID string, now time.Time) {
	q.setQuota(zoneID, 0, -1, now)
	for _, edge := range []bool{false, true} {
		q.zoneQuotaFor(zoneID, edge).needsReread = true
	}
}

// dailyQuota is why tasks wait when the day's quota of a zone is used up.
var dailyQuota = taskstate.Cause{Reason: "DailyQuota", Message: "The daily quota of this zone is used up; the task continues when it returns", Quota: true}

// needsQuota says whether the zone's quota must be read before a call. A quota that was
// never read must be read. After QuotaInterval, it must be read again if the last read is
// from the day before, found no quota left, or failed.
func (q *Queue) needsQuota(p *zoneQuota, now time.Time) bool {
	return now.Sub(p.readAt) >= q.limits.QuotaInterval && (p.remaining == 0 || p.needsReread || p.readAt.Before(q.lastReset(now)))
}

// RecordQuotaExhausted records that EdgeOne refused a call because the day's quota is
// used up. If the quota can be read and the last read is at least QuotaInterval old, the
// queue reads it again. Otherwise the queue halves the size of calls to use what may be
// left, and after the refusal of a single URL the mode backs off.
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

// batchMemory is how long calls keep the size to which EdgeOne's refusals reduced them.
// After that time, the size doubles.
const batchMemory = time.Hour

// RecordTooLarge records that EdgeOne found the call too large. The zone's plan may have
// changed since its limit was read, so the queue reads the limit again. RecordTooLarge
// returns false for a single URL, which nothing can make smaller: the zone's plan has no
// quota.
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
	// A change of the plan makes the learned limits obsolete.
	p.batch, p.sizeLimit, p.learnedLimit, p.readAt = 0, 0, 1, time.Time{}
	q.BackOffZone(p.zoneID, noQuota, now, now.Add(q.limits.QuotaInterval))
	return false
}

// noQuota is why tasks wait when the zone's plan has no prefetch quota.
var noQuota = taskstate.Cause{
	Reason: "BatchQuota", Quota: true, NeedsUser: true,
	Message: "EdgeOne does not take even a single URL: the zone's plan has no prefetch quota. Change the plan, or the task's zoneID",
}

// RecordNoQuota records that the plan of a zone has no prefetch quota in the default
// mode. The queue reads the quota again one QuotaInterval later.
func (q *Queue) RecordNoQuota(zoneID string, now time.Time) {
	q.SetQuota(zoneID, 0, -1, now)
	q.zoneQuotaFor(zoneID, false).needsReread = true
	q.backOffMode(q.zoneQuotaFor(zoneID, false), noQuota, now, now.Add(q.limits.QuotaInterval))
}

// callSize returns how many URLs the next call of the lane may have: the lowest of the
// known limits, halved for each lost call, and at least 1.
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

// chargeCall subtracts n URLs from the day's quota. A call at the learned limit doubles
// that limit, up to the batch size, where the limit ends.
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
