package simulator

import "strings"

// zone is a Zone and how much of today's quotas is used.
type zone struct {
	Zone
	used map[string]int // by type of quota
}

// SetZone adds a zone, or changes the settings of the zone with the same ID. Its jobs and
// its used quota stay.
func (s *Simulator) SetZone(z Zone) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setZone(z)
}

// setZone is SetZone for callers that hold s.mu.
func (s *Simulator) setZone(settings Zone) {
	z := s.zones[settings.ID]
	if z == nil {
		z = &zone{used: map[string]int{}}
		s.zones[settings.ID] = z
	}
	z.Zone = settings
}

// zonesOf returns the zones of a call: one zone, or all zones of the account for "*". It
// fails if the key may not use them.
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
