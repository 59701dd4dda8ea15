package controller

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

func TestNothingIsPurgedWhileTheQuotaIsTooSmall(t *testing.T) {
	zone := zoneA1
	zone.Daily = 1000
	inCalm(t, simulator.Config{Zones: []simulator.Zone{zone}, QuotaResetAt: "16:00"}, func(t *testing.T, w *calm) {
		w.edgeOne.SetAvailable(zone.ID, 2)
		r := startRelease(w, 3)
		w.create("n", "release", r.urls, purgeURLs)
		time.Sleep(2 * time.Hour)
		if n := len(w.calls(teo.ActionCreatePurgeTask)); n != 0 {
			t.Errorf("%d purges", n)
		}
		w.awaitAll(48 * time.Hour)
		r.checkFresh()
	})
}

func TestNothingIsPurgedIfThePlanHasNoPrefetches(t *testing.T) {
	zone := zoneA1
	zone.Daily, zone.Batch = -1, -1
	inCalm(t, simulator.Config{Zones: []simulator.Zone{zone}}, func(t *testing.T, w *calm) {
		r := startRelease(w, 3)
		key := w.create("n", "release", r.urls, purgeURLs)
		time.Sleep(3 * time.Hour)
		if n := len(w.calls(teo.ActionCreatePurgeTask)); n != 0 {
			t.Errorf("%d purges; it is %s", n, w.ready(key))
		}
	})
}

func TestOneCallDoesNotTakeThePromisedQuota(t *testing.T) {
	zone := zoneA1
	zone.Daily = 1000
	inCalm(t, simulator.Config{Zones: []simulator.Zone{zone}, QuotaResetAt: "16:00", PurgeDuration: time.Minute}, func(t *testing.T, w *calm) {
		w.edgeOne.SetAvailable(zone.ID, 301)
		r := startRelease(w, 250)
		w.create("n", "first", urls("first", 1)) // the key works
		w.awaitAll(time.Hour)
		key := w.create("n", "release", r.urls, purgeURLs)
		if !w.await(time.Minute, func() bool { return w.ready(key) == "False/"+v1alpha1.ReasonPurging }) {
			t.Fatalf("it is %s", w.ready(key))
		}
		time.Sleep(5 * time.Second)
		w.createMany("other", 200, nil) // for 150 of them there is no quota
		if !w.await(2*time.Hour, func() bool { return w.ready(key) == "True/Succeeded" }) {
			t.Errorf("it is %s", w.ready(key))
		}
		r.checkFresh()
		w.awaitAll(48 * time.Hour)
	})
}

func TestATaskLargerThanADaysQuotaUsesWholeDays(t *testing.T) {
	zone := zoneA1
	zone.Daily, zone.Batch, zone.Purge = 500, 100, map[string]simulator.Limits{"purge_url": {Batch: 100, Daily: 1 << 20}}
	inCalm(t, simulator.Config{Zones: []simulator.Zone{zone}, QuotaResetAt: "16:00"}, func(t *testing.T, w *calm) {
		r := startRelease(w, 1000)
		began := time.Now()
		key := w.create("n", "release", r.urls, purgeURLs)
		if !w.await(60*time.Hour, func() bool { return w.ready(key) == "True/Succeeded" }) {
			t.Errorf("after %s, it is %s: %+v", time.Since(began), w.ready(key), w.server.get(key).Status.Targets.Submitted)
		}
		for _, u := range r.texts() {
			if purged, executed := w.edgeOne.Purged(u), w.edgeOne.Executed(u); purged != 1 || executed != 1 {
				t.Fatalf("%s was purged %d times and prefetched %d times", u, purged, executed)
			}
		}
	})
}

// checkWarm checks that a visitor of each URL gets a fresh copy.
func (r *refresh) checkWarm(urls ...v1alpha1.Target) {
	r.t.Helper()
	for _, u := range urls {
		for _, seen := range r.edgeOne.Peek(string(u)) {
			if seen.Status != "HIT" || seen.IsOlderThan(r.release) {
				r.t.Errorf("a visitor of %s gets version %d, %s", seen.URL, seen.Version, seen.Status)
			}
		}
	}
}

