package controller

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// What happens is counted here, in whichever process it happens. docs/metrics.md is
// made from these (metrics_test.go), so their Help is documentation.
var (
	apiCalls = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "teo_prefetch_api_calls_total",
		Help: "Calls of the EdgeOne API by action and result: OK, or the kind of failure " +
			"(Throttled, Exhausted, Denied, Rejected, Unavailable; Ambiguous where the answer was lost).",
	}, []string{"action", "result"})
	apiDuration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "teo_prefetch_api_call_duration_seconds",
		Help:    "How long calls of the EdgeOne API took, by action.",
		Buckets: prometheus.ExponentialBuckets(0.01, 2, 11),
	}, []string{"action"})
	limiterWait = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "teo_prefetch_limiter_wait_seconds",
		Help: "How long calls of the EdgeOne API waited for a slot in its limit, by action. " +
			"Those of CreatePrefetchTask are claimed up to 0.3 seconds before their slot is free.",
		Buckets: prometheus.ExponentialBuckets(0.005, 2, 11),
	}, []string{"action"})
	callTargets = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "teo_prefetch_call_targets",
		Help:    "How many URLs a call of CreatePrefetchTask had.",
		Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000},
	})
	callTasks = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "teo_prefetch_call_tasks",
		Help:    "How many tasks shared a call of CreatePrefetchTask.",
		Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500},
	})
	lostAnswers = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "teo_prefetch_lost_answers_total",
		Help: "Calls of CreatePrefetchTask whose answer was lost, so that they are looked for in EdgeOne's history.",
	})
	settledCalls = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "teo_prefetch_settled_calls_total",
		Help: "Calls looked for in EdgeOne's history, since their answer was lost or a process ended before it came, by what became of them: " +
			"found, or not_executed (then their targets go out again).",
	}, []string{"outcome"})
	runDuration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "teo_prefetch_run_duration_seconds",
		Help:    "How long runs took from the first claim (status.startTime) to the last outcome, by the reason of the condition Finished. Retried runs do not count.",
		Buckets: []float64{1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 6 * 3600, 24 * 3600},
	}, []string{"reason"})
)

// counters are all of them.
var counters = []prometheus.Collector{apiCalls, apiDuration, limiterWait, callTargets, callTasks, lostAnswers, settledCalls, runDuration}

const outcomeFound, outcomeNotExecuted = "found", "not_executed"

func init() {
	metrics.Registry.MustRegister(counters...)
	// A series that begins with its first event hides that event from rate().
	for _, action := range []string{teo.ActionCreatePrefetchTask, teo.ActionDescribePrefetchTasks, teo.ActionDescribeContentQuota} {
		for _, kind := range []teo.Kind{"", teo.Throttled, teo.Exhausted, teo.Denied, teo.Rejected, teo.Unavailable, teo.Ambiguous} {
			apiCalls.WithLabelValues(action, resultLabel(kind))
		}
		limiterWait.WithLabelValues(action)
	}
	settledCalls.WithLabelValues(outcomeFound)
	settledCalls.WithLabelValues(outcomeNotExecuted)
}

func resultLabel(kind teo.Kind) string {
	if kind == "" {
		return "OK"
	}
	return string(kind)
}

// ObserveCall counts a call of the EdgeOne API. It is meant for teo.Options.
func ObserveCall(call teo.Call) {
	apiCalls.WithLabelValues(call.Action, resultLabel(call.Kind)).Inc()
	apiDuration.WithLabelValues(call.Action).Observe(call.Duration.Seconds())
}

// ObserveWait measures the wait for a slot. It is meant for teo.Options.
func ObserveWait(action string, wait time.Duration) {
	limiterWait.WithLabelValues(action).Observe(wait.Seconds())
}

// observeCreate counts what a call of CreatePrefetchTask had.
func observeCreate(targets int, claimed []bool) {
	tasks := 0
	for _, has := range claimed {
		if has {
			tasks++
		}
	}
	callTargets.Observe(float64(targets))
	callTasks.Observe(float64(tasks))
}

// observeRun counts the end of a run.
func observeRun(task *v1alpha1.PrefetchTask, reason string) {
	for i := range task.Status.Jobs {
		if task.Status.Jobs[i].Retried != "" {
			return
		}
	}
	if task.Status.StartTime.IsZero() {
		return // edited by hand
	}
	runDuration.WithLabelValues(reason).Observe(task.Status.CompletionTime.Sub(task.Status.StartTime.Time).Seconds())
}

