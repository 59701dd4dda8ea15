package controller

import (
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

func purgeURLs(spec *v1alpha1.PrefetchTaskSpec) { spec.Purge.Type = v1alpha1.PurgeURL }

// refresh is a release of some URLs that EdgeOne has cached before.
type refresh struct {
	*calm
	urls    []v1alpha1.Target
	release time.Time
}

// startRelease fills the caches, publishes a new version, and starts the operator.
func startRelease(w *calm, n int) *refresh {
	r := &refresh{calm: w, urls: urls("r", n)}
	w.options.AllowPurge = []v1alpha1.PurgeType{v1alpha1.PurgeURL, v1alpha1.PurgePrefix, v1alpha1.PurgeHost, v1alpha1.PurgeCacheTag}
	w.options.PurgeDeadline = 30 * time.Minute
	w.edgeOne.Publish(simulator.Publication{Selection: simulator.Selection{URLs: r.texts()}, Tags: []string{"release"}})
	w.edgeOne.Warm(simulator.Selection{URLs: r.texts()})
	time.Sleep(time.Hour)
	r.release = w.edgeOne.Publish(simulator.Publication{Selection: simulator.Selection{URLs: r.texts()}, Tags: []string{"release"}})
	time.Sleep(time.Second)
	w.start()
	return r
}

func (r *refresh) texts() (texts []string) {
	for _, u := range r.urls {
		texts = append(texts, string(u))
	}
	return texts
}

// checkFresh checks that no visitor sees a version from before the release, and that every URL is
// purged and prefetched once.
func (r *refresh) checkFresh() {
	r.t.Helper()
	for _, seen := range r.edgeOne.Peek(r.texts()...) {
		if seen.Status != "HIT" || seen.IsOlderThan(r.release) {
			r.t.Errorf("a visitor of %s gets version %d, %s", seen.URL, seen.Version, seen.Status)
		}
	}
	for _, u := range r.texts() {
		if purged, executed := r.edgeOne.Purged(u), r.edgeOne.Executed(u); purged != 1 || executed != 1 {
			r.t.Errorf("%s was purged %d times and prefetched %d times", u, purged, executed)
		}
	}
}

func (w *calm) ready(key client.ObjectKey) string {
	return controllertest.ConditionOf(w.server.get(key), v1alpha1.ConditionReady)
}

func TestATaskPurgesItsTargetsBeforeItPrefetchesThem(t *testing.T) {
	for name, purge := range map[string]v1alpha1.Purge{
		"URL":      {Type: v1alpha1.PurgeURL},
		"Prefix":   {Type: v1alpha1.PurgePrefix, Targets: []v1alpha1.PurgeTarget{"https://a1.example.com/r/"}},
		"Host":     {Type: v1alpha1.PurgeHost, Targets: []v1alpha1.PurgeTarget{"a1.example.com"}},
		"CacheTag": {Type: v1alpha1.PurgeCacheTag, Targets: []v1alpha1.PurgeTarget{"release"}},
	} {
		t.Run(name, func(t *testing.T) {
			inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
				r := startRelease(w, 3)
				key := w.create("n", "release", r.urls, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Purge = purge })
				if !w.await(time.Minute, func() bool { return w.ready(key) == "False/"+v1alpha1.ReasonPurging }) {
					t.Errorf("while it is purged, it is %s", w.ready(key))
				}
				w.awaitAll(time.Hour)
				if w.ready(key) != "True/Succeeded" {
					t.Fatalf("it is %s: %v", w.ready(key), w.server.get(key).Status)
				}
				for _, seen := range w.edgeOne.Peek(r.texts()...) {
					if seen.Status != "HIT" || seen.IsOlderThan(r.release) {
						t.Errorf("a visitor of %s gets version %d, %s", seen.URL, seen.Version, seen.Status)
					}
				}
				status := w.server.get(key).Status
				if want := max(1, len(purge.Targets)*1); purge.Type != v1alpha1.PurgeURL && int(*status.Purge.Succeeded) != want {
					t.Errorf("%d are purged, want %d", *status.Purge.Succeeded, want)
				}
				if n := len(w.calls(teo.ActionCreatePurgeTask)); n != 1 {
					t.Errorf("%d purges, want 1", n)
				}
				if purge.Type == v1alpha1.PurgeURL {
					r.checkFresh()
				}
			})
		})
	}
}