func TestAPurgeWhoseTaskIsDeletedKeepsItsURLsFromBeingPrefetched(t *testing.T) {
	inCalm(t, simulator.Config{PurgeDuration: time.Minute}, func(t *testing.T, w *calm) {
		w.edgeOne.AddFault(simulator.Fault{Match: simulator.Matcher{Action: teo.ActionCreatePurgeTask}, Effect: simulator.Effect{AnswerDelay: 2 * time.Second}})
		r := startRelease(w, 3)
		key := w.create("n", "release", r.urls, purgeURLs)
		if !w.await(time.Minute, func() bool { return w.server.get(key).Status.Submission != nil }) {
			t.Fatal("nothing is claimed")
		}
		time.Sleep(time.Second)
		w.server.delete(key)
		w.create("n", "other", r.urls)
		w.awaitAll(2 * time.Hour)
		time.Sleep(10 * time.Minute)
		r.checkWarm(r.urls...)
	})
}

func TestARetryWaitsForALatePurge(t *testing.T) {
	inCalm(t, simulator.Config{PurgeDuration: 50 * time.Minute}, func(t *testing.T, w *calm) {
		r := startRelease(w, 3)
		key := w.create("n", "release", r.urls, purgeURLs)
		if !w.await(45*time.Minute, func() bool { return w.ready(key) == "False/Failed" }) {
			t.Fatalf("it is %s", w.ready(key))
		}
		w.server.annotate(key, v1alpha1.RetryAnnotation, "1")
		time.Sleep(time.Minute)
		if w.ready(key) == "False/Failed" {
			t.Errorf("the retry failed at once: %+v", w.server.get(key).Status)
		}
		if !w.await(2*time.Hour, func() bool { return w.ready(key) == "True/Succeeded" }) {
			t.Errorf("it is %s: %+v", w.ready(key), w.server.get(key).Status)
		}
		r.checkFresh()
	})
}

func TestARunThatComesBackKnowsWhatItPurged(t *testing.T) {
	inCalm(t, simulator.Config{PurgeDuration: time.Minute}, func(t *testing.T, w *calm) {
		r := startRelease(w, 3)
		key := w.create("n", "release", r.urls, purgeURLs)
		w.await(time.Minute, func() bool { return len(w.server.get(key).Status.Jobs) == 1 })
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Revision, spec.Suspend = "2", ptr.To(true) })
		time.Sleep(10 * time.Minute)
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Revision, spec.Suspend = "", nil })
		if !w.await(2*time.Hour, func() bool { return w.ready(key) == "True/Succeeded" }) {
			t.Errorf("it is %s: %+v", w.ready(key), w.server.get(key).Status)
		}
		r.checkWarm(r.urls...)
	})
}

// The prefetches of a run may end while the spec asks for another one.
func TestARunThatComesBackKnowsThatItSucceeded(t *testing.T) {
	inCalm(t, simulator.Config{JobDuration: 10 * time.Second}, func(t *testing.T, w *calm) {
		r := startRelease(w, 3)
		key := w.create("n", "release", r.urls, purgeURLs)
		w.await(time.Minute, func() bool { return len(w.server.get(key).Status.Jobs) == 2 })
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Targets, spec.Suspend = urls("other", 2), ptr.To(true) })
		time.Sleep(time.Minute)
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Targets, spec.Suspend = r.urls, nil })
		w.awaitAll(time.Hour)
		if w.ready(key) != "True/Succeeded" {
			t.Errorf("it is %s: %+v", w.ready(key), w.server.get(key).Status)
		}
		r.checkFresh()
	})
}

func TestAFormerRunThatComesBackHasNotSucceededUnseen(t *testing.T) {
	bad := "https://a1.example.com/r/1"
	inCalm(t, simulator.Config{JobDuration: time.Minute, Rules: []simulator.Rule{{URL: bad, Status: "failed"}}}, func(t *testing.T, w *calm) {
		r := startRelease(w, 3)
		key := w.create("n", "release", r.urls)
		w.await(time.Minute, func() bool { return len(w.server.get(key).Status.Jobs) == 1 })
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) {
			spec.Revision, spec.Suspend, spec.Purge.Type = "2", ptr.To(true), v1alpha1.PurgeURL
		})
		time.Sleep(3 * time.Hour)
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) {
			spec.Revision, spec.Suspend, spec.Purge = "", nil, v1alpha1.Purge{}
		})
		time.Sleep(3 * time.Hour)
		if w.ready(key) == "True/Succeeded" {
			t.Errorf("it has succeeded, and %s has failed", bad)
		}
		w.server.annotate(key, v1alpha1.RetryAnnotation, "1")
		w.edgeOne.SetRules()
		if !w.await(3*time.Hour, func() bool { return w.ready(key) == "True/Succeeded" }) {
			t.Errorf("after a retry, it is %s", w.ready(key))
		}
		for _, u := range r.texts() {
			if n := w.edgeOne.Executed(u); u != bad && n != 1 {
				t.Errorf("%s was prefetched %d times", u, n)
			}
		}
	})
}

