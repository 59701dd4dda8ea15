package controller

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

func TestAnEditOfAListEndsAlthoughEdgeOneRejectsItsJob(t *testing.T) {
	inCalm(t, simulator.Config{RejectedJobIDs: "."}, func(t *testing.T, w *calm) {
		w.start()
		key := w.create("n", "list", urls("l", 20))
		w.create("n", "other", urls("o", 20)) // read with one window, in which nothing is rejected
		w.awaitAll(2 * time.Hour)
		before, reads := w.edgeOne.Stats().Targets, len(w.calls(teo.ActionDescribePrefetchTasks))
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) {
			spec.Targets = append(urls("l", 20), "https://a1.example.com/l/new")
		})
		w.server.edit(w.create("n", "third", urls("t", 1)), func(spec *v1alpha1.PrefetchTaskSpec) {
			spec.FreshSince.Time = w.edgeOne.Now().Truncate(time.Second)
		})
		if !w.await(time.Minute, func() bool { return w.edgeOne.Executed("https://a1.example.com/t/0") == 1 }) {
			t.Error("another task of the zone waits for the rejected job")
		}
		if !w.await(time.Hour, func() bool {
			return w.ready(key) == "True/Succeeded" && w.server.get(key).Status.ObservedGeneration == 2
		}) {
			t.Fatalf("after the edit, it is %s: %+v", w.ready(key), w.server.get(key).Status)
		}
		if n := w.edgeOne.Stats().Targets - before; n != 2 {
			t.Errorf("%d URLs were submitted, want the new one and that of the third task", n)
		}
		if n := len(w.calls(teo.ActionDescribePrefetchTasks)) - reads; n > 300 {
			t.Errorf("%d reads of the history", n)
		}
	})
}

func TestANewRunStartsAlthoughEdgeOneRejectsThePurgeOfTheRunBefore(t *testing.T) {
	inCalm(t, simulator.Config{RejectedJobIDs: ".", PurgeDuration: 10 * time.Minute}, func(t *testing.T, w *calm) {
		r := startRelease(w, 3)
		key := w.create("n", "release", r.urls, purgeURLs)
		if !w.await(time.Minute, func() bool { return len(w.server.get(key).Status.Jobs) == 1 }) {
			t.Fatal("nothing is purged")
		}
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Purge, spec.Revision = v1alpha1.Purge{}, "2" })
		w.awaitAll(30 * time.Minute)
		for _, seen := range w.edgeOne.Peek(r.texts()...) {
			if seen.Status != "HIT" {
				t.Errorf("%s is %s: the purge of the former run came later", seen.URL, seen.Status)
			}
		}
	})
}

// A process that has not called EdgeOne yet does not know its time.
func TestANewProcessStartsNothingThatIsToBeFreshInTheFuture(t *testing.T) {
	inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
		w.start()
		for i, headers := range [][]v1alpha1.HTTPHeader{nil, {{Name: "Accept-Encoding", Value: "br"}}} {
			key := w.create(fmt.Sprint("n", i), "future", urls(fmt.Sprint("x", i), 1), func(spec *v1alpha1.PrefetchTaskSpec) {
				spec.FreshSince, spec.Headers = metav1.NewTime(w.edgeOne.Now().Add(time.Hour)), headers
			})
			time.Sleep(time.Minute)
			if w.ready(key) != "False/"+v1alpha1.ReasonFreshSinceInFuture || len(w.submissions()) > 0 {
				t.Errorf("it is %s, after %d calls", w.ready(key), len(w.submissions()))
			}
			w.server.delete(key)
		}
	})
}

