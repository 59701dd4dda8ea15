package why_test

import (
	"strings"
	"testing"
	"time"

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
		v1alpha1.ReasonThrottled, v1alpha1.ReasonUnavailable, v1alpha1.ReasonDailyQuota, v1alpha1.ReasonBudget,
	} {
		x := why.Explain(waiting(taskstate.Cause{Reason: reason, Message: "it is so"}, false, time.Time{}), why.Facts{})
		if x.Advice == "" || !strings.Contains(x.Cause, "it is so") {
			t.Errorf("%s: %+v", reason, x)
		}
	}
	x := why.Explain(waiting(taskstate.Cause{Reason: v1alpha1.ReasonZoneNotFound, Message: "no zone", Advice: "Correct it"}, true, time.Time{}), why.Facts{})
	if x.Advice != "" || x.Cause != "no zone. Correct it" {
		t.Errorf("%+v", x)
	}
}

func TestATaskThatIsHeldForQuotaSaysHowMuchIsLeft(t *testing.T) {
	next := time.Now().Add(time.Hour)
	task := waiting(taskstate.Cause{Reason: v1alpha1.ReasonBudget, Message: "The daily budget is used up", Quota: true}, false, next)
	account := &v1alpha1.EdgeOneAccount{}
	account.Name = "main"
	account.Status.Left = ptr.To[int32](2)
	account.Status.Zones = []v1alpha1.AccountZoneStatus{{ID: task.Spec.ZoneID, Left: ptr.To[int32](40), Used: ptr.To[int32](8)}, {ID: "zone-other", Left: ptr.To[int32](1)}}
	x := why.Explain(task, why.Facts{Account: account})
	want := []string{"EdgeOne's quota of zone zone-1 has 40 URLs left today; the tasks of account \"main\" have used 8", "The daily budget of account \"main\" has 2 URLs left"}
	if strings.Join(x.Notes, "|") != strings.Join(want, "|") || x.Until.Unix() != next.Unix() || x.Since.IsZero() {
		t.Errorf("%+v", x)
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
	x := why.Explain(task, why.Facts{})
	if !x.Since.Equal(signed) || !strings.Contains(strings.Join(x.Notes, "|"), "Its last purge has the claim c1") || !strings.Contains(x.Cause, "Up to 2 targets are purged") {
		t.Errorf("%+v", x)
	}
}