func TestANewRunDoesNotPurgeBeforeALostPrefetchHasEnded(t *testing.T) {
	inCalm(t, simulator.Config{JobDuration: 15 * time.Minute, PurgeDuration: 10 * time.Second}, func(t *testing.T, w *calm) {
		r := startRelease(w, 3)
		w.edgeOne.AddFault(simulator.Fault{
			Match:  simulator.Matcher{Action: teo.ActionCreatePrefetchTask, Count: 1},
			Effect: simulator.Effect{Answer: simulator.ConnectionClosed, Executed: true},
		})
		key := w.create("n", "release", r.urls)
		if !w.await(time.Minute, func() bool { return len(w.submissions()) == 1 }) {
			t.Fatal("nothing is prefetched")
		}
		time.Sleep(time.Second)
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Revision, spec.Purge.Type = "2", v1alpha1.PurgeURL })
		w.awaitAll(5 * time.Hour)
		ended := w.submissions()[0].Time.Add(15 * time.Minute)
		if purge := w.calls(teo.ActionCreatePurgeTask)[0].Time; purge.Before(ended) {
			t.Errorf("purged %s before the prefetch of the former run had ended", ended.Sub(purge))
		}
	})
}

func TestOneRejectedJobKeepsNoOtherRunFromStarting(t *testing.T) {
	inCalm(t, simulator.Config{RejectedJobIDs: "."}, func(t *testing.T, w *calm) {
		w.start()
		key := w.create("n", "list", urls("l", 3))
		w.awaitAll(time.Hour)
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Targets = urls("l", 4) })
		time.Sleep(10 * time.Second)
		other := w.create("other", "fresh", urls("f", 3), func(spec *v1alpha1.PrefetchTaskSpec) {
			spec.FreshSince = metav1.NewTime(w.edgeOne.Now().Add(-time.Minute))
		})
		if !w.await(10*time.Minute, func() bool { return w.ready(other) == "True/Succeeded" }) {
			t.Errorf("a task of another tenant is %s: %s", w.ready(other), controllertest.ConditionOf(w.server.get(other), v1alpha1.ConditionReady))
		}
		if !w.await(10*time.Minute, func() bool { return w.ready(key) == "False/"+v1alpha1.ReasonHistoryUnread }) {
			t.Errorf("the task itself is %s", w.ready(key))
		}
	})
}

func TestALongListDoesNotWaitForeverForAPurgeThatNeverEnds(t *testing.T) {
	inCalm(t, simulator.Config{Rules: []simulator.Rule{{Action: teo.ActionCreatePurgeTask, Status: simulator.Never}}}, func(t *testing.T, w *calm) {
		r := startRelease(w, 1000)
		key := w.create("n", "release", r.urls, purgeURLs)
		if !w.await(2*time.Hour, func() bool { return w.ready(key) == "False/Failed" }) {
			t.Fatalf("it is %s", w.ready(key))
		}
		time.Sleep(2 * time.Hour)
		w.edgeOne.SetRules()
		if open := taskstate.HasOpenPurge(w.server.get(key)); open {
			t.Errorf("its purge is open after four times its deadline")
		}
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Revision = "2" })
		if !w.await(2*time.Hour, func() bool { return w.ready(key) == "True/Succeeded" }) {
			t.Errorf("a new run is %s", w.ready(key))
		}
	})
}

func TestATaskThatIsCreatedAgainAtOnceFindsItsCall(t *testing.T) {
	inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
		w.start()
		time.Sleep(time.Hour)
		since := metav1.NewTime(w.edgeOne.Now().Truncate(time.Second))
		fresh := func(spec *v1alpha1.PrefetchTaskSpec) { spec.FreshSince = since }
		w.create("n", "before", urls("b", 1200), fresh) // more than one page
		w.awaitAll(time.Hour)
		key := w.create("n", "again", urls("f", 100), fresh)
		if !w.await(time.Minute, func() bool { return len(w.server.get(key).Status.Jobs) == 1 }) {
			t.Fatal("nothing is prefetched")
		}
		w.server.delete(key)
		w.create("n", "again", urls("f", 100), fresh)
		w.awaitAll(time.Hour)
		for i, u := range urls("f", 100) {
			if n := w.edgeOne.Executed(string(u)); n != 1 {
				t.Fatalf("URL %d was submitted %d times", i, n)
			}
		}
	})
}
