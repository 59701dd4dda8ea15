package schedule

import (
	"cmp"
	"container/heap"
	"maps"
	"slices"
	"strings"
	"time"
)

// pool is what EdgeOne meters by zone and mode: a day's quota and the size of a
// call.
type pool struct {
	poolKey
	lanes    map[*lane]bool
	tenants  map[string]*tenant // namespaces that something is remembered about
	hold     hold
	troubles troubles

	batch    int // targets in a call, as EdgeOne says; 0 is not known
	most     int // targets in a call, as its refusals say; 0 is no limit
	mostAt   time.Time
	left     int // of today's quota; -1 is not known
	limit    int // learned from refusals where left does not tell; 0 is none
	readAt   time.Time
	unread   bool // the last read brought nothing, and the next may
	reading  bool
	proven   bool               // EdgeOne has accepted a call
	queued   bool               // it waits until its quota may be read
	prober   *lane              // whose call tries whether the trouble is over
	badHosts map[string]badHost // that EdgeOne does not know in this zone
}

type poolKey struct {
	zoneID string
	edge   bool
}

type badHost struct {
	until   time.Time
	message string
}

// hold keeps tasks from being called for until a time. No event shortens it.
type hold struct {
	Why
	until time.Time
	since time.Time
	said  bool      // to its tasks, that they are stalled
	probe bool      // the next call tries with a single task
	next  time.Time // when quota is expected to return, for a hold by quota
}

func (h hold) at(now time.Time) bool { return now.Before(h.until) }

// Why says why a task waits, in the terms of its conditions.
type Why struct {
	Reason  string
	Message string
	// Quota: EdgeOne's quota is the reason.
	Quota bool
	// Person: it does not get better without one.
	Person bool
}

// renew extends a hold; one of the same reason goes on, so that its age tells
// how long the trouble has lasted.
func (h hold) renew(why Why, now, until time.Time) hold {
	renewed := hold{Why: why, until: until, since: now, probe: true}
	if h.Reason == why.Reason {
		renewed.since, renewed.said = h.since, h.said
	}
	if h.until.After(until) {
		renewed.until = h.until
	}
	return renewed
}

// tell says to all who wait that there is a hold: at once if it is the quota's,
// else if it lasts, and once more when it turns out to need a person.
func (q *Queue) tell(h *hold, changed bool, now time.Time, all func()) {
	switch why, since := h.Why, h.since; {
	case q.stalled(*h, now) && !h.said:
		h.said = true
		all()
	case changed && why.Quota:
		all()
	case changed:
		q.later = append(q.later, later{at: now.Add(patience), all: func() {
			if h.Why == why && h.since.Equal(since) {
				all()
			}
		}})
	}
}

// stalled says whether trouble that needs a person has lasted so long that a task
// should say so.
func (q *Queue) stalled(h hold, now time.Time) bool {
	return h.Person && now.Sub(h.since) >= q.limits.StallAfter
}

func (q *Queue) pool(zoneID string, edge bool) *pool {
	key := poolKey{zoneID, edge}
	p := q.pools[key]
	if p == nil {
		p = &pool{poolKey: key, lanes: map[*lane]bool{}, tenants: map[string]*tenant{}, left: -1, badHosts: map[string]badHost{}}
		q.pools[key] = p
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

// HoldAccount keeps all tasks of the account waiting.
func (q *Queue) HoldAccount(why Why, now, until time.Time) {
	changed := !q.account.same(why)
	q.account = q.account.renew(why, now, until)
	q.tell(&q.account, changed, now, func() {
		for _, it := range q.items {
			q.sayNow(it)
		}
	})
}

// HoldZone keeps all tasks of a zone waiting, in either mode.
func (q *Queue) HoldZone(zoneID string, why Why, now, until time.Time) {
	for _, edge := range []bool{false, true} {
		if p := q.pools[poolKey{zoneID, edge}]; p != nil {
			q.holdPool(p, why, now, until)
		}
	}
}

func (q *Queue) holdPool(p *pool, why Why, now, until time.Time) {
	changed := !p.hold.same(why)
	next := p.hold.next
	p.hold = p.hold.renew(why, now, until)
	if why.Quota {
		if p.hold.next = next; !now.Before(next) { // a day is over: say the next one
			p.hold.next, changed = q.nextReset(now), true
		}
	}
	q.expireAt(p.hold.until, func(now time.Time) {
		q.refreshAll(p, now)
		q.dropPool(p, now)
	})
	q.refreshAll(p, now)
	q.tell(&p.hold, changed, now, func() {
		for l := range p.lanes {
			q.sayAll(l)
		}
	})
}

// HoldLane keeps a lane waiting after a call of it failed.
func (q *Queue) HoldLane(lane Lane, why Why, now, until time.Time) {
	if l := q.lanes[lane]; l != nil {
		l.hold = l.hold.renew(why, now, until)
		l.hold.probe = false
		q.expireAt(l.hold.until, func(now time.Time) {
			q.refresh(l, now)
			q.drop(l, now)
		})
		q.refresh(l, now)
	}
}

func (h hold) same(why Why) bool { return h.Reason == why.Reason && h.Message == why.Message }

// refresh offers the lane's tasks if nothing keeps it from a call.
func (q *Queue) refresh(l *lane, now time.Time) {
	q.setReady(l, len(l.strands) > 0 && !l.busy && l.unknown < maxUnknown && !l.waits(now))
}

// holds are what may keep a lane waiting, the widest first.
func (q *Queue) holds(l *lane) []*hold {
	holds := []*hold{&q.account, &l.pool.hold, &l.hold}
	if l.tenant != nil {
		holds = append(holds, &l.tenant.hold)
	}
	return holds
}

// waits says whether no call of the lane may be planned now.
func (l *lane) waits(now time.Time) bool {
	return l.hold.at(now) || l.pool.waits(now) || l.tenant.waits(now)
}

func (q *Queue) refreshAll(p *pool, now time.Time) {
	for l := range p.lanes {
		q.refresh(l, now)
	}
}

// waits says whether no call of the pool may be planned now.
func (p *pool) waits(now time.Time) bool {
	return p.reading || p.hold.at(now) || p.prober != nil
}

// maxUnknown is how many calls of unknown outcome a lane may have and still go on.
const maxUnknown = 4

// expiries are what ends at a time and is looked at then, the next one first.
type expiries []expiry

type expiry struct {
	at   time.Time
	then func(now time.Time)
}

func (e expiries) Len() int           { return len(e) }
func (e expiries) Less(i, j int) bool { return e[i].at.Before(e[j].at) }
func (e expiries) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *expiries) Push(x any)        { *e = append(*e, x.(expiry)) }
func (e *expiries) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	(*e)[last] = expiry{}
	*e = (*e)[:last]
	return x
}