// collector tells how things stand, when it is asked. It asks the lines and the open
// work, which hold no finished tasks; those are counted event by event. Only the
// process that leads tells more than that it does not: others see the same tasks.
type collector struct {
	limit     int
	leads     <-chan struct{} // closed once this process does
	tasks     *taskCounter
	submitter *Submitter
	poller    *Poller
}

var (
	leaderDesc = prometheus.NewDesc("teo_prefetch_leader",
		"1 in the process that works, 0 in those that stand by. The other gauges are told by the one that works.", nil, nil)
	limitDesc = prometheus.NewDesc("teo_prefetch_api_limit_calls_per_second",
		"How many calls a second --teo-qps allows of each action and account.", nil, nil)
	tasksDesc = prometheus.NewDesc("teo_prefetch_tasks",
		"Tasks by the reason of their condition Ready. Those whose status does not speak of their spec yet are Waiting.", []string{"reason"}, nil)
	waitingDesc = prometheus.NewDesc("teo_prefetch_waiting_targets",
		"Targets that wait for a call, by zone and reason: what holds them, or Waiting where nothing does. "+
			"At most 100 zones have series of their own, those first that EdgeOne has accepted lately; the rest is the zone other.", []string{"zone", "reason"}, nil)
	oldestDesc = prometheus.NewDesc("teo_prefetch_waiting_oldest_age_seconds",
		"Age of the longest-waiting task, by zone and reason: time since its last call, or since it was created, resumed or changed. "+
			"0 if none waits.",
		[]string{"zone", "reason"}, nil)
	leftDesc = prometheus.NewDesc("teo_prefetch_quota_left_targets",
		"What is left of the day's quota in mode Default, by zone, as far as the operator knows: as EdgeOne told it last, less what the operator has submitted since.",
		[]string{"zone"}, nil)
	dailyDesc = prometheus.NewDesc("teo_prefetch_quota_daily_targets",
		"The quota of a day in mode Default, by zone, as EdgeOne told it last.", []string{"zone"}, nil)
	unsettledDesc = prometheus.NewDesc("teo_prefetch_unsettled_oldest_age_seconds",
		"How long ago the oldest call was claimed of those whose answer was lost and whose outcome is not found out yet, by zone. 0 if there is none.",
		[]string{"zone"}, nil)
)

// Describe names the gauges.
func (*collector) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{leaderDesc, limitDesc, tasksDesc, waitingDesc, oldestDesc, leftDesc, dailyDesc, unsettledDesc} {
		descs <- desc
	}
}

// Collect reads them.
func (m *collector) Collect(out chan<- prometheus.Metric) {
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
	for reason, n := range m.tasks.countsByReason() {
		gauge(tasksDesc, float64(n), reason)
	}
	now := time.Now()
	zones, unsettled := limitZones(m.submitter.statsByZone(now), m.poller.unsettledSince())
	for id, zone := range zones {
		for reason, waiting := range zone.Waiting {
			gauge(waitingDesc, float64(waiting.Targets), id, reason)
			gauge(oldestDesc, ageOf(now, waiting.Since), id, reason)
		}
		if zone.Left >= 0 {
			gauge(leftDesc, float64(zone.Left), id)
		}
		if zone.daily > 0 {
			gauge(dailyDesc, float64(zone.daily), id)
		}
	}
	serverNow := m.poller.edgeOne.ServerTime()
	for id, since := range unsettled {
		gauge(unsettledDesc, ageOf(serverNow, since), id)
	}
}

// maxZones is how many zones have series of their own. A tenant may name zones that do
// not exist, as many as there is room for in the cluster.
const maxZones = 100

// otherZonesLabel is the label of the rest. No zone has such an ID.
const otherZonesLabel = "other"

// limitZones joins all but maxZones of the zones in one. First come those that EdgeOne has
// accepted from the operator's own account lately, then those from other accounts, then
// those that it knows nothing of. The quotas of the rest are left out: their sum means
// nothing.
func limitZones(zones map[string]zoneStats, unsettled map[string]time.Time) (map[string]zoneStats, map[string]time.Time) {
	all := map[string]bool{}
	for id := range zones {
		all[id] = true
	}
	for id := range unsettled {
		all[id] = true
	}
	if len(all) <= maxZones {
		return zones, unsettled
	}
	ids := slices.SortedFunc(maps.Keys(all), func(a, b string) int {
		return cmp.Or(-cmp.Compare(zones[a].accepted, zones[b].accepted), cmp.Compare(a, b))
	})
	cappedZones, cappedUnsettled := map[string]zoneStats{}, map[string]time.Time{}
	rest := zoneStats{ZoneStats: queue.ZoneStats{Waiting: map[string]queue.Backlog{}, Left: -1}}
	for i, id := range ids {
		zone, used := zones[id]
		since, open := unsettled[id]
		label := id
		if i >= maxZones {
			label, zone.Left, zone.daily = otherZonesLabel, -1, 0
		}
		switch {
		case used && label == otherZonesLabel:
			rest = rest.mergeStats(zone)
			cappedZones[otherZonesLabel] = rest
		case used:
			cappedZones[id] = zone
		}
		if known := cappedUnsettled[label]; open && (known.IsZero() || !since.IsZero() && since.Before(known)) {
			cappedUnsettled[label] = since
		}
	}
	return cappedZones, cappedUnsettled
}