func TestAListIsPurgedBatchByBatch(t *testing.T) {
	zone := zoneA1
	zone.Batch, zone.Purge = 100, map[string]simulator.Limits{"purge_url": {Batch: 100, Daily: 1 << 20}}
	inCalm(t, simulator.Config{Zones: []simulator.Zone{zone}}, func(t *testing.T, w *calm) {
		r := startRelease(w, 1000)
		key := w.create("n", "release", r.urls, purgeURLs)
		w.awaitAll(3 * time.Hour)
		if w.ready(key) != "True/Succeeded" {
			t.Fatalf("it is %s", w.ready(key))
		}
		r.checkFresh()
		journal := w.edgeOne.Journal()
		if peak := journal.Peaks().NotHandedOver; peak > 100 || journal.Dropped > 0 {
			t.Errorf("%d URLs were cold at once, want 100 at most", peak)
		}
		if purges := len(w.calls(teo.ActionCreatePurgeTask)); purges != 10 {
			t.Errorf("%d purges, want 10", purges)
		}
	})
}

func TestManyTasksShareTheirPurges(t *testing.T) {
	inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
		r := startRelease(w, 500)
		for i, u := range r.urls {
			w.create(fmt.Sprint("n", i%7), fmt.Sprint("t", i), []v1alpha1.Target{u}, purgeURLs)
		}
		w.awaitAll(time.Hour)
		r.checkFresh()
		if purges := len(w.calls(teo.ActionCreatePurgeTask)); purges > 12 {
			t.Errorf("%d purges for 500 tasks", purges)
		}
	})
}

// Tasks share purges. One may have a URL, or a prefix, that EdgeOne takes long to purge.
func TestAPurgeThatTakesLongKeepsNoOtherTaskOfItsCallWaiting(t *testing.T) {
	for _, purge := range []v1alpha1.PurgeType{v1alpha1.PurgeURL, v1alpha1.PurgePrefix} {
		t.Run(string(purge), func(t *testing.T) {
			inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
				w.edgeOne.SetRules(simulator.Rule{Action: teo.ActionCreatePurgeTask, URL: "/never/", Status: simulator.Never})
				r := startRelease(w, 1)
				w.ways.api = time.Second // both are there when the first call is made
				var keys []client.ObjectKey
				for _, name := range []string{"never", "usual"} {
					keys = append(keys, w.create("n", name, urls(name, 2), func(spec *v1alpha1.PrefetchTaskSpec) {
						if spec.Purge.Type = purge; purge == v1alpha1.PurgePrefix {
							spec.Purge.Targets = []v1alpha1.PurgeTarget{v1alpha1.PurgeTarget("https://a1.example.com/" + name + "/")}
						}
					}))
				}
				if !r.await(5*time.Minute, func() bool { return w.ready(keys[1]) == "True/Succeeded" }) {
					t.Errorf("it is %s: %+v", w.ready(keys[1]), w.server.get(keys[1]).Status)
				}
				if n := len(w.calls(teo.ActionCreatePurgeTask)); n != 1 || w.ready(keys[0]) != "False/Purging" {
					t.Errorf("there are %d purges, and the other task is %s", n, w.ready(keys[0]))
				}
			})
		})
	}
}

func TestALostPurgeIsNeverTakenForExecutedEarly(t *testing.T) {
	for name, effect := range map[string]simulator.Effect{
		"executed":     {Answer: simulator.ConnectionClosed, Executed: true},
		"not executed": {Answer: simulator.ConnectionClosed},
	} {
		t.Run(name, func(t *testing.T) {
			inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
				w.edgeOne.AddFault(simulator.Fault{Match: simulator.Matcher{Action: teo.ActionCreatePurgeTask, Count: 1}, Effect: effect})
				r := startRelease(w, 3)
				began := w.edgeOne.Now()
				key := w.create("n", "release", r.urls, purgeURLs)
				w.awaitAll(2 * time.Hour)
				if w.ready(key) != "True/Succeeded" {
					t.Fatalf("it is %s", w.ready(key))
				}
				r.checkFresh()
				for _, call := range w.submissions() {
					if call.Time.Sub(began) < w.options.SignatureValidity {
						t.Errorf("a prefetch was made %s after the lost purge, before its signature was too old", call.Time.Sub(began))
					}
				}
			})
		})
	}
}

