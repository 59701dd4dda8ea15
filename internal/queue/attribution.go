package queue

import (
	"slices"
	"time"
)

// Scope is the part of the queue that a failed call affects.
type Scope int

const (
	// ScopeLane is the lane of the call: all targets that EdgeOne fetches in the same
	// way.
	ScopeLane Scope = iota
	// ScopeTenant is one namespace in one mode of a zone.
	ScopeTenant
	// ScopeMode is one mode of a zone, for all namespaces.
	ScopeMode
	// ScopeAccount is the whole account.
	ScopeAccount
)

// failureCounts counts the failures in a scope since EdgeOne last accepted a call there.
// The key (way) is the kind of failure: EdgeOne's error code, or what happened to the
// connection.
type failureCounts map[string]*failureCount

// failureCount counts the failures of one kind in a scope.
type failureCount struct {
	count  int        // consecutive failures; calls in flight at the same time count once
	at     time.Time  // when count last increased
	calls  int        // all failures, including simultaneous ones
	first  failedCall // the first call that failed in this way
	spread bool       // a call unrelated to the first one failed in the same way
}

// failedCall identifies a failed call by its lane and its namespaces.
type failedCall struct {
	lane       BatchKey
	namespaces []string
}

// countFailure counts a failed call. It marks the count as spread if isOther reports that
// the call is unrelated to the first call that failed in the same way.
func (all *failureCounts) countFailure(way string, call *Call, now time.Time, isOther func(first, second failedCall) bool) *failureCount {
	if *all == nil {
		*all = failureCounts{}
	}
	t := (*all)[way]
	if t == nil {
		t = &failureCount{}
		(*all)[way] = t
	}
	// A call that was planned before the last count was in flight together with the
	// counted call. The same incident may explain both failures, so they count once.
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

// isOtherLane reports whether two calls fetch URLs in different ways.
func isOtherLane(a, b failedCall) bool { return !a.lane.IsSameIgnoringTenant(b.lane) }

// isOtherTenant reports whether two calls have no namespace in common.
func isOtherTenant(a, b failedCall) bool {
	return !slices.ContainsFunc(b.namespaces, func(ns string) bool { return slices.Contains(a.namespaces, ns) })
}

// isOtherTenantAndZone reports whether two calls have neither a namespace nor a zone in
// common.
func isOtherTenantAndZone(a, b failedCall) bool {
	return a.lane.ZoneID != b.lane.ZoneID && isOtherTenant(a, b)
}

// namespaces returns the namespaces of the call's tasks, sorted and without duplicates.
func (c *Call) namespaces() []string {
	var names []string
	for _, part := range c.Parts {
		names = append(names, part.Task.Namespace)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// AttributeFailure counts a failed call. It returns the scope that the failure affects,
// and the number of consecutive failures in that scope. The scope is the lane of the
// call, unless an unrelated call has failed in the same way since EdgeOne last accepted a
// call in a wider scope. An unrelated call widens the scope as follows:
//
//   - The same namespace in another lane: ScopeTenant. Only calls of a single namespace
//     count.
//   - Another namespace in the same mode of the zone: ScopeMode.
//   - Another namespace in another zone: ScopeAccount.
//
// The requests of a single namespace therefore never make other namespaces wait.
func (q *Queue) AttributeFailure(call *Call, way string, now time.Time) (reach Scope, failures int) {
	l, p := call.lane, call.lane.pool
	for _, part := range call.Parts {
		part.item.failed = now // the task goes behind all tasks that are queued now
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

// deniedLanes is the number of denied calls of a namespace in a mode of a zone after
// which all lanes of the namespace there back off, if the calls were in more than one
// lane.
const deniedLanes = 4

// AttributeDenial counts a call that EdgeOne refused for a missing permission. It returns
// the scope that the denial affects, and the number of denials as countDenials defines
// it. The scope is one of these:
//
//   - By default, the lane: the permission may exclude only its mode, its headers or its
//     media segments.
//   - The mode of the zone, if the call has neither headers nor media segments, or if
//     EdgeOne refused another namespace's call in the same way.
//   - The namespace, after deniedLanes denied calls in more than one lane.
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

// countDenials returns the number of consecutive denials in a mode of a zone where
// EdgeOne has never accepted a call. The operator retries such a zone less and less
// often. In any other zone, countDenials returns 1.
func (p *zoneQuota) countDenials(way string) int {
	if p.proven {
		return 1
	}
	return p.failures[way].count
}

// clearFailures resets the failure counts in all scopes of a call that EdgeOne accepted.
// It resets the counts of a namespace only if all tasks of the call are in that
// namespace.
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
