package judge

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// DescribeStuck returns why a task has not ended, or "" if it has. A task ends when it
// finishes, or when it is suspended and has no call of unknown outcome.
func DescribeStuck(task *v1alpha1.PrefetchTask) string {
	switch {
	case taskstate.IsSuspended(task):
		// An expired claim of an earlier run stays in case the spec is changed back.
		if taskstate.HasClaim(task) {
			return fmt.Sprintf("suspended, and its call %s is not settled", task.Status.Submission.ClaimID)
		}
		return ""
	case taskstate.IsFinished(task):
		return ""
	}
	return "not finished: " + describeReady(task)
}

func (j *judgement) findStuck(task *v1alpha1.PrefetchTask) {
	if text := DescribeStuck(task); text != "" {
		j.add(Stuck, task, beginning(task), "%s", text)
	}
}

// beginning returns when a task's run began.
func beginning(task *v1alpha1.PrefetchTask) time.Time {
	if from := task.Status.StartTime.Time; !from.IsZero() {
		return from
	}
	return task.CreationTimestamp.Time
}

// describeReady returns the reason and message of the condition Ready, and the counts.
func describeReady(task *v1alpha1.PrefetchTask) string {
	text := "not seen yet"
	if c := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		text = c.Reason + ": " + c.Message
	}
	if s := task.Status.Submission; s != nil {
		text += fmt.Sprintf(" (call %s signed %s)", s.ClaimID, s.SignedAt.Format("15:04:05"))
	}
	if taskstate.IsNewRun(task) {
		text += " (the status is of an earlier run)"
	}
	return text
}

// findMiscounts checks the counts of a finished task. Every target must be submitted, and
// have succeeded or failed according to EdgeOne's answer.
func (j *judgement) findMiscounts(task *v1alpha1.PrefetchTask) {
	targets := taskstate.DistinctTargets(task)
	finished := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionFinished)
	if len(targets) == 0 || !taskstate.IsFinished(task) || finished.Reason == v1alpha1.ReasonNotFollowed {
		return // the list is in a ConfigMap, the run has not finished, or the outcomes could not be read
	}
	failed := 0
	for _, target := range targets {
		if j.Answer(target) != Succeeds {
			failed++
		}
	}
	want := [4]int{len(targets), len(targets), len(targets) - failed, failed}
	counts := task.Status.Targets
	var got [4]int
	for i, n := range []*int32{counts.Total, counts.Submitted, counts.Succeeded, counts.Failed} {
		got[i] = int(ptr.Deref(n, -1))
	}
	if got != want {
		j.add(Miscount, task, beginning(task), "total, submitted, succeeded and failed are %v, want %v", got, want)
	}
	reason := v1alpha1.ReasonSucceeded
	switch failed {
	case 0:
	case len(targets):
		reason = v1alpha1.ReasonFailed
	default:
		reason = v1alpha1.ReasonPartiallyFailed
	}
	if finished.Reason != reason {
		j.add(Miscount, task, beginning(task), "Finished is %s, want %s with %d of %d targets failed", finished.Reason, reason, failed, len(targets))
	}
}