func TestATargetWhosePurgeFailsIsNotPrefetched(t *testing.T) {
	bad := "https://a1.example.com/r/1"
	for name, rule := range map[string]simulator.Rule{
		"refused": {Action: teo.ActionCreatePurgeTask, URL: bad, Refuse: "no"},
		"failed":  {Action: teo.ActionCreatePurgeTask, URL: bad, Status: "failed"},
		"timeout": {Action: teo.ActionCreatePurgeTask, URL: bad, Status: "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			inCalm(t, simulator.Config{Rules: []simulator.Rule{rule}}, func(t *testing.T, w *calm) {
				r := startRelease(w, 3)
				key := w.create("n", "release", r.urls, purgeURLs)
				w.awaitAll(2 * time.Hour)
				status := w.server.get(key).Status
				if w.ready(key) != "False/PartiallyFailed" || len(status.FailedTargets) != 1 || status.FailedTargets[0].Reason != v1alpha1.FailedPurge || status.FailedTargets[0].URL != bad {
					t.Fatalf("it is %s with %+v", w.ready(key), status.FailedTargets)
				}
				if w.edgeOne.Executed(bad) != 0 || *status.Purge.Failed != 1 || *status.Purge.Succeeded != 2 || *status.Targets.Succeeded != 2 {
					t.Errorf("prefetched %d times; purge %+v, targets %+v", w.edgeOne.Executed(bad), status.Purge, status.Targets)
				}
				w.edgeOne.SetRules()
				w.server.annotate(key, v1alpha1.RetryAnnotation, "1")
				if !w.await(time.Hour, func() bool { return w.ready(key) == "True/Succeeded" }) {
					t.Fatalf("after a retry, it is %s: %+v", w.ready(key), w.server.get(key).Status)
				}
				for _, u := range r.texts() {
					if n := w.edgeOne.Executed(u); n != 1 {
						t.Errorf("%s was prefetched %d times", u, n)
					}
				}
			})
		})
	}
}

func TestNothingIsPurgedThatCannotBePrefetched(t *testing.T) {
	zone := zoneA1
	zone.Daily = 1000
	inCalm(t, simulator.Config{Zones: []simulator.Zone{zone}, QuotaResetAt: "16:00"}, func(t *testing.T, w *calm) {
		w.edgeOne.SetAvailable(zone.ID, 2)
		r := startRelease(w, 3)
		key := w.create("n", "release", r.urls, purgeURLs)
		time.Sleep(5 * time.Minute)
		if !heldBy(w.server.get(key)) || len(w.calls(teo.ActionCreatePurgeTask)) != 0 {
			t.Errorf("it is %s, after %d purges", w.ready(key), len(w.calls(teo.ActionCreatePurgeTask)))
		}
		w.awaitAll(48 * time.Hour)
		r.checkFresh()
	})
}

func TestPurgesGetTheQuotaThatTheyWerePromised(t *testing.T) {
	zone := zoneA1
	zone.Daily = 1000
	inCalm(t, simulator.Config{Zones: []simulator.Zone{zone}, QuotaResetAt: "16:00"}, func(t *testing.T, w *calm) {
		w.edgeOne.SetAvailable(zone.ID, 300)
		r := startRelease(w, 250)
		key := w.create("n", "release", r.urls, purgeURLs)
		if !w.await(time.Minute, func() bool { return w.ready(key) == "False/"+v1alpha1.ReasonPurging }) {
			t.Fatalf("it is %s", w.ready(key))
		}
		for i := range 10 { // 500 URLs, for which there is no quota
			w.create("other", fmt.Sprint(i), urls(fmt.Sprint("other/", i), 50))
		}
		if !w.await(2*time.Hour, func() bool { return w.ready(key) == "True/Succeeded" }) {
			t.Errorf("it is %s", w.ready(key))
		}
		r.checkFresh()
		w.awaitAll(48 * time.Hour)
	})
}

