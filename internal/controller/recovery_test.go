package controller

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// The answers to ten calls are lost, one after the other; the tasks cannot share calls. Time is
// virtual: the test measures how often the operator reads the history, not how fast it runs.
func TestTenLostCallsAreSettledAsSoonAsTheyCanBe(t *testing.T) {
	const listingDelay = 3 * time.Second
	forgetTimes()
	synctest.Test(t, func(t *testing.T) {
		h := newSimulation(t, plan{}, 1)
		h.edgeOne.SetRules(simulator.Rule{ListingDelay: listingDelay})
		for text, executed := range map[string]bool{"/executed/": true, "/dropped/": false} {
			h.edgeOne.AddFault(simulator.Fault{
				Match:  simulator.Matcher{Action: teo.ActionCreatePrefetchTask, URL: text, Count: 5},
				Effect: simulator.Effect{Answer: simulator.ConnectionClosed, Executed: executed},
			})
		}
		var mu sync.Mutex
		signed, recorded := map[string]time.Time{}, map[string]time.Time{} // by task
		h.server.onStatus = func(before, after *v1alpha1.PrefetchTask) {
			mu.Lock()
			defer mu.Unlock()
			if claim := after.Status.Submission; claim != nil && before.Status.Submission == nil && signed[after.Name].IsZero() {
				signed[after.Name] = claim.SignedAt.Time
			}
			if len(after.Status.Jobs) > 0 && recorded[after.Name].IsZero() {
				recorded[after.Name] = time.Now()
			}
		}
		h.start()
		for i := range 10 {
			kind := []string{"executed", "dropped"}[i%2]
			task := &v1alpha1.PrefetchTask{ObjectMeta: objectMeta(client.ObjectKey{Namespace: "n", Name: fmt.Sprint(kind, i)})}
			task.Spec.ZoneID, task.Spec.Targets = "zone-a1", []v1alpha1.Target{v1alpha1.Target(fmt.Sprintf("https://a1.example.com/%s/%d", kind, i))}
			task.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "X-Lane", Value: fmt.Sprint(i)}}
			h.server.create(task)
		}
		time.Sleep(h.options.SignatureValidity + h.options.SettleMargin + 10*time.Minute)
		h.end()

		executedAt := map[string]time.Time{} // by task
		for _, execution := range h.edgeOne.Ledger() {
			for _, u := range execution.Accepted {
				parts := strings.Split(u, "/")
				name := parts[3] + parts[4]
				if !executedAt[name].IsZero() {
					t.Errorf("%s was executed twice", u)
				}
				executedAt[name] = execution.Time
			}
		}
		var adopted, again []time.Duration
		for name, at := range executedAt {
			if strings.HasPrefix(name, "executed") {
				adopted = append(adopted, recorded[name].Sub(at.Add(listingDelay)))
			} else {
				again = append(again, at.Sub(signed[name].Add(h.options.SignatureValidity+h.options.SettleMargin)))
			}
		}
		slices.Sort(adopted)
		slices.Sort(again)
		if len(adopted) != 5 || len(again) != 5 {
			t.Fatalf("%d calls were adopted and %d sent again, want 5 each", len(adopted), len(again))
		}
		t.Logf("adopted after being listed: median %s, worst %s; sent again after fence and margin: median %s, worst %s", adopted[2], adopted[4], again[2], again[4])
		if adopted[0] < 0 || adopted[4] > 2*time.Second {
			t.Errorf("executed calls were adopted %s after they were listed, want at most 2s", adopted)
		}
		if again[0] < 0 || again[4] > 5*time.Second {
			t.Errorf("calls that were not executed were sent again %s after fence and margin, want at most 5s", again)
		}
	})
}
