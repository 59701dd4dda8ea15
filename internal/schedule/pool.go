package schedule

import (
	"cmp"
	"container/heap"
	"maps"
	"slices"
	"strings"
	"time"
)

// zoneQuotaFor is what EdgeOne meters by zone and mode: a day's quota and the size of a
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

type refusedHost struct {
	until   time.Time
	message string
}

// backOff keeps tasks from being called for until a time. No event shortens it.
type backOff struct {
	Cause
	until      time.Time
	since      time.Time
	isReported bool      // to its tasks, that they are stalled
	probe      bool      // the next call tries with a single task
	next       time.Time // when quota is expected to return, for a hold by quota
}

func (h backOff) isActive(now time.Time) bool { return now.Before(h.until) }

// Cause says why a task waits, in the terms of its conditions.
type Cause struct {
	Reason  string
	Message string
	// Quota: EdgeOne's quota is the reason.
	Quota bool
	// NeedsUser: it does not get better without one.
	NeedsUser bool
}

// extend extends a hold; one of the same reason goes on, so that its age tells
// how long the trouble has lasted.
func (h backOff) extend(why Cause, now, until time.Time) backOff {
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

// BackOffAccount keeps all tasks of the account waiting.
func (q *Queue) BackOffAccount(why Cause, now, until time.Time) {
	changed := !q.accountBackOff.hasCause(why)
	q.accountBackOff = q.accountBackOff.extend(why, now, until)
	q.reportBackOff(&q.accountBackOff, changed, now, func() {
		for _, it := range q.items {
			q.reportNow(it)
		}
	})
}

// BackOffZone keeps all tasks of a zone waiting, in either mode.
func (q *Queue) BackOffZone(zoneID string, why Cause, now, until time.Time) {
	for _, edge := range []bool{false, true} {
		if p := q.zoneQuotas[zoneMode{zoneID, edge}]; p != nil {
			q.backOffMode(p, why, now, until)
		}
	}
}

func (q *Queue) backOffMode(p *zoneQuota, why Cause, now, until time.Time) {
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
func (q *Queue) BackOffLane(lane BatchKey, why Cause, now, until time.Time) {
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

func (h backOff) hasCause(why Cause) bool { return h.Reason == why.Reason && h.Message == why.Message }

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

// timers are what ends at a time and is looked at then, the next one first.
type timerHeap []timer

type timer struct {
	at   time.Time
	then func(now time.Time)
}

func (e timerHeap) Len() int           { return len(e) }
func (e timerHeap) Less(i, j int) bool { return e[i].at.Before(e[j].at) }
func (e timerHeap) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *timerHeap) Push(x any)        { *e = append(*e, x.(timer)) }
func (e *timerHeap) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	(*e)[last] = timer{}
	*e = (*e)[:last]
	return x
}

// popMode is when the first one ends; zero if there is none.
func (e timerHeap) nextTime() time.Time {
	if len(e) == 0 {
		return time.Time{}
	}
	return e[0].at
}

// runAt has something done at a time. What is done looks at whether there is still
// reason to: a hold may have been extended meanwhile.
func (q *Queue) runAt(at time.Time, then func(now time.Time)) {
	heap.Push(&q.timers, timer{at, then})
}

// runDueTimers does what is due.
func (q *Queue) runDueTimers(now time.Time) {
	for len(q.timers) > 0 && !now.Before(q.timers[0].at) {
		heap.Pop(&q.timers).(timer).then(now)
	}
}

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

var dailyQuota = Cause{Reason: "DailyQuota", Message: "EdgeOne's quota of the day is used up in this zone; the task goes on when it returns", Quota: true}

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

var noQuota = Cause{
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

// RefuseHost tells that EdgeOne does not know the host of a URL, as it was sent, in the
// zone, so that the host's other URLs need not be asked for during some minutes.
func (q *Queue) RefuseHost(zoneID, rawURL, message string, until time.Time) {
	for _, edge := range []bool{false, true} {
		if p := q.zoneQuotas[zoneMode{zoneID, edge}]; p != nil && zoneID != "*" {
			p.addRefusedHost(rawURL, refusedHost{until, message})
		}
	}
}

// maxRefusedHosts bounds the hosts that are remembered in a zone.
const maxRefusedHosts = 1000

func (p *zoneQuota) addRefusedHost(rawURL string, bad refusedHost) {
	host := hostOfURL(rawURL)
	if host == "" {
		return
	}
	if _, known := p.refusedHosts[host]; !known && len(p.refusedHosts) >= maxRefusedHosts {
		oldest := slices.MinFunc(slices.Collect(maps.Keys(p.refusedHosts)), func(a, b string) int {
			return p.refusedHosts[a].until.Compare(p.refusedHosts[b].until)
		})
		delete(p.refusedHosts, oldest)
	}
	p.refusedHosts[host] = bad
}

// splitRejected splits open positions into those that may be asked for and those whose
// host EdgeOne is known to refuse, with its words.
func (p *zoneQuota) splitRefusedHosts(open Positions, targets []string, normalize func(string) string, now time.Time) (rest, bad Positions, message string) {
	if len(p.refusedHosts) == 0 {
		return open, nil, ""
	}
	for _, i := range open {
		host := hostOfURL(normalize(targets[i]))
		b, known := p.refusedHosts[host]
		switch {
		case known && !now.Before(b.until):
			delete(p.refusedHosts, host)
			fallthrough
		case !known:
			rest = append(rest, i)
		default:
			bad, message = append(bad, i), b.message
		}
	}
	return rest, bad, message
}

// hostOfURL is the host of a URL if that is a plain host name in lower-case ASCII, without
// a port or a user, and "" if not: what EdgeOne says of such a URL may be about its odd
// spelling, and must not be taken for what it says of the host.
func hostOfURL(rawURL string) string {
	_, host, _ := strings.Cut(rawURL, "://")
	if end := strings.IndexAny(host, "/?#"); end >= 0 {
		host = host[:end]
	}
	for _, c := range []byte(host) {
		if ok := 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '.'; !ok {
			return ""
		}
	}
	return host
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
