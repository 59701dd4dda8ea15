package controller

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// eventsOf returns the Events of a task.
func (w *calm) eventsOf(key client.ObjectKey) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.notes[key])
}

func TestTheEventsOfARunSayWhatIsPurgedAndWhatIsPrefetched(t *testing.T) {
	bad := "https://a1.example.com/r/249"
	for name, c := range map[string]struct {
		rules []simulator.Rule
		purge v1alpha1.Purge
		want  []string
	}{
		"all is purged": {nil, v1alpha1.Purge{Type: v1alpha1.PurgeURL}, []string{
			"Normal Purged: 250 URLs in 3 purges", "Normal Submitted: 250 URLs in 3 jobs", "Normal Succeeded: All 250 targets are prefetched",
		}},
		"a prefix": {nil, v1alpha1.Purge{Type: v1alpha1.PurgePrefix, Targets: []v1alpha1.PurgeTarget{"https://a1.example.com/r/"}}, []string{
			"Normal Purged: 1 prefix in 1 purge", "Normal Submitted: 250 URLs in 3 jobs", "Normal Succeeded: All 250 targets are prefetched",
		}},
		"one URL fails": {[]simulator.Rule{{Action: teo.ActionCreatePurgeTask, URL: bad, Status: "failed"}}, v1alpha1.Purge{Type: v1alpha1.PurgeURL}, []string{
			"Warning PurgeFailed: EdgeOne did not purge 1 URL; what is not purged is not prefetched", "Normal Purged: 249 URLs in 3 purges",
			"Normal Submitted: 250 URLs in 3 jobs",
		}},
		"the only host fails": {
			[]simulator.Rule{{Action: teo.ActionCreatePurgeTask, URL: "a1.example.com", Status: "failed"}},
			v1alpha1.Purge{Type: v1alpha1.PurgeHost, Targets: []v1alpha1.PurgeTarget{"a1.example.com"}},
			[]string{"Warning PurgeFailed: EdgeOne did not purge 1 host; no target is prefetched"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			zone := zoneA1
			zone.Batch, zone.Purge = 100, map[string]simulator.Limits{"purge_url": {Batch: 100, Daily: 1 << 20}}
			inCalm(t, simulator.Config{Zones: []simulator.Zone{zone}, Rules: c.rules}, func(t *testing.T, w *calm) {
				r := startRelease(w, 250)
				key := w.create("n", "release", r.urls, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Purge = c.purge })
				w.awaitAll(3 * time.Hour)
				time.Sleep(time.Minute)
				got := w.eventsOf(key)
				if len(got) < len(c.want) || !slices.Equal(got[:len(c.want)], c.want) {
					t.Errorf("the Events are %q, want %q", got, c.want)
				}
			})
		})
	}
}

func TestTheGaugesSayHowManyTargetsAreColdAndForHowLong(t *testing.T) {
	inCalm(t, simulator.Config{Zones: []simulator.Zone{zoneA1}}, func(t *testing.T, w *calm) {
		gauges := prometheus.NewRegistry()
		w.options.Gauges = gauges
		const cold, age, left = "cold_targets zone-a1", "cold_oldest_age_seconds zone-a1", "purge_quota_left URL zone-a1"
		r := startRelease(w, 3)
		key := w.create("n", "release", r.urls, purgeURLs)
		if !w.await(time.Minute, func() bool { return w.ready(key) == "False/"+v1alpha1.ReasonPurging }) {
			t.Fatalf("it is %s", w.ready(key))
		}
		if got := controllertest.Series(t, gauges); got[cold] != 3 || got[age] > 60 {
			t.Errorf("while they are purged: %v", got)
		}
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Suspend = ptr.To(true) })
		time.Sleep(5 * time.Minute)
		if got := controllertest.Series(t, gauges); got[cold] != 3 || got[age] < 300 || got[age] > 360 {
			t.Errorf("while the task is suspended: %v", got)
		}
		w.kill(w.running[0])
		gauges = prometheus.NewRegistry()
		w.options.Gauges = gauges
		w.start()
		time.Sleep(5 * time.Minute)
		if got := controllertest.Series(t, gauges); got[cold] != 3 || got[age] < 600 {
			t.Errorf("after a restart: %v", got)
		}
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Suspend = nil })
		w.awaitAll(time.Hour)
		other := w.create("n", "other", urls("o", 2), purgeURLs)
		w.awaitAll(time.Hour)
		time.Sleep(2 * time.Minute)
		got := controllertest.Series(t, gauges)
		if _, isKnown := got[left]; !isKnown || got[cold] != 0 || got[age] != 0 || got["purged_total Succeeded zone-a1"] != 2 || got["purged_total Failed zone-a1"] != 0 {
			t.Errorf("after all is prefetched: %v", got)
		}
		if got := got["targets_total Succeeded zone-a1"]; got != 5 || taskstate.CountPurgeJobs(w.server.get(other)) != 1 {
			t.Errorf("%v URLs are counted, want 5", got)
		}
	})
}

func TestAPurgeWhoseOutcomeCannotBeReadIsReportedByAnEvent(t *testing.T) {
	inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
		r := startRelease(w, 3)
		key := w.create("n", "release", r.urls, purgeURLs)
		if !w.await(time.Minute, func() bool { return len(w.server.get(key).Status.Jobs) == 1 }) {
			t.Fatal("nothing is purged")
		}
		refused := w.edgeOne.AddFault(simulator.Fault{
			Match:  simulator.Matcher{Action: teo.ActionDescribePurgeTasks},
			Effect: simulator.Effect{Code: "AuthFailure.UnauthorizedOperation", Message: "no"},
		})
		isTold := func() bool {
			return slices.ContainsFunc(w.eventsOf(key), func(event string) bool {
				return strings.HasPrefix(event, "Warning PermissionDenied: 3 targets are purged and not prefetched yet. The outcome of the purge cannot be read: ")
			})
		}
		if !w.await(time.Hour, isTold) {
			t.Errorf("it is %s, and the Events are %q", w.ready(key), w.eventsOf(key))
		}
		w.edgeOne.RemoveFault(refused)
		w.awaitAll(time.Hour)
		r.checkFresh()
	})
}
