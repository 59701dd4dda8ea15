package schedule

import (
	"slices"
	"time"
)

// Reach is whom the trouble of a failed call concerns.
type Reach int

const (
	// ReachLane is the lane of the call: what fetches targets in the same way.
	ReachLane Reach = iota
	// ReachTenant is a namespace's part of a mode in a zone.
	ReachTenant
	// ReachMode is a mode in a zone.
	ReachMode
	// ReachAccount is the account.
	ReachAccount
)

// troubles are what has failed within a scope since a call was accepted there, by the
// way in which it failed: EdgeOne's code, or what became of the connection.
type troubles map[string]*trouble

type trouble struct {
	count  int       // failures in a row; of calls under way together only one counts
	at     time.Time // when the last one was counted
	calls  int       // failures, all of them
	first  witness
	spread bool // an unrelated call has failed in the same way
}

// witness is what is known of a failed call.
type witness struct {
	lane       Lane
	namespaces []string
}

// add counts a failure. Another call that failed in the same way is unrelated if isOther
// says so.
func (all *troubles) add(way string, call *Call, now time.Time, isOther func(first, second witness) bool) *trouble {
	if *all == nil {
		*all = troubles{}
	}
	t := (*all)[way]
	if t == nil {
		t = &trouble{}
		(*all)[way] = t
	}
	if call.Planned.After(t.at) {
		t.count++
		t.at = now
	}
	w := witness{call.Lane, call.namespaces()}
	if t.calls++; t.calls == 1 {
		t.first = w
	} else if !t.spread {
		t.spread = isOther(t.first, w)
	}
	return t
}

// isOtherLane says whether two calls fetch URLs in different ways.
func isOtherLane(a, b witness) bool { return !a.lane.Same(b.lane) }

// isOtherTenant says whether two calls have no namespace in common.
func isOtherTenant(a, b witness) bool {
	return !slices.ContainsFunc(b.namespaces, func(ns string) bool { return slices.Contains(a.namespaces, ns) })
}

// isOtherTenantAndZone says whether two calls have neither a namespace nor a zone in common.
func isOtherTenantAndZone(a, b witness) bool {
	return a.lane.ZoneID != b.lane.ZoneID && isOtherTenant(a, b)
}

