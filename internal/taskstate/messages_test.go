package taskstate

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// messageTask returns a task with five targets.
func messageTask() *v1alpha1.PrefetchTask {
	task := &v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Generation: 1}}
	task.Spec.ZoneID = "zone-1"
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target("https://a.example/"+name))
	}
	return task
}

// submitFirst records that EdgeOne accepted the first n targets.
func submitFirst(task *v1alpha1.PrefetchTask, n int) {
	now := time.Unix(1e9, 0)
	ClaimTargets(v1alpha1.Submission{ClaimID: "c", SignedAt: metav1.NewTime(now), Positions: AllPositions(n).String()}, now)(task)
	RecordJob("job-1", nil, now)(task)
}

func messageOf(task *v1alpha1.PrefetchTask, conditionType string) string {
	if c := meta.FindStatusCondition(task.Status.Conditions, conditionType); c != nil {
		return c.Message
	}
	return "(absent)"
}

func TestAWaitingTaskSaysHowManyTargetsWaitAndUntilWhen(t *testing.T) {
	next := time.Date(2026, 11, 29, 16, 0, 0, 0, time.UTC)
	quota := WaitingStatus{Cause: Cause{Reason: v1alpha1.ReasonDailyQuota, Message: "The quota is used up", Quota: true}, NextAttempt: next}
	for _, tt := range []struct {
		name      string
		submitted int
		note      WaitingStatus
		want      string
	}{
		{"nothing is submitted", 0, quota, "The quota is used up; new quota is expected at 2026-11-29T16:00:00Z"},
		{"a part is submitted", 3, quota, "3 of 5 targets submitted, 2 waiting. The quota is used up; new quota is expected at 2026-11-29T16:00:00Z"},
		{"it is queued", 3, WaitingStatus{Cause: Cause{Reason: v1alpha1.ReasonWaiting, Message: QueuedMessage}}, "3 of 5 targets submitted, 2 waiting. " + QueuedMessage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			task := messageTask()
			if tt.submitted > 0 {
				submitFirst(task, tt.submitted)
			}
			ReportWaiting(tt.note, next.Add(-time.Hour))(task)
			if got := messageOf(task, v1alpha1.ConditionReady); got != tt.want {
				t.Errorf("Ready says %q, want %q", got, tt.want)
			}
			tt.note.Task = task
			if !tt.note.IsWritten() {
				t.Error("the report is not recognized as written")
			}
			for _, other := range []string{v1alpha1.ConditionSubmitted, v1alpha1.ConditionFinished} {
				if got := messageOf(task, other); got == tt.want {
					t.Errorf("%s repeats the message of Ready", other)
				}
			}
		})
	}
}

func TestALongReportIsRecognizedAsWritten(t *testing.T) {
	for _, message := range []string{strings.Repeat("x", 2*MaxMessage), "not UTF-8: \xff"} {
		task := messageTask()
		note := WaitingStatus{Task: task, Cause: Cause{Reason: v1alpha1.ReasonUnavailable, Message: message}}
		ReportWaiting(note, time.Unix(1e9, 0))(task)
		if !note.IsWritten() {
			t.Errorf("the report of %d bytes is not recognized as written", len(message))
		}
	}
}

func TestATaskWithoutItsListInMemoryHasCounts(t *testing.T) {
	task := ElideTargets(messageTask())
	ReportWaiting(WaitingStatus{Task: task, Cause: Cause{Reason: v1alpha1.ReasonSuspended, Message: "Suspended"}}, time.Unix(1e9, 0))(task)
	if total := task.Status.Targets.Total; total == nil || *total != 5 {
		t.Errorf("the total is %v, want 5", total)
	}
}

