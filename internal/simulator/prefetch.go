package simulator

import "cmp"

// createPrefetchTask starts a job that fetches URLs.
func (s *Simulator) createPrefetchTask(c *call) (map[string]any, *apiError) {
	sub, err := s.parsePrefetch(c)
	if err != nil {
		return nil, err
	}
	return s.submit(c, sub)
}

// parsePrefetch runs the checks that refuse a prefetch as a whole.
func (s *Simulator) parsePrefetch(c *call) (submission, *apiError) {
	mode := cmp.Or(c.text("Mode"), modeDefault)
	segments := cmp.Or(c.text("PrefetchMediaSegments"), "off")
	sub := submission{jobKind: jobKind{action: createPrefetch, taskType: prefetchURL, mode: mode, encode: c.encodesURL()}, mediaSegments: segments == "on"}
	switch {
	case len(c.targets) == 0:
		return sub, fail("MissingParameter", "The request is missing the parameter `Targets`.")
	case mode != modeDefault && mode != modeEdge:
		return sub, badParameter("Mode is %q, not default or edge.", mode)
	case segments != "on" && segments != "off":
		return sub, badParameter("PrefetchMediaSegments is %q, not on or off.", segments)
	}
	zones, err := s.zonesOf(c)
	if err != nil {
		return sub, err
	}
	if !c.key.maySend(mode) {
		return sub, fail("UnauthorizedOperation.NoPermission", "The key has no permission for the mode %s.", mode)
	}
	if sub.records, err = sub.place(c.targets, zones); err != nil {
		return sub, err
	}
	for _, r := range sub.records {
		switch z := r.zone; {
		case mode == modeEdge && !z.EdgeMode:
			return sub, badParameter("Mode edge is not enabled for the zone %s.", z.ID)
		case sub.mediaSegments && !z.MediaSegments:
			return sub, badParameter("PrefetchMediaSegments is not enabled for the zone %s.", z.ID)
		}
	}
	return sub, nil
}
