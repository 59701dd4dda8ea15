package submit

import (
	"cmp"
	"errors"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/backoff"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// backOffReleased updates the queue after a call that EdgeOne did not execute: it backs off or
// bisects the call, depending on the error. The queue must be locked.
func (s *Submitter) backOffReleased(l *accountQueue, call *queue.Call, err error) {
	q, tasks, now := l.queue, s.newestVersions(l, call), time.Now()
	switch {
	case teo.IsPlanLacking(err) && l.kind == v1alpha1.JobPurge: // the zone's plan has no such purges
		q.RecordPlanLacking(call, teo.Message(err), now)
		q.RecordReleased(call, tasks, now)
	case teo.IsBatchQuota(err): // more URLs than the zone's plan allows per call
		q.RecordTooLarge(call, now)
		q.RecordReleased(call, tasks, now)
	case teo.KindOf(err) == teo.Rejected: // one of several URLs may be the cause
		q.BisectRejected(call, tasks, now)
	case teo.KindOf(err) == teo.Exhausted: // the daily quota is used up
		q.RecordQuotaExhausted(call, now)
		q.RecordReleased(call, tasks, now)
	case errors.Is(err, teo.ErrCutOff):
		// A proxy may limit the size of requests. Bisect the call, and back off the account
		// only if calls of several namespaces and zones are cut off.
		reach, failures := q.AttributeFailure(call, "cut off", now)
		p := backoff.PlanWait(err, failures, s.RecheckInterval)
		if reach == queue.ScopeAccount {
			q.BackOffAccount(p.Cause, now, now.Add(p.Duration))
		}
		q.BisectCutOff(call, tasks, p.Cause, now)
	default:
		if errors.Is(err, teo.ErrTooOld) { // writing the claims took too long
			q.LimitTasksPerCall(call)
		}
		s.backOffCall(l, call, err)
		q.RecordReleased(call, tasks, now)
	}
}

// backOffCall applies the back-off for a failure to the queue, and returns its duration. A
// failure without a call (nil) concerns the account. If a user must act, or the key is denied,
// the next pass reads the credentials again. The queue must be locked.
func (s *Submitter) backOffCall(l *accountQueue, call *queue.Call, err error) time.Duration {
	now := time.Now()
	reach, failures := s.attributeFailure(l, call, err, now)
	p := backoff.PlanWait(err, failures, s.RecheckInterval)
	if call == nil && p.Scope != backoff.ScopeNone {
		p.Scope = backoff.ScopeAccount
	}
	switch p.Scope {
	case backoff.ScopeAccount:
		l.queue.BackOffAccount(p.Cause, now, now.Add(p.Duration))
		if other := l.otherQueue(); call == nil || teo.DeniedAccount(err) { // the key signs all calls
			other.queue.BackOffAccount(p.Cause, now, now.Add(p.Duration))
		}
	case backoff.ScopeBlamed:
		l.queue.BackOffScope(reach, call, p.Cause, now, now.Add(p.Duration))
	case backoff.ScopeLane:
		l.queue.BackOffLane(call.Lane, p.Cause, now, now.Add(p.Duration))
	case backoff.ScopeNone:
	}
	if p.NeedsUser || teo.DeniedAccount(err) {
		s.Credentials.ForgetCredentials(l.account)
	}
	return p.Duration
}

// otherQueue returns the other queue of the account.
func (l *accountQueue) otherQueue() *accountQueue {
	if l.kind == v1alpha1.JobPurge {
		return l.prefetches
	}
	return l.purges
}

// attributeFailure counts a failure. It returns the scope that the failure concerns, and the
// number of consecutive failures in that scope. A failure that the request did not cause
// concerns the account. Failures of calls that overlap count once for the account.
func (s *Submitter) attributeFailure(l *accountQueue, call *queue.Call, err error, now time.Time) (queue.Scope, int) {
	way := cmp.Or(teo.Code(err), "no answer")
	switch kind := teo.KindOf(err); {
	case call == nil:
	case kind == teo.Ambiguous:
		return l.queue.AttributeFailure(call, way, now)
	case kind == teo.Denied && !teo.DeniedAccount(err):
		return l.queue.AttributeDenial(call, way, now)
	}
	if call == nil || call.Planned.After(l.failedAt) {
		l.failures++
		l.failedAt = now
	}
	return queue.ScopeAccount, l.failures
}

// logBackOff logs when calls of an account stop and when they continue. Repeated failures for
// the same cause are one line.
func logBackOff(account taskstate.AccountKey, e queue.BackOffEvent) {
	values := []any{"account", account.String(), "reason", e.Reason, "message", e.FullMessage()}
	if e.ZoneID != "" {
		values = append(values, "zone", e.ZoneID, "edge", e.Edge)
	}
	if e.Namespace != "" {
		values = append(values, "namespace", e.Namespace)
	}
	if e.Ended {
		ctrl.Log.Info("Calls continue", append(values, "after", time.Since(e.Since).Round(time.Second).String())...)
		return
	}
	ctrl.Log.Info("Calls are on hold", append(values, "nextTry", e.Until.UTC().Format(time.RFC3339))...)
}
