package controller

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

func TestACallIsFoundBehindTheCapOfACount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(func(c *simulator.Config) { c.Zones[0].Daily, c.MaxTotalCount = 1_000_000, 2000 })
		defer edgeOne.Close()
		task := claimedAt(unitTask("a", 1), time.Now())
		execute(t, edgeOne, "https://h/0") // its call, of which the answer is lost
		time.Sleep(time.Second)
		for i := range 2 {
			var others []string
			for k := range 1500 {
				others = append(others, fmt.Sprintf("https://h/other-%d-%d", i, k))
			}
			execute(t, edgeOne, others...)
		}
		u, p := settling(t, edgeOne.RoundTripper(), task)
		u.lookUntil(p, unitZone, time.Now().Add(7*time.Minute))
		if status := u.get("a").Status; status.LostCalls > 0 || len(status.Jobs) != 1 {
			t.Errorf("executed and listed, and taken for not executed: %d jobs, %d lost calls", len(status.Jobs), status.LostCalls)
		}
	})
}

func TestAURLThatAJobHasTwiceHasOneOutcome(t *testing.T) {
	record := func(spelling, status string) teo.PrefetchTask {
		return teo.PrefetchTask{JobID: "job", Target: spelling, Status: status}
	}
	raw, encoded := "https://h/中", target.Encode("https://h/中")
	for _, tt := range []struct{ first, second, want string }{
		{teo.StatusSuccess, teo.StatusFailed, teo.StatusSuccess},
		{teo.StatusSuccess, teo.StatusProcessing, teo.StatusSuccess},
		{teo.StatusFailed, teo.StatusProcessing, teo.StatusProcessing},
		{teo.StatusFailed, teo.StatusFailed, teo.StatusFailed},
	} {
		for _, tasks := range [][]teo.PrefetchTask{
			{record(raw, tt.first), record(encoded, tt.second)}, {record(encoded, tt.second), record(raw, tt.first)},
		} {
			history := taskstate.JobRecords{}
			history.AddTasks(tasks)
			if job := history["job"]; len(job) != 1 || job[target.Identity(raw)].Status != tt.want {
				t.Errorf("%+v is %+v, want %s", tasks, job, tt.want)
			}
		}
	}
}

// A look for lost calls holds a bounded part of a busy zone's history.
func TestALookForALostCallHoldsABoundedPartOfTheHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(func(c *simulator.Config) { c.Zones[0].Daily, c.Zones[0].Batch = 1<<30, 5000 })
		task := claimedAt(unitTask("a", 1), time.Now())
		u := newUnit(t, edgeOne.RoundTripper(), nil, task)
		p := u.poller(u.get("a"))
		for i := range 24 {
			time.Sleep(10 * time.Second)
			urls := make([]string, 5000)
			for k := range urls {
				urls[k] = fmt.Sprintf("https://h/other/%d/%d", i, k)
			}
			execute(t, edgeOne, urls...)
		}
		time.Sleep(5 * time.Minute)
		tasks, _ := lostCallReconciler{p}.claimsIn(zoneKey{ID: unitZone})
		seen := p.planClaimsRead(tasks)
		if !seen.fenced["claim of a"] {
			seen.fenced["claim of a"] = true
		}
		if err := p.readClaimWindows(t.Context(), unitCreds, zoneKey{ID: unitZone}, seen, true); err != nil {
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