// namespaces are those of the call's tasks, sorted.
func (c *Call) namespaces() []string {
	var names []string
	for _, part := range c.Parts {
		names = append(names, part.Task.Namespace)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Blame counts a call that failed in a way, and says whom the trouble concerns and how
// often in a row that has failed. What failed is the call's lane. It is more where an
// unrelated call has failed in the same way since one was accepted there: other lanes
// for a namespace, other namespaces for a mode in a zone, other namespaces in other
// zones for the account. So nothing that a single namespace asks for makes others wait.
func (q *Queue) Blame(call *Call, way string, now time.Time) (reach Reach, failures int) {
	l, p := call.lane, call.lane.pool
	for _, part := range call.Parts {
		part.item.failed = now
	}
	ofAccount := q.troubles.add(way, call, now, isOtherTenantAndZone)
	ofMode := p.troubles.add(way, call, now, isOtherTenant)
	ofLane := l.troubles.add(way, call, now, isOtherLane)
	ofTenant := &trouble{}
	if names := call.namespaces(); len(names) == 1 {
		t := q.tenant(p, names[0])
		ofTenant = t.troubles.add(way, call, now, isOtherLane)
		q.forgetLater(t, now)
	}
	switch {
	case ofAccount.spread:
		return ReachAccount, ofAccount.count
	case ofMode.spread:
		return ReachMode, ofMode.count
	case ofTenant.spread:
		return ReachTenant, ofTenant.count
	}
	return ReachLane, ofLane.count
}

// deniedLanes is how many calls of a namespace may be refused in a mode of a zone before
// all of its lanes there wait.
const deniedLanes = 4

// BlameDenial counts a call that EdgeOne refused for want of a permission, and says whom
// that concerns: the lane, with its mode, headers and media segments; the mode in the
// zone where neither headers nor media segments can be the reason, or another
// namespace's call was refused in the same way.
func (q *Queue) BlameDenial(call *Call, way string, now time.Time) (reach Reach, failures int) {
	reach, _ = q.Blame(call, way, now)
	p := call.lane.pool
	switch {
	case call.Lane.isPlain() || reach >= ReachMode:
		return ReachMode, p.deniedInRow(way)
	case reach == ReachTenant && q.tenant(p, call.Parts[0].Task.Namespace).troubles[way].calls < deniedLanes:
		reach = ReachLane
	}
	return reach, p.deniedInRow(way)
}

// deniedInRow is how often in a row a zone was refused in which nothing was ever
// accepted: such a zone is tried less and less often.
func (p *pool) deniedInRow(way string) int {
	if p.proven {
		return 1
	}
	return p.troubles[way].count
}

// isPlain says whether nothing but zone and mode can be refused of a lane.
func (l Lane) isPlain() bool { return l.headers == "" && !l.MediaSegments }

// HoldReach keeps waiting whom a failed call's trouble concerns.
func (q *Queue) HoldReach(reach Reach, call *Call, why Why, now, until time.Time) {
	switch reach {
	case ReachAccount:
		q.HoldAccount(why, now, until)
	case ReachMode:
		q.holdPool(call.lane.pool, why, now, until)
	case ReachTenant:
		q.holdTenant(q.tenant(call.lane.pool, call.Parts[0].Task.Namespace), why, now, until)
	case ReachLane:
		q.HoldLane(call.Lane, why, now, until)
	}
}

// accepted ends what was counted of failures where a call was accepted.
func (q *Queue) accepted(call *Call, now time.Time) {
	l := call.lane
	q.troubles, l.pool.troubles, l.troubles = nil, nil, nil
	for _, part := range call.Parts {
		part.item.failed, part.item.hold, part.item.verdict = time.Time{}, hold{}, verdict{taken: true}
	}
	if names := call.namespaces(); len(names) == 1 {
		if t := l.pool.tenants[names[0]]; t != nil {
			t.troubles, t.suspected = nil, time.Time{}
			q.dropTenant(t, now)
		}
	}
	l.pool.proven = true
}

// tenant is what is known of a namespace in a mode of a zone, while there is any reason
// to look at it apart from others.
type tenant struct {
	name  string
	pool  *pool
	lanes map[*lane]bool // that are its own
	hold  hold
	// prober is the lane whose call tries whether the trouble is over.
	prober   *lane
	troubles troubles
	// suspected is until when it shares no call, as one that it shared had an unknown
	// outcome; the first accepted call of its own ends that.
	suspected time.Time
	// apart is until when it shares no call, as a call of its own had an unknown outcome.
	apart   time.Time
	leaving bool // it is to be forgotten when nothing is remembered about it
}

// apartFor is how long a namespace shares no calls after one of its own had an unknown
// outcome.
const apartFor = time.Hour

func (q *Queue) tenant(p *pool, name string) *tenant {
	t := p.tenants[name]
	if t == nil {
		t = &tenant{name: name, pool: p, lanes: map[*lane]bool{}}
		p.tenants[name] = t
	}
	return t
}

// isApart says whether the namespace shares no calls with others.
func (t *tenant) isApart(now time.Time) bool {
	return t != nil && (now.Before(t.suspected) || now.Before(t.apart) || t.hold.at(now))
}

// waits says whether no call of the namespace may be planned now.
func (t *tenant) waits(now time.Time) bool {
	return t != nil && (t.hold.at(now) || t.prober != nil)
}

// dropTenant forgets a namespace that nothing is remembered about.
func (q *Queue) dropTenant(t *tenant, now time.Time) {
	if t.pool.tenants[t.name] == t && len(t.lanes) == 0 && !t.isApart(now) && t.troubles == nil {
		delete(t.pool.tenants, t.name)
		q.dropPool(t.pool, now)
	}
}

// forgetLater forgets after an hour what is remembered about a namespace, unless there is
// news by then.
func (q *Queue) forgetLater(t *tenant, now time.Time) {
	if t.leaving {
		return
	}
	t.leaving = true
	q.expireAt(now.Add(apartFor), func(now time.Time) {
		t.leaving, t.troubles = false, nil
		if t.isApart(now) {
			q.forgetLater(t, now)
		}
		q.dropTenant(t, now)
	})
}

// keepApart has namespaces whose call had an unknown outcome share no more calls with
// others: those of a shared call until a call of their own is accepted, that of a call of
// its own for an hour. So what one of them asks for keeps the others waiting once.
func (q *Queue) keepApart(call *Call, now time.Time) {
	names := call.namespaces()
	for _, name := range names {
		t := q.tenant(call.lane.pool, name)
		if len(names) == 1 {
			t.apart = now.Add(apartFor)
		} else {
			t.suspected = now.Add(apartFor)
		}
		q.forgetLater(t, now)
		q.separate(t, now)
	}
}

// separate moves what waits of a namespace to lanes of its own.
func (q *Queue) separate(t *tenant, now time.Time) {
	for l := range t.pool.lanes {
		s := l.strands[t.name]
		if l.apart != "" || s == nil {
			continue
		}
		own := l.Lane
		own.apart = t.name
		to := q.lane(own)
		for _, it := range slices.Clone(s.items) {
			q.take(it)
			it.lane = to
			q.add(it)
		}
		q.refresh(to, now)
		q.refresh(l, now)
		q.drop(l, now)
	}
}

func (q *Queue) holdTenant(t *tenant, why Why, now, until time.Time) {
	changed := !t.hold.same(why)
	t.hold = t.hold.renew(why, now, until)
	q.separate(t, now)
	q.forgetLater(t, now)
	q.expireAt(until, func(now time.Time) { q.refreshTenant(t, now) })
	q.refreshTenant(t, now)
	q.tell(&t.hold, changed, now, func() {
		for l := range t.lanes {
			q.sayAll(l)
		}
	})
}

func (q *Queue) refreshTenant(t *tenant, now time.Time) {
	for l := range t.lanes {
		q.refresh(l, now)
	}
}
