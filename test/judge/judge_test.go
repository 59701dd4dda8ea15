package judge

import (
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

const (
	a      = "https://www.example.com/a"
	b      = "https://www.example.com/b"
	refuse = "https://www.example.com/refused/c"
	broken = "https://www.example.com/broken/d"
)

// finishedTask returns a task whose jobs have finished with the given number of failed
// targets.
func finishedTask(failed int32, targets []string, jobs ...v1alpha1.Job) v1alpha1.PrefetchTask {
	task := v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "task"}}
	task.Spec.ZoneID = "zone-1"
	for _, target := range targets {
		task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(target))
	}
	task.Status.Run = taskstate.RunHash(&task)
	task.Status.Jobs = jobs
	total, reason := int32(len(targets)), v1alpha1.ReasonSucceeded
	if failed > 0 {
		reason = v1alpha1.ReasonPartiallyFailed
	}
	task.Status.Targets = v1alpha1.TargetCounts{Total: &total, Submitted: &total, Succeeded: ptr.To(total - failed), Failed: &failed}
	task.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionFinished, Status: metav1.ConditionTrue, Reason: reason}}
	return task
}

func job(id, targets string) v1alpha1.Job {
	return v1alpha1.Job{ID: id, ClaimID: "c", Positions: targets}
}

func answer(url string) Answer {
	return map[string]Answer{refuse: Refused, broken: Fails}[url]
}

