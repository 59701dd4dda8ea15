package schedule

import (
	"slices"
	"time"
)

// Scope is whom the trouble of a failed call concerns.
type Scope int

const (
	// ScopeLane is the lane of the call: what fetches targets in the same way.
	ScopeLane Scope = iota
	// ScopeTenant is a namespace's part of a mode in a zone.
	ScopeTenant
	// ScopeMode is a mode in a zone.
	ScopeMode
	// ScopeAccount is the account.
	ScopeAccount
)

// failures are what has failed within a scope since a call was accepted there, by the
// way in which it failed: EdgeOne's code, or what became of the connection.
type failureCounts map[string]*failureCount

type failureCount struct {
	count  int       // failures in a row; of calls under way together only one counts
	at     time.Time // when the last one was counted
	calls  int       // failures, all of them
	first  failedCall
	spread bool // an unrelated call has failed in the same way
}

// failedCall is what is known of a failed call.
type failedCall struct {
	lane       BatchKey
	namespaces []string
}

// countFailure counts a failure. Another call that failed in the same way is unrelated if isOther
// says so.
func (all *failureCounts) countFailure(way string, call *Call, now time.Time, isOther func(first, second failedCall) bool) *failureCount {
	if *all == nil {
		*all = failureCounts{}
	}
	t := (*all)[way]
	if t == nil {
		t = &failureCount{}
		(*all)[way] = t
	}
	if call.Planned.After(t.at) {
		t.count++
		t.at = now
	}
	w := failedCall{call.Lane, call.namespaces()}
	if t.calls++; t.calls == 1 {
		t.first = w
	} else if !t.spread {
		t.spread = isOther(t.first, w)
	}
	return t
}

// isOtherLane says whether two calls fetch URLs in different ways.
func isOtherLane(a, b failedCall) bool { return !a.lane.IsSameIgnoringTenant(b.lane) }

// isOtherTenant says whether two calls have no namespace in common.
func isOtherTenant(a, b failedCall) bool {
	return !slices.ContainsFunc(b.namespaces, func(ns string) bool { return slices.Contains(a.namespaces, ns) })
}

