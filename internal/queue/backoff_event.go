package queue

import (
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// BackOffEvent describes the start or the end of a back-off.
type BackOffEvent struct {
	Scope     Scope
	ZoneID    string             // "" for the account
	Edge      bool               // the mode of the zone
	Purge     v1alpha1.PurgeType // the type of purges; "" for prefetches
	Namespace string             // for ScopeTenant
	taskstate.Cause
	Since time.Time
	Until time.Time // the next try
	Ended bool
}

// accountEvent describes back-offs of the account.
var accountEvent = BackOffEvent{Scope: ScopeAccount}

// backOffEvent describes back-offs of a mode of a zone.
func (p *zoneQuota) backOffEvent() BackOffEvent {
	return BackOffEvent{Scope: ScopeMode, ZoneID: p.zoneID, Edge: p.edge, Purge: p.purge}
}

// backOffEvent describes back-offs of a namespace in a mode of a zone.
func (t *tenantState) backOffEvent() BackOffEvent {
	return BackOffEvent{Scope: ScopeTenant, ZoneID: t.pool.zoneID, Edge: t.pool.edge, Purge: t.pool.purge, Namespace: t.name}
}

// observeBackOff passes the state of a back-off on to the observer.
func (q *Queue) observeBackOff(h *backOff, event BackOffEvent) {
	if q.limits.ObserveBackOff == nil || h.Reason == "" {
		return
	}
	event.Cause, event.Since, event.Until = h.Cause, h.since, h.until
	q.limits.ObserveBackOff(event)
}

// endBackOff ends a back-off after the call that shows that its trouble is over.
func (q *Queue) endBackOff(h *backOff, event BackOffEvent) {
	event.Ended = true
	q.observeBackOff(h, event)
	*h = backOff{}
}

// EndAccountBackOff ends a back-off of the account that waits for a user, because the user
// has changed the account. The next call checks whether the problem is solved.
func (q *Queue) EndAccountBackOff() {
	if q.accountBackOff.NeedsUser {
		q.endBackOff(&q.accountBackOff, accountEvent)
		q.accountBackOff.probe = true
	}
}
