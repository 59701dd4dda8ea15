package controller

import (
	"fmt"
	"slices"
	"testing"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// FuzzHandEditedStatus applies the results of calls to a status that a user edited by hand.
// Whatever the status contains, a target does not wait for another call if the status says that
// it was handed over, if an answer or EdgeOne's history shows it, or if it cannot be ruled out.
func FuzzHandEditedStatus(f *testing.F) {
	for _, text := range []string{"", "0", "0-2", "1-3", "5000-6000", "2,1", "all", "0-99999999999999999999"} {
		f.Add(uint8(3), text, "", "0", int32(0), int32(0), uint8(1))
		f.Add(uint8(3), "", text, "0", int32(1<<31-1), int32(1<<31-1), uint8(6))
		f.Add(uint8(5), "0", "1", text, int32(1), int32(0), uint8(0xff))
	}
	f.Fuzz(func(t *testing.T, n uint8, refused, had, claimed string, succeeded, failed int32, listedBits uint8) {
		targets := 1 + int(n%8)
		edited := controllertest.TaskOf(targets)
		edited.Status.Run, edited.Status.RefusedPositions = taskstate.RunHash(edited), refused
		edited.Status.Jobs = []v1alpha1.Job{{ID: "job", ClaimID: "before", Positions: had, RetriedPositions: refused, SubmitTime: metav1.NewTime(controllertest.T0), Succeeded: max(0, succeeded), Failed: max(0, failed)}}
		edited.Status.Submission = &v1alpha1.Submission{ClaimID: "c", ZoneID: "zone-1", Positions: claimed, SignedAt: metav1.NewTime(controllertest.T0)}
		handedOver := func(task *v1alpha1.PrefetchTask) taskstate.Positions {
			return taskstate.AllPositions(targets).Minus(taskstate.OpenPositions(task))
		}
		after := func(c taskstate.Transition) *v1alpha1.PrefetchTask {
			task := edited.DeepCopy()
			c(task)
			if lost := handedOver(edited).Minus(handedOver(task)); len(lost) > 0 {
				t.Errorf("targets %v were handed over and are not any more", lost)
			}
			for _, c := range task.Status.Conditions {
				if !utf8.ValidString(c.Message) || len(c.Message) > 32<<10 {
					t.Errorf("%d bytes of message", len(c.Message))
				}
			}
			return task
		}
		asked := taskstate.CoveredPositions(claimed, targets)
		for _, id := range []string{"job", "new"} {
			if missing := asked.Minus(handedOver(after(taskstate.RecordJob(id, nil, controllertest.T0)))); len(missing) > 0 {
				t.Errorf("EdgeOne took the call of %q, and targets %v wait", claimed, missing)
			}
		}
		after(taskstate.RecordJob("", map[string]string{"https://h/0": "no"}, controllertest.T0))
		after(taskstate.ReleaseClaim(taskstate.Cause{}, controllertest.T0))
		after(taskstate.OutcomeUnknown("lost", true))
		after(taskstate.ReportWaiting(taskstate.WaitingStatus{Cause: taskstate.Cause{Reason: v1alpha1.ReasonWaiting}}, controllertest.T0))
		after(taskstate.EndNotFollowed("no", controllertest.T0))
		after(taskstate.RefuseTargets(v1alpha1.JobPrefetch, taskstate.AllPositions(1), "no", controllertest.T0))

		l := taskstate.JobRecords{}
		var shown taskstate.Positions
		for i := range targets {
			if listedBits>>i&1 == 1 {
				l.AddTasks([]teo.Record{{JobID: fmt.Sprint("job", i%2), Target: fmt.Sprintf("https://h/%d", i), Status: teo.StatusSuccess, CreateTime: controllertest.T0}})
				shown = append(shown, i)
			}
		}
		for _, fenced := range []bool{false, true} {
			decision, jobs := taskstate.MatchClaim(edited.Status.Submission, taskstate.DistinctTargets(edited), l, fenced, func(string) string { return "" })
			if decision == taskstate.Undecided {
				continue
			}
			settled := after(taskstate.AdoptJobs(jobs, controllertest.T0))
			for _, i := range shown {
				if slices.Contains(asked, i) && !slices.Contains(handedOver(settled), i) {
					t.Errorf("target %d of the call of %q is in EdgeOne's history and waits", i, claimed)
				}
			}
		}
		late := after(controllertest.FollowJobs(l, time.Hour, controllertest.T0, controllertest.T0.Add(2*time.Hour)))
		if len(taskstate.OpenPositions(late)) == 0 && late.Status.Submission == nil && !taskstate.IsRunOver(late) {
			t.Errorf("without an end after the deadline: %+v", late.Status)
		}
	})
}
