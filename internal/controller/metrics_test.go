package controller

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/metrics"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

var updatePage = flag.Bool("update", false, "write docs/metrics.md")

const metricsPage = "../../docs/metrics.md"

// series are what collectors give, by name and labels: how many there were for a
// histogram, the value for others.
func series(t *testing.T, collectors ...prometheus.Collector) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collectors...)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := strings.TrimPrefix(family.GetName(), "teo_prefetch_")
			for _, label := range m.GetLabel() {
				name += " " + label.GetValue()
			}
			values[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return values
}

// since are those that have changed, and by how much.
func since(before, now map[string]float64) map[string]float64 {
	changed := map[string]float64{}
	for name, value := range now {
		if value != before[name] {
			changed[name] = value - before[name]
		}
	}
	return changed
}

func wantSeries(t *testing.T, what string, got, want map[string]float64) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

// monitorOf tells of these controllers, as the process that leads.
func monitorOf(s *Submitter, p *Poller, cached ...client.Object) *metrics.Collector {
	leads := make(chan struct{})
	close(leads)
	tasks := metrics.NewTaskCounter(kube.ReadyReasonOf)
	for _, task := range cached {
		tasks.CountTask(nil, task)
	}
	return metrics.NewCollector(20, leads, tasks, s.statsByZone, p.unsettledAges)
}

func TestThePageOfMetricsNamesThoseThatTheManagerServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(nil)
		defer edgeOne.Close()
		u := newUnit(t, edgeOne.RoundTripper(), nil, unitTask("a", 1))
		s, l := u.submitter(u.get("a"))
		s.readQuota(l, unitCreds, unitZone)
		m := monitorOf(s, u.poller(claimedAt(unitTask("lost", 1), time.Now())), u.get("a"))
		metrics.ObserveCall(teo.Call{Action: teo.ActionCreatePrefetchTask})
		finished := claimedAt(unitTask("finished", 1), time.Now())
		finished.Status.CompletionTime, finished.Status.StartTime = metav1.Now(), metav1.Now()
		metrics.ObserveRun(finished, v1alpha1.ReasonSucceeded)

		all := append(slices.Clone(metrics.Counters), m)
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(all...)
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		problems, err := promlint.NewWithMetricFamilies(families).Lint()
		if err != nil || len(problems) > 0 {
			t.Errorf("promlint: %v, %v", problems, err)
		}
		page := metricsIntroduction
		named := 0
		for _, family := range families {
			var labels []string
			for _, label := range family.GetMetric()[0].GetLabel() {
				labels = append(labels, "`"+label.GetName()+"`")
			}
			page += fmt.Sprintf("| `%s` | %s | %s | %s |\n", family.GetName(), strings.ToLower(family.GetType().String()), strings.Join(labels, ", "), family.GetHelp())
			named++
		}
		descs := make(chan *prometheus.Desc, 100)
		for _, collector := range all {
			collector.Describe(descs)
		}
		if len(descs) != named {
			t.Errorf("%d metrics are described, and this test sees only %d: make it use the others", len(descs), named)
		}
		if *updatePage {
			if err := os.WriteFile(metricsPage, []byte(page), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if text, err := os.ReadFile(metricsPage); err != nil || string(text) != page {
			t.Errorf("docs/metrics.md is not what it should be (%v); run make manifests", err)
		}
	})
}

const metricsIntroduction = `# Metrics

<!-- Made from internal/metrics by "make manifests". -->

The manager serves these beside those of controller-runtime, client-go and the Go
runtime, at /metrics of its metrics port ([how to scrape them](monitoring.md)).

Counters and histograms count what a process did. Gauges tell how things stand, and
only the process that leads tells them; so ` + "`sum`" + ` or ` + "`max`" + ` over all replicas is right for
both. No label has the name of a task, a namespace or an account. A ` + "`zone`" + ` is told of
while tasks wait in it or are followed there, and for an hour after its last call.

| metric | type | labels | meaning |
|---|---|---|---|
`

