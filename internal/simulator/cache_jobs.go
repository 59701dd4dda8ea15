package simulator

import (
	"slices"
	"strings"
	"time"
)

// cacheChange is what a target of a job does to the cache, at a time on the local clock.
type cacheChange struct {
	at         time.Time
	job        *job
	record     *record
	isHandOver bool // the prefetch is accepted; otherwise, the target takes effect
}

// settle applies everything that jobs did to the cache until now, in the order of time.
// The cache becomes visible only when somebody looks, so it is sufficient to settle
// before that, without a timer. A simulator whose cache nobody looks at never settles.
// The caller holds s.mu.
func (s *Simulator) settle(now time.Time) {
	s.addTraffic(now)
	var due []cacheChange
	s.cache.unsettled = slices.DeleteFunc(s.cache.unsettled, func(j *job) bool {
		var isSettled bool
		due, isSettled = j.takeDue(due, now)
		return isSettled
	})
	slices.SortStableFunc(due, func(a, b cacheChange) int { return a.at.Compare(b.at) })
	for _, change := range due {
		s.apply(change)
	}
}

// takeDue adds the changes of a job that are due, and marks them as taken. isSettled says
// whether there will be no more.
func (j *job) takeDue(due []cacheChange, now time.Time) (_ []cacheChange, isSettled bool) {
	isSettled = true
	if j.action == createPrefetch && !j.isHandedOver {
		for i := range j.records {
			due = append(due, cacheChange{at: j.accepted, job: j, record: &j.records[i], isHandOver: true})
		}
		j.isHandedOver = true
	}
	for i := range j.records {
		r := &j.records[i]
		switch at := j.effectAt(r); {
		case r.isTaken || r.finished(now) && !r.isEffective:
		case r.isEffective && !at.IsZero() && !at.After(now):
			due = append(due, cacheChange{at: at, job: j, record: r})
			r.isTaken = true
		default:
			isSettled = false
		}
	}
	return due, isSettled
}

// effectAt returns when a target changes the cache, on the local clock. It is zero for a
// target that never ends.
func (j *job) effectAt(r *record) time.Time {
	if r.endsAt.IsZero() {
		return time.Time{}
	}
	if at := r.endsAt.Add(r.cacheDelay); at.After(j.accepted) {
		return at
	}
	return j.accepted
}

// apply applies a change to the cache.
func (s *Simulator) apply(change cacheChange) {
	j, r := change.job, change.record
	at := change.at.Add(j.clockOffset)
	switch {
	case change.isHandOver:
		s.addEvent(CacheEvent{Time: at, Kind: HandedOver, URL: j.keyOf(r), By: j.id})
	case j.action == createPrefetch:
		s.fillTiers(j, j.keyOf(r), change.at)
	case j.taskType == purgeURL:
		s.remove(j.keyOf(r), s.cache.entry(j.keyOf(r)), j.method, at, j.id)
	default:
		matches := func(url string) bool { e := s.cache.entries[url]; return e.isCached() && j.covers(r, url, e) }
		for _, url := range s.cache.urls(matches) {
			s.remove(url, s.cache.entries[url], j.method, at, j.id)
		}
	}
}

// keyOf returns the canonical URL of a record.
func (j *job) keyOf(r *record) string {
	if j.encode {
		return Canonical(encodeURL(r.url))
	}
	return Canonical(r.url)
}

// covers says whether a purge that is not by URL covers a URL.
func (j *job) covers(r *record, url string, e *entry) bool {
	switch j.taskType {
	case purgePrefix:
		prefix := r.url
		if j.encode {
			prefix = encodeURL(prefix)
		}
		return strings.HasPrefix(url, canonicalPrefix(prefix))
	case purgeHost:
		return e.host == canonicalAuthority("https", r.host)
	case purgeCacheTag:
		return slices.Contains(e.tags, r.url) && j.concerns(r, e.host)
	default: // purge_all
		return r.zone.serves(e.host)
	}
}

// fillTiers fills the tiers of the job's mode, as far as they have no fresh copy. The
// middle tier asks the origin, and the edge asks the middle tier.
func (s *Simulator) fillTiers(j *job, url string, at time.Time) {
	e := s.cache.entry(url)
	version, tags := s.cache.originAt(url, at)
	event := CacheEvent{Time: at.Add(j.clockOffset), URL: url, By: j.id}
	fill := func(tier Tier, c *Copy, version int) {
		event.Tier = tier
		event.Kind, event.Version = Kept, c.Version
		if !c.IsFresh && (c.Version == 0 || !s.config.PrefetchKeepsExpired) {
			*c, e.tags = Copy{version, true}, tags
			event.Kind, event.Version = Filled, version
		}
		s.addEvent(event)
	}
	fill(TierMiddle, &e.middle, version)
	if j.mode == modeEdge {
		if e.middle.IsFresh {
			version = e.middle.Version
		}
		fill(TierEdge, &e.edge, version)
	}
}