func TestANewRunWaitsForThePurgeOfTheRunBefore(t *testing.T) {
	inCalm(t, simulator.Config{PurgeDuration: 10 * time.Minute}, func(t *testing.T, w *calm) {
		r := startRelease(w, 3)
		key := w.create("n", "release", r.urls, purgeURLs)
		if !w.await(time.Minute, func() bool { return len(w.server.get(key).Status.Jobs) == 1 }) {
			t.Fatal("nothing is purged")
		}
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Purge, spec.Revision = v1alpha1.Purge{}, "2" })
		w.awaitAll(2 * time.Hour)
		for _, seen := range w.edgeOne.Peek(r.texts()...) {
			if seen.Status != "HIT" {
				t.Errorf("%s is %s: the purge of the former run came later", seen.URL, seen.Status)
			}
		}
	})
}

// The URLs of a lost purge stay reserved until the purge can no longer delete anything, and no
// longer. The new run has purged them by then, so that they are cold.
func TestANewRunIsPrefetchedAsSoonAsALostPurgeOfTheRunBeforeIsOver(t *testing.T) {
	inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
		lost := w.edgeOne.AddFault(simulator.Fault{
			Match: simulator.Matcher{Action: teo.ActionCreatePurgeTask}, Effect: simulator.Effect{Answer: simulator.ConnectionClosed, Executed: true},
		})
		r := startRelease(w, 3)
		key := w.create("n", "release", r.urls, purgeURLs)
		if !w.await(time.Minute, func() bool { return len(w.calls(teo.ActionCreatePurgeTask)) == 1 }) {
			t.Fatal("nothing is purged")
		}
		w.edgeOne.RemoveFault(lost)
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Revision = "2" })
		w.await(time.Hour, func() bool { return len(w.calls(teo.ActionCreatePurgeTask)) == 2 })
		if !w.await(2*time.Minute, func() bool { return w.ready(key) == "True/Succeeded" }) {
			t.Errorf("two minutes after the purge of the new run, it is %s: %s", w.ready(key),
				meta.FindStatusCondition(w.server.get(key).Status.Conditions, v1alpha1.ConditionReady).Message)
		}
	})
}

// A prefetch of the run before that has not been answered may have read an older version, which
// it could store after the purge of the new run.
func TestARunThatPurgesWaitsForThePrefetchCallOfTheRunBefore(t *testing.T) {
	inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
		r := startRelease(w, 3)
		held := w.edgeOne.HoldAnswer(simulator.Matcher{Action: teo.ActionCreatePrefetchTask})
		key := w.create("n", "release", r.urls, purgeURLs)
		if !w.await(time.Minute, func() bool { return held.Waiting() == 1 }) {
			t.Fatal("nothing is prefetched")
		}
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Revision = "2" })
		time.Sleep(2 * time.Second)
		if n := len(w.calls(teo.ActionCreatePurgeTask)); n != 1 {
			t.Errorf("%d purges before the answer to the prefetch, want 1", n)
		}
		held.Release()
		if !w.await(10*time.Minute, func() bool { return w.ready(key) == "True/Succeeded" && len(w.calls(teo.ActionCreatePurgeTask)) == 2 }) {
			t.Errorf("it is %s", w.ready(key))
		}
	})
}

func TestASuspendedTaskSaysHowManyTargetsAreCold(t *testing.T) {
	inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
		r := startRelease(w, 3)
		key := w.create("n", "release", r.urls, purgeURLs)
		w.await(time.Minute, func() bool { return len(w.server.get(key).Status.Jobs) == 1 })
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Suspend = ptr.To(true) })
		time.Sleep(5 * time.Minute)
		if message := meta.FindStatusCondition(w.server.get(key).Status.Conditions, v1alpha1.ConditionReady).Message; message != "3 targets are purged and not prefetched yet. Nothing is submitted while spec.suspend is true" {
			t.Errorf("it says %q", message)
		}
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Suspend = nil })
		w.awaitAll(time.Hour)
		r.checkFresh()
	})
}