// next is when the first one ends; zero if there is none.
func (e expiries) next() time.Time {
	if len(e) == 0 {
		return time.Time{}
	}
	return e[0].at
}

// expireAt has something done at a time. What is done looks at whether there is still
// reason to: a hold may have been extended meanwhile.
func (q *Queue) expireAt(at time.Time, then func(now time.Time)) {
	heap.Push(&q.expiries, expiry{at, then})
}

// expire does what is due.
func (q *Queue) expire(now time.Time) {
	for len(q.expiries) > 0 && !now.Before(q.expiries[0].at) {
		heap.Pop(&q.expiries).(expiry).then(now)
	}
}

// dropPool forgets a zone and mode that has no tasks and where nothing was accepted.
func (q *Queue) dropPool(p *pool, now time.Time) {
	if q.pools[p.poolKey] == p && len(p.lanes) == 0 && len(p.tenants) == 0 && !p.proven && !p.reading && !p.hold.at(now) {
		delete(q.pools, p.poolKey)
	}
}

// SetQuota tells what EdgeOne says of a zone: targets in a call, and left today
// in the default mode (the edge mode's quota cannot be read). A batch of 0 keeps
// what is known; a left of -1 is unknown.
func (q *Queue) SetQuota(zoneID string, batch, left int, now time.Time) {
	if q.account.Reason == "" {
		q.account.probe = false // EdgeOne knows the key
	}
	q.setQuota(zoneID, batch, left, now)
}

func (q *Queue) setQuota(zoneID string, batch, left int, now time.Time) {
	q.reads.ended(zoneID)
	for _, edge := range []bool{false, true} {
		p := q.pool(zoneID, edge) // made if need be: one read serves both
		p.reading, p.readAt, p.unread = false, now, false
		if batch > 0 {
			p.batch = batch
		}
		if !edge {
			p.left = left
			if left > 0 {
				p.limit = 0
			}
		}
		switch {
		case !edge && left == 0:
			q.holdPool(p, dailyQuota, now, now.Add(q.limits.QuotaInterval))
		case p.hold.Quota && left > 0 && !edge:
			p.hold = hold{}
		}
		q.refreshAll(p, now)
		q.expireAt(now.Add(q.limits.QuotaInterval), func(now time.Time) { q.dropPool(p, now) })
	}
}

// QuotaFailed tells that the quota of a zone could not be read this time. Calls go on
// without knowing it, until it is read again an interval later.
func (q *Queue) QuotaFailed(zoneID string, now time.Time) {
	q.setQuota(zoneID, 0, -1, now)
	for _, edge := range []bool{false, true} {
		q.pool(zoneID, edge).unread = true
	}
}

var dailyQuota = Why{Reason: "DailyQuota", Message: "EdgeOne's quota of the day is used up in this zone; the task goes on when it returns", Quota: true}

// needsQuota says whether the zone's quota must be read before a call: when it was never
// read, and when that was long enough ago and is of the day before, or used up, or
// brought nothing.
func (q *Queue) needsQuota(p *pool, now time.Time) bool {
	return now.Sub(p.readAt) >= q.limits.QuotaInterval && (p.left == 0 || p.unread || p.readAt.Before(q.lastReset(now)))
}