func TestTheJudgeFindsWhatMustNotBe(t *testing.T) {
	good := func() Evidence {
		return Evidence{
			Ledger: simulator.Ledger{{JobID: "j1", Accepted: []string{a, b}}},
			Asked:  map[string]int{a: 1, b: 1}, Answer: answer,
			Tasks: []v1alpha1.PrefetchTask{finishedTask(0, []string{a, b}, job("j1", "0-1"))},
		}
	}
	executeAgain := func(e *Evidence) {
		e.Ledger = append(e.Ledger, simulator.Execution{JobID: "j2", Accepted: []string{a}})
		e.Tasks[0].Status.Jobs = append(e.Tasks[0].Status.Jobs, job("j2", "0"))
	}
	for _, tt := range []struct {
		name  string
		spoil func(*Evidence)
		want  []Kind
	}{
		{"nothing", func(*Evidence) {}, nil},
		{"a URL executed twice in a run", executeAgain, []Kind{Duplicate}},
		{"a URL executed twice in another spelling", func(e *Evidence) {
			executeAgain(e)
			e.Ledger[1].Accepted = []string{"https://www.example.com:443/a"}
		}, []Kind{Duplicate}},
		{"a URL executed twice that two runs asked for", func(e *Evidence) {
			e.Ledger = append(e.Ledger, simulator.Execution{JobID: "j2", Accepted: []string{a}})
			e.Asked[a] = 2
		}, nil},
		{"a URL executed that nobody asked for", func(e *Evidence) {
			e.Ledger = append(e.Ledger, simulator.Execution{JobID: "j2", Accepted: []string{a + "/other"}})
		}, []Kind{Duplicate}},
		{"a URL never executed though the task says Succeeded", func(e *Evidence) {
			e.Ledger[0].Accepted, e.Tasks[0].Status.Jobs[0].Positions = []string{a}, "0"
		}, []Kind{Loss}},
		{"a URL never executed that the status claims a job for", func(e *Evidence) { e.Ledger[0].Accepted = []string{a} }, []Kind{Loss, Loss}},
		{"a job that no status names", func(e *Evidence) { e.Tasks[0].Status.Jobs = nil }, []Kind{Loss, Loss}},
		{"a job that the status names for another URL alone", func(e *Evidence) { e.Tasks[0].Status.Jobs[0].Positions = "0" }, []Kind{Loss}},
		{"a job that EdgeOne does not know", func(e *Evidence) {
			e.Tasks[0].Status.Jobs = append(e.Tasks[0].Status.Jobs, job("j9", "0"))
		}, []Kind{Loss}},
		{"positions that are none", func(e *Evidence) { e.Tasks[0].Status.Jobs[0].Positions = "x" }, []Kind{Loss, Loss, Loss}},
		{"a position beyond the list", func(e *Evidence) { e.Tasks[0].Status.Jobs[0].Positions = "0-2" }, []Kind{Loss}},
		{"counts that miss a target", func(e *Evidence) { e.Tasks[0].Status.Targets.Succeeded = ptr.To[int32](1) }, []Kind{Miscount}},
		{"counts that call a target failed that EdgeOne prefetched", func(e *Evidence) {
			e.Tasks[0].Status.Targets.Succeeded, e.Tasks[0].Status.Targets.Failed = ptr.To[int32](1), ptr.To[int32](1)
		}, []Kind{Miscount}},
		{"no counts at all", func(e *Evidence) { e.Tasks[0].Status.Targets = v1alpha1.TargetCounts{} }, []Kind{Miscount}},
		{"a success that is called a failure", func(e *Evidence) {
			e.Tasks[0].Status.Conditions[0].Reason = v1alpha1.ReasonPartiallyFailed
		}, []Kind{Miscount}},
		{"a URL that EdgeOne refuses", func(e *Evidence) {
			e.Tasks[0] = finishedTask(1, []string{a, b, refuse}, job("j1", "0-1"))
		}, nil},
		{"a URL that EdgeOne refuses, counted as prefetched", func(e *Evidence) {
			e.Tasks[0] = finishedTask(0, []string{a, b, refuse}, job("j1", "0-1"))
		}, []Kind{Miscount, Miscount}},
		{"a URL that fails", func(e *Evidence) {
			e.Ledger[0].Accepted, e.Asked[broken] = []string{a, b, broken}, 1
			e.Tasks[0] = finishedTask(1, []string{a, b, broken}, job("j1", "0-2"))
		}, nil},
		{"outcomes that nobody could read", func(e *Evidence) {
			e.Tasks[0].Status.Conditions[0].Reason, e.Tasks[0].Status.Targets.Succeeded = v1alpha1.ReasonNotFollowed, nil
		}, nil},
		{"a task that does not end", func(e *Evidence) { e.Tasks[0].Status.Conditions = nil }, []Kind{Stuck}},
		{"a task whose status is of the run before", func(e *Evidence) {
			e.Tasks[0].Spec.Revision = "2"
			e.Asked[a], e.Asked[b] = 2, 2
		}, []Kind{Stuck}},
		{"a suspended task", func(e *Evidence) {
			e.Tasks[0].Spec.Suspend, e.Tasks[0].Status.Conditions = ptr.To(true), nil
			e.Tasks[0].Status.Jobs[0].Positions, e.Ledger[0].Accepted = "0", []string{a}
		}, nil},
		{"a suspended task with an open call", func(e *Evidence) {
			e.Tasks[0].Spec.Suspend = ptr.To(true)
			e.Tasks[0].Status.Submission = &v1alpha1.Submission{ClaimID: "c"}
		}, []Kind{Stuck}},
		{"a suspended task with the expired claim of the run before", func(e *Evidence) {
			e.Tasks[0].Spec.Suspend, e.Tasks[0].Spec.Revision = ptr.To(true), "2"
			e.Tasks[0].Status.Submission = &v1alpha1.Submission{ClaimID: "c", Expired: true}
		}, nil},
		{"a deleted task", func(e *Evidence) { e.Tasks = nil }, nil},
		{"a URL of two tasks, executed once for both", func(e *Evidence) {
			e.Asked, e.Tasks = nil, append(e.Tasks, e.Tasks[0])
		}, nil},
		{"a URL of two tasks of which one does not name the job", func(e *Evidence) {
			e.Asked, e.Tasks = nil, append(e.Tasks, *e.Tasks[0].DeepCopy())
			e.Tasks[1].Status.Jobs = nil
		}, []Kind{Loss, Loss}},
		{"a URL executed twice, when nobody counted runs", func(e *Evidence) {
			e.Asked = nil
			executeAgain(e)
		}, []Kind{Duplicate}},
		{"URLs of others executed twice, when nobody counted runs", func(e *Evidence) {
			e.Asked = nil
			other := simulator.Execution{JobID: "j3", Accepted: []string{"https://www.example.com/other"}}
			e.Ledger = append(e.Ledger, other, other)
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := good()
			tt.spoil(&e)
			var got []Kind
			for _, d := range FindDefects(e) {
				t.Log(d)
				got = append(got, d.Kind)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("found %v, want %v", got, tt.want)
			}
		})
	}
}
