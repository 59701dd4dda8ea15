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

// zoneRetention is how long after its last call a zone still has gauges although no task waits
// in it. Most tasks wait for less time than passes between two scrapes.
const zoneRetention = time.Hour

// usedZone is the last call of an account for a zone, and the zone's daily quota.
type usedZone struct {
	at    time.Time
	daily int
}

// countZoneUse notes a call for a zone, or its daily quota; 0 keeps the quota that is known.
func (l *accountQueue) countZoneUse(zoneID string, daily int, now time.Time) {
	if daily == 0 {
		daily = l.used[zoneID].daily
	}
	l.used[zoneID] = usedZone{now, daily}
}

// StatsByZone returns what the gauges report of zones in which tasks wait, or which had a call
// lately.
func (s *Submitter) StatsByZone(now time.Time) map[string]metrics.ZoneStats {
	s.mu.Lock()
	queues := slices.Collect(maps.Values(s.accountQueues))
	s.mu.Unlock()
	all := map[string]metrics.ZoneStats{}
	for _, l := range queues {
		for id, zone := range l.statsByZone(now) {
			if known, ok := all[id]; ok { // to another account, such as a tenant's own key
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