// Exhausted tells that EdgeOne refused a call for the quota of the day. What is
// left is read again where it can be and that was long ago. Else the size is
// halved to use what may be left; for a single URL the zone is held.
func (q *Queue) Exhausted(call *Call, now time.Time) {
	p := call.lane.pool
	q.answered(call, now)
	if p.left >= 0 && !p.edge && now.Sub(p.readAt) >= q.limits.QuotaInterval {
		p.readAt = time.Time{}
		return
	}
	if n := len(call.URLs); n > 1 {
		p.limit = n / 2
		return
	}
	p.limit, p.left = 1, min(p.left, 0)
	q.holdPool(p, dailyQuota, now, now.Add(q.limits.QuotaInterval))
}

// batchMemory is how long calls stay as small as EdgeOne's refusals made them, until
// twice as many targets are tried.
const batchMemory = time.Hour

// TooLarge tells that EdgeOne found the call too large: its plan may have changed
// since its limit was read, so that is read again. It returns false for a
// single URL, which nothing can make smaller: the zone's plan has no quota.
func (q *Queue) TooLarge(call *Call, now time.Time) bool {
	p := call.lane.pool
	q.answered(call, now)
	if now.Sub(p.readAt) >= q.limits.QuotaInterval {
		p.readAt = time.Time{}
	}
	if n := len(call.URLs); n > 1 {
		p.most, p.mostAt = n/2, now
		return true
	}
	// What was learned no longer counts once the plan is changed.
	p.batch, p.most, p.limit, p.readAt = 0, 0, 1, time.Time{}
	q.HoldZone(p.zoneID, noQuota, now, now.Add(q.limits.QuotaInterval))
	return false
}

var noQuota = Why{
	Reason: "BatchQuota", Quota: true, Person: true,
	Message: "EdgeOne does not take even a single URL: the zone's plan has no prefetch quota. Change the plan, or the task's zoneID",
}

// NoQuota tells that the plan of a zone has no quota for prefetch in the default mode. It
// is read again an interval later.
func (q *Queue) NoQuota(zoneID string, now time.Time) {
	q.SetQuota(zoneID, 0, -1, now)
	q.pool(zoneID, false).unread = true
	q.holdPool(q.pool(zoneID, false), noQuota, now, now.Add(q.limits.QuotaInterval))
}

// BadHost tells that EdgeOne does not know the host of a URL, as it was sent, in the
// zone, so that the host's other URLs need not be asked for during some minutes.
func (q *Queue) BadHost(zoneID, rawURL, message string, until time.Time) {
	for _, edge := range []bool{false, true} {
		if p := q.pools[poolKey{zoneID, edge}]; p != nil && zoneID != "*" {
			p.addBadHost(rawURL, badHost{until, message})
		}
	}
}

// maxBadHosts bounds the hosts that are remembered in a zone.
const maxBadHosts = 1000

func (p *pool) addBadHost(rawURL string, bad badHost) {
	host := hostOf(rawURL)
	if host == "" {
		return
	}
	if _, known := p.badHosts[host]; !known && len(p.badHosts) >= maxBadHosts {
		oldest := slices.MinFunc(slices.Collect(maps.Keys(p.badHosts)), func(a, b string) int {
			return p.badHosts[a].until.Compare(p.badHosts[b].until)
		})
		delete(p.badHosts, oldest)
	}
	p.badHosts[host] = bad
}

// refused splits open positions into those that may be asked for and those whose
// host EdgeOne is known to refuse, with its words.
func (p *pool) refused(open Positions, targets []string, normalize func(string) string, now time.Time) (rest, bad Positions, message string) {
	if len(p.badHosts) == 0 {
		return open, nil, ""
	}
	for _, i := range open {
		host := hostOf(normalize(targets[i]))
		b, known := p.badHosts[host]
		switch {
		case known && !now.Before(b.until):
			delete(p.badHosts, host)
			fallthrough
		case !known:
			rest = append(rest, i)
		default:
			bad, message = append(bad, i), b.message
		}
	}
	return rest, bad, message
}

// hostOf is the host of a URL if that is a plain host name in lower-case ASCII, without
// a port or a user, and "" if not: what EdgeOne says of such a URL may be about its odd
// spelling, and must not be taken for what it says of the host.
func hostOf(rawURL string) string {
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

// size is how many URLs the next call of the lane may hold.
func (l *lane) size(limits Limits, now time.Time) int {
	p := l.pool
	n := cmp.Or(p.batch, limits.Batch)
	for p.most > 0 && now.Sub(p.mostAt) >= batchMemory {
		if p.mostAt, p.most = p.mostAt.Add(batchMemory), 2*p.most; p.most >= n {
			p.most = 0
		}
	}
	if p.most > 0 {
		n = min(n, p.most)
	}
	if p.limit > 0 {
		n = min(n, p.limit)
	}
	if p.left >= 0 && !p.edge {
		n = min(n, p.left)
	}
	return max(1, n>>l.lost)
}

// spent takes what a call used from the day's quota.
func (p *pool) spent(n, called, batch int) {
	if p.left >= 0 && !p.edge {
		p.left = max(0, p.left-n)
	}
	if p.limit > 0 && called >= p.limit {
		p.limit *= 2
		if p.limit >= cmp.Or(p.batch, batch) {
			p.limit = 0
		}
	}
}
