package queue

import (
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// tenantState is what the queue knows about a namespace in a mode of a zone. It exists
// only while there is a reason to treat the namespace separately.
type tenantState struct {
	name    string
	pool    *zoneQuota
	lanes   map[*laneState]bool // the lanes that only this namespace uses
	backOff backOff
	// prober is the lane whose call is the probe of the namespace, if one is in flight.
	prober   *laneState
	failures failureCounts
	// suspectedUntil is the end of the separation after a shared call of unknown outcome.
	// The first accepted call with only this namespace's tasks ends it earlier.
	suspectedUntil time.Time
	// separateUntil is the end of the separation after a call of unknown outcome with
	// only this namespace's tasks. No accepted call ends it earlier.
	separateUntil    time.Time
	cleanupScheduled bool // a timer will delete the state when it is no longer needed
}

// separationTime is how long a namespace shares no calls after a call with its tasks had
// an unknown outcome.
const separationTime = time.Hour

// tenantFor returns the state of a namespace in a mode of a zone. It creates the state if
// necessary.
func (q *Queue) tenantFor(p *zoneQuota, name string) *tenantState {
	t := p.tenants[name]
	if t == nil {
		t = &tenantState{name: name, pool: p, lanes: map[*laneState]bool{}}
		p.tenants[name] = t
	}
	return t
}

// isSeparated reports whether the namespace shares no calls with other namespaces.
func (t *tenantState) isSeparated(now time.Time) bool {
	return t != nil && (now.Before(t.suspectedUntil) || now.Before(t.separateUntil) || t.backOff.isActive(now))
}

// isBackedOff reports whether calls of the namespace must wait now, because the namespace
// backs off or its probe is in flight.
func (t *tenantState) isBackedOff(now time.Time) bool {
	return t != nil && (t.backOff.isActive(now) || t.prober != nil)
}

// dropTenant deletes the state of a namespace if there is nothing left to remember.
func (q *Queue) dropTenant(t *tenantState, now time.Time) {
	if t.pool.tenants[t.name] == t && len(t.lanes) == 0 && !t.isSeparated(now) && t.failures == nil {
		delete(t.pool.tenants, t.name)
		q.dropZoneQuota(t.pool, now)
	}
}

// scheduleTenantCleanup schedules the cleanup of a namespace's state after
// separationTime. The cleanup resets the failure counts and deletes the state. While the
// namespace is separated, the cleanup is repeated.
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

// separateTenants stops the namespaces of a call of unknown outcome from sharing calls:
//
//   - After a shared call, a namespace is separated until EdgeOne accepts a call with
//     only its tasks, but at most for separationTime.
//   - After a call with only its tasks, a namespace is separated for the whole
//     separationTime.
//
// A namespace whose calls get lost therefore delays other namespaces only once.
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

// moveToOwnLanes moves the waiting tasks of a namespace from shared lanes to lanes of its
// own.
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
// time. The tasks move to lanes of their own, so that the other namespaces continue.
func (q *Queue) backOffTenant(t *tenantState, why taskstate.Cause, now, until time.Time) {
	changed := !t.backOff.hasCause(why)
	t.backOff = t.backOff.extend(why, now, until)
	q.moveToOwnLanes(t, now)
	q.scheduleTenantCleanup(t, now)
	q.runAt(until, func(now time.Time) { q.refreshTenantLanes(t, now) })
	q.refreshTenantLanes(t, now)
	q.reportBackOff(&t.backOff, t.backOffEvent(), changed, now, func() {
		for l := range t.lanes {
			q.reportLane(l)
		}
	})
}

// refreshTenantLanes refreshes all lanes that only this namespace uses.
func (q *Queue) refreshTenantLanes(t *tenantState, now time.Time) {
	for l := range t.lanes {
		q.refreshLane(l, now)
	}
}
