package simulator

import (
	"strings"
	"time"
)

// zone is a Zone and what was used of its quotas today.
type zone struct {
	Zone
	used, edgeUsed int
}

// SetZone adds a zone or changes the one of the same ID, whose jobs and used
// quota stay.
func (s *Simulator) SetZone(z Zone) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setZone(z)
}

func (s *Simulator) setZone(settings Zone) {
	z := s.zones[settings.ID]
	if z == nil {
		z = &zone{}
		s.zones[settings.ID] = z
	}
	z.Zone = settings
}

// zonesOf returns the zones that a call concerns: one, or for "*" all of the
// account. The key must be allowed to use them.
func (s *Simulator) zonesOf(c *call) ([]*zone, *apiError) {
	if c.ZoneID != "*" {
		z := s.zones[c.ZoneID]
		switch {
		case z == nil || z.Account != c.Account:
			return nil, fail("InvalidParameter.ZoneNotFound", "The zone %q does not exist.", c.ZoneID)
		case !c.key.mayUse(z.ID):
			return nil, fail("UnauthorizedOperation.NoPermission", "The key has no permission for the zone %s.", z.ID)
		}
		return []*zone{z}, nil
	}
	if c.key.Zones != nil {
		return nil, fail("UnauthorizedOperation.NoPermission", "ZoneId * needs permission for every zone of the account.")
	}
	var zones []*zone
	for _, z := range s.zones {
		if z.Account == c.Account {
			zones = append(zones, z)
		}
	}
	return zones, nil
}

// serves says whether one of the zone's domains covers a host.
func (z *zone) serves(host string) bool {
	for _, domain := range z.Domains {
		if strings.EqualFold(domain, host) {
			return true
		}
		if suffix, wild := strings.CutPrefix(domain, "*"); wild && strings.HasSuffix(strings.ToLower(host), strings.ToLower(suffix)) {
			return true
		}
	}
	return false
}

// limit reads a configured limit: 0 is the default, negative is none at all.
func limit(configured, byDefault int) int {
	if configured == 0 {
		return byDefault
	}
	return max(configured, 0)
}

func (z *zone) batch() int         { return limit(z.Batch, 2000) }
func (z *zone) daily() int         { return limit(z.Daily, 10000) }
func (z *zone) available() int     { return max(z.daily()-z.used, 0) }
func (z *zone) edgeAvailable() int { return max(limit(z.EdgeDaily, 1000)-z.edgeUsed, 0) }

// quotaFor returns what is left today in a mode, and charge uses some of it.
func (z *zone) quotaFor(mode string) int {
	if mode == "edge" {
		return z.edgeAvailable()
	}
	return z.available()
}

func (z *zone) charge(mode string, urls int) {
	if mode == "edge" {
		z.edgeUsed += urls
	} else {
		z.used += urls
	}
}

// ResetQuota gives every zone its whole daily quotas back.
func (s *Simulator) ResetQuota() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resetQuota()
}

func (s *Simulator) resetQuota() {
	for _, z := range s.zones {
		z.used, z.edgeUsed = 0, 0
	}
}

// SetAvailable sets what is left today of a zone's daily quota. It does
// nothing if there is no such zone.
func (s *Simulator) SetAvailable(zoneID string, urls int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if z := s.zones[zoneID]; z != nil {
		z.used = z.daily() - urls
	}
}

// Available returns what is left today of a zone's daily quota.
func (s *Simulator) Available(zoneID string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renewQuota()
	if z := s.zones[zoneID]; z != nil {
		return z.available()
	}
	return 0
}

// renewQuota resets the quotas if the time of day to do so has passed since
// the last look.
func (s *Simulator) renewQuota() {
	if reset := s.lastQuotaReset(s.now()); reset.After(s.quotaDay) {
		s.quotaDay = reset
		s.resetQuota()
	}
}

// lastQuotaReset returns when the quotas were last due to return.
func (s *Simulator) lastQuotaReset(now time.Time) time.Time {
	if s.config.QuotaResetAt == "" {
		return time.Time{}
	}
	at, _ := time.Parse("15:04", s.config.QuotaResetAt) // Validate has looked
	now = now.UTC()
	reset := time.Date(now.Year(), now.Month(), now.Day(), at.Hour(), at.Minute(), 0, 0, time.UTC)
	if reset.After(now) {
		reset = reset.AddDate(0, 0, -1)
	}
	return reset
}

// quota is an element of DescribeContentQuota's lists.
type quota struct {
	Type                         string
	Batch, Daily, DailyAvailable int
}

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
	return map[string]any{
		"PurgeQuota": []quota{
			{"purge_url", 2000, 10000, 10000},
			{"purge_prefix", 200, 1000, 1000},
			{"purge_host", 200, 1000, 1000},
			{"purge_all", 1, 100, 100},
			{"purge_cache_tag", 200, 1000, 1000},
		},
		"PrefetchQuota": []quota{{"prefetch_url", z.batch(), z.daily(), z.available()}},
	}, nil
}