// ageOf is in seconds; 0 of what is not, or comes from a clock that is ahead.
func ageOf(now, since time.Time) float64 {
	if since.IsZero() {
		return 0
	}
	return max(0, now.Sub(since).Seconds())
}

// zoneStats is what the lines of all accounts know of a zone.
type zoneStats struct {
	queue.ZoneStats
	daily    int // the quota of a day; 0 is not known
	accepted acceptedFrom
}

// acceptedFrom is whose call for a zone, or read of its quota, EdgeOne accepted lately.
type acceptedFrom int

const (
	nobody acceptedFrom = iota
	tenant
	operatorItself
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

// statsByZone tells of the zones in which tasks wait, or were called for lately.
func (s *Submitter) statsByZone(now time.Time) map[string]zoneStats {
	s.mu.Lock()
	lines := slices.Collect(maps.Values(s.accountQueues))
	s.mu.Unlock()
	all := map[string]zoneStats{}
	for _, l := range lines {
		for id, zone := range l.statsByZone(now) {
			if known, ok := all[id]; ok { // to another account: a tenant's own key, say
				zone = known.mergeStats(zone)
			}
			all[id] = zone
		}
	}
	return all
}

func (l *accountQueue) statsByZone(now time.Time) map[string]zoneStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	known, zones := l.queue.StatsByZone(now), map[string]zoneStats{}
	for id, zone := range known {
		if len(zone.Waiting) > 0 {
			zones[id] = zoneStats{ZoneStats: zone}
		}
	}
	accepted := tenant
	if l.account == (taskstate.AccountKey{}) {
		accepted = operatorItself
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
		zones[id] = zoneStats{zone, used.daily, accepted}
	}
	return zones
}

// mergeStats joins what two accounts know of the same zone.
func (z zoneStats) mergeStats(other zoneStats) zoneStats {
	z.Waiting = maps.Clone(z.Waiting)
	for reason, line := range other.Waiting {
		z.Waiting[reason] = z.Waiting[reason].Merge(line)
	}
	if z.Left < 0 || other.Left >= 0 && other.Left < z.Left {
		z.Left = other.Left
	}
	z.daily, z.accepted = max(z.daily, other.daily), max(z.accepted, other.accepted)
	return z
}

// unsettledSince is from when the oldest call is whose outcome is looked for, by zone;
// zero where there is none among what is open.
func (p *Poller) unsettledSince() map[string]time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	oldest := map[string]time.Time{}
	for z, work := range p.zones {
		since := oldest[z.ID]
		for _, task := range work.tasks {
			if claim := task.Status.Submission; claim != nil && !p.isCallInFlight(task) && (since.IsZero() || claim.SignedAt.Time.Before(since)) {
				since = claim.SignedAt.Time
			}
		}
		oldest[z.ID] = since
	}
	return oldest
}

// taskCounter counts the tasks in the cache, as it changes.
type taskCounter struct {
	mu       sync.Mutex
	byReason map[string]int
}

func newTaskCounter() *taskCounter { return &taskCounter{byReason: map[string]int{}} }

// countTask counts what an event did to the cache: nil is before a task was there, or
// after it is gone.
func (t *taskCounter) countTask(before, after client.Object) {
	from, to := keptReason(before), keptReason(after)
	if from == to {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if from != "" {
		if t.byReason[from]--; t.byReason[from] == 0 {
			delete(t.byReason, from)
		}
	}
	if to != "" {
		t.byReason[to]++
	}
}

func (t *taskCounter) countsByReason() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.byReason)
}

// keptReason is what a version in the cache is counted as; "" of none.
func keptReason(obj client.Object) string {
	switch kept := obj.(type) {
	case *v1alpha1.PrefetchTask:
		if reason := taskstate.ReadyReason(kept); reason != "" && kept.Status.ObservedGeneration == kept.Generation {
			return reason
		}
		return v1alpha1.ReasonWaiting
	case *metav1.PartialObjectMetadata:
		return keptOutcome(kept)
	}
	return ""
}
