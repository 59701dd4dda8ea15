package follow

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

func TestACallIsFoundBehindTheCapOfACount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(func(c *simulator.Config) { c.Zones[0].Daily, c.MaxTotalCount = 1_000_000, 2000 })
		defer edgeOne.Close()
		task := controllertest.ClaimedAt(controllertest.NewTask("a", 1), time.Now())
		controllertest.Execute(t, edgeOne, "https://h/0") // the task's call, whose answer is lost
		time.Sleep(time.Second)
		for i := range 2 {
			var others []string
			for k := range 1500 {
				others = append(others, fmt.Sprintf("https://h/other-%d-%d", i, k))
			}
			controllertest.Execute(t, edgeOne, others...)
		}
		u, p := settling(t, edgeOne.RoundTripper(), task)
		lookUntil(u, p, controllertest.Zone, time.Now().Add(7*time.Minute))
		if status := u.ReadTask("a").Status; status.LostCalls > 0 || len(status.Jobs) != 1 {
			t.Errorf("executed and listed, and taken for not executed: %d jobs, %d lost calls", len(status.Jobs), status.LostCalls)
		}
	})
}

// A pass for lost calls keeps a bounded part of a busy zone's history in memory.
func TestALookForALostCallHoldsABoundedPartOfTheHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(func(c *simulator.Config) { c.Zones[0].Daily, c.Zones[0].Batch = 1<<30, 5000 })
		task := controllertest.ClaimedAt(controllertest.NewTask("a", 1), time.Now())
		u := controllertest.NewUnit(t, edgeOne.RoundTripper(), nil, task)
		p := pollerOf(u, u.ReadTask("a"))
		for i := range 24 {
			time.Sleep(10 * time.Second)
			urls := make([]string, 5000)
			for k := range urls {
				urls[k] = fmt.Sprintf("https://h/other/%d/%d", i, k)
			}
			controllertest.Execute(t, edgeOne, urls...)
		}
		time.Sleep(5 * time.Minute)
		tasks, _ := lostCallReconciler{p}.claimsIn(ZoneKey{ID: controllertest.Zone})
		seen := p.planClaimsRead(tasks)
		if !seen.fenced["claim of a"] {
			seen.fenced["claim of a"] = true
		}
		if err := p.readClaimWindows(t.Context(), controllertest.Creds, ZoneKey{ID: controllertest.Zone}, seen, true); err != nil {
			t.Fatal(err)
		}
		kept := 0
		for _, job := range seen.Listing {
			kept += len(job)
		}
		if kept > 2*maxRecords {
			t.Errorf("%d records of others are in memory, for a call of one URL", kept)
		}
	})
}
