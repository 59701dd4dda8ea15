package controller

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
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
			history := listing{}
			history.add(tasks)
			if job := history["job"]; len(job) != 1 || job[target.Identity(raw)].Status != tt.want {
				t.Errorf("%+v is %+v, want %s", tasks, job, tt.want)
			}
		}
	}
}
