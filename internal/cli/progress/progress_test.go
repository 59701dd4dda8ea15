package progress_test

import (
	"testing"
	"time"

	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/progress"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate/taskstatetest"
)

func TestPhasesOfARun(t *testing.T) {
	now := time.Now()
	why, other := taskstate.Cause{Reason: v1alpha1.ReasonUnavailable, Message: "why"}, taskstate.Cause{Reason: v1alpha1.ReasonPermissionDenied, Message: "other"}
	over := func(failed int) func(*v1alpha1.PrefetchTask) {
		return func(task *v1alpha1.PrefetchTask) { taskstate.FinishRun(task, 2, failed, now) }
	}
	waiting := func(reason string, stalled bool) func(*v1alpha1.PrefetchTask) {
		return func(task *v1alpha1.PrefetchTask) {
			cause := taskstate.Cause{Reason: reason, Message: "why", Advice: "Do this"}
			taskstate.ReportWaiting(taskstate.WaitingStatus{Task: task, Cause: cause, Stalled: stalled}, now)(task)
		}
	}
	notFollowed := func(task *v1alpha1.PrefetchTask) {
		task.Status.Jobs = []v1alpha1.Job{{ID: "j", Positions: "0-1"}}
		taskstate.EndNotFollowed("no permission", now)(task)
	}
	retry := func(task *v1alpha1.PrefetchTask) {
		task.Annotations = map[string]string{v1alpha1.RetryAnnotation: "2"}
	}
	type changes = []func(*v1alpha1.PrefetchTask)
	for _, c := range []struct {
		name    string
		changes changes
		phase   progress.Phase
		reason  string
	}{
		{"new", nil, progress.Running, progress.NotObserved},
		{"waits", changes{waiting("Waiting", false)}, progress.Running, "Waiting"},
		{"waits for a person", changes{waiting("ZoneNotFound", true)}, progress.Stalled, "ZoneNotFound"},
		{"is suspended", changes{waiting("Suspended", false)}, progress.Suspended, "Suspended"},
		{"all succeeded", changes{over(0)}, progress.Succeeded, "Succeeded"},
		{"some failed", changes{over(1)}, progress.Failed, "PartiallyFailed"},
		{"all failed", changes{over(2)}, progress.Failed, "Failed"},
		{"outcomes unknown", changes{notFollowed}, progress.NotFollowed, "NotFollowed"},
		{"edited after it was over", changes{over(0), taskstatetest.Revise}, progress.Running, progress.NotObserved},
		{"edited after it stalled", changes{waiting("ZoneNotFound", true), taskstatetest.Revise}, progress.Running, progress.NotObserved},
		{"a new run waits", changes{over(0), taskstatetest.Revise, waiting("Waiting", false)}, progress.Running, "Waiting"},
		{"a retry is requested", changes{over(1), retry}, progress.Running, progress.RetryRequested},
		{"a retry of what has succeeded", changes{over(0), retry}, progress.Succeeded, "Succeeded"},
		{"a retry that cannot start", changes{over(1), retry, taskstate.TargetsUnavailable(why, true)}, progress.Stalled, progress.RetryRequested},
		{"a retry that waits for a moment", changes{over(1), retry, taskstate.TargetsUnavailable(why, false)}, progress.Running, progress.RetryRequested},
		{"a retry that waits for a moment after it could not start", changes{over(1), retry, taskstate.RetryWaits(other, true), taskstate.TargetsUnavailable(why, false)}, progress.Running, progress.RetryRequested},
		{"a retry was handled", changes{over(1), retry, func(task *v1alpha1.PrefetchTask) { task.Status.LastHandledRetry = "2" }}, progress.Failed, "PartiallyFailed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			task := taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 2)...)
			task.Generation, task.Status.ObservedGeneration = 1, -1
			task.Status.Run = taskstate.RunHash(task)
			for _, change := range c.changes {
				change(task)
				if task.Status.Conditions != nil && task.Generation == 1 {
					task.Status.ObservedGeneration = 1
				}
			}
			got := progress.Of(task)
			if got.Phase != c.phase || got.Reason != c.reason || got.Message == "" {
				t.Errorf("%s %s %q, want %s %s", got.Phase, got.Reason, got.Message, c.phase, c.reason)
			}
		})
	}
}

func TestARunThatWaitsDoesNotHaveTheCountsOfTheOneBefore(t *testing.T) {
	now := time.Now()
	task := taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 3)...)
	taskstatetest.Begun("0-2")(task)
	task.Status.RefusedPositions, task.Status.FailedTargets = "2", []v1alpha1.FailedTarget{{URL: "https://a.example/a/2"}}
	task.Status.Jobs[0].Positions, task.Status.Jobs[0].Succeeded = "0-1", 2
	taskstate.UpdateSummary(task, now)
	if got := progress.Of(task); got.Total != 3 || got.Succeeded != 2 || got.Failed != 1 || len(got.FailedTargets) != 1 {
		t.Fatalf("of the run that is over: %+v", got)
	}
	taskstatetest.Revise(task)
	task.Spec.Targets = task.Spec.Targets[:2]
	cause := taskstate.Cause{Reason: v1alpha1.ReasonDailyQuota, Message: "No quota", Quota: true}
	for _, isStalled := range []bool{false, true} {
		taskstate.ReportWaiting(taskstate.WaitingStatus{Task: task, Cause: cause, Stalled: isStalled}, now)(task)
		got := progress.Of(task)
		if got.Reason != v1alpha1.ReasonDailyQuota || got.Total != 2 || got.Submitted+got.Succeeded+got.Failed != 0 || got.FailedTargets != nil {
			t.Errorf("%+v", got)
		}
	}
	task.Spec.Targets = nil
	task.Spec.TargetsFrom.ConfigMapKeyRef.Name = "urls"
	if got := progress.Of(task); got.Total != 0 || got.Succeeded != 0 {
		t.Errorf("with a list that is not known: %+v", got)
	}
}

func TestCountsOfAnEarlierRunAreNotShown(t *testing.T) {
	task := taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 2)...)
	task.Status.ObservedGeneration = task.Generation
	task.Status.Targets = v1alpha1.TargetCounts{Total: ptr.To[int32](5), Succeeded: ptr.To[int32](5)}
	task.Generation++
	if got := progress.Of(task); got.Total != 2 || got.Succeeded != 0 {
		t.Errorf("%+v", got)
	}
}
