package simulator

import "time"

// The values of EO-Cache-Status.
const (
	StatusHit        = "HIT"        // a tier had a fresh copy
	StatusMiss       = "MISS"       // no copy, or an expired one that the origin replaced
	StatusRefreshHit = "RefreshHit" // an expired copy that the origin confirmed
)

// Visit is what visitors do.
type Visit struct {
	URLs []string `json:"urls"`
	// NoFill makes EdgeOne store nothing of what the origin answers. Peek changes nothing
	// at all: the journal does not list the visit.
	NoFill bool `json:"noFill,omitempty"`
	Peek   bool `json:"peek,omitempty"`
}

// Seen is what a visitor of a URL sees.
type Seen struct {
	URL     string    `json:"url"` // as visited
	Time    time.Time `json:"time"`
	Version int       `json:"version"`
	// Status is the header EO-Cache-Status.
	Status string `json:"status"`
	// Published is when the origin published the version; it is zero for the first one.
	// Superseded is when the origin published the next one; it is zero if the version is
	// the newest one. Both are on EdgeOne's clock.
	Published  time.Time `json:"published,omitzero"`
	Superseded time.Time `json:"superseded,omitzero"`
	// Middle and Edge are the copies before the visit.
	Middle Copy `json:"middle"`
	Edge   Copy `json:"edge"`
}

// IsOlderThan says whether the origin had published something newer at a time on EdgeOne's
// clock.
func (s Seen) IsOlderThan(t time.Time) bool { return isOlderThan(s.Superseded, t) }

func isOlderThan(superseded, t time.Time) bool {
	return !superseded.IsZero() && !superseded.After(t)
}

// Visit visits URLs. As with a real visitor, EdgeOne stores what it fetches from the
// origin.
func (s *Simulator) Visit(urls ...string) []Seen { return s.VisitWith(Visit{URLs: urls}) }

// Peek returns what visitors would see, and changes nothing.
func (s *Simulator) Peek(urls ...string) []Seen { return s.VisitWith(Visit{URLs: urls, Peek: true}) }

// VisitWith visits URLs with options.
func (s *Simulator) VisitWith(v Visit) []Seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(time.Now())
	seen := make([]Seen, 0, len(v.URLs))
	for _, url := range v.URLs {
		seen = append(seen, s.visit(url, v))
	}
	return seen
}

// visit makes one visit. The edge asks the middle tier for what it lacks, and the middle
// tier asks the origin. EO-Cache-Status does not name the tier.
func (s *Simulator) visit(url string, v Visit) Seen {
	key := Canonical(url)
	e := &entry{}
	if known := s.cache.entries[key]; known != nil {
		e = known
	} else if !v.Peek {
		e = s.cache.entry(key)
	}
	version, tags := s.cache.originAt(key, time.Now())
	seen := Seen{URL: url, Time: s.now(), Version: version, Status: StatusMiss, Middle: e.middle, Edge: e.edge}
	switch {
	case e.edge.IsFresh:
		seen.Status, seen.Version = StatusHit, e.edge.Version
	case e.middle.IsFresh:
		seen.Status, seen.Version = StatusHit, e.middle.Version
	case e.middle.Version == version || e.edge.Version == version:
		seen.Status = StatusRefreshHit
	}
	seen.Published, seen.Superseded = s.cache.lifeOf(key, seen.Version)
	if v.Peek {
		return seen
	}
	s.addEvent(CacheEvent{Time: seen.Time, Kind: Visited, URL: key, Version: seen.Version, Status: seen.Status, Superseded: seen.Superseded, By: ByVisitor})
	switch {
	case v.NoFill:
	case seen.Status != StatusHit:
		e.fill(version, tags)
		s.addEvent(CacheEvent{Time: seen.Time, Kind: Filled, URL: key, Version: version, By: ByVisitor})
	case !e.edge.IsFresh:
		e.edge = e.middle
		s.addEvent(CacheEvent{Time: seen.Time, Kind: Filled, URL: key, Tier: TierEdge, Version: seen.Version, By: ByVisitor})
	}
	return seen
}
