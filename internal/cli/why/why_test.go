package why_test

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/why"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate/taskstatetest"
)

// waiting returns a task that waits for a cause, as the operator reports it.
func waiting(cause taskstate.Cause, isStalled bool, next time.Time) *v1alpha1.PrefetchTask {
	task := taskstatetest.NewTask("shop/release", taskstatetest.ListURLs("a", 3)...)
	note := taskstate.WaitingStatus{Task: task, Cause: cause, Stalled: isStalled, NextAttempt: next}
	taskstate.ReportWaiting(note, time.Now())(task)
	return task
}

func TestAPersonIsToldWhatToDoUnlessTheStatusDoes(t *testing.T) {
	for _, reason := range []string{
		v1alpha1.ReasonWaiting, v1alpha1.ReasonSubmitting, v1alpha1.ReasonPurging, v1alpha1.ReasonSubmitted, v1alpha1.ReasonOutcomeUnknown,
		v1alpha1.ReasonThrottled, v1alpha1.ReasonUnavailable, v1alpha1.ReasonDailyQuota, v1alpha1.ReasonBudget, v1alpha1.ReasonZoneNotFound,
	} {
		x := why.Explain(waiting(taskstate.Cause{Reason: reason, Message: "it is so"}, false, time.Time{}), why.Facts{}, time.Now())
		if x.Advice == "" || !strings.Contains(x.Cause, "it is so") {
			t.Errorf("%s: %+v", reason, x)
		}
	}
	x := why.Explain(waiting(taskstate.Cause{Reason: v1alpha1.ReasonZoneNotFound, Message: "no zone", Advice: "Correct it"}, true, time.Time{}), why.Facts{}, time.Now())
	if x.Advice != "" || x.Cause != "no zone. Correct it" {
		t.Errorf("%+v", x)
	}
}

func TestATaskThatIsHeldForQuotaSaysHowMuchIsLeft(t *testing.T) {
	account := &v1alpha1.EdgeOneAccount{}
	account.Name = "main"
	account.Status.Left = ptr.To[int32](2)
	account.Status.Zones = []v1alpha1.AccountZoneStatus{{ID: "zone-1", Left: ptr.To[int32](40), Used: ptr.To[int32](8)}, {ID: "zone-other", Left: ptr.To[int32](1)}}
	next := time.Now().Add(time.Hour)
	for _, tt := range []struct {
		reason string
		mode   v1alpha1.PrefetchMode
		want   string
	}{
		{v1alpha1.ReasonBudget, v1alpha1.ModeDefault, `The daily budget of account "main" has 2 URLs left`},
		{v1alpha1.ReasonDailyQuota, v1alpha1.ModeDefault, `EdgeOne's prefetch quota of zone zone-1 has 40 URLs left today; the tasks of account "main" have used 8`},
		{v1alpha1.ReasonDailyQuota, v1alpha1.ModeEdge, ""},
	} {
		task := waiting(taskstate.Cause{Reason: tt.reason, Message: "It is used up", Quota: true}, false, next)
		task.Spec.Mode = tt.mode
		x := why.Explain(task, why.Facts{Account: account}, time.Now())
		if !strings.HasSuffix(strings.Join(x.Notes, "|"), tt.want) || len(x.Notes) > 2 || x.Until.Unix() != next.Unix() {
			t.Errorf("%s: %+v", tt.reason, x)
		}
	}
}

func TestAQueuedTaskSaysWhatIsAheadAndWhatHelps(t *testing.T) {
	counted := time.Date(2026, 7, 1, 16, 0, 0, 0, time.UTC)
	task := taskstatetest.NewTask("shop/release", taskstatetest.ListURLs("a", 3)...)
	note := taskstate.WaitingStatus{Task: task, Cause: taskstate.QueuedCause, Ahead: taskstate.Ahead{Tasks: 12, Targets: 500, Time: counted}}
	taskstate.ReportWaiting(note, counted)(task)
	x := why.Explain(task, why.Facts{}, time.Now())
	if x.Ahead != note.Ahead || !strings.HasSuffix(x.Cause, "At 2026-07-01T16:00:00Z, 12 tasks with 500 targets were ahead") ||
		!strings.Contains(x.Advice, "Suspend other tasks") || !strings.Contains(strings.Join(x.Notes, "|"), "The task was created at 2026-07-01T00:00:00Z") {
		t.Errorf("%+v", x)
	}
	note.Ahead.Tasks = 0
	taskstate.ReportWaiting(note, counted)(task)
	if x := why.Explain(task, why.Facts{}, time.Now()); strings.Contains(x.Advice, "Suspend") || !strings.HasSuffix(x.Cause, "no task was ahead") {
		t.Errorf("%+v", x)
	}
}