func TestAPlanThatLacksAPurgeStallsOnlyTheTasksThatAskForIt(t *testing.T) {
	zone := zoneA1
	zone.Purge = map[string]simulator.Limits{"purge_host": {NotAllowed: true, Unlisted: true}}
	inCalm(t, simulator.Config{Zones: []simulator.Zone{zone}}, func(t *testing.T, w *calm) {
		r := startRelease(w, 3)
		key := w.create("n", "host", r.urls, func(spec *v1alpha1.PrefetchTaskSpec) {
			spec.Purge = v1alpha1.Purge{Type: v1alpha1.PurgeHost, Targets: []v1alpha1.PurgeTarget{"a1.example.com"}}
		})
		url := w.create("n", "url", urls("r", 1), purgeURLs)
		if !w.await(time.Hour, func() bool { return w.ready(url) == "True/Succeeded" }) {
			t.Errorf("a task that purges URLs is %s", w.ready(url))
		}
		if stalled := controllertest.ConditionOf(w.server.get(key), v1alpha1.ConditionStalled); stalled != "True/BatchQuota" || w.edgeOne.Executed("https://a1.example.com/r/1") != 0 {
			t.Errorf("it is %q", stalled)
		}
	})
}

func TestWhatIsFreshIsNotSubmittedAgain(t *testing.T) {
	inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
		w.start()
		time.Sleep(time.Hour)
		since := metav1.NewTime(w.edgeOne.Now().Truncate(time.Second))
		fresh := func(spec *v1alpha1.PrefetchTaskSpec) { spec.FreshSince = since }
		time.Sleep(time.Minute)
		key := w.create("n", "first", urls("f", 300), fresh)
		w.awaitAll(time.Hour)
		w.server.delete(key)
		for i := range 20 { // created again by GitOps tools, in other namespaces too
			w.create(fmt.Sprint("again", i), "first", urls("f", 300), fresh)
		}
		w.create("n", "more", urls("f", 301), fresh)
		w.awaitAll(time.Hour)
		for i, u := range urls("f", 301) {
			if n := w.edgeOne.Executed(string(u)); n != 1 {
				t.Fatalf("URL %d was submitted %d times", i, n)
			}
		}
		if n := len(w.calls(teo.ActionDescribePrefetchTasks)); n > 60 {
			t.Errorf("%d reads of the history", n)
		}
		job := w.server.get(client.ObjectKey{Namespace: "again3", Name: "first"}).Status.Jobs[0]
		if !job.Adopted || job.Succeeded != 300 {
			t.Errorf("the job is %+v", job)
		}
		future := w.create("n", "future", urls("x", 1), func(spec *v1alpha1.PrefetchTaskSpec) {
			spec.FreshSince = metav1.NewTime(w.edgeOne.Now().Add(time.Hour))
		})
		time.Sleep(10 * time.Minute)
		if w.ready(future) != "False/FreshSinceInFuture" || w.edgeOne.Executed("https://a1.example.com/x/0") != 0 {
			t.Errorf("the time in the future is %s", w.ready(future))
		}
		w.awaitAll(3 * time.Hour)
	})
}

func TestAnEditOfAListPaysOnlyForWhatIsNew(t *testing.T) {
	bad := "https://a1.example.com/l/4999"
	inCalm(t, simulator.Config{Rules: []simulator.Rule{{URL: bad, Status: "invalid"}}}, func(t *testing.T, w *calm) {
		w.start()
		key := w.create("n", "list", urls("l", 5001))
		w.awaitAll(2 * time.Hour)
		if w.ready(key) != "False/PartiallyFailed" {
			t.Fatalf("it is %s", w.ready(key))
		}
		before := w.edgeOne.Stats().Targets
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) {
			spec.Targets = append(spec.Targets[:0:0], spec.Targets...)
			spec.Targets[4999] = "https://a1.example.com/l/corrected"
			spec.Targets[1], spec.Targets[2] = spec.Targets[2], spec.Targets[1]
			spec.Targets = append(spec.Targets, "https://a1.example.com/l/new")
		})
		if !w.await(2*time.Hour, func() bool { return w.ready(key) == "True/Succeeded" }) {
			t.Fatalf("after the edit, it is %s", w.ready(key))
		}
		if n := w.edgeOne.Stats().Targets - before; n != 2 {
			t.Errorf("the edit submitted %d URLs, want 2", n)
		}
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Targets = spec.Targets[:4000] })
		w.await(time.Hour, func() bool { return *w.server.get(key).Status.Targets.Total == 4000 && w.unfinished() == 0 })
		if n := w.edgeOne.Stats().Targets - before; n != 2 || w.ready(key) != "True/Succeeded" {
			t.Errorf("after URLs were removed, it is %s, and %d URLs were submitted", w.ready(key), n)
		}
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Revision = "2" })
		w.await(time.Hour, func() bool { return !taskstate.IsNewRun(w.server.get(key)) })
		w.awaitAll(2 * time.Hour)
		if n := w.edgeOne.Stats().Targets - before; n != 4002 {
			t.Errorf("a new revision submitted %d URLs, want 4000", n-2)
		}
	})
}

