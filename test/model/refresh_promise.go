package model

// The properties of single states that make up the promise of a run with a purge.
const (
	stale      = "stale: a URL counts as prefetched, and the cache has a version from before the run"
	cold       = "cold: a URL counts as prefetched, and a purge of the operator has deleted the copy"
	twice      = "twice: a target was purged or prefetched twice for one run and retry"
	unpurged   = "unpurged: a URL was prefetched without a success of each purge that covers it"
	overtaking = "overtaking: a prefetch was sent while a purge of the same URL could still execute"
)

// promise returns all properties. The visitor sees the first two. The others are the rules
// that ensure them.
func (e *refresh) promise() []invariant[refreshState] {
	return []invariant[refreshState]{
		{stale, e.servesNoOlder},
		{cold, e.staysWarm},
		{twice, e.actsOnce},
		{unpurged, e.purgesFirst},
		{overtaking, e.letsNoPurgeOvertake},
	}
}

func (e *refresh) servesNoOlder(s refreshState) bool {
	return e.everyPrefetched(&s, func(c copies) bool { return c >= purged || c >= copies(s.task.run) })
}

// staysWarm ignores what another program purges.
func (e *refresh) staysWarm(s refreshState) bool {
	return e.everyPrefetched(&s, func(c copies) bool { return c != purged })
}

// everyPrefetched covers the URLs that the status counts as prefetched, also while the run
// has other URLs to do: a task is Ready when this is so for all of them.
func (e *refresh) everyPrefetched(s *refreshState, holds func(copies) bool) bool {
	for i, p := range s.task.fetches {
		if p.is == succeeded && !holds(s.cache[i]) {
			return false
		}
	}
	return true
}

func (e *refresh) actsOnce(s refreshState) bool {
	for id := uint8(2); id <= s.signed; id++ {
		for before := uint8(1); before < id; before++ {
			k, l := s.call(before), s.call(id)
			if k.prefetch == l.prefetch && k.run == l.run && k.retry == l.retry && k.accepted&l.accepted != 0 {
				return false
			}
		}
	}
	return true
}

// sent returns the targets that EdgeOne has accepted, or may still accept.
func (k *refreshCall) sent() urls {
	switch k.request {
	case underWay:
		return k.planned
	case executed:
		return k.accepted
	}
	return 0
}

func (e *refresh) purgesFirst(s refreshState) bool {
	for id := uint8(1); id <= s.signed; id++ {
		k := s.call(id)
		if !k.prefetch || k.sent() == 0 {
			continue
		}
		done := s.call(foreignPurge).done // it counts if it was adopted
		for other := uint8(1); other <= s.signed; other++ {
			if l := s.call(other); !l.prefetch && l.run == k.run {
				done |= l.done
			}
		}
		if needed := e.purgesOf(k.sent()); done&needed != needed {
			return false
		}
	}
	return true
}

// letsNoPurgeOvertake covers the operator's purges of the prefetch's run and of the runs
// before.
func (e *refresh) letsNoPurgeOvertake(s refreshState) bool {
	for id := uint8(1); id <= s.signed; id++ {
		for other := uint8(1); other <= s.signed; other++ {
			k, l := s.call(id), s.call(other)
			if !k.prefetch || l.prefetch || l.run > k.run || l.run == k.run && l.retry > k.retry {
				continue
			}
			if e.cover(s.pending(other))&k.sent() != 0 {
				return false
			}
		}
	}
	return true
}

// pending returns the targets that a call may still purge.
func (s *refreshState) pending(id uint8) urls {
	k := s.call(id)
	switch {
	case k.request == executed:
		return k.unfinished()
	case k.request == underWay || k.stage == sends && s.closed < id:
		return k.planned
	}
	return 0
}