// isOtherTenantAndZone says whether two calls have neither a namespace nor a zone in common.
func isOtherTenantAndZone(a, b failedCall) bool {
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

// AttributeFailure counts a call that failed in a way, and says whom the trouble concerns and how
// often in a row that has failed. What failed is the call's lane. It is more where an
// unrelated call has failed in the same way since one was accepted there: other lanes
// for a namespace, other namespaces for a mode in a zone, other namespaces in other
// zones for the account. So nothing that a single namespace asks for makes others wait.
func (q *Queue) AttributeFailure(call *Call, way string, now time.Time) (reach Scope, failures int) {
	l, p := call.lane, call.lane.pool
	for _, part := range call.Parts {
		part.item.failed = now
	}
	ofAccount := q.failures.countFailure(way, call, now, isOtherTenantAndZone)
	ofMode := p.failures.countFailure(way, call, now, isOtherTenant)
	ofLane := l.failures.countFailure(way, call, now, isOtherLane)
	ofTenant := &failureCount{}
	if names := call.namespaces(); len(names) == 1 {
		t := q.tenantFor(p, names[0])
		ofTenant = t.failures.countFailure(way, call, now, isOtherLane)
		q.scheduleTenantCleanup(t, now)
	}
	switch {
	case ofAccount.spread:
		return ScopeAccount, ofAccount.count
	case ofMode.spread:
		return ScopeMode, ofMode.count
	case ofTenant.spread:
		return ScopeTenant, ofTenant.count
	}
	return ScopeLane, ofLane.count
}

// deniedLanes is how many calls of a namespace may be refused in a mode of a zone before
// all of its lanes there wait.
const deniedLanes = 4

// AttributeDenial counts a call that EdgeOne refused for want of a permission, and says whom
// that concerns: the lane, with its mode, headers and media segments; the mode in the
// zone where neither headers nor media segments can be the reason, or another
// namespace's call was refused in the same way.
func (q *Queue) AttributeDenial(call *Call, way string, now time.Time) (reach Scope, failures int) {
	reach, _ = q.AttributeFailure(call, way, now)
	p := call.lane.pool
	switch {
	case call.Lane.isPlain() || reach >= ScopeMode:
		return ScopeMode, p.countDenials(way)
	case reach == ScopeTenant && q.tenantFor(p, call.Parts[0].Task.Namespace).failures[way].calls < deniedLanes:
		reach = ScopeLane
	}
	return reach, p.countDenials(way)
}

// countDenials is how often in a row a zone was refused in which nothing was ever
// accepted: such a zone is tried less and less often.
func (p *zoneQuota) countDenials(way string) int {
	if p.proven {
		return 1
	}
	return p.failures[way].count
}

// isPlain says whether nothing but zone and mode can be refused of a lane.
func (l BatchKey) isPlain() bool { return l.headers == "" && !l.MediaSegments }

// BackOffScope keeps waiting whom a failed call's trouble concerns.
func (q *Queue) BackOffScope(reach Scope, call *Call, why Cause, now, until time.Time) {
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

// clearFailures ends what was counted of failures where a call was accepted.
func (q *Queue) clearFailures(call *Call, now time.Time) {
	l := call.lane
	q.failures, l.pool.failures, l.failures = nil, nil, nil
	for _, part := range call.Parts {
		part.item.failed, part.item.backOff, part.item.verdict = time.Time{}, backOff{}, rejectionRecord{taken: true}
	}
	if names := call.namespaces(); len(names) == 1 {
		if t := l.pool.tenants[names[0]]; t != nil {
			t.failures, t.suspectedUntil = nil, time.Time{}
			q.dropTenant(t, now)
		}
	}
	l.pool.proven = true
}

// tenantFor is what is known of a namespace in a mode of a zone, while there is any reason
// to look at it apart from others.
type tenantState struct {
	name    string
	pool    *zoneQuota
	lanes   map[*laneState]bool // that are its own
	backOff backOff
	// prober is the lane whose call tries whether the trouble is over.
	prober   *laneState
	failures failureCounts
	// suspectedUntil is until when it shares no call, as one that it shared had an unknown
	// outcome; the first accepted call of its own ends that.
	suspectedUntil time.Time
	// separateUntil is until when it shares no call, as a call of its own had an unknown outcome.
	separateUntil    time.Time
	cleanupScheduled bool // it is to be forgotten when nothing is remembered about it
}

// separationTime is how long a namespace shares no calls after one of its own had an unknown
// outcome.
const separationTime = time.Hour

func (q *Queue) tenantFor(p *zoneQuota, name string) *tenantState {
	t := p.tenants[name]
	if t == nil {
		t = &tenantState{name: name, pool: p, lanes: map[*laneState]bool{}}
		p.tenants[name] = t
	}
	return t
}

// isSeparated says whether the namespace shares no calls with others.
func (t *tenantState) isSeparated(now time.Time) bool {
	return t != nil && (now.Before(t.suspectedUntil) || now.Before(t.separateUntil) || t.backOff.isActive(now))
}

// isBackedOff says whether no call of the namespace may be planned now.
func (t *tenantState) isBackedOff(now time.Time) bool {
	return t != nil && (t.backOff.isActive(now) || t.prober != nil)
}

// dropTenant forgets a namespace that nothing is remembered about.
func (q *Queue) dropTenant(t *tenantState, now time.Time) {
	if t.pool.tenants[t.name] == t && len(t.lanes) == 0 && !t.isSeparated(now) && t.failures == nil {
		delete(t.pool.tenants, t.name)
		q.dropZoneQuota(t.pool, now)
	}
}

// scheduleTenantCleanup forgets after an hour what is remembered about a namespace, unless there is
// news by then.
func (q *Queue) scheduleTenantCleanup(t *tenantState, now time.Time) {
	if t.cleanupScheduled {
		return
	}
	t.cleanupScheduled = true
	q.runAt(now.Add(separationTime), func(now time.Time) {
		t.cleanupScheduled, t.failures = false, nil
		if t.isSeparated(now) {
			q.scheduleTenantCleanup(t, now)
		}
		q.dropTenant(t, now)
	})
}

// separateTenants has namespaces whose call had an unknown outcome share no more calls with
// others: those of a shared call until a call of their own is accepted, that of a call of
// its own for an hour. So what one of them asks for keeps the others waiting once.
func (q *Queue) separateTenants(call *Call, now time.Time) {
	names := call.namespaces()
	for _, name := range names {
		t := q.tenantFor(call.lane.pool, name)
		if len(names) == 1 {
			t.separateUntil = now.Add(separationTime)
		} else {
			t.suspectedUntil = now.Add(separationTime)
		}
		q.scheduleTenantCleanup(t, now)
		q.moveToOwnLanes(t, now)
	}
}

// moveToOwnLanes moves what waits of a namespace to lanes of its own.
func (q *Queue) moveToOwnLanes(t *tenantState, now time.Time) {
	for l := range t.pool.lanes {
		s := l.queues[t.name]
		if l.apart != "" || s == nil {
			continue
		}
		own := l.BatchKey
		own.apart = t.name
		to := q.laneForKey(own)
		for _, it := range slices.Clone(s.items) {
			q.removeFromLine(it)
			it.lane = to
			q.enqueueItem(it)
		}
		q.refreshLane(to, now)
		q.refreshLane(l, now)
		q.dropLane(l, now)
	}
}

func (q *Queue) backOffTenant(t *tenantState, why Cause, now, until time.Time) {
	changed := !t.backOff.hasCause(why)
	t.backOff = t.backOff.extend(why, now, until)
	q.moveToOwnLanes(t, now)
	q.scheduleTenantCleanup(t, now)
	q.runAt(until, func(now time.Time) { q.refreshTenantLanes(t, now) })
	q.refreshTenantLanes(t, now)
	q.reportBackOff(&t.backOff, changed, now, func() {
		for l := range t.lanes {
			q.reportLane(l)
		}
	})
}

func (q *Queue) refreshTenantLanes(t *tenantState, now time.Time) {
	for l := range t.lanes {
		q.refreshLane(l, now)
	}
}
