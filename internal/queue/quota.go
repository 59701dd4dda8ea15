package queue

import (
	"cmp"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// zoneQuota is what EdgeOne limits per zone and mode: the day's quota and the size of a
// call. It also holds the back-off, the failures and the probe of that mode.
type zoneQuota struct {
	zoneMode
	lanes    map[*laneState]bool
	tenants  map[string]*tenantState // namespaces about which the queue remembers something
	backOff  backOff
	failures failureCounts

	batch        int                    // URLs per call, as EdgeOne reports; 0 means unknown
	sizeLimit    int                    // URLs per call, learned from size refusals; 0 means no limit
	sizeLimitAt  time.Time              // when sizeLimit last changed
	promised     int                    // URLs whose purge has begun, and that are not handed over yet
	unpromised   int                    // URLs of planned calls and calls in flight that were not promised
	daily        int                    // the quota of a day; 0 means unknown
	remaining    int                    // of today's quota; -1 means unknown
	learnedLimit int                    // URLs per call, learned from quota refusals; 0 means no limit
	readAt       time.Time              // when the quota was last read
	needsReread  bool                   // the last read returned no quota: read again after QuotaInterval
	readInFlight bool                   // calls wait until the quota has been read
	proven       bool                   // EdgeOne has accepted a call
	readQueued   bool                   // waits for a quota read to start
	prober       *laneState             // the lane whose call is the probe, if one is in flight
	refusedHosts map[string]refusedHost // hosts that EdgeOne does not know in this zone
}

// zoneMode is one mode of a zone, or one type of its purges. EdgeOne meters each of them
// separately.
type zoneMode struct {
	zoneID string
	edge   bool
	purge  v1alpha1.PurgeType // set in the queue of purges
}

// modesOf returns all modes of a zone that the queue can have.
func (q *Queue) modesOf(zoneID string) []zoneMode {
	if q.limits.Kind == v1alpha1.JobPurge {
		var modes []zoneMode
		for _, purge := range []v1alpha1.PurgeType{v1alpha1.PurgeURL, v1alpha1.PurgePrefix, v1alpha1.PurgeHost, v1alpha1.PurgeCacheTag} {
			modes = append(modes, zoneMode{zoneID: zoneID, purge: purge})
		}
		return modes
	}
	return []zoneMode{{zoneID: zoneID}, {zoneID: zoneID, edge: true}}
}

// zoneQuotaFor returns the quota of a mode of a zone. It creates the quota if necessary.
func (q *Queue) zoneQuotaFor(key zoneMode) *zoneQuota {
	p := q.zoneQuotas[key]
	if p == nil {
		p = &zoneQuota{zoneMode: key, lanes: map[*laneState]bool{}, tenants: map[string]*tenantState{}, remaining: -1, refusedHosts: map[string]refusedHost{}}
		q.zoneQuotas[key] = p
	}
	return p
}

// nextReset returns when the day's quota is expected to return. Statuses report this
// time. Whether the quota has returned depends only on EdgeOne's response to the next
// read.
func (q *Queue) nextReset(now time.Time) time.Time {
	reset := now.UTC().Truncate(24 * time.Hour).Add(q.limits.QuotaReset)
	if !reset.After(now) {
		reset = reset.Add(24 * time.Hour)
	}
	return reset
}

// lastReset returns when today's quota is expected to have returned.
func (q *Queue) lastReset(now time.Time) time.Time { return q.nextReset(now).Add(-24 * time.Hour) }

// dropZoneQuota deletes the quota of a mode of a zone that has no tasks, no remembered
// namespaces and no back-off, if EdgeOne has never accepted a call there.
func (q *Queue) dropZoneQuota(p *zoneQuota, now time.Time) {
	if q.zoneQuotas[p.zoneMode] == p && len(p.lanes) == 0 && len(p.tenants) == 0 && p.promised == 0 && !p.proven && !p.readInFlight && !p.backOff.isActive(now) {
		delete(q.zoneQuotas, p.zoneMode)
	}
}

// SetQuota records what EdgeOne reports about a zone: batch is the number of URLs per
// call, and left is the quota left today in the default mode. The quota of the edge mode
// cannot be read. A batch of 0 keeps the known value. A left of -1 means unknown.
func (q *Queue) SetQuota(zoneID string, batch, left int, now time.Time) {
	q.SetQuotas(zoneID, func(v1alpha1.PurgeType) Quota { return Quota{Batch: batch, Left: left} }, now)
}

// Quota is what EdgeOne reports about a mode of a zone, or a type of its purges.
type Quota struct {
	Batch int  // URLs per call; 0 keeps the known value
	Daily int  // URLs per day; 0 means unknown
	Left  int  // of today's quota; -1 means unknown
	None  bool // the zone's plan has no such quota
}

// SetQuotas is SetQuota for a queue of any kind. of returns the quota of a type of purge or,
// in the queue of prefetches, that of the default mode.
func (q *Queue) SetQuotas(zoneID string, of func(v1alpha1.PurgeType) Quota, now time.Time) {
	if q.accountBackOff.Reason == "" {
		q.accountBackOff.probe = false // the read has shown that the key works
	}
	q.setQuota(zoneID, of, now)
}

// setQuota updates all modes of a zone, and starts or ends their back-offs for the quota. The
// quota of the edge mode cannot be read.
func (q *Queue) setQuota(zoneID string, of func(v1alpha1.PurgeType) Quota, now time.Time) {
	q.quotaReads.endRead(zoneID)
	for _, mode := range q.modesOf(zoneID) {
		p, quota := q.zoneQuotaFor(mode), of(mode.purge) // one read serves all modes
		p.readInFlight, p.readAt, p.needsReread = false, now, quota.None
		if quota.Batch > 0 {
			p.batch = quota.Batch
		}
		if !mode.edge {
			p.remaining, p.daily = quota.Left, quota.Daily
			if quota.Left > 0 {
				p.learnedLimit = 0
			}
		}
		switch {
		case mode.edge:
		case quota.None:
			q.backOffMode(p, p.noQuota(), now, now.Add(q.limits.QuotaInterval))
		case quota.Left == 0:
			q.backOffMode(p, p.dailyQuota(), now, now.Add(q.limits.QuotaInterval))
		case p.backOff.Quota && quota.Left > 0:
			q.endBackOff(&p.backOff, p.backOffEvent())
		}
		q.refreshMode(p, now)
		q.runAt(now.Add(q.limits.QuotaInterval), func(now time.Time) { q.dropZoneQuota(p, now) })
	}
	q.RefreshBudget(now)
}

// SetQuotaUnknown records that the quota of a zone could not be read. Calls continue
// without a known quota until the next read, one QuotaInterval later.
func (q *Queue) SetQuotaUnknown(zoneID string, now time.Time) {
	q.setQuota(zoneID, func(v1alpha1.PurgeType) Quota { return Quota{Left: -1} }, now)
	for _, mode := range q.modesOf(zoneID) {
		q.zoneQuotaFor(mode).needsReread = true
	}
}

// dailyQuota returns the cause that tasks report when the day's quota is used up.
func (m zoneMode) dailyQuota() taskstate.Cause {
	message := "The daily quota of this zone is used up"
	if m.purge != "" {
		message = "The daily quota of this zone for purges of type " + string(m.purge) + " is used up"
	}
	return taskstate.Cause{Reason: v1alpha1.ReasonDailyQuota, Message: message, Quota: true}
}

// needsQuota reports whether the quota must be read before a call. The first call needs a
// read. After QuotaInterval, another read is needed if the last read is from the day
// before, found no quota left, or failed. A purge always needs one: it also tells what may be
// prefetched, which the queue of prefetches may have forgotten.
func (q *Queue) needsQuota(p *zoneQuota, now time.Time) bool {
	return now.Sub(p.readAt) >= q.limits.QuotaInterval && (p.purge != "" || p.remaining == 0 || p.needsReread || p.readAt.Before(q.lastReset(now)))
}

// RecordQuotaExhausted records that EdgeOne refused a call because the day's quota is
// used up. If the quota can be read and the last read is at least QuotaInterval old, the
// queue reads the quota again. Otherwise it halves the size of calls, to use what may be
// left. After the refusal of a single URL, the mode backs off.
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
	q.backOffMode(p, p.dailyQuota(), now, now.Add(q.limits.QuotaInterval))
}

