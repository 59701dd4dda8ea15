package metrics

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
)

// Collector reports the gauges at each scrape. A process that is not the leader reports
// only that fact, because it sees the same tasks as the leader. The number of tasks is
// updated with each event and not computed at the scrape.
type Collector struct {
	limit     int             // calls per second of each action and account
	leads     <-chan struct{} // closed once this process is the leader
	tasks     *taskCounter
	zones     func(now time.Time) map[string]ZoneStats // zones in use, by ID
	unsettled func() map[string]time.Duration          // age of the oldest lost call by zone
}

// NewCollector returns a collector. zones reports the zones in use by ID. unsettled
// reports the age of the oldest call of unknown outcome by zone.
func NewCollector(
	limit int, leads <-chan struct{}, tasks *taskCounter, zones func(now time.Time) map[string]ZoneStats, unsettled func() map[string]time.Duration,
) *Collector {
	return &Collector{limit, leads, tasks, zones, unsettled}
}

var (
	leaderDesc = prometheus.NewDesc("teo_prefetch_leader",
		"1 in the leader, 0 in the other replicas. Only the leader reports the other gauges.", nil, nil)
	limitDesc = prometheus.NewDesc("teo_prefetch_api_limit_calls_per_second",
		"Calls per second that --teo-qps allows for each action and account.", nil, nil)
	tasksDesc = prometheus.NewDesc("teo_prefetch_tasks",
		"Tasks by the reason of their condition Ready. A task whose status does not describe its current spec yet counts as Waiting.", []string{"reason"}, nil)
	waitingDesc = prometheus.NewDesc("teo_prefetch_waiting_targets",
		"Targets that wait for a call, by zone and reason: what holds them, or Waiting if nothing does. "+
			"At most 100 zones have their own series, first those that EdgeOne accepted lately; the others share the zone other.", []string{"zone", "reason"}, nil)
	oldestDesc = prometheus.NewDesc("teo_prefetch_waiting_oldest_age_seconds",
		"Age of the longest-waiting task, by zone and reason: time since its last call, or since it was created, resumed or changed. "+
			"0 if none waits.",
		[]string{"zone", "reason"}, nil)
	leftDesc = prometheus.NewDesc("teo_prefetch_quota_left_targets",
		"What is left of the daily quota in mode Default, by zone: the last value from EdgeOne, less what the operator has submitted since.",
		[]string{"zone"}, nil)
	dailyDesc = prometheus.NewDesc("teo_prefetch_quota_daily_targets",
		"The daily quota in mode Default, by zone: the last value from EdgeOne.", []string{"zone"}, nil)
	purgesLeftDesc = prometheus.NewDesc("teo_prefetch_purge_quota_left",
		"What is left of the daily quota of purges, by zone and type: the last value from EdgeOne, less what the operator has purged since. "+
			"A zone without tasks with spec.purge has no such series.",
		[]string{"zone", "type"}, nil)
	coldDesc = prometheus.NewDesc("teo_prefetch_cold_targets",
		"Targets that are purged, or may be, and are not handed over for their prefetch, by zone. A visitor of such a URL waits for the origin. "+
			"A zone without tasks with spec.purge has no such series.",
		[]string{"zone"}, nil)
	coldAgeDesc = prometheus.NewDesc("teo_prefetch_cold_oldest_age_seconds",
		"Age of the oldest purge of targets that are not handed over for their prefetch, by zone. 0 if there are none. "+
			"A zone without tasks with spec.purge has no such series.",
		[]string{"zone"}, nil)
	unsettledDesc = prometheus.NewDesc("teo_prefetch_unsettled_oldest_age_seconds",
		"Age of the oldest call whose answer was lost and whose outcome is not known yet, by zone. 0 if there is none.",
		[]string{"zone"}, nil)
)

// Describe sends the descriptions of the gauges.
func (*Collector) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		leaderDesc, limitDesc, tasksDesc, waitingDesc, oldestDesc, leftDesc, dailyDesc, purgesLeftDesc, coldDesc, coldAgeDesc, unsettledDesc,
	} {
		descs <- desc
	}
}

// Collect sends the current values of the gauges.
func (m *Collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	select {
	case <-m.leads:
	default:
		gauge(leaderDesc, 0)
		return
	}
	gauge(leaderDesc, 1)
	gauge(limitDesc, float64(m.limit))
	for reason, n := range m.tasks.CountsByReason() {
		gauge(tasksDesc, float64(n), reason)
	}
	now := time.Now()
	zones, unsettled := limitZones(m.zones(now), m.unsettled())
	for id, zone := range zones {
		for reason, waiting := range zone.Waiting {
			gauge(waitingDesc, float64(waiting.Targets), id, reason)
			gauge(oldestDesc, ageOf(now, waiting.Since), id, reason)
		}
		if zone.Left >= 0 {
			gauge(leftDesc, float64(zone.Left), id)
		}
		if zone.Daily > 0 {
			gauge(dailyDesc, float64(zone.Daily), id)
		}
		for purge, left := range zone.PurgesLeft {
			gauge(purgesLeftDesc, float64(left), id, string(purge))
		}
		if zone.Cold.Targets > 0 || len(zone.PurgesLeft) > 0 {
			gauge(coldDesc, float64(zone.Cold.Targets), id)
			gauge(coldAgeDesc, ageOf(now, zone.Cold.Since), id)
		}
	}
	for id, age := range unsettled {
		gauge(unsettledDesc, age.Seconds(), id)
	}
}

// MaxZones is how many zones have their own series. The number needs a bound because a
// tenant can name any number of zones that do not exist.
const MaxZones = 100

// otherZonesLabel is the zone label of all further zones. No zone has such an ID.
const otherZonesLabel = "other"

// limitZones merges all zones beyond MaxZones into one. Zones for which EdgeOne recently
// accepted a call of the operator's own account come first. Zones accepted for other
// accounts follow, then zones that EdgeOne has not accepted. The merged zone has no
// quota, because a sum of quotas means nothing.
func limitZones(zones map[string]ZoneStats, unsettled map[string]time.Duration) (map[string]ZoneStats, map[string]time.Duration) {
	all := map[string]bool{}
	for id := range zones {
		all[id] = true
	}
	for id := range unsettled {
		all[id] = true
	}
	if len(all) <= MaxZones {
		return zones, unsettled
	}
	ids := slices.SortedFunc(maps.Keys(all), func(a, b string) int {
		return cmp.Or(-cmp.Compare(zones[a].Accepted, zones[b].Accepted), cmp.Compare(a, b))
	})
	cappedZones, cappedUnsettled := map[string]ZoneStats{}, map[string]time.Duration{}
	rest := ZoneStats{ZoneStats: queue.ZoneStats{Waiting: map[string]queue.Backlog{}, Left: -1}}
	for i, id := range ids {
		zone, used := zones[id]
		age, open := unsettled[id]
		label := id
		if i >= MaxZones {
			label, zone.Left, zone.Daily, zone.PurgesLeft = otherZonesLabel, -1, 0, nil
		}
		switch {
		case used && label == otherZonesLabel:
			rest = rest.MergeStats(zone)
			cappedZones[otherZonesLabel] = rest
		case used:
			cappedZones[id] = zone
		}
		if open {
			cappedUnsettled[label] = max(cappedUnsettled[label], age)
		}
	}
	return cappedZones, cappedUnsettled
}

// ageOf returns the time since a moment in seconds. It returns 0 for a zero time, and for
// a time in the future, which a wrong clock can cause.
func ageOf(now, since time.Time) float64 {
	if since.IsZero() {
		return 0
	}
	return max(0, now.Sub(since).Seconds())
}
