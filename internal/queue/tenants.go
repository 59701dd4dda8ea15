package queue

import (
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// tenantState is what the queue knows about a namespace in a mode of a zone, while there
// is a reason to treat the namespace separately.
type tenantState struct {
	name    string
	pool    *zoneQuota
	lanes   map[*laneState]bool // the lanes of this namespace alone
	backOff backOff
	// prober is the lane whose call is the probe.
	prober   *laneState
	failures failureCounts
	// suspectedUntil is when the separation ends that followed a shared call of unknown
	// outcome. The first accepted call with only this namespace's tasks ends it earlier.
	suspectedUntil time.Time
	// separateUntil is when the separation ends that followed a call of unknown outcome
	// with only this namespace's tasks. No accepted call ends it earlier.
	separateUntil    time.Time
	cleanupScheduled bool // a timer will forget the namespace when it can
}

// separationTime is how long a namespace shares no calls after a call with its tasks had
// an unknown outcome.
const separationTime = time.Hour

// tenantFor returns the state of a namespace in a mode of a zone, which it creates if
// necessary.
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

// isBackedOff says whether no call of the namespace may be planned now, because it backs
// off or a probe is in flight.
func (t *tenantState) isBackedOff(now time.Time) bool {
	return t != nil && (t.backOff.isActive(now) || t.prober != nil)
}

// dropTenant forgets a namespace about which nothing is left to remember.
func (q *Queue) dropTenant(t *tenantState, now time.Time) {
	if t.pool.tenants[t.name] == t && len(t.lanes) == 0 && !t.isSeparated(now) && t.failures == nil {
		delete(t.pool.tenants, t.name)
		q.dropZoneQuota(t.pool, now)
	}
}

// scheduleTenantCleanup forgets after an hour what the queue knows about a namespace.
// While the namespace is separated, the cleanup is repeated.
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

// separateTenants stops the namespaces of a call of unknown outcome from sharing calls.
// After a shared call, a namespace is separated until EdgeOne accepts a call with only
// its tasks, at most for an hour. After a call with only its tasks, it is separated for
// an hour. The requests of a namespace therefore make the other namespaces wait once.
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

// moveToOwnLanes moves the waiting tasks of a namespace from shared lanes to its own
// lanes.
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

// backOffTenant keeps the tasks of a namespace in a mode of a zone out of calls until a
// time. They move to lanes of their own, so that the other namespaces continue.
func (q *Queue) backOffTenant(t *tenantState, why taskstate.Cause, now, until time.Time) {
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

// refreshTenantLanes refreshes all lanes of this namespace alone.
func (q *Queue) refreshTenantLanes(t *tenantState, now time.Time) {
	for l := range t.lanes {
		q.refreshLane(l, now)
	}
}