// batchMemory is how long a size limit learned from EdgeOne's refusals applies. After
// each batchMemory, the limit doubles.
const batchMemory = time.Hour

// RecordTooLarge records that EdgeOne found the call too large, and halves the size of
// calls. The zone's plan may have changed since its limit was read, so the queue reads
// the limit again. A call of a single URL cannot get smaller: the zone's plan has no
// quota. RecordTooLarge then makes the zone back off and returns false.
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
	if p.purge != "" { // the plan may have other types
		q.backOffMode(p, p.noQuota(), now, now.Add(q.limits.QuotaInterval))
		return false
	}
	q.BackOffZone(p.zoneID, p.noQuota(), now, now.Add(q.limits.QuotaInterval))
	return false
}

// noQuota returns the cause that tasks report when the zone's plan has no quota.
func (m zoneMode) noQuota() taskstate.Cause {
	why := taskstate.Cause{
		Reason: v1alpha1.ReasonBatchQuota, Quota: true, NeedsUser: true,
		Message: "EdgeOne does not take even a single URL: the zone's plan has no prefetch quota",
		Advice:  "Change the plan, or the task's zoneID",
	}
	if m.purge != "" {
		why.Message = "The zone's plan has no quota for purges of type " + string(m.purge)
		why.Advice = "Change the plan, or the task's purge"
	}
	return why
}

// RecordPlanLacking records that EdgeOne refused a purge because the zone's plan does not have its
// type. message is what EdgeOne said.
func (q *Queue) RecordPlanLacking(call *Call, message string, now time.Time) {
	p := call.lane.pool
	q.endBackOffs(call, now)
	why := p.noQuota()
	why.Message += ": " + message
	q.backOffMode(p, why, now, now.Add(q.limits.QuotaInterval))
}

// RecordNoQuota records that the plan of a zone has no prefetch quota in the default
// mode. The queue reads the quota again after one QuotaInterval.
func (q *Queue) RecordNoQuota(zoneID string, now time.Time) {
	q.SetQuotas(zoneID, func(v1alpha1.PurgeType) Quota { return Quota{Left: -1, None: true} }, now)
}

// callSize returns the maximum number of URLs for the next call of the lane: the lowest
// of the known limits, halved for each lost call of its tasks, and at least 1.
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

// chargeCall subtracts n URLs from the day's quota. called is the number of URLs in the
// call, and batch is the default limit. A call at the learned limit doubles that limit.
// The learned limit ends when it reaches the batch size.
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
