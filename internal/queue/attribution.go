package queue

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

// failureCounts are what has failed within a scope since a call was accepted there, by the
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
