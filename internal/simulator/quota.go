package simulator

import "time"

// The types of quotas, which are also the types of jobs.
const (
	prefetchURL   = "prefetch_url"
	prefetchEdge  = "prefetch_edge" // for mode edge; no answer of EdgeOne has it
	purgeURL      = "purge_url"
	purgePrefix   = "purge_prefix"
	purgeHost     = "purge_host"
	purgeAll      = "purge_all"
	purgeCacheTag = "purge_cache_tag"
)

// purgeTypes are the types of purges, in the order of DescribeContentQuota.
var purgeTypes = []string{purgeURL, purgePrefix, purgeHost, purgeAll, purgeCacheTag}

// defaultLimits are the limits of a zone that its settings do not change.
var defaultLimits = map[string]Limits{
	prefetchURL:   {Batch: 2000, Daily: 10000},
	prefetchEdge:  {Batch: 2000, Daily: 1000},
	purgeURL:      {Batch: 2000, Daily: 10000},
	purgePrefix:   {Batch: 200, Daily: 1000},
	purgeHost:     {Batch: 200, Daily: 1000},
	purgeAll:      {Batch: 1, Daily: 100},
	purgeCacheTag: {Batch: 100, Daily: 1000},
}

// quotaType returns the type of the quota that a job uses.
func (k jobKind) quotaType() string {
	if k.mode == modeEdge {
		return prefetchEdge
	}
	return k.taskType
}

// limits returns the limits of the zone for a type of quota, with defaults.
func (z *zone) limits(quotaType string) Limits {
	limits := z.Purge[quotaType]
	switch quotaType {
	case prefetchURL:
		limits = Limits{Batch: z.Batch, Daily: z.Daily}
	case prefetchEdge:
		limits = Limits{Batch: z.Batch, Daily: z.EdgeDaily}
	}
	limits.Batch = limit(limits.Batch, defaultLimits[quotaType].Batch)
	limits.Daily = limit(limits.Daily, defaultLimits[quotaType].Daily)
	if limits.NotAllowed {
		limits.Batch, limits.Daily = 0, 0
	}
	return limits
}

// left returns how much is left of today's quota of a type.
func (z *zone) left(quotaType string) int {
	return max(z.limits(quotaType).Daily-z.used[quotaType], 0)
}

// limit returns a configured limit: 0 means the default, and a negative value means a
// limit of 0.
func limit(configured, byDefault int) int {
	if configured == 0 {
		return byDefault
	}
	return max(configured, 0)
}

// ResetQuota restores the daily quotas of all zones.
func (s *Simulator) ResetQuota() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resetQuota()
}

// resetQuota is ResetQuota for callers that hold s.mu.
func (s *Simulator) resetQuota() {
	for _, z := range s.zones {
		clear(z.used)
	}
}

// SetAvailable sets how many URLs are left of a zone's daily quota of prefetches. It does
// nothing if the zone does not exist.
func (s *Simulator) SetAvailable(zoneID string, urls int) { s.SetQuota(zoneID, prefetchURL, urls) }

// SetQuota sets how much is left of a zone's daily quota of a type: prefetch_url,
// prefetch_edge (the quota of mode edge), or a type of purge. It does nothing if the zone
// does not exist.
func (s *Simulator) SetQuota(zoneID, quotaType string, left int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if z := s.zones[zoneID]; z != nil {
		z.used[quotaType] = z.limits(quotaType).Daily - left
	}
}

// Available returns how many URLs are left of a zone's daily quota of prefetches.
func (s *Simulator) Available(zoneID string) int { return s.Quota(zoneID, prefetchURL) }

// Quota returns how much is left of a zone's daily quota of a type; see SetQuota.
func (s *Simulator) Quota(zoneID, quotaType string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renewQuota()
	if z := s.zones[zoneID]; z != nil {
		return z.left(quotaType)
	}
	return 0
}

// renewQuota restores the quotas if the time of day for this has passed since they were
// last restored. The caller holds s.mu.
func (s *Simulator) renewQuota() {
	if reset := s.lastQuotaReset(s.now()); reset.After(s.quotaDay) {
		s.quotaDay = reset
		s.resetQuota()
	}
}

// lastQuotaReset returns the latest time at which the quotas were due to be restored, or
// zero if the configuration has no time of day for this.
func (s *Simulator) lastQuotaReset(now time.Time) time.Time {
	if s.config.QuotaResetAt == "" {
		return time.Time{}
	}
	at, _ := time.Parse("15:04", s.config.QuotaResetAt) // Validate has checked it
	now = now.UTC()
	reset := time.Date(now.Year(), now.Month(), now.Day(), at.Hour(), at.Minute(), 0, 0, time.UTC)
	if reset.After(now) {
		reset = reset.AddDate(0, 0, -1)
	}
	return reset
}

// quota is an element of the lists that DescribeContentQuota returns.
type quota struct {
	Type                         string
	Batch, Daily, DailyAvailable int
}

// describeContentQuota returns the quotas of a zone.
func (s *Simulator) describeContentQuota(c *call) (map[string]any, *apiError) {
	if c.ZoneID == "*" {
		return nil, badParameter("A quota belongs to one zone.")
	}
	zones, err := s.zonesOf(c)
	if err != nil {
		return nil, err
	}
	s.renewQuota()
	z := zones[0]
	if z.NullQuota {
		return map[string]any{"PurgeQuota": nil, "PrefetchQuota": nil}, nil
	}
	var purges []quota // null in JSON if nothing is listed
	for _, purgeType := range purgeTypes {
		if !z.Purge[purgeType].Unlisted {
			purges = append(purges, z.quota(purgeType))
		}
	}
	return map[string]any{"PurgeQuota": purges, "PrefetchQuota": []quota{z.quota(prefetchURL)}}, nil
}

// quota describes a quota of the zone.
func (z *zone) quota(quotaType string) quota {
	limits := z.limits(quotaType)
	return quota{quotaType, limits.Batch, limits.Daily, z.left(quotaType)}
}