func TestTasksAreCountedByTheirReasonAsTheyComeChangeAndGo(t *testing.T) {
	see := kube.CacheOptions(NewRecordedJobs()).DefaultTransform
	version := func(changes ...taskstate.Transition) client.Object {
		task := unitTask("a", 1)
		for _, c := range changes {
			c(task)
		}
		kept, err := see(task)
		if err != nil {
			t.Fatal(err)
		}
		return kept.(client.Object)
	}
	now := time.Now()
	claimed := func(task *v1alpha1.PrefetchTask) { claimedAt(task, now) }
	succeed := func(task *v1alpha1.PrefetchTask) {
		taskstate.RecordJob("job-1", nil, now)(task)
		task.Status.Jobs[0].Succeeded = 1
		taskstate.UpdateSummary(task, now)
	}
	fail := func(task *v1alpha1.PrefetchTask) {
		taskstate.RecordJob("", map[string]string{"https://h/0": "no"}, now)(task)
	}
	edited := func(task *v1alpha1.PrefetchTask) { task.Generation++; task.Spec.Revision = "2" }
	tasks := metrics.NewTaskCounter(kube.ReadyReasonOf)
	var last client.Object
	for _, step := range []struct {
		name string
		next client.Object
		want map[string]int
	}{
		{"it is new", version(), map[string]int{"Waiting": 1}},
		{"it is claimed", version(claimed), map[string]int{"Submitting": 1}},
		{"its answer is lost", version(claimed, taskstate.OutcomeUnknown("lost", false)), map[string]int{"OutcomeUnknown": 1}},
		{"it is followed", version(claimed, taskstate.RecordJob("job-1", nil, now)), map[string]int{"Submitted": 1}},
		{"it has succeeded, and is slimmed", version(claimed, succeed), map[string]int{"Succeeded": 1}},
		{"the same comes again", version(claimed, succeed), map[string]int{"Succeeded": 1}},
		{"it is edited", version(claimed, succeed, edited), map[string]int{"Waiting": 1}},
		{"it has failed", version(claimed, fail), map[string]int{"Failed": 1}},
		{"it is deleted", nil, map[string]int{}},
	} {
		tasks.CountTask(last, step.next)
		last = step.next
		if got := tasks.CountsByReason(); !maps.Equal(got, step.want) {
			t.Errorf("%s: %v, want %v", step.name, got, step.want)
		}
	}
}

func TestAScrapeCostsTheSameHoweverManyTasksAreOver(t *testing.T) {
	u := newUnit(t, nil, nil)
	s, _ := u.submitter()
	leads := make(chan struct{})
	close(leads)
	tasks := metrics.NewTaskCounter(kube.ReadyReasonOf)
	m := metrics.NewCollector(20, leads, tasks, s.statsByZone, u.poller().unsettledAges)
	scrape := func() {
		out := make(chan prometheus.Metric, 100)
		m.Collect(out)
	}
	over := func(i int) client.Object {
		task := unitTask(fmt.Sprint(i), 1)
		task.ResourceVersion = "1"
		taskstate.RecordJob("job", nil, time.Now())(claimedAt(task, time.Now()))
		task.Status.Jobs[0].Succeeded = 1
		taskstate.UpdateSummary(task, time.Now())
		return kube.PruneFinishedTask(task)
	}
	see := func(i int) {
		tasks.CountTask(nil, over(i))
		s.versions.ObserveTask(kube.CachedTask(over(i)))
	}
	see(0)
	before := testing.AllocsPerRun(10, scrape)
	for i := range 10000 {
		see(i)
	}
	if after := testing.AllocsPerRun(10, scrape); after != before {
		t.Errorf("a scrape allocates %v times, and %v times beside 10,000 tasks that are over", before, after)
	}
	if n := tasks.CountsByReason()[v1alpha1.ReasonSucceeded]; n != 10001 {
		t.Errorf("%d tasks are counted, want 10001", n)
	}
}

