package submit

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
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
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/follow"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/metrics"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

var updatePage = flag.Bool("update", false, "write docs/metrics.md")

const metricsPage = "../../../docs/metrics.md"

// monitorOf returns the collector of a leading process with these controllers.
func monitorOf(s *Submitter, p *follow.Poller, cached ...client.Object) *metrics.Collector {
	leads := make(chan struct{})
	close(leads)
	tasks := metrics.NewTaskCounter(kube.ReadyReasonOf)
	for _, task := range cached {
		tasks.CountTask(nil, task)
	}
	return metrics.NewCollector(20, leads, tasks, s.StatsByZone, p.UnsettledAges)
}

func TestThePageOfMetricsNamesThoseThatTheManagerServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		u := controllertest.NewUnit(t, edgeOne.RoundTripper(), nil, controllertest.NewTask("a", 1))
		s, l := submitterOf(u, u.ReadTask("a"))
		s.readQuota(l, controllertest.Creds, controllertest.Zone)
		s.readQuota(l.purges, controllertest.Creds, controllertest.Zone)
		m := monitorOf(s, pollerOf(u, controllertest.ClaimedAt(controllertest.NewTask("lost", 1), time.Now())), u.ReadTask("a"))
		metrics.ObserveCall(teo.Call{Action: teo.ActionCreatePrefetchTask})
		finished := controllertest.ClaimedAt(controllertest.NewTask("finished", 1), time.Now())
		finished.Status.CompletionTime, finished.Status.StartTime = metav1.Now(), metav1.Now()
		metrics.ObserveRun(finished, v1alpha1.ReasonSucceeded)

		followed := finished.DeepCopy()
		taskstate.RecordJob("job", nil, time.Now())(followed)
		u.Targets.ObserveStatusWrite(finished, followed)
		metrics.ObserveCredentials("", time.Now().Add(time.Hour), nil)
		leads := make(chan struct{})
		close(leads)
		accounts := metrics.NewAccountCollector(leads, func() map[string]metrics.AccountStats {
			return map[string]metrics.AccountStats{"main": {IsReady: true, Reason: v1alpha1.ReasonAccepted, Limit: 100}}
		})
		all := append(slices.Clone(metrics.Counters), m, u.Targets, metrics.CredentialsExpiry, accounts)
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

The manager serves these metrics at /metrics of its metrics port, with those of
controller-runtime, client-go and the Go runtime ([how to scrape them](monitoring.md)).

Counters and histograms count what each process did. Gauges show the current state, and only
the leader reports them. So ` + "`sum`" + ` or ` + "`max`" + ` over all replicas is right for both. No label
has the name of a task, a namespace or a Secret. An ` + "`account`" + ` is the name of an EdgeOneAccount;
its series end when it is deleted. A ` + "`zone`" + ` has gauges while tasks wait in it or are followed
there, and for an hour after its last call. Its counters stay until the process ends, and are
0 for their first 90 seconds, so that ` + "`rate`" + ` sees the first outcomes.

