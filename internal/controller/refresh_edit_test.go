package controller

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// putList writes a ConfigMap with targets.
func (w *calm) putList(name string, targets []v1alpha1.Target) {
	var text strings.Builder
	for _, target := range targets {
		text.WriteString(string(target) + "\n")
	}
	w.server.setList(client.ObjectKey{Namespace: "n", Name: name}, text.String())
}

func fromConfigMap(name string) func(*v1alpha1.PrefetchTaskSpec) {
	return func(spec *v1alpha1.PrefetchTaskSpec) {
		spec.TargetsFrom.ConfigMapKeyRef = v1alpha1.ConfigMapKeyReference{Name: name, Key: "urls"}
	}
}

// Generators of ConfigMaps give each content a name of its own, so that an edit of the list changes
// the reference.
func TestAnotherConfigMapPaysOnlyForWhatIsNew(t *testing.T) {
	inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
		w.start()
		w.putList("list-1", urls("l", 400))
		key := w.create("n", "list", nil, fromConfigMap("list-1"))
		w.awaitAll(time.Hour)
		w.putList("list-2", append(urls("l", 401)[1:], urls("l", 400)[0]))
		w.server.edit(key, fromConfigMap("list-2"))
		w.await(time.Hour, func() bool { return *w.server.get(key).Status.Targets.Total == 401 && w.unfinished() == 0 })
		if n := w.edgeOne.Stats().Targets; w.ready(key) != "True/Succeeded" || n != 401 {
			t.Errorf("it is %s after %d URLs", w.ready(key), n)
		}
	})
}

func TestARunWhoseConfigMapIsEditedContinuesWithTheNewList(t *testing.T) {
	zone := zoneA1
	zone.Daily = 200
	inCalm(t, simulator.Config{Zones: []simulator.Zone{zone}, QuotaResetAt: "16:00"}, func(t *testing.T, w *calm) {
		first := w.start()
		w.putList("list", urls("l", 300))
		key := w.create("n", "list", nil, fromConfigMap("list"))
		if !w.await(time.Hour, func() bool { return heldBy(w.server.get(key)) }) {
			t.Fatalf("it is %s", w.ready(key))
		}
		w.putList("list", append(urls("l", 250), "https://a1.example.com/new"))
		w.kill(first) // another process reads the list again
		w.start()
		w.awaitAll(72 * time.Hour)
		if status := w.server.get(key).Status; w.ready(key) != "True/Succeeded" || *status.Targets.Total != 251 || w.edgeOne.Stats().Targets != 251 {
			t.Errorf("it is %s after %d URLs, with %+v", w.ready(key), w.edgeOne.Stats().Targets, status.Targets)
		}
		for url, n := range w.edgeOne.Duplicates() {
			t.Errorf("%s was submitted %d times", url, n)
		}
	})
}

// A lost call is looked up before an edited list goes out, and what it has prefetched is kept.
func TestAnEditWhileACallIsLostSubmitsNothingTwice(t *testing.T) {
	for _, isExecuted := range []bool{false, true} {
		for _, isInConfigMap := range []bool{false, true} {
			t.Run(fmt.Sprintf("executed %t, in a ConfigMap %t", isExecuted, isInConfigMap), func(t *testing.T) {
				inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) { editWhileACallIsLost(t, w, isExecuted, isInConfigMap) })
			})
		}
	}
}

