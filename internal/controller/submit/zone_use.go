package submit

import (
	"maps"
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/metrics"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// zoneRetention is how long a zone is told of after its last call, although nothing
// waits in it: most tasks wait for less time than passes between two scrapes.
const zoneRetention = time.Hour

// usedZone is when a line called for a zone last.
type usedZone struct {
	at    time.Time
	daily int
}

// countZoneUse notes a call for a zone, or its quota; a daily of 0 keeps what is known.
func (l *accountQueue) countZoneUse(zoneID string, daily int, now time.Time) {
	if daily == 0 {
		daily = l.used[zoneID].daily
	}
	l.used[zoneID] = usedZone{now, daily}
}

// StatsByZone tells of the zones in which tasks wait, or were called for lately.
func (s *Submitter) StatsByZone(now time.Time) map[string]metrics.ZoneStats {
	s.mu.Lock()
	lines := slices.Collect(maps.Values(s.accountQueues))
	s.mu.Unlock()
	all := map[string]metrics.ZoneStats{}
	for _, l := range lines {
		for id, zone := range l.statsByZone(now) {
			if known, ok := all[id]; ok { // to another account: a tenant's own key, say
				zone = known.MergeStats(zone)
			}
			all[id] = zone
		}
	}
	return all
}

func (l *accountQueue) statsByZone(now time.Time) map[string]metrics.ZoneStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	known, zones := l.queue.StatsByZone(now), map[string]metrics.ZoneStats{}
	for id, zone := range known {
		if len(zone.Waiting) > 0 {
			zones[id] = metrics.ZoneStats{ZoneStats: zone}
		}
	}
	accepted := metrics.AcceptedFromTenant
	if l.account == (taskstate.AccountKey{}) {
		accepted = metrics.AcceptedFromOperator
	}
	for id, used := range l.used {
		if now.Sub(used.at) >= zoneRetention {
			delete(l.used, id)
			continue
		}
		zone, ok := known[id]
		if !ok {
			zone.Left = -1
		}
		if len(zone.Waiting) == 0 {
			zone.Waiting = map[string]queue.Backlog{v1alpha1.ReasonWaiting: {}}
		}
		zones[id] = metrics.ZoneStats{ZoneStats: zone, Daily: used.daily, Accepted: accepted}
	}
	return zones
}
