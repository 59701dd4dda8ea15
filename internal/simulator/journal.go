package simulator

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Tier is a tier of EdgeOne's cache.
type Tier string

// The tiers: visitors ask the edge, the edge asks the middle tier, and the middle tier
// asks the origin.
const (
	TierMiddle Tier = "middle"
	TierEdge   Tier = "edge"
)

// CacheEventKind is a kind of CacheEvent.
type CacheEventKind string

const (
	// HandedOver means that EdgeOne accepted a prefetch of the URL.
	HandedOver CacheEventKind = "handed-over"
	// Filled means that a tier, or both, have a fresh copy of the version.
	Filled CacheEventKind = "filled"
	// Kept means that a prefetch left a copy as it was.
	Kept CacheEventKind = "kept"
	// Purged means that the copies were deleted. Version is what was there, or 0.
	Purged CacheEventKind = "purged"
	// Expired means that the copies count as expired.
	Expired CacheEventKind = "expired"
	// Visited means that a visitor saw the version.
	Visited CacheEventKind = "visited"
)

// What causes a CacheEvent, if it is no job.
const (
	ByVisitor = "visitor"
	ByWarm    = "warm"
	ByAge     = "age"
)

// CacheEvent is an entry of the Journal.
type CacheEvent struct {
	Time time.Time      `json:"time"` // on EdgeOne's clock
	Kind CacheEventKind `json:"kind"`
	URL  string         `json:"url"` // in its canonical spelling
	// Tier is the tier that was filled or kept. "" means both.
	Tier    Tier `json:"tier,omitempty"`
	Version int  `json:"version,omitempty"`
	// By is a JobId, ByVisitor, ByWarm or ByAge.
	By string `json:"by"`
	// Status and Superseded are those of a Seen, for a visit.
	Status     string    `json:"status,omitempty"`
	Superseded time.Time `json:"superseded,omitzero"`
}

// Journal lists what happened to the cache, oldest first.
type Journal struct {
	Events []CacheEvent `json:"events"`
	// Dropped is how many older events were there: the journal holds only the newest ones.
	Dropped int `json:"dropped"`
	// ReadAt is when the journal was read, on EdgeOne's clock.
	ReadAt time.Time `json:"readAt"`
}

// addEvent adds an event to the journal. The caller holds s.mu.
func (s *Simulator) addEvent(e CacheEvent) {
	j := &s.cache.journal
	if most := s.config.JournalSize; len(j.Events) >= most+most/4 { // not one by one, which would copy all for each
		dropped := len(j.Events) - most
		j.Events = slices.Delete(j.Events, 0, dropped)
		j.Dropped += dropped
	}
	j.Events = append(j.Events, e)
}

// Journal returns what happened to the cache so far.
func (s *Simulator) Journal() Journal {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(time.Now())
	j := s.cache.journal
	return Journal{Events: append([]CacheEvent{}, j.Events...), Dropped: j.Dropped, ReadAt: s.now()}
}

// SeenOlder returns the visits after a time whose visitors saw a version that the origin
// had replaced at the time than or before.
func (j Journal) SeenOlder(after, than time.Time) []CacheEvent {
	var older []CacheEvent
	for _, e := range j.Events {
		if e.Kind == Visited && e.Time.After(after) && isOlderThan(e.Superseded, than) {
			older = append(older, e)
		}
	}
	return older
}

// ColdSpan is a time in which a URL is cold: from the moment in which a purge deletes its
// copies or makes them expire until a tier has a fresh copy again.
type ColdSpan struct {
	URL    string    `json:"url"`
	Purged time.Time `json:"purged"`
	// By is the JobId of the last purge of the URL in this time.
	By string `json:"by"`
	// HandedOver is when EdgeOne accepted a prefetch of the URL after the last purge. It
	// is zero if it accepted none.
	HandedOver time.Time `json:"handedOver,omitzero"`
	// Filled is the end. It is zero if the URL is still cold. FilledBy is as By of a
	// CacheEvent.
	Filled   time.Time `json:"filled,omitzero"`
	FilledBy string    `json:"filledBy,omitempty"`
}

// Duration returns how long the URL was cold, or is cold at the time now.
func (c ColdSpan) Duration(now time.Time) time.Duration {
	if !c.Filled.IsZero() {
		now = c.Filled
	}
	return now.Sub(c.Purged)
}

// Peaks are the most URLs that were cold at once.
type Peaks struct {
	// NotHandedOver counts URLs of which EdgeOne had accepted no prefetch since their last
	// purge. NotFilled counts those that no tier had a fresh copy of.
	NotHandedOver int `json:"notHandedOver"`
	NotFilled     int `json:"notFilled"`
}

// Cold returns the times in which URLs were cold because of a purge, by their beginning.
func (j Journal) Cold() []ColdSpan {
	w := j.walk()
	spans := w.ended
	for _, span := range w.cold {
		spans = append(spans, *span)
	}
	slices.SortFunc(spans, func(a, b ColdSpan) int {
		return cmp.Or(a.Purged.Compare(b.Purged), strings.Compare(a.URL, b.URL))
	})
	return spans
}

// ColdLonger returns the times longer than d in which URLs were cold, or still are.
func (j Journal) ColdLonger(d time.Duration) []ColdSpan {
	return slices.DeleteFunc(j.Cold(), func(c ColdSpan) bool { return c.Duration(j.ReadAt) <= d })
}

// Peaks returns the most URLs that were cold at once.
func (j Journal) Peaks() Peaks { return j.walk().peaks }

// coldWalk is what the events up to a moment say about cold URLs.
type coldWalk struct {
	cold     map[string]*ColdSpan // by URL
	ended    []ColdSpan
	unhanded int
	peaks    Peaks
}

// walk reads all events, in their order.
func (j Journal) walk() *coldWalk {
	w := &coldWalk{cold: map[string]*ColdSpan{}}
	for _, e := range j.Events {
		switch e.Kind {
		case Purged, Expired:
			w.purged(e)
		case HandedOver:
			w.handedOver(e)
		case Filled:
			w.filled(e)
		}
	}
	return w
}

func (w *coldWalk) purged(e CacheEvent) {
	if e.By == ByAge {
		return
	}
	span := w.cold[e.URL]
	if span == nil {
		span = &ColdSpan{URL: e.URL, Purged: e.Time}
		w.cold[e.URL] = span
		w.unhanded++
	} else if !span.HandedOver.IsZero() {
		span.HandedOver = time.Time{}
		w.unhanded++
	}
	span.By = e.By
	w.peaks = Peaks{max(w.peaks.NotHandedOver, w.unhanded), max(w.peaks.NotFilled, len(w.cold))}
}

func (w *coldWalk) handedOver(e CacheEvent) {
	if span := w.cold[e.URL]; span != nil && span.HandedOver.IsZero() {
		span.HandedOver = e.Time
		w.unhanded--
	}
}

func (w *coldWalk) filled(e CacheEvent) {
	span := w.cold[e.URL]
	if span == nil {
		return
	}
	if span.HandedOver.IsZero() {
		w.unhanded--
	}
	span.Filled, span.FilledBy = e.Time, e.By
	w.ended = append(w.ended, *span)
	delete(w.cold, e.URL)
}