func TestAZoneIsToldOfWhileItIsUsedAndAnHourLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(func(c *simulator.Config) {
			c.Zones[0].Daily = 100
			c.Zones = append(c.Zones, simulator.Zone{ID: "zone-2", Account: "a", Domains: []string{"h"}})
		})
		defer edgeOne.Close()
		elsewhere, tenant := unitTask("elsewhere", 3), unitTask("tenant", 4)
		elsewhere.Spec.ZoneID = "zone-2"
		tenant.Spec.CredentialsSecretRef.Name = "keys"
		waiting := []*v1alpha1.PrefetchTask{unitTask("a", 2), elsewhere, tenant}
		for _, task := range waiting {
			task.CreationTimestamp = metav1.NewTime(time.Now())
		}
		u := newUnit(t, edgeOne.RoundTripper(), nil, waiting...)
		s, l := u.submitter(u.get("a"), u.get("elsewhere"), u.get("tenant"))
		m := monitorOf(s, u.poller())
		always := func(zones map[string]float64) map[string]float64 {
			zones["leader"], zones["api_limit_calls_per_second"] = 1, 20
			return zones
		}
		time.Sleep(time.Minute)
		wantSeries(t, "three tasks wait", series(t, m), always(map[string]float64{
			"waiting_targets Waiting zone-1": 6, "waiting_oldest_age_seconds Waiting zone-1": 60,
			"waiting_targets Waiting zone-2": 3, "waiting_oldest_age_seconds Waiting zone-2": 60,
		}))
		s.readQuota(l, unitCreds, unitZone)
		wantSeries(t, "the quota was read, for which there was a slot a second later", series(t, m), always(map[string]float64{
			"waiting_targets Waiting zone-1": 6, "waiting_oldest_age_seconds Waiting zone-1": 61, "quota_left_targets zone-1": 100, "quota_daily_targets zone-1": 100,
			"waiting_targets Waiting zone-2": 3, "waiting_oldest_age_seconds Waiting zone-2": 61,
		}))
		s.makeCall(context.Background(), l, unitCreds, u.planned(l), "mine")
		s.versions.RemoveTask(u.get("elsewhere"))
		s.versions.RemoveTask(u.get("tenant"))
		wantSeries(t, "one was called for, which is followed, and the others are gone", series(t, m), always(map[string]float64{
			"waiting_targets Waiting zone-1": 0, "waiting_oldest_age_seconds Waiting zone-1": 0, "quota_left_targets zone-1": 98, "quota_daily_targets zone-1": 100,
			"unsettled_oldest_age_seconds zone-1": 0,
		}))
		s.versions.RemoveTask(u.get("a"))
		time.Sleep(59 * time.Minute)
		if told := series(t, m); told["quota_left_targets zone-1"] != 98 {
			t.Errorf("within the hour: %v", told)
		}
		time.Sleep(time.Minute)
		wantSeries(t, "an hour later", series(t, m), always(map[string]float64{}))
	})
}

func TestInventedZonesShareOneLabelAndRealOnesHaveTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(func(c *simulator.Config) { c.Zones[0].Daily = 100 })
		defer edgeOne.Close()
		u := newUnit(t, edgeOne.RoundTripper(), nil, unitTask("real", 2))
		s, l := u.submitter(u.get("real"))
		s.readQuota(l, unitCreds, unitZone)
		const invented = 2000
		var tasks []*v1alpha1.PrefetchTask
		for i := range invented {
			task := unitTask(fmt.Sprint("invented-", i), 1)
			task.Spec.ZoneID = fmt.Sprintf("zone-%05d", i) // sorts before the real one
			task.CreationTimestamp = metav1.NewTime(time.Now())
			claimed := unitTask(fmt.Sprint("claimed-", i), 1)
			claimed.Spec.ZoneID = task.Spec.ZoneID
			claimedAt(claimed, time.Now())
			for _, task := range []*v1alpha1.PrefetchTask{task, claimed} {
				s.versions.ObserveTask(task)
				tasks = append(tasks, task)
			}
		}
		m := monitorOf(s, u.poller())
		got := series(t, m)
		if got["waiting_targets Waiting zone-1"] != 2 || got["quota_daily_targets zone-1"] != 100 {
			t.Errorf("of the real zone: %v", got)
		}
		total := 0.0
		for name, value := range got {
			if strings.HasPrefix(name, "waiting_targets ") {
				total += value
			}
		}
		if n := got["waiting_targets Waiting other"]; n != invented+1-metrics.MaxZones || total != invented+2 {
			t.Errorf("%v targets wait in other zones and %v in all", n, total)
		}
		if len(got) > 3*(metrics.MaxZones+1)+5 {
			t.Errorf("%d series", len(got))
		}
		for _, task := range tasks {
			s.versions.RemoveTask(task)
		}
		if left := series(t, m); left["waiting_targets Waiting zone-1"] != 2 || len(left) > 7 {
			t.Errorf("once the tasks are gone: %v", left)
		}
	})
}

func TestTwoAccountsOfAZoneAreToldOfAsOne(t *testing.T) {
	early, late := time.Unix(100, 0), time.Unix(200, 0)
	use := func(left, daily int, waiting map[string]queue.Backlog) metrics.ZoneStats {
		return metrics.ZoneStats{ZoneStats: queue.ZoneStats{Waiting: waiting, Left: left}, Daily: daily}
	}
	one := use(-1, 10, map[string]queue.Backlog{v1alpha1.ReasonWaiting: {Targets: 1, Since: late}})
	two := use(5, 20, map[string]queue.Backlog{v1alpha1.ReasonWaiting: {Targets: 2, Since: early}, v1alpha1.ReasonThrottled: {Targets: 7, Since: late}})
	want := use(5, 20, map[string]queue.Backlog{v1alpha1.ReasonWaiting: {Targets: 3, Since: early}, v1alpha1.ReasonThrottled: {Targets: 7, Since: late}})
	for _, got := range []metrics.ZoneStats{one.MergeStats(two), two.MergeStats(one)} {
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%+v", got)
		}
	}
	one = use(3, 10, map[string]queue.Backlog{v1alpha1.ReasonWaiting: {}}) // where none waits
	want.Waiting[v1alpha1.ReasonWaiting], want.Left = queue.Backlog{Targets: 2, Since: early}, 3
	for _, got := range []metrics.ZoneStats{one.MergeStats(two), two.MergeStats(one)} {
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%+v", got)
		}
	}
}

