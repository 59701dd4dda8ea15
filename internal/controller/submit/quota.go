package submit

import (
	"context"
	"errors"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/backoff"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// readQuota reads how much a zone may still submit today. If the key may not read it, calls are
// made without that, and the queue learns from refusals. No call is made before an answer has
// carried EdgeOne's time: calls are signed and looked up by it, and with a clock that is minutes
// off a lost call would be looked up where it is not.
func (s *Submitter) readQuota(l *accountQueue, creds teo.Credentials, zoneID string) {
	ctx, cancel := context.WithTimeout(s.Critical, 30*time.Second)
	defer cancel()
	quota, err := s.EdgeOne.DescribeContentQuota(teo.InLine(ctx, l.account.String()), creds, zoneID)
	if err != nil {
		log.FromContext(ctx).V(1).Info("Could not read the quota", "zone", zoneID, "error", err.Error())
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
		l.queue.SetQuota(zoneID, quota.Batch, quota.DailyAvailable, now)
		l.countZoneUse(zoneID, quota.Daily, now)
	case teo.DeniedAccount(err): // found out without a claim
		l.queue.RetryQuotaRead(zoneID, now)
		s.backOffCall(l, nil, err)
	case errors.Is(err, teo.ErrZeroQuota):
		l.queue.RecordNoQuota(zoneID, now)
	case teo.IsReadRefused(err):
		l.queue.SetQuota(zoneID, 0, -1, now)
	default:
		l.queue.SetQuotaUnknown(zoneID, now)
	}
	s.EnqueueAfter(l.account, 0)
}