// EdgeOne's time, as its answers tell it, may be ahead of the clock of its history.
func TestAHistoryOfPurgesWhoseClockIsBehindKeepsNothingFromBeingPurged(t *testing.T) {
	inCalm(t, simulator.Config{NoFutureWindows: true, DateSkew: 2 * time.Second}, func(t *testing.T, w *calm) {
		r := startRelease(w, 2)
		key := w.create("n", "release", r.urls, purgeURLs)
		w.awaitAll(10 * time.Minute)
		if w.ready(key) != "True/"+v1alpha1.ReasonSucceeded {
			t.Errorf("it is %s: %+v", w.ready(key), w.server.get(key).Status.Conditions)
		}
	})
}

// Between the plan of a purge and its claim, another task must not prefetch what it will delete.
func TestNothingIsPrefetchedThatAPlannedPurgeDeletes(t *testing.T) {
	inCalm(t, simulator.Config{PurgeDuration: 10 * time.Minute}, func(t *testing.T, w *calm) {
		r := startRelease(w, 1)
		w.awaitAll(time.Minute)
		w.ways.api = 5 * time.Second // each claim takes as long
		w.create("n", "release", r.urls, purgeURLs)
		if !w.await(time.Minute, func() bool { return len(w.calls(teo.ActionDescribeContentQuota)) > 0 }) {
			t.Fatal("it reads no quota")
		}
		time.Sleep(time.Second)
		other := w.create("n", "other", r.urls)
		w.await(9*time.Minute, func() bool { return false })
		if n := len(w.submissions()); n > 0 {
			t.Errorf("%d prefetches before the purge has ended", n)
		}
		w.awaitAll(time.Hour)
		if w.ready(other) != "True/Succeeded" || w.edgeOne.Peek(r.texts()...)[0].Status != "HIT" {
			t.Errorf("the other task is %s, and a visitor gets %+v", w.ready(other), w.edgeOne.Peek(r.texts()...))
		}
	})
}

func TestAKeyThatMayNotReadTheHistoryOfPurgesPurgesNothing(t *testing.T) {
	inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
		denied := w.edgeOne.AddFault(simulator.Fault{
			Match: simulator.Matcher{Action: teo.ActionDescribePurgeTasks}, Effect: simulator.Effect{Code: "UnauthorizedOperation.CamUnauthorized", Message: "no"},
		})
		r := startRelease(w, 1)
		key := w.create("n", "release", r.urls, purgeURLs)
		w.await(time.Hour, func() bool { return false })
		if n := len(w.calls(teo.ActionCreatePurgeTask)); n > 0 || w.ready(key) != "False/"+v1alpha1.ReasonPermissionDenied {
			t.Errorf("it is %s after %d purges", w.ready(key), n)
		}
		w.edgeOne.RemoveFault(denied)
		w.awaitAll(time.Hour)
		r.checkFresh()
	})
}

// A run that purges waits for the prefetches of the run before, also after a lost call of that run can
// no longer be executed.
func TestARunWaitsForFormerPrefetchesBesideAnExpiredCall(t *testing.T) {
	zone := zoneA1
	zone.Batch = 2
	inCalm(t, simulator.Config{Zones: []simulator.Zone{zone}, JobDuration: 20 * time.Minute, RejectedJobIDs: "."}, func(t *testing.T, w *calm) {
		r := startRelease(w, 4)
		w.edgeOne.AddFault(simulator.Fault{ // the second call is lost
			Match:  simulator.Matcher{Action: teo.ActionCreatePrefetchTask, URL: "/r/2", Count: 1},
			Effect: simulator.Effect{Answer: simulator.ConnectionClosed},
		})
		key := w.create("n", "release", r.urls)
		if !w.await(time.Minute, func() bool { s := w.server.get(key).Status; return len(s.Jobs) == 1 && s.Submission != nil }) {
			t.Fatal("no call is lost")
		}
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Revision, spec.Purge.Type = "2", v1alpha1.PurgeURL })
		w.awaitAll(2 * time.Hour)
		for _, seen := range w.edgeOne.Peek(r.texts()...) {
			if seen.Status != "HIT" || seen.IsOlderThan(r.release) {
				t.Errorf("a visitor of %s gets %+v", seen.URL, seen)
			}
		}
	})
}
