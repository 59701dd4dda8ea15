package main

import (
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// finishedTask is a task whose targets are all in these jobs.
func finishedTask(targets []string, jobs ...v1alpha1.Job) v1alpha1.PrefetchTask {
	task := v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "task"}}
	task.Spec.ZoneID = "zone-1"
	for _, target := range targets {
		task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(target))
	}
	task.Status.Run = taskstate.RunHash(&task)
	task.Status.Jobs = jobs
	task.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionFinished, Status: metav1.ConditionTrue}}
	return task
}

func TestTheJudgeFindsWhatMustNotBe(t *testing.T) {
	const a, b = "https://www.example.com/a", "https://www.example.com/b"
	job := func(id, targets string) v1alpha1.Job { return v1alpha1.Job{ID: id, ClaimID: "c", Targets: targets} }
	good := func() evidence {
		return evidence{
			ledger: simulator.Ledger{{JobID: "j1", Accepted: []string{a, b}}},
			asked:  map[string]int{a: 1, b: 1},
			tasks:  []v1alpha1.PrefetchTask{finishedTask([]string{a, b}, job("j1", "0-1"))},
		}
	}
	for _, tt := range []struct {
		name  string
		spoil func(*evidence)
		want  []defectKind
	}{
		{"nothing", func(*evidence) {}, nil},
		{"a URL executed twice", func(e *evidence) {
			e.ledger = append(e.ledger, simulator.Execution{JobID: "j2", Accepted: []string{a}})
			e.tasks[0].Status.Jobs = append(e.tasks[0].Status.Jobs, job("j2", "0"))
		}, []defectKind{duplicate}},
		{"a URL executed twice that two runs asked for", func(e *evidence) {
			e.ledger = append(e.ledger, simulator.Execution{JobID: "j2", Accepted: []string{a}})
			e.asked[a] = 2
		}, nil},
		{"a URL never executed", func(e *evidence) { e.ledger[0].Accepted = []string{a} }, []defectKind{loss, loss}},
		{"a URL that EdgeOne refuses", func(e *evidence) {
			e.tasks[0] = finishedTask([]string{a, b, "https://www.example.com/refused/c"}, job("j1", "0-1"))
		}, nil},
		{"a job that no status names", func(e *evidence) { e.tasks[0].Status.Jobs = nil }, []defectKind{loss, loss}},
		{"a job that EdgeOne does not know", func(e *evidence) {
			e.tasks[0].Status.Jobs = append(e.tasks[0].Status.Jobs, job("j9", "0"))
		}, []defectKind{loss}},
		{"positions that are none", func(e *evidence) { e.tasks[0].Status.Jobs[0].Targets = "x" }, []defectKind{loss}},
		{"a task that does not end", func(e *evidence) { e.tasks[0].Status.Conditions = nil }, []defectKind{stuck}},
		{"a task whose status is of the run before", func(e *evidence) {
			e.tasks[0].Spec.Revision = "2"
			e.asked[a], e.asked[b] = 2, 2
		}, []defectKind{stuck}},
		{"a suspended task", func(e *evidence) {
			e.tasks[0].Spec.Suspend, e.tasks[0].Status.Conditions = ptr.To(true), nil
			e.tasks[0].Status.Jobs[0].Targets, e.ledger[0].Accepted = "0", []string{a}
		}, nil},
		{"a suspended task with an open call", func(e *evidence) {
			e.tasks[0].Spec.Suspend = ptr.To(true)
			e.tasks[0].Status.Submission = &v1alpha1.Submission{ClaimID: "c"}
		}, []defectKind{stuck}},
		{"a suspended task with the expired claim of the run before", func(e *evidence) {
			e.tasks[0].Spec.Suspend, e.tasks[0].Spec.Revision = ptr.To(true), "2"
			e.tasks[0].Status.Submission = &v1alpha1.Submission{ClaimID: "c", Expired: true}
		}, nil},
		{"a deleted task", func(e *evidence) { e.tasks = nil }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := good()
			tt.spoil(&e)
			var got []defectKind
			for _, d := range judge(e, time.Now()) {
				t.Log(d)
				got = append(got, d.kind)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("found %v, want %v", got, tt.want)
			}
		})
	}
}