func TestOnlyTheProcessThatLeadsTellsOfTasks(t *testing.T) {
	u := newUnit(t, nil, nil, unitTask("a", 1))
	s, _ := u.submitter(u.get("a"))
	m := metrics.NewCollector(20, make(chan struct{}), metrics.NewTaskCounter(kube.ReadyReasonOf), s.statsByZone, u.poller().unsettledAges)
	wantSeries(t, "in line for the lease", series(t, m), map[string]float64{"leader": 0})
}

func TestCallsAreCountedWithWhatTheyHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer, lost := acceptance, error(nil)
		edgeOne := seen(func(*http.Request, []string) (string, error) { return answer, lost })
		u := newUnit(t, edgeOne, nil, unitTask("a", 2), unitTask("b", 1), unitTask("c", 1))
		s, l := u.submitter(u.get("a"), u.get("b"))
		before := series(t, metrics.Counters...)
		s.makeCall(context.Background(), l, unitCreds, u.planned(l), "mine")
		wantSeries(t, "a call of two tasks", since(before, series(t, metrics.Counters...)), map[string]float64{"call_targets": 1, "call_tasks": 1})

		lost = io.ErrUnexpectedEOF
		s.versions.ObserveTask(u.get("c"))
		before = series(t, metrics.Counters...)
		s.makeCall(context.Background(), l, unitCreds, u.planned(l), "lost")
		wantSeries(t, "a call whose answer is lost", since(before, series(t, metrics.Counters...)),
			map[string]float64{"call_targets": 1, "call_tasks": 1, "lost_answers_total": 1})
	})
}

func TestALostCallIsCountedOnceWhenAllOfItsTasksKnow(t *testing.T) {
	for _, executed := range []bool{true, false} {
		t.Run(fmt.Sprintf("executed: %v", executed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				edgeOne := unitEdgeOne(nil)
				defer edgeOne.Close()
				signedAt := time.Now()
				a, b := claimedAt(unitTask("a", 1), signedAt), claimedAt(unitTask("b", 1), signedAt)
				b.Status.Submission.ClaimID = a.Status.Submission.ClaimID
				u, p := settling(t, edgeOne.RoundTripper(), a, b)
				s, _ := u.submitter()
				m := monitorOf(s, p)
				if executed {
					execute(t, edgeOne, "https://h/0")
				}
				before := series(t, metrics.Counters...)
				time.Sleep(30 * time.Second)
				if age := series(t, m)["unsettled_oldest_age_seconds zone-1"]; age < 29 || age > 31 {
					t.Errorf("the oldest is %v s old, want 30", age)
				}
				u.lookUntil(p, unitZone, signedAt.Add(validity+margin+10*time.Second))
				want := map[string]float64{"settled_calls_total not_executed": 1}
				if executed {
					want = map[string]float64{"settled_calls_total found": 1, "run_duration_seconds Succeeded": 2}
				}
				wantSeries(t, "settled", since(before, series(t, metrics.Counters...)), want)
				if age := series(t, m)["unsettled_oldest_age_seconds zone-1"]; age != 0 {
					t.Errorf("settled, and the oldest is %v s old", age)
				}
			})
		})
	}
}

func TestARunIsTimedToItsEndOnceAndNotAgainByARetry(t *testing.T) {
	u := newUnit(t, nil, nil)
	start := time.Now()
	task := claimedAt(unitTask("a", 2), start)
	taskstate.RecordJob("job-1", nil, start)(task)
	over := task.DeepCopy()
	over.Status.Jobs[0].Succeeded, over.Status.Jobs[0].Failed = 1, 1
	taskstate.UpdateSummary(over, start.Add(time.Minute))
	before := series(t, metrics.Counters...)
	u.ReportFinished(task, over)
	u.ReportFinished(over, over)
	wantSeries(t, "a run", since(before, series(t, metrics.Counters...)), map[string]float64{"run_duration_seconds PartiallyFailed": 1})

	retried := over.DeepCopy()
	retried.Status.Jobs[0].Retried = "1"
	before = series(t, metrics.Counters...)
	u.ReportFinished(task, retried)
	wantSeries(t, "its retry", since(before, series(t, metrics.Counters...)), map[string]float64{})
}
