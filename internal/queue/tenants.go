package queue

import (
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// tenantState is what is known of a namespace in a mode of a zone, while there is any reason
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

func (q *Queue) refreshTenantLanes(t *tenantState, now time.Time) {
	for l := range t.lanes {
		q.refreshLane(l, now)
	}
}
