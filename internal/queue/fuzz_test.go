package queue

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate/taskstatetest"
)

var positionSeeds = []string{
	"", "0", "0-2", "0-2,4,6-7", "9999", "10000", "0-10000", "4,2", "0-4,4", "4-2", "-1", "all", "1,,2", "+1", "01", "0-", "0-99999999999999999999", "0x1", "１", "0 ",
}

func FuzzPositions(f *testing.F) {
	for _, text := range positionSeeds {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := taskstate.ParsePositions(text)
		if err != nil {
			if p != nil {
				t.Errorf("%q is %v and %v", text, p, err)
			}
			return
		}
		for i, position := range p {
			if position < 0 || position >= taskstate.MaxTargets || i > 0 && position <= p[i-1] {
				t.Fatalf("%q is %v", text, p)
			}
		}
		if again, err := taskstate.ParsePositions(p.String()); err != nil || !slices.Equal(again, p) {
			t.Errorf("%q is %v, written as %q, and that is %v, %v", text, p, p.String(), again, err)
		}
	})
}

// FuzzHandEditedStatus gives the queue a task with a status that was edited by hand. The
// queue must not submit targets that the status covers or may have been meant to cover.
func FuzzHandEditedStatus(f *testing.F) {
	for _, text := range positionSeeds {
		f.Add(uint8(3), "", text, "", int32(0), true)
		f.Add(uint8(3), text, "0;1", "", int32(1), true)
		f.Add(uint8(3), "", "", text, int32(1<<31-1), true)
		f.Add(uint8(8), "0", text, text, int32(2), false)
	}
	f.Fuzz(func(t *testing.T, n uint8, refused, jobs, claimed string, lost int32, sameRun bool) {
		task := taskstatetest.NewTask("a", taskstatetest.ListURLs("x", 1+int(n%20))...)
		if sameRun {
			task.Status.Run = taskstate.RunHash(task)
		}
		task.Status.RefusedPositions, task.Status.LostCalls = refused, max(0, lost)
		if jobs != "" {
			for i, positions := range strings.Split(jobs, ";") {
				task.Status.Jobs = append(task.Status.Jobs, v1alpha1.Job{ID: fmt.Sprint(i), ClaimID: "b", Positions: positions})
			}
		}
		if claimed != "" {
			task.Status.Submission = &v1alpha1.Submission{ClaimID: "c", ZoneID: "zone-1", Positions: claimed, Semantics: taskstate.HashSemantics(task)}
		}
		meta.SetStatusCondition(&task.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionReady, Status: "False", Reason: "Waiting"})

		covered := map[int]bool{}
		for _, text := range append(strings.Split(jobs, ";"), refused) {
			p, err := taskstate.ParsePositions(text)
			for i := range len(task.Spec.Targets) {
				if sameRun && (err != nil || slices.Contains(p, i) || len(p) > 0 && p[len(p)-1] >= len(task.Spec.Targets)) {
					covered[i] = true
				}
			}
		}
		q, now := NewQueue(Limits{Batch: 5, TasksPerCall: 5, QuotaInterval: time.Hour, QPS: 20, StallAfter: time.Minute, Normalize: strings.ToLower}), t0
		q.UpsertTask(task, now)
		q.WaitingStatuses(10, now)
		decision := q.PlanNext(now)
		if decision.ReadQuota != "" {
			q.SetQuota(decision.ReadQuota, 0, -1, now)
			decision = q.PlanNext(now)
		}
		if decision.Call == nil {
			if sameRun && claimed == "" && task.Status.LostCalls < taskstate.MaxLostCalls && len(covered) < len(task.Spec.Targets) {
				t.Errorf("nothing is submitted, of %v covered", covered)
			}
			return
		}
		if claimed != "" && sameRun {
			t.Error("a claimed task is submitted")
		}
		for _, i := range decision.Call.Parts[0].Positions {
			if i >= len(task.Spec.Targets) || covered[i] {
				t.Errorf("target %d is submitted", i)
			}
		}
	})
}

var t0 = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