func TestAFailureNamesTheFirstTargetAndWhatHelps(t *testing.T) {
	retry := "hange the annotation teo.prefetch-operator.io/retry to retry"
	for _, tt := range []struct {
		name          string
		failed        []v1alpha1.FailedTarget
		count         int
		ready, advice string
	}{
		{
			"one timed out", []v1alpha1.FailedTarget{{URL: "https://a.example/a", Reason: v1alpha1.FailedTimeout}}, 1,
			"1 of 5 targets failed: https://a.example/a (Timeout)", "1 of 5 targets failed. C" + retry,
		},
		{
			"the origin has not got three", []v1alpha1.FailedTarget{{URL: "https://a.example/b", Reason: v1alpha1.FailedInvalid, Message: "origin 404"}}, 3,
			"3 of 5 targets failed: https://a.example/b (Invalid: origin 404) and 2 more, see status.failedTargets",
			"3 of 5 targets failed. Make the origin answer with a 2xx status, then c" + retry + "; or correct the list, which starts a new run",
		},
		{
			"two causes", []v1alpha1.FailedTarget{
				{URL: "https://a.example/c", Reason: v1alpha1.FailedRefused, Message: "no such domain"}, {URL: "https://a.example/d", Reason: v1alpha1.FailedInvalid},
			}, 5,
			"5 of 5 targets failed: https://a.example/c (Refused: no such domain) and 4 more, see status.failedTargets",
			"5 of 5 targets failed. Correct what EdgeOne refused, make the origin answer with a 2xx status, then c" + retry + "; or correct the list, which starts a new run",
		},
		{"none is named, as there is no room", nil, 2, "2 of 5 targets failed, see status.failedTargets", "2 of 5 targets failed. C" + retry},
	} {
		t.Run(tt.name, func(t *testing.T) {
			task := messageTask()
			task.Status.FailedTargets = tt.failed
			FinishRun(task, 5, tt.count, time.Unix(1e9, 0))
			for conditionType, want := range map[string]string{
				v1alpha1.ConditionReady: tt.ready, v1alpha1.ConditionStalled: tt.advice, v1alpha1.ConditionFinished: "",
			} {
				if got := messageOf(task, conditionType); got != want {
					t.Errorf("%s says %q, want %q", conditionType, got, want)
				}
			}
		})
	}
}

func TestTheMessageOfASingleTargetHasNoCount(t *testing.T) {
	task := messageTask()
	task.Status.FailedTargets = []v1alpha1.FailedTarget{{URL: "https://a.example/a", Reason: v1alpha1.FailedTimeout}}
	FinishRun(task, 1, 1, time.Unix(1e9, 0))
	if got, want := messageOf(task, v1alpha1.ConditionReady), "The target failed: https://a.example/a (Timeout)"; got != want {
		t.Errorf("Ready says %q, want %q", got, want)
	}
}

func TestCountsAreThereFromTheFirstStatusOn(t *testing.T) {
	suspended := WaitingStatus{Cause: Cause{Reason: v1alpha1.ReasonSuspended, Message: "suspended"}}
	task := messageTask()
	ReportWaiting(suspended, time.Unix(1e9, 0))(task)
	if got := task.Status.Targets; ptr.Deref(got.Total, -1) != 5 || ptr.Deref(got.Submitted, -1) != 0 || ptr.Deref(got.Succeeded, -1) != 0 || ptr.Deref(got.Failed, -1) != 0 {
		t.Errorf("a suspended task counts %v", got)
	}
	missing := messageTask()
	missing.Spec.Targets = nil
	missing.Spec.TargetsFrom.ConfigMapKeyRef.Name = "list"
	TargetsUnavailable(Cause{Reason: v1alpha1.ReasonTargetsMissing, Message: "missing"}, true)(missing)
	if got := missing.Status.Targets; got.Total != nil || ptr.Deref(got.Submitted, -1) != 0 {
		t.Errorf("a task without its list counts %v", got)
	}
	// A run that waits does not count what the run before has submitted, unless that comes back.
	submitFirst(task, 5)
	for revision, submitted := range map[string]int32{"2": 0, "": 5} {
		task.Spec.Revision = revision
		former := task.Status.Targets
		ReportWaiting(suspended, time.Unix(1e9, 0))(task)
		waiting := suspended
		if waiting.Task = task; submitted == 0 && !waiting.IsWritten() {
			t.Error("the report is not written")
		}
		if counted := task.Status.Targets; submitted == 0 {
			task.Status.Targets = former
			if waiting.IsWritten() {
				t.Error("the report is written, with the counts of the run before")
			}
			task.Status.Targets = counted
		}
		if got := task.Status.Targets; ptr.Deref(got.Submitted, -1) != submitted || ptr.Deref(got.Total, -1) != 5 {
			t.Errorf("revision %q that waits counts %v", revision, got)
		}
	}
}