// What a run keeps is warm. A purge of its prefix, host or tag would delete it, and nothing would
// prefetch it again.
func TestWhatARunKeepsIsNotPurgedAgain(t *testing.T) {
	for name, purge := range map[string]v1alpha1.Purge{
		"URL":      {Type: v1alpha1.PurgeURL},
		"Prefix":   {Type: v1alpha1.PurgePrefix, Targets: []v1alpha1.PurgeTarget{"https://a1.example.com/r/", "https://a1.example.com/none/"}},
		"Host":     {Type: v1alpha1.PurgeHost, Targets: []v1alpha1.PurgeTarget{"a1.example.com"}},
		"CacheTag": {Type: v1alpha1.PurgeCacheTag, Targets: []v1alpha1.PurgeTarget{"release"}},
	} {
		for _, isEdit := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ", an edit of the list: ", isEdit), func(t *testing.T) {
				inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
					r := startRelease(w, 4)
					since := metav1.NewTime(w.edgeOne.Now().Truncate(time.Second))
					time.Sleep(time.Second)
					refresh := func(spec *v1alpha1.PrefetchTaskSpec) {
						if spec.Purge = purge; !isEdit {
							spec.FreshSince = since
						}
					}
					key := w.create("n", "release", r.urls[:3], refresh)
					w.awaitAll(time.Hour)
					if isEdit {
						w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Targets = r.urls })
					} else {
						key = w.create("n", "again", r.urls, refresh)
					}
					if !w.await(time.Hour, func() bool {
						return w.ready(key) == "True/Succeeded" && *w.server.get(key).Status.Targets.Succeeded == 4
					}) {
						t.Fatalf("it is %s: %+v", w.ready(key), w.server.get(key).Status)
					}
					for _, seen := range w.edgeOne.Peek(r.texts()...) {
						if n := w.edgeOne.Executed(seen.URL); n != 1 || seen.Status != "HIT" || seen.IsOlderThan(r.release) {
							t.Errorf("a visitor of %s gets version %d, %s; it was prefetched %d times", seen.URL, seen.Version, seen.Status, n)
						}
					}
					if counts := w.server.get(key).Status.Purge; *counts.Failed != 0 || purge.Type != v1alpha1.PurgeURL && int(*counts.Succeeded) != len(purge.Targets) {
						t.Errorf("the purge counts %+v", counts)
					}
				})
			})
		}
	}
}

// A suspended task keeps its purged targets cold, and no quota from the others.
func TestASuspendedTaskKeepsNoQuotaFromOthers(t *testing.T) {
	zone := zoneA1
	zone.Daily = 300
	inCalm(t, simulator.Config{Zones: []simulator.Zone{zone}, QuotaResetAt: "16:00"}, func(t *testing.T, w *calm) {
		r := startRelease(w, 250)
		key := w.create("n", "release", r.urls, purgeURLs)
		if !w.await(time.Minute, func() bool { return w.ready(key) == "False/"+v1alpha1.ReasonPurging }) {
			t.Fatalf("it is %s", w.ready(key))
		}
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Suspend = ptr.To(true) })
		time.Sleep(5 * time.Minute)
		for i := range 5 {
			w.create("other", fmt.Sprint(i), urls(fmt.Sprint("other/", i), 50))
		}
		if !w.await(time.Hour, func() bool { return w.unfinished() == 1 }) {
			t.Errorf("%d tasks are not finished", w.unfinished())
		}
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Suspend = nil })
		w.awaitAll(48 * time.Hour)
		r.checkFresh()
	})
}
