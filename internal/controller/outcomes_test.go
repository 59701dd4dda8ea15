package controller

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

func TestAnOutcomeIsConcludedFromACompleteReadingOnly(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		name    string
		listed  string // the status in the listing; "" if not listed
		isWhole bool
		age     time.Duration
		want    taskstate.JobOutcome
	}{
		{"listed as success", teo.StatusSuccess, false, 0, taskstate.TargetSucceeded},
		{"listed as failed", teo.StatusFailed, false, 0, taskstate.TargetFailed},
		{"listed as under way", teo.StatusProcessing, true, day, taskstate.TargetUnderWay},
		{"not listed", "", true, day, taskstate.TargetUnderWay},
		{"under way after the deadline", teo.StatusProcessing, true, day + 1, taskstate.TargetNoOutcome},
		{"under way after the deadline, in a window", teo.StatusProcessing, false, day + 1, taskstate.TargetUnderWay},
		{"not listed after the deadline", "", true, day + 1, taskstate.TargetNoOutcome},
		{"not listed after the deadline, in a window", "", false, day + 1, taskstate.TargetUnderWay},
		{"not listed when EdgeOne has forgotten it", "", true, 3*day + 1, taskstate.TargetForgotten},
		{"not listed when EdgeOne has forgotten it, in a window", "", false, 3*day + 1, taskstate.TargetUnderWay},
		{"under way for ever", teo.StatusProcessing, true, 3*day + 1, taskstate.TargetNoOutcome},
		{"success after the deadline", teo.StatusSuccess, true, 3*day + 1, taskstate.TargetSucceeded},
		{"in a state that nobody knows", "resting", true, day + 1, taskstate.TargetNoOutcome},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen := taskstate.NewHistoryRead(controllertest.T0.Add(c.age))
			if c.isWhole {
				seen.Whole["j"] = true
			}
			if c.listed != "" {
				seen.AddTasks([]teo.Record{{JobID: "j", Target: "https://h/0", Status: c.listed}})
			}
			job := &v1alpha1.Job{ID: "j", SubmitTime: metav1.NewTime(controllertest.T0)}
			if got := (taskstate.OutcomeLimits{Deadline: day, Retention: 3 * day}).JudgeTarget(seen, job, "https://h/0"); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func TestAURLThatAJobListsTwiceSucceededIfOneOfThemDid(t *testing.T) {
	for _, c := range []struct{ first, second, want string }{
		{teo.StatusSuccess, teo.StatusFailed, teo.StatusSuccess}, {teo.StatusFailed, teo.StatusSuccess, teo.StatusSuccess},
		{teo.StatusProcessing, teo.StatusFailed, teo.StatusProcessing}, {teo.StatusFailed, teo.StatusProcessing, teo.StatusProcessing},
		{teo.StatusFailed, teo.StatusInvalid, teo.StatusInvalid}, {teo.StatusProcessing, teo.StatusSuccess, teo.StatusSuccess},
	} {
		l := taskstate.JobRecords{}
		l.AddTasks([]teo.Record{{JobID: "j", Target: "https://h/%e4", Status: c.first}, {JobID: "j", Target: "https://h/%E4", Status: c.second}})
		for _, record := range l["j"] {
			if record.Status != c.want {
				t.Errorf("%s and %s are %s, want %s", c.first, c.second, record.Status, c.want)
			}
		}
	}
}