func TestWhatTheFirstLineSaysIsNotRepeated(t *testing.T) {
	task := taskstatetest.NewTask("shop/release", taskstatetest.ListURLs("a", 3)...)
	at := metav1.NewTime(time.Date(2026, 7, 1, 16, 0, 0, 0, time.UTC))
	taskstate.ClaimTargets(v1alpha1.Submission{ClaimID: "c", SignedAt: at, Positions: "0-1"}, at.Time)(task)
	taskstate.RecordJob("job-1", nil, at.Time)(task)
	if x := why.Explain(task, why.Facts{}, time.Now()); x.Cause != taskstate.QueuedMessage || x.Submitted != 2 || !strings.Contains(strings.Join(x.Notes, "|"), "Its last call was at 2026-07-01T16:00:00Z") {
		t.Errorf("%+v", x)
	}
}

func TestARetryThatHasNotStartedNeedsAnOperator(t *testing.T) {
	task := taskstatetest.NewTask("shop/release", taskstatetest.ListURLs("a", 2)...)
	taskstate.FinishRun(task, 2, 1, time.Now())
	task.Status.ObservedGeneration, task.Status.Run = task.Generation, taskstate.RunHash(task)
	facts := why.Facts{RetryCommand: "kubectl teo-prefetch retry release", Operators: "None runs"}
	x := why.Explain(task, facts, time.Now())
	if want := "To retry: kubectl teo-prefetch retry release"; x.Advice != want {
		t.Errorf("%+v, want %s", x, want)
	}
	task.Annotations = map[string]string{v1alpha1.RetryAnnotation: "1"}
	if x = why.Explain(task, facts, time.Now()); !strings.Contains(x.Advice, "check that an operator runs") || strings.Join(x.Notes, "|") != "None runs" {
		t.Errorf("%+v", x)
	}
	taskstate.RetryWaits(taskstate.Cause{Reason: v1alpha1.ReasonUnavailable, Message: "EdgeOne does not answer"}, false)(task)
	x = why.Explain(task, facts, time.Now())
	if strings.Contains(x.Advice, "an operator runs") || len(x.Notes) > 0 || !strings.HasSuffix(x.Cause, "EdgeOne does not answer") {
		t.Errorf("the operator has said what the retry waits for: %+v", x)
	}
}

func TestAnOldStatusIsNotTrusted(t *testing.T) {
	now := time.Date(2026, 7, 4, 16, 0, 0, 0, time.UTC)
	quota := taskstate.Cause{Reason: v1alpha1.ReasonDailyQuota, Message: "It is used up", Quota: true}
	throttled := taskstate.Cause{Reason: v1alpha1.ReasonThrottled, Message: "Too many calls"}
	for _, tt := range []struct {
		name          string
		cause         taskstate.Cause
		stalled       bool
		next, written time.Duration // before now; 0 for none
		isOld         bool
	}{
		{"quota was expected three days ago", quota, false, 72 * time.Hour, 75 * time.Hour, true},
		{"quota was expected three days ago, and the API server does not say when", quota, false, 72 * time.Hour, 0, true},
		{"quota was expected a minute ago", quota, false, time.Minute, 20 * time.Hour, false},
		{"quota is expected", quota, false, -time.Hour, 20 * time.Hour, false},
		{"calls were throttled three days ago", throttled, false, 0, 72 * time.Hour, true},
		{"calls were throttled a minute ago", throttled, false, 0, time.Minute, false},
		{"calls were throttled, and the API server does not say when", throttled, false, 0, 0, false},
		{"tasks were ahead three days ago", taskstate.QueuedCause, false, 0, 72 * time.Hour, true},
		{"a person had to act three days ago", throttled, true, 0, 72 * time.Hour, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var next time.Time
			if tt.next != 0 {
				next = now.Add(-tt.next)
			}
			task := waiting(tt.cause, tt.stalled, next)
			if written := metav1.NewTime(now.Add(-tt.written)); tt.written != 0 {
				task.ManagedFields = []metav1.ManagedFieldsEntry{{Subresource: "status", Time: &written}, {Time: ptr.To(metav1.NewTime(now))}}
			}
			x := why.Explain(task, why.Facts{Operators: "None runs"}, now)
			notes := strings.Join(x.Notes, "|")
			if isOld := strings.HasSuffix(x.Advice, "check that an operator runs, and that its --watch-namespaces include the namespace"); isOld != tt.isOld || strings.HasSuffix(notes, "None runs") != tt.isOld {
				t.Errorf("%+v", x)
			}
			if wantsTime := tt.isOld && tt.written != 0; strings.Contains(notes, "The status was last written at "+now.Add(-tt.written).Format(time.RFC3339)) != wantsTime {
				t.Errorf("%q", notes)
			}
			if x.Until.IsZero() != (tt.next >= 0) {
				t.Errorf("until %v", x.Until)
			}
		})
	}
}

