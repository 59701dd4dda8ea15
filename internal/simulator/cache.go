package simulator

import (
	"errors"
	"slices"
	"strings"
	"time"
)

// cache is what EdgeOne's tiers store, and what the origin has. Jobs that change it wait
// in unsettled until somebody looks: see settle. The keys of entries are canonical URLs.
type cache struct {
	publications []publication // oldest first
	entries      map[string]*entry
	unsettled    []*job // with targets that may still change the cache, or are not handed over
	journal      Journal
}

// entry is one URL that EdgeOne has seen.
type entry struct {
	host         string
	middle, edge Copy
	tags         []string // of the copies
}

// Copy is what one tier has of a URL.
type Copy struct {
	// Version is the version of the content, counted from 1. 0 means no copy.
	Version int `json:"version"`
	// IsFresh says whether the copy has not expired.
	IsFresh bool `json:"isFresh"`
}

// Selection selects URLs. Exactly one field is set.
type Selection struct {
	URLs []string `json:"urls,omitempty"`
	// Prefix selects all URLs that begin with it.
	Prefix string `json:"prefix,omitempty"`
	All    bool   `json:"all,omitempty"`
}

func (s Selection) validate() error {
	set := 0
	for _, isSet := range []bool{len(s.URLs) > 0, s.Prefix != "", s.All} {
		if isSet {
			set++
		}
	}
	if set != 1 {
		return errors.New("exactly one of urls, prefix and all is needed")
	}
	return nil
}

// selector is a Selection with canonical URLs.
type selector struct {
	urls   map[string]bool
	prefix string
}

func newSelector(s Selection) selector {
	if s.Prefix != "" || s.All {
		return selector{prefix: canonicalPrefix(s.Prefix)}
	}
	urls := make(map[string]bool, len(s.URLs))
	for _, url := range s.URLs {
		urls[Canonical(url)] = true
	}
	return selector{urls: urls}
}

// canonicalPrefix returns the canonical spelling of a prefix of URLs.
func canonicalPrefix(prefix string) string {
	if prefix == "" {
		return ""
	}
	return Canonical(prefix)
}

func (s selector) has(url string) bool {
	if s.urls != nil {
		return s.urls[url]
	}
	return strings.HasPrefix(url, s.prefix)
}

// Publication is a change of the origin's content.
type Publication struct {
	Selection
	// Tags are the cache tags of the URLs from now on. Default: as before.
	Tags []string `json:"tags,omitempty"`
}

// publication is a Publication that was made.
type publication struct {
	selector
	tags []string
	at   time.Time // on the local clock
	time time.Time // on EdgeOne's clock
}

// Publish gives URLs a new version at the origin: the next one for each URL. It returns
// the time on EdgeOne's clock. Every URL has version 1 at first. Publish panics if the
// selection is not valid.
func (s *Simulator) Publish(p Publication) time.Time {
	mustSelect(p.Selection)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.settle(now)
	published := publication{selector: newSelector(p.Selection), tags: p.Tags, at: now, time: s.now()}
	for url := range published.urls {
		s.cache.entry(url)
	}
	s.cache.publications = append(s.cache.publications, published)
	return published.time
}

// Warm fills both tiers with the current version of URLs, also where a fresh copy is
// older. A prefix, or all, selects from the URLs that EdgeOne has seen: in a job, a
// visit, a publication or another Warm. Warm panics if the selection is not valid.
func (s *Simulator) Warm(selection Selection) {
	s.change(selection, func(url string, e *entry) {
		version, tags := s.cache.originAt(url, time.Now())
		e.fill(version, tags)
		s.addEvent(CacheEvent{Time: s.now(), Kind: Filled, URL: url, Version: version, By: ByWarm})
	})
}

// Expire makes the copies of URLs expire in both tiers, as if they had grown old. It
// selects as Warm does.
func (s *Simulator) Expire(selection Selection) {
	s.change(selection, func(url string, e *entry) {
		if e.isCached() {
			s.remove(url, e, methodInvalidate, s.now(), ByAge)
		}
	})
}

// change changes the entries of a selection.
func (s *Simulator) change(selection Selection, change func(string, *entry)) {
	mustSelect(selection)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(time.Now())
	selected := newSelector(selection)
	for url := range selected.urls {
		s.cache.entry(url)
	}
	for _, url := range s.cache.urls(selected.has) {
		change(url, s.cache.entries[url])
	}
}

func mustSelect(s Selection) {
	if err := s.validate(); err != nil {
		panic("simulator: " + err.Error())
	}
}

// entry returns the entry of a canonical URL. It adds one without copies if there is none.
func (c *cache) entry(url string) *entry {
	e := c.entries[url]
	if e == nil {
		host, _ := hostOf(url)
		e = &entry{host: host}
		c.entries[url] = e
	}
	return e
}

// urls returns the URLs that EdgeOne has seen and that match, in order.
func (c *cache) urls(matches func(string) bool) []string {
	var urls []string
	for url := range c.entries {
		if matches(url) {
			urls = append(urls, url)
		}
	}
	slices.Sort(urls)
	return urls
}

// originAt returns the version of a URL that the origin had at a local time, and its tags.
func (c *cache) originAt(url string, at time.Time) (version int, tags []string) {
	version = 1
	for _, p := range c.publications {
		if p.at.After(at) || !p.has(url) {
			continue
		}
		version++
		if p.tags != nil {
			tags = p.tags
		}
	}
	return version, tags
}

// lifeOf returns the times on EdgeOne's clock at which the origin published a version and
// the next one. They are zero for the first version and if there is no next one.
func (c *cache) lifeOf(url string, version int) (published, superseded time.Time) {
	at := 1
	for _, p := range c.publications {
		if !p.has(url) {
			continue
		}
		at++
		if at == version {
			published = p.time
		}
		if at == version+1 {
			return published, p.time
		}
	}
	return published, time.Time{}
}

// fill gives both tiers a fresh copy.
func (e *entry) fill(version int, tags []string) {
	e.middle, e.edge, e.tags = Copy{version, true}, Copy{version, true}, tags
}

// isCached says whether a tier has a copy, be it fresh or expired.
func (e *entry) isCached() bool { return e.middle.Version > 0 || e.edge.Version > 0 }

// remove deletes the copies of a URL or makes them expire.
func (s *Simulator) remove(url string, e *entry, method string, at time.Time, by string) {
	event := CacheEvent{Time: at, Kind: Purged, URL: url, Version: max(e.edge.Version, e.middle.Version), By: by}
	if method == methodDelete {
		e.middle, e.edge, e.tags = Copy{}, Copy{}, nil
	} else {
		event.Kind = Expired
		e.middle.IsFresh, e.edge.IsFresh = false, false
	}
	s.addEvent(event)
}