| metric | type | labels | meaning |
|---|---|---|---|
`

func TestAScrapeCostsTheSameHoweverManyTasksAreOver(t *testing.T) {
	u := controllertest.NewUnit(t, nil, nil)
	s, _ := submitterOf(u)
	leads := make(chan struct{})
	close(leads)
	tasks := metrics.NewTaskCounter(kube.ReadyReasonOf)
	m := metrics.NewCollector(20, leads, tasks, s.StatsByZone, pollerOf(u).UnsettledAges)
	scrape := func() {
		out := make(chan prometheus.Metric, 100)
		m.Collect(out)
	}
	over := func(i int) client.Object {
		task := controllertest.NewTask(fmt.Sprint(i), 1)
		task.ResourceVersion = "1"
		taskstate.RecordJob("job", nil, time.Now())(controllertest.ClaimedAt(task, time.Now()))
		task.Status.Jobs[0].Succeeded = 1
		taskstate.UpdateSummary(task, time.Now())
		return kube.PruneFinishedTask(task)
	}
	see := func(i int) {
		tasks.CountTask(nil, over(i))
		s.Tasks.ObserveTask(kube.CachedTask(over(i)))
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
		edgeOne := controllertest.NewEdgeOne(func(c *simulator.Config) {
			c.Zones[0].Daily = 100
			c.Zones = append(c.Zones, simulator.Zone{ID: "zone-2", Account: "a", Domains: []string{"h"}})
		})
		defer edgeOne.Close()
		elsewhere, tenant := controllertest.NewTask("elsewhere", 3), controllertest.NewTask("tenant", 4)
		elsewhere.Spec.ZoneID = "zone-2"
		tenant.Spec.CredentialsSecretRef.Name = "keys"
		waiting := []*v1alpha1.PrefetchTask{controllertest.NewTask("a", 2), elsewhere, tenant}
		for _, task := range waiting {
			task.CreationTimestamp = metav1.NewTime(time.Now())
		}
		u := controllertest.NewUnit(t, edgeOne.RoundTripper(), nil, waiting...)
		s, l := submitterOf(u, u.ReadTask("a"), u.ReadTask("elsewhere"), u.ReadTask("tenant"))
		m := monitorOf(s, pollerOf(u))
		always := func(zones map[string]float64) map[string]float64 {
			zones["leader"], zones["api_limit_calls_per_second"] = 1, 20
			return zones
		}
		time.Sleep(time.Minute)
		controllertest.WantSeries(t, "three tasks wait", controllertest.Series(t, m), always(map[string]float64{
			"waiting_targets Waiting zone-1": 6, "waiting_oldest_age_seconds Waiting zone-1": 60,
			"waiting_targets Waiting zone-2": 3, "waiting_oldest_age_seconds Waiting zone-2": 60,
		}))
		s.readQuota(l, controllertest.Creds, controllertest.Zone)
		controllertest.WantSeries(t, "the quota was read, for which there was a slot a second later", controllertest.Series(t, m), always(map[string]float64{
			"waiting_targets Waiting zone-1": 6, "waiting_oldest_age_seconds Waiting zone-1": 61, "quota_left_targets zone-1": 100, "quota_daily_targets zone-1": 100,
			"waiting_targets Waiting zone-2": 3, "waiting_oldest_age_seconds Waiting zone-2": 61,
		}))
		s.newAttempt(l, controllertest.Creds, planNext(u, l), "mine").run(context.Background())
		s.Tasks.RemoveTask(u.ReadTask("elsewhere"))
		s.Tasks.RemoveTask(u.ReadTask("tenant"))
		controllertest.WantSeries(t, "one was called for, which is followed, and the others are gone", controllertest.Series(t, m), always(map[string]float64{
			"waiting_targets Waiting zone-1": 0, "waiting_oldest_age_seconds Waiting zone-1": 0, "quota_left_targets zone-1": 98, "quota_daily_targets zone-1": 100,
			"unsettled_oldest_age_seconds zone-1": 0,
		}))
		s.Tasks.RemoveTask(u.ReadTask("a"))
		time.Sleep(59 * time.Minute)
		if told := controllertest.Series(t, m); told["quota_left_targets zone-1"] != 98 {
			t.Errorf("within the hour: %v", told)
		}
		time.Sleep(time.Minute)
		controllertest.WantSeries(t, "an hour later", controllertest.Series(t, m), always(map[string]float64{}))
	})
}

func TestInventedZonesShareOneLabelAndRealOnesHaveTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(func(c *simulator.Config) { c.Zones[0].Daily = 100 })
		defer edgeOne.Close()
		u := controllertest.NewUnit(t, edgeOne.RoundTripper(), nil, controllertest.NewTask("real", 2))
		s, l := submitterOf(u, u.ReadTask("real"))
		s.readQuota(l, controllertest.Creds, controllertest.Zone)
		const invented = 2000
		var tasks []*v1alpha1.PrefetchTask
		for i := range invented {
			task := controllertest.NewTask(fmt.Sprint("invented-", i), 1)
			task.Spec.ZoneID = fmt.Sprintf("zone-%05d", i) // sorts before the real zone
			task.CreationTimestamp = metav1.NewTime(time.Now())
			claimed := controllertest.NewTask(fmt.Sprint("claimed-", i), 1)
			claimed.Spec.ZoneID = task.Spec.ZoneID
			controllertest.ClaimedAt(claimed, time.Now())
			for _, task := range []*v1alpha1.PrefetchTask{task, claimed} {
				s.Tasks.ObserveTask(task)
				tasks = append(tasks, task)
			}
		}
		m := monitorOf(s, pollerOf(u))
		got := controllertest.Series(t, m)
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
			s.Tasks.RemoveTask(task)
		}
		if left := controllertest.Series(t, m); left["waiting_targets Waiting zone-1"] != 2 || len(left) > 7 {
			t.Errorf("once the tasks are gone: %v", left)
		}
	})
}

func TestOnlyTheProcessThatLeadsTellsOfTasks(t *testing.T) {
	u := controllertest.NewUnit(t, nil, nil, controllertest.NewTask("a", 1))
	s, _ := submitterOf(u, u.ReadTask("a"))
	m := metrics.NewCollector(20, make(chan struct{}), metrics.NewTaskCounter(kube.ReadyReasonOf), s.StatsByZone, pollerOf(u).UnsettledAges)
	controllertest.WantSeries(t, "in line for the lease", controllertest.Series(t, m), map[string]float64{"leader": 0})
}

func TestCallsAreCountedWithWhatTheyHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer, lost := acceptance, error(nil)
		edgeOne := seen(func(*http.Request, []string) (string, error) { return answer, lost })
		u := controllertest.NewUnit(t, edgeOne, nil, controllertest.NewTask("a", 2), controllertest.NewTask("b", 1), controllertest.NewTask("c", 1))
		s, l := submitterOf(u, u.ReadTask("a"), u.ReadTask("b"))
		before := controllertest.Series(t, metrics.Counters...)
		s.newAttempt(l, controllertest.Creds, planNext(u, l), "mine").run(context.Background())
		controllertest.WantSeries(t, "a call of two tasks", controllertest.Since(before, controllertest.Series(t, metrics.Counters...)), map[string]float64{"call_targets": 1, "call_tasks": 1})

		lost = io.ErrUnexpectedEOF
		s.Tasks.ObserveTask(u.ReadTask("c"))
		before = controllertest.Series(t, metrics.Counters...)
		s.newAttempt(l, controllertest.Creds, planNext(u, l), "lost").run(context.Background())
		controllertest.WantSeries(t, "a call whose answer is lost", controllertest.Since(before, controllertest.Series(t, metrics.Counters...)),
			map[string]float64{"call_targets": 1, "call_tasks": 1, "lost_answers_total": 1})
	})
}

func TestALostCallIsCountedOnceWhenAllOfItsTasksKnow(t *testing.T) {
	for _, executed := range []bool{true, false} {
		t.Run(fmt.Sprintf("executed: %v", executed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				edgeOne := controllertest.NewEdgeOne(nil)
				defer edgeOne.Close()
				signedAt := time.Now()
				a, b := controllertest.ClaimedAt(controllertest.NewTask("a", 1), signedAt), controllertest.ClaimedAt(controllertest.NewTask("b", 1), signedAt)
				b.Status.Submission.ClaimID = a.Status.Submission.ClaimID
				u := controllertest.NewUnit(t, edgeOne.RoundTripper(), nil, a, b)
				p := pollerOf(u, u.ReadTask("a"), u.ReadTask("b"))
				s, _ := submitterOf(u)
				m := monitorOf(s, p)
				if executed {
					controllertest.Execute(t, edgeOne, "https://h/0")
				}
				before := controllertest.Series(t, metrics.Counters...)
				time.Sleep(30 * time.Second)
				if age := controllertest.Series(t, m)["unsettled_oldest_age_seconds zone-1"]; age < 29 || age > 31 {
					t.Errorf("the oldest is %v s old, want 30", age)
				}
				lookUntil(u, p, controllertest.Zone, signedAt.Add(controllertest.Validity+controllertest.Margin+10*time.Second))
				want := map[string]float64{"settled_calls_total not_executed": 1}
				if executed {
					want = map[string]float64{"settled_calls_total found": 1, "run_duration_seconds Succeeded": 2}
				}
				controllertest.WantSeries(t, "settled", controllertest.Since(before, controllertest.Series(t, metrics.Counters...)), want)
				if age := controllertest.Series(t, m)["unsettled_oldest_age_seconds zone-1"]; age != 0 {
					t.Errorf("settled, and the oldest is %v s old", age)
				}
			})
		})
	}
}
