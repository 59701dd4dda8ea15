package submit

import (
	"context"
	"errors"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/backoff"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// readQuota reads how much a zone may still submit today, and tells both queues of the account. If
// the key may not read the quota, calls continue without it, and the queue learns from EdgeOne's
// refusals.
//
// The account makes no call until an answer has carried EdgeOne's time. Calls are signed and
// looked up by this time. With a clock that is minutes off, a lost call would be looked up in
// the wrong period.
//
// Before the first purge of a zone, readQuota also checks that the key may read the history of
// purges. Otherwise, targets would be purged that nothing prefetches afterwards.
func (s *Submitter) readQuota(l *accountQueue, creds teo.Credentials, zoneID string) {
	ctx, cancel := context.WithTimeout(s.Critical, 30*time.Second)
	defer cancel()
	ctx = teo.InLine(ctx, l.account.String())
	quota, err := s.EdgeOne.DescribeContentQuota(ctx, creds, zoneID)
	if err != nil {
		log.FromContext(ctx).V(1).Info("Could not read the quota", "zone", zoneID, "error", err.Error())
	}
	s.recordAnswer(l, creds, err)
	if l.kind == v1alpha1.JobPurge && (err == nil || errors.Is(err, teo.ErrZeroQuota) || teo.IsReadRefused(err)) {
		if historyErr := s.checkPurgeHistory(ctx, creds, zoneID); historyErr != nil {
			s.backOffZone(l, zoneID, historyErr)
			return
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	switch {
	case !s.EdgeOne.ServerTimeKnown():
		l.queue.RetryQuotaRead(zoneID, now)
		if err == nil || backoff.PlanWait(err, 1, s.RecheckInterval).Scope == backoff.ScopeNone {
			err = backoff.ErrNoServerTime
		}
		s.backOffCall(l, nil, err)
	case err == nil:
		l.setQuotas(zoneID, quota, now)
		l.countZoneUse(zoneID, quota.Prefetch.Daily, now)
	case teo.DeniedAccount(err): // back off before any task is claimed
		l.queue.RetryQuotaRead(zoneID, now)
		s.backOffCall(l, nil, err)
	case errors.Is(err, teo.ErrZeroQuota): // the zone's plan does not include prefetch
		l.prefetches.queue.RecordNoQuota(zoneID, now)
		if l.kind == v1alpha1.JobPurge {
			l.queue.SetQuota(zoneID, 0, -1, now)
		}
	case teo.IsReadRefused(err): // continue without a known quota
		l.ofRead(func(q *queue.Queue) { q.SetQuota(zoneID, 0, -1, now) })
	default:
		l.ofRead(func(q *queue.Queue) { q.SetQuotaUnknown(zoneID, now) })
	}
	s.EnqueueAfter(l.account, 0)
}

// ofRead calls f for each queue that a read of the quota is for. A purge needs the quota of the
// prefetch, too: what the queue of prefetches knew may be old.
func (l *accountQueue) ofRead(f func(*queue.Queue)) {
	f(l.prefetches.queue)
	if l.kind == v1alpha1.JobPurge {
		f(l.queue)
	}
}

// setQuotas tells the queues of the account the quotas of a zone. Each queue reads the quota before
// its first call; what the other one reads is newer. mu is held.
func (l *accountQueue) setQuotas(zoneID string, quota teo.ContentQuota, now time.Time) {
	l.prefetches.queue.SetQuotas(zoneID, func(v1alpha1.PurgeType) queue.Quota {
		return queue.Quota{Batch: quota.Prefetch.Batch, Daily: quota.Prefetch.Daily, Left: quota.Prefetch.DailyAvailable}
	}, now)
	if l.kind != v1alpha1.JobPurge {
		return // the history of purges was not checked
	}
	l.purges.queue.SetQuotas(zoneID, func(purge v1alpha1.PurgeType) queue.Quota {
		of, isKnown := quota.Purge[taskstate.PurgeTypeNames[purge]]
		switch {
		case !isKnown:
			return queue.Quota{Left: -1}
		case of.IsZero():
			return queue.Quota{Left: -1, None: true}
		}
		return queue.Quota{Batch: of.Batch, Daily: of.Daily, Left: of.DailyAvailable}
	}, now)
}

// checkedHistoryAge is the age of what checkPurgeHistory reads. EdgeOne may refuse a period that
// ends in the future, and the clock of its history may be minutes behind.
const checkedHistoryAge = time.Hour

// checkPurgeHistory reads a second of a zone's history of purges, to find out whether the key may.
func (s *Submitter) checkPurgeHistory(ctx context.Context, creds teo.Credentials, zoneID string) error {
	end := s.EdgeOne.ServerTime().Add(-checkedHistoryAge)
	_, err := s.EdgeOne.FirstRecords(ctx, creds, teo.ListRequest{History: teo.PurgeHistory, ZoneID: zoneID, StartTime: end.Add(-time.Second), EndTime: end})
	return err
}

// backOffZone keeps the purges of a zone out of calls because the history of purges cannot be read.
func (s *Submitter) backOffZone(l *accountQueue, zoneID string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.queue.RetryQuotaRead(zoneID, now); teo.DeniedAccount(err) {
		s.backOffCall(l, nil, err)
	} else {
		wait := backoff.PlanWait(err, 1, s.RecheckInterval)
		if wait.Scope == backoff.ScopeNone {
			wait = backoff.Plan{Duration: s.RecheckInterval, Cause: taskstate.Cause{
				Reason: v1alpha1.ReasonNotFollowed, NeedsUser: true,
				Message: "Nothing is purged, because EdgeOne does not show the history of purges: " + teo.Message(err),
				Advice:  "Check the zone, or remove spec.purge",
			}}
		}
		l.queue.BackOffZone(zoneID, wait.Cause, now, now.Add(max(wait.Duration, time.Second)))
	}
	s.EnqueueAfter(l.account, 0)
}
