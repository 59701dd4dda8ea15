package taskstate_test

import (
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate/taskstatetest"
)

func TestANewRunWithoutItsListIsNotTheFinishedOneBefore(t *testing.T) {
	task := taskstatetest.NewTask("a")
	task.Spec.TargetsFrom.ConfigMapKeyRef = v1alpha1.ConfigMapKeyReference{Name: "urls", Key: "list"}
	task.Status.Run = taskstate.RunHash(task)
	taskstate.FinishRun(task, 1, 0, time.Now())
	task.Spec.Revision = "2"
	task.Generation++
	taskstate.TargetsUnavailable(taskstate.Cause{Reason: v1alpha1.ReasonTargetsMissing, Message: "missing"}, true)(task)
	for _, condition := range []string{v1alpha1.ConditionReady, v1alpha1.ConditionFinished} {
		if !meta.IsStatusConditionFalse(task.Status.Conditions, condition) {
			t.Errorf("%s is not False: %+v", condition, task.Status.Conditions)
		}
	}
	if !taskstate.IsStalledFor(task, v1alpha1.ReasonTargetsMissing) {
		t.Errorf("not Stalled: %+v", task.Status.Conditions)
	}
}

func TestFailuresAreKnownWhileANewRunWaits(t *testing.T) {
	task := taskstatetest.NewTask("a")
	task.Spec.Targets = nil
	for _, u := range taskstatetest.ListURLs("a", 5) {
		task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(u))
	}
	task.Status.Run = taskstate.RunHash(task)
	task.Status.Jobs = []v1alpha1.Job{{ID: "j", Kind: v1alpha1.JobPrefetch, Positions: "0-4", Succeeded: 1, Failed: 4}}
	taskstate.UpdateSummary(task, time.Now())
	task.Status.FailedTargets = []v1alpha1.FailedTarget{{URL: string(task.Spec.Targets[0])}}
	task.Spec.Revision = "2"
	taskstate.ReportWaiting(taskstate.WaitingStatus{Cause: taskstate.QueuedCause}, time.Now())(task)
	known, unnamed := taskstate.KnownFailures(task)
	if taskstate.CountFailures(task) != 4 || len(known) != 1 || unnamed != 3 || *task.Status.Targets.Failed != 0 {
		t.Errorf("%d failures, %d known, %d unnamed; the new run has %d", taskstate.CountFailures(task), len(known), unnamed, *task.Status.Targets.Failed)
	}
}

func TestKnownFailures(t *testing.T) {
	url := func(i int) string { return string(taskstatetest.ListURLs("a", 10)[i]) }
	for _, c := range []struct {
		name    string
		change  func(task *v1alpha1.PrefetchTask)
		known   []string // URL and reason
		unnamed int
	}{
		{"named by the status", func(task *v1alpha1.PrefetchTask) {
			task.Status.FailedTargets = []v1alpha1.FailedTarget{{URL: url(3), Reason: "Timeout"}}
			task.Status.Jobs = []v1alpha1.Job{{ID: "j", Positions: "0-9", Succeeded: 9, Failed: 1}}
		}, []string{url(3), "Timeout"}, 0},
		{"refused", func(task *v1alpha1.PrefetchTask) { task.Status.RefusedPositions = "4" }, []string{url(4), "Refused"}, 0},
		{"not purged", func(task *v1alpha1.PrefetchTask) {
			task.Spec.Purge.Type = v1alpha1.PurgeURL
			task.Status.RefusedPositions, task.Status.Purge.FailedPositions = "4,6", "6"
		}, []string{url(4), "Refused", url(6), "PurgeFailed"}, 0},
		{"refused, or the purge of a host failed", func(task *v1alpha1.PrefetchTask) {
			task.Spec.Purge = v1alpha1.Purge{Type: v1alpha1.PurgeHost, Targets: []v1alpha1.PurgeTarget{"a.example"}}
			task.Status.RefusedPositions = "4"
		}, []string{url(4), ""}, 0},
		{"a whole job", func(task *v1alpha1.PrefetchTask) {
			task.Status.Jobs = []v1alpha1.Job{{ID: "j", Positions: "0-1", Failed: 2}}
		}, []string{url(0), "", url(1), ""}, 0},
		{"a job of which a retry has reopened the rest", func(task *v1alpha1.PrefetchTask) {
			task.Status.Jobs = []v1alpha1.Job{{ID: "j", Positions: "0-1", RetriedPositions: "0", Failed: 2}}
		}, []string{url(1), ""}, 0},
		{"a part of a job", func(task *v1alpha1.PrefetchTask) {
			task.Status.Jobs = []v1alpha1.Job{{ID: "j", Positions: "0-9", Failed: 2, Succeeded: 8}}
		}, nil, 2},
		{"of another run", func(task *v1alpha1.PrefetchTask) { task.Status.RefusedPositions = "4"; task.Status.Run = "other" }, nil, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			task := taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 10)...)
			task.Status.Run = ""
			c.change(task)
			isOther := task.Status.Run != ""
			task.Status.Run = taskstate.RunHash(task)
			taskstate.UpdateSummary(task, time.Now())
			if isOther {
				task.Status.Run = "other"
			}
			failed, unnamed := taskstate.KnownFailures(task)
			var known []string
			for _, f := range failed {
				known = append(known, f.URL, f.Reason)
			}
			if !slices.Equal(known, c.known) || unnamed != c.unnamed {
				t.Errorf("got %q and %d more, want %q and %d more", known, unnamed, c.known, c.unnamed)
			}
		})
	}
}
