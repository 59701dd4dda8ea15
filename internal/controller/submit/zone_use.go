package submit

import (
	"maps"
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/metrics"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
)

// zoneRetention is how long after its last call a zone without waiting tasks keeps its gauges.
// Most tasks wait for less than the time between two scrapes.
const zoneRetention = time.Hour

// usedZone records an account's last call for a zone, and the zone's daily quota.
type usedZone struct {
	at    time.Time // of the last accepted call or read of the quota
	daily int       // 0 if unknown
}

// countZoneUse records an accepted call for a zone, or its daily quota. A daily of 0 keeps the
// known quota. The queue must be locked.
func (l *accountQueue) countZoneUse(zoneID string, daily int, now time.Time) {
	if daily == 0 {
		daily = l.used[zoneID].daily
	}
	l.used[zoneID] = usedZone{now, daily}
}

// StatsByZone returns what the gauges report about each zone that has waiting tasks or had a
// call within zoneRetention. Several accounts can use a zone: their statistics are merged.
func (s *Submitter) StatsByZone(now time.Time) map[string]metrics.ZoneStats {
	s.mu.Lock()
	queues := slices.Collect(maps.Values(s.accountQueues))
	s.mu.Unlock()
	all := map[string]metrics.ZoneStats{}
	for _, l := range queues {
		for id, zone := range l.statsByZone(now) {
			if known, ok := all[id]; ok { // of another account, such as a tenant's own key
				zone = known.MergeStats(zone)
			}
			all[id] = zone
		}
	}
	return all
}

// statsByZone returns the statistics of one account by zone ID. It drops zones that had no call
// within zoneRetention.
func (l *accountQueue) statsByZone(now time.Time) map[string]metrics.ZoneStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	known, zones := l.prefetches.queue.StatsByZone(now), map[string]metrics.ZoneStats{}
	for id, zone := range l.purges.queue.StatsByZone(now) { // tasks that wait for a purge
		if other, ok := known[id]; ok {
			zone = other.Merge(zone)
		}
		known[id] = zone
	}
	for id, zone := range known {
		if len(zone.Waiting) > 0 || zone.Cold.Targets > 0 {
			zones[id] = metrics.ZoneStats{ZoneStats: zone}
		}
	}
	accepted := metrics.AcceptedFromTenant
	if !l.account.IsTenants() {
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