func TestATaskThatShouldBeGoneNeedsAnOperator(t *testing.T) {
	task := taskstatetest.NewTask("shop/release", taskstatetest.ListURLs("a", 2)...)
	task.Spec.TTLSecondsAfterFinished = 3600
	over := time.Date(2026, 7, 1, 16, 0, 0, 0, time.UTC)
	facts := why.Facts{RetryCommand: "kubectl teo-prefetch retry release", Operators: "None runs"}
	for _, tt := range []struct {
		failed        int
		after         time.Duration
		notes, advice string
	}{
		{0, time.Minute, "The task will be deleted at 2026-07-01T17:00:00Z", ""},
		{0, 61 * time.Minute, "The task was to be deleted at 2026-07-01T17:00:00Z", ""},
		{0, 72 * time.Hour, "The task was to be deleted at 2026-07-01T17:00:00Z|None runs", "check that an operator runs"},
		{1, 72 * time.Hour, "The task was to be deleted at 2026-07-01T17:00:00Z|None runs", "To retry: "},
	} {
		taskstate.FinishRun(task, 2, tt.failed, over)
		task.Status.ObservedGeneration, task.Status.Run = task.Generation, taskstate.RunHash(task)
		x := why.Explain(task, facts, over.Add(tt.after))
		if strings.Join(x.Notes, "|") != tt.notes || !strings.Contains(x.Advice, tt.advice) || (x.Advice == "") != (tt.advice == "") {
			t.Errorf("after %v: %+v", tt.after, x)
		}
	}
}

// A condition keeps its transition time when its reason changes.
func TestTheReasonIsNotSaidToBeAsOldAsTheCondition(t *testing.T) {
	began := metav1.NewTime(time.Date(2026, 7, 1, 16, 0, 0, 0, time.UTC))
	for _, tt := range []struct {
		former, now taskstate.Cause
		stalled     bool
		want        string
	}{
		{taskstate.Cause{Reason: v1alpha1.ReasonCredentialsMissing, Message: "m"}, taskstate.Cause{Reason: v1alpha1.ReasonNotAllowed, Message: "m"}, true, "The task has been Stalled since 2026-07-01T16:00:00Z"},
		{taskstate.Cause{Reason: v1alpha1.ReasonBudget, Message: "m", Quota: true}, taskstate.Cause{Reason: v1alpha1.ReasonDailyQuota, Message: "m", Quota: true}, false, "The task has waited for quota since 2026-07-01T16:00:00Z"},
	} {
		task := waiting(tt.former, tt.stalled, time.Time{})
		for i := range task.Status.Conditions {
			task.Status.Conditions[i].LastTransitionTime = began
		}
		taskstate.ReportWaiting(taskstate.WaitingStatus{Task: task, Cause: tt.now, Stalled: tt.stalled}, time.Now())(task)
		x := why.Explain(task, why.Facts{}, time.Now())
		if x.Reason != tt.now.Reason || !x.Since.IsZero() || strings.Join(x.Notes, "|") != tt.want {
			t.Errorf("%+v, want %s", x, tt.want)
		}
	}
}

func TestALostCallAndColdURLsAreNamed(t *testing.T) {
	task := taskstatetest.NewTask("shop/release", taskstatetest.ListURLs("a", 3)...)
	task.Spec.Purge.Type = v1alpha1.PurgeURL
	signed := time.Now().Add(-time.Minute)
	taskstate.ClaimTargets(v1alpha1.Submission{ClaimID: "c1", Kind: v1alpha1.JobPurge, ZoneID: "zone-1", Positions: "0-1"}, signed)(task)
	task.Status.Submission.SignedAt.Time = signed
	taskstate.OutcomeUnknown("EdgeOne's answer was lost", false)(task)
	task.Status.ObservedGeneration = 1
	x := why.Explain(task, why.Facts{}, time.Now())
	if !x.Since.Equal(signed) || !strings.Contains(strings.Join(x.Notes, "|"), "The purge was signed at ") || !strings.Contains(x.Cause, "Up to 2 targets are purged") {
		t.Errorf("%+v", x)
	}
}
