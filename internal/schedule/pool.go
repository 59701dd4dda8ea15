package schedule

import (
	"net/url"
	"time"
)

// pool is what EdgeOne meters by zone and mode: a day's quota and the size of a
// call.
type pool struct {
	poolKey
	lanes map[*lane]bool
	hold  hold

	batch    int // targets in a call; 0 is not known
	left     int // of today's quota; -1 is not known
	limit    int // learned from refusals where left does not tell; 0 is none
	readAt   time.Time
	reading  bool
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
	probe bool // the next call tries with a single task
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
	since := now
	if h.Reason == why.Reason {
		since = h.since
	}
	return hold{Why: why, until: until, since: since, probe: true}
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
		p = &pool{poolKey: key, lanes: map[*lane]bool{}, left: -1, badHosts: map[string]badHost{}}
		q.pools[key] = p
	}
	return p
}

// HoldAccount keeps all tasks of the account waiting.
func (q *Queue) HoldAccount(why Why, now, until time.Time) {
	changed := !q.account.same(why)
	q.account = q.account.renew(why, now, until)
	if changed || q.stalled(q.account, now) {
		for _, it := range q.items {
			q.sayNow(it)
		}
	}
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
	p.hold = p.hold.renew(why, now, until)
	q.expires(p.hold)
	for l := range p.lanes {
		q.refresh(l, now)
		if changed || q.stalled(p.hold, now) {
			q.sayAll(l)
		}
	}
}

// HoldLane keeps a lane waiting after a call of it failed.
func (q *Queue) HoldLane(lane Lane, why Why, now, until time.Time) {
	if l := q.lanes[lane]; l != nil {
		l.hold = l.hold.renew(why, now, until)
		l.hold.probe = false
		q.expires(l.hold)
		q.refresh(l, now)
	}
}

func (h hold) same(why Why) bool { return h.Reason == why.Reason && h.Message == why.Message }

// refresh offers the lane's tasks if nothing keeps it from a call.
func (q *Queue) refresh(l *lane, now time.Time) {
	q.setReady(l, len(l.turn) > 0 && !l.busy && l.unknown < maxUnknown && !l.pool.reading &&
		!l.hold.at(now) && !l.pool.hold.at(now))
}

// maxUnknown is how many calls of unknown outcome a lane may have and still go on.
const maxUnknown = 4

// expire offers the lanes whose holds are over.
func (q *Queue) expire(now time.Time) {
	if q.nextExpiry.IsZero() || now.Before(q.nextExpiry) {
		return
	}
	q.nextExpiry = time.Time{}
	for _, l := range q.lanes {
		if !l.ready && len(l.turn) > 0 {
			q.refresh(l, now)
		}
		for _, h := range []hold{l.hold, l.pool.hold} {
			if h.at(now) {
				q.expires(h)
			}
		}
	}
}

// expires notes when a hold ends.
func (q *Queue) expires(h hold) {
	if q.nextExpiry.IsZero() || h.until.Before(q.nextExpiry) {
		q.nextExpiry = h.until
	}
}

// SetQuota tells what EdgeOne says of a zone: targets in a call, and left today
// in the default mode (the edge mode's quota cannot be read). A batch of 0 keeps
// what is known; a left of -1 is unknown.
func (q *Queue) SetQuota(zoneID string, batch, left int, now time.Time) {
	for _, edge := range []bool{false, true} {
		p := q.pools[poolKey{zoneID, edge}]
		if p == nil {
			continue
		}
		p.reading, p.readAt = false, now
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
		for l := range p.lanes {
			q.refresh(l, now)
		}
	}
}

var dailyQuota = Why{Reason: "DailyQuota", Message: "EdgeOne's quota of the day is used up in this zone; the task goes on when it returns", Quota: true}

// needsQuota says whether the zone's quota must be read before a call: when it
// was never read, and when nothing is left of what was read long enough ago.
func (p *pool) needsQuota(now time.Time, interval time.Duration) bool {
	return p.readAt.IsZero() || p.left == 0 && now.Sub(p.readAt) >= interval
}

// Exhausted tells that EdgeOne refused a call for the quota of the day. The size
// is halved to use what may be left; for a single URL the zone is held.
func (q *Queue) Exhausted(call *Call, now time.Time) {
	p := call.lane.pool
	if n := len(call.URLs); n > 1 {
		p.limit = n / 2
		return
	}
	p.limit, p.left = 1, min(p.left, 0)
	q.holdPool(p, dailyQuota, now, now.Add(q.limits.QuotaInterval))
}

// TooLarge tells that EdgeOne found the call too large. It returns false for a
// single URL, which nothing can make smaller: the zone's plan has no quota.
func (q *Queue) TooLarge(call *Call, now time.Time) bool {
	p := call.lane.pool
	if n := len(call.URLs); n > 1 {
		p.batch = n / 2
		return true
	}
	q.HoldZone(p.zoneID, Why{
		Reason: "BatchQuota", Quota: true, Person: true,
		Message: "EdgeOne does not take even a single URL: the zone's plan has no prefetch quota. Change the plan, or the task's zoneID",
	}, now, now.Add(q.limits.QuotaInterval))
	return false
}

// BadHost tells that EdgeOne does not know a host in the zone, so that its other
// URLs need not be asked for during some minutes.
func (q *Queue) BadHost(zoneID, rawURL, message string, until time.Time) {
	for _, edge := range []bool{false, true} {
		if p := q.pools[poolKey{zoneID, edge}]; p != nil && zoneID != "*" {
			p.badHosts[hostOf(rawURL)] = badHost{until, message}
		}
	}
}

// refused splits open positions into those that may be asked for and those whose
// host EdgeOne is known to refuse, with its words.
func (p *pool) refused(open Positions, targets []string, now time.Time) (rest, bad Positions, message string) {
	for host, b := range p.badHosts {
		if !now.Before(b.until) {
			delete(p.badHosts, host)
		}
	}
	if len(p.badHosts) == 0 {
		return open, nil, ""
	}
	for _, i := range open {
		if b, ok := p.badHosts[hostOf(targets[i])]; ok {
			bad, message = append(bad, i), b.message
		} else {
			rest = append(rest, i)
		}
	}
	return rest, bad, message
}

func hostOf(rawURL string) string {
	if u, err := url.Parse(rawURL); err == nil {
		return u.Hostname()
	}
	return rawURL
}

// size is how many URLs the next call of the lane may hold.
func (l *lane) size(limits Limits) int {
	p := l.pool
	n := p.batch
	if n == 0 {
		n = limits.Batch
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
func (p *pool) spent(n, called int) {
	if p.left >= 0 && !p.edge {
		p.left = max(0, p.left-n)
	}
	if p.limit > 0 && called >= p.limit {
		p.limit *= 2
		if p.limit >= p.batch {
			p.limit = 0
		}
	}
	p.hold = hold{}
}
