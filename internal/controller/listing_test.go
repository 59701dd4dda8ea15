package controller

import (
	"testing"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

func TestAURLThatAJobHasTwiceHasOneOutcome(t *testing.T) {
	record := func(spelling, status string) teo.Record {
		return teo.Record{JobID: "job", Target: spelling, Status: status}
	}
	raw, encoded := "https://h/中", target.Encode("https://h/中")
	for _, tt := range []struct{ first, second, want string }{
		{teo.StatusSuccess, teo.StatusFailed, teo.StatusSuccess},
		{teo.StatusSuccess, teo.StatusProcessing, teo.StatusSuccess},
		{teo.StatusFailed, teo.StatusProcessing, teo.StatusProcessing},
		{teo.StatusFailed, teo.StatusFailed, teo.StatusFailed},
	} {
		for _, tasks := range [][]teo.Record{
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