func editWhileACallIsLost(t *testing.T, w *calm, isExecuted, isInConfigMap bool) {
	first := w.start()
	before, after := urls("l", 120), append([]v1alpha1.Target{"https://a1.example.com/new"}, urls("l", 110)...)
	w.edgeOne.AddFault(simulator.Fault{
		Match:  simulator.Matcher{Action: teo.ActionCreatePrefetchTask, Count: 1},
		Effect: simulator.Effect{Answer: simulator.ConnectionClosed, Executed: isExecuted},
	})
	w.edgeOne.AddFault(simulator.Fault{ // keeps the call from being found before the edit
		Match: simulator.Matcher{Action: teo.ActionDescribePrefetchTasks, Count: 1}, Effect: simulator.Effect{Delay: 10 * time.Second},
	})
	w.putList("list", before)
	source, targets := fromConfigMap("list"), []v1alpha1.Target(nil)
	if !isInConfigMap {
		source, targets = func(*v1alpha1.PrefetchTaskSpec) {}, before
	}
	key := w.create("n", "list", targets, source)
	if !w.await(time.Minute, func() bool { return w.server.get(key).Status.Submission != nil && len(w.submissions()) > 0 }) {
		t.Fatal("it makes no call")
	}
	if isInConfigMap {
		w.putList("list", after)
		w.kill(first) // another process reads the list again
		w.start()
	} else {
		w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Targets = after })
	}
	w.await(time.Hour, func() bool { return *w.server.get(key).Status.Targets.Total == 111 && w.unfinished() == 0 })
	want := 111
	if isExecuted {
		want = 121 // the lost call had 120
	}
	if n := w.edgeOne.Stats().Targets; w.ready(key) != "True/Succeeded" || n != want {
		t.Errorf("it is %s after %d URLs, want %d", w.ready(key), n, want)
	}
}

func TestAHistoryThatCannotBeReadStartsNothing(t *testing.T) {
	inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
		w.start()
		id := w.edgeOne.AddFault(simulator.Fault{Match: simulator.Matcher{Action: teo.ActionDescribePrefetchTasks}, Effect: simulator.Effect{Code: "UnauthorizedOperation.NoPermission"}})
		key := w.create("n", "fresh", urls("f", 3), func(spec *v1alpha1.PrefetchTaskSpec) {
			spec.FreshSince = metav1.NewTime(w.edgeOne.Now().Add(-time.Hour))
		})
		time.Sleep(10 * time.Minute)
		if task := w.server.get(key); !taskstate.IsStalledFor(task, v1alpha1.ReasonPermissionDenied) || len(w.submissions()) != 0 {
			t.Errorf("it is %s after %d calls", w.ready(key), len(w.submissions()))
		}
		w.edgeOne.RemoveFault(id)
		w.awaitAll(time.Hour)
		if w.ready(key) != "True/Succeeded" {
			t.Errorf("it is %s", w.ready(key))
		}
	})
}

// With a purge, a copy is fresh only if it was fetched after a purge since that time.
func TestFreshnessWithAPurgeNeedsThePurge(t *testing.T) {
	inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
		r := startRelease(w, 4)
		since := metav1.NewTime(r.release)
		plain := w.create("n", "plain", r.urls[:2]) // prefetched since, but over the old copy
		w.awaitAll(time.Hour)
		first := w.create("n", "first", r.urls, purgeURLs, func(spec *v1alpha1.PrefetchTaskSpec) { spec.FreshSince = since })
		w.awaitAll(time.Hour)
		w.server.delete(plain)
		w.server.delete(first)
		again := w.create("n", "again", r.urls, purgeURLs, func(spec *v1alpha1.PrefetchTaskSpec) { spec.FreshSince = since })
		w.awaitAll(time.Hour)
		if w.ready(again) != "True/Succeeded" {
			t.Errorf("it is %s", w.ready(again))
		}
		for i, u := range r.texts() {
			want := 1
			if i < 2 {
				want = 2
			}
			if purged, executed := w.edgeOne.Purged(u), w.edgeOne.Executed(u); purged != 1 || executed != want {
				t.Errorf("%s was purged %d times and prefetched %d times, want 1 and %d", u, purged, executed, want)
			}
		}
		for _, seen := range w.edgeOne.Peek(r.texts()...) {
			if seen.IsOlderThan(r.release) {
				t.Errorf("a visitor of %s gets version %d", seen.URL, seen.Version)
			}
		}
	})
}
