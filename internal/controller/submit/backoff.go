package submit

import (
	"cmp"
	"errors"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/backoff"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// backOffReleased has the queue act on the error of a call that EdgeOne did not execute.
func (s *Submitter) backOffReleased(l *accountQueue, call *queue.Call, err error) {
	q, tasks, now := l.queue, s.newestVersions(l, call), time.Now()
	switch {
	case teo.IsBatchQuota(err):
		q.RecordTooLarge(call, now)
		q.RecordReleased(call, tasks, now)
	case teo.KindOf(err) == teo.Rejected:
		q.BisectRejected(call, tasks, now)
	case teo.KindOf(err) == teo.Exhausted:
		q.RecordQuotaExhausted(call, now)
		q.RecordReleased(call, tasks, now)
	case errors.Is(err, teo.ErrCutOff):
		reach, failures := q.AttributeFailure(call, "cut off", now)
		p := backoff.PlanWait(err, failures, s.RecheckInterval)
		if reach == queue.ScopeAccount {
			q.BackOffAccount(p.Cause, now, now.Add(p.Duration))
		}
		q.BisectCutOff(call, tasks, p.Cause, now)
	default:
		if errors.Is(err, teo.ErrTooOld) {
			q.LimitTasksPerCall(call)
		}
		s.backOffCall(l, call, err)
		q.RecordReleased(call, tasks, now)
	}
}

// backOffCall applies the plan for a failure to the queue, and returns the wait. A failure
// without a call concerns the account. The queue must be locked.
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

// attributeFailure counts a failure. It returns the scope that the failure concerns, and how
// many calls in a row failed there. A failure that says nothing about the request concerns the
// account.
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
