package taskstate

import (
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// WaitingStatus is a report for the status of a task that is not about a call.
type WaitingStatus struct {
	Task *v1alpha1.PrefetchTask
	// Cause describes why the task waits. An empty Reason only acknowledges the generation.
	Cause
	// Stalled reports that the task waits until a user acts.
	Stalled bool
	// NextAttempt is when the quota that blocks the task is expected to be available
	// again.
	NextAttempt time.Time
}

// hasNextAttempt reports whether the status has an acceptable time of the next attempt. A
// later time than ours is acceptable, because another leader may have written it:
// otherwise, two leaders would overwrite each other's times again and again.
func (n WaitingStatus) hasNextAttempt(next time.Time) bool {
	return next.IsZero() == n.NextAttempt.IsZero() && next.Unix() >= metav1.NewTime(n.NextAttempt).Unix()
}

// IsWritten reports whether the task's status already contains the report. A later time of
// the next attempt alone is worth at most one write a day.
func (n WaitingStatus) IsWritten() bool {
	task := n.Task
	if task.Status.ObservedGeneration != task.Generation {
		return false
	}
	if n.Reason == "" {
		return true
	}
	ready := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && ready.Reason == n.Reason && ready.Message == n.Message &&
		n.hasNextAttempt(task.Status.NextAttemptTime.Time) &&
		meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionStalled) == n.Stalled
}

// TargetsUnavailable reports why the targets of a run are unknown. Such a run neither
// starts nor continues.
func TargetsUnavailable(why Cause, stalled bool) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		if IsRunOver(task) { // the finished run asks for a retry
			RetryWaits(why.Message)(task)
			return
		}
		stalled = stalled || IsStalledFor(task, why.Reason)
		setNotReady(task, why.Reason, why.Message)
		switch {
		case !IsBoundToList(task):
			SetCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionFalse, why.Reason, why.Message)
		case task.Status.Submission != nil: // without targets, its outcome stays unknown
			SetCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionUnknown, why.Reason, why.Message)
		}
		setStalled(task, stalled, why.Reason, why.Message)
		removeConditions(task, v1alpha1.ConditionQuotaExceeded)
		task.Status.NextAttemptTime = metav1.Time{}
		observeGeneration(task)
	}
}

// OutcomesUnreadable reports why the outcomes of a run cannot be read, although every
// target is handed over. FollowJobs removes the report as soon as the outcomes can be
// read.
func OutcomesUnreadable(why Cause) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		if IsRunOver(task) { // the outcomes that were read are sufficient
			return
		}
		message := unreadMessage + why.Message
		setNotReady(task, why.Reason, message)
		setStalled(task, true, why.Reason, message)
		observeGeneration(task)
	}
}

// unreadMessage starts each message of OutcomesUnreadable. IsUnreadReported recognizes it.
const unreadMessage = "Every target was handed over, but their outcomes cannot be read: "

// IsUnreadReported reports whether the status reports that outcomes cannot be read.
func IsUnreadReported(task *v1alpha1.PrefetchTask) bool {
	stalled := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionStalled)
	return stalled != nil && strings.HasPrefix(stalled.Message, unreadMessage) && !IsRunOver(task) &&
		meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionSubmitted)
}

// ReportWaiting reports why a task waits. It changes no condition of a finished run. While
// a call has an unknown outcome, the condition Submitted stays Unknown.
func ReportWaiting(note WaitingStatus, now time.Time) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		if IsNewRun(task) && !HasClaim(task) {
			// The status of the previous run stays until the new run has a claim. Only
			// its report that the run is finished no longer applies.
			setNotReady(task, v1alpha1.ReasonWaiting, "New run queued")
		} else {
			UpdateSummary(task, now)
		}
		observeGeneration(task)
		if note.Reason == "" || !IsNewRun(task) && IsRunOver(task) {
			return
		}
		setNotReady(task, note.Reason, note.Message)
		submitted := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionSubmitted)
		if submitted == nil || submitted.Status != metav1.ConditionUnknown || !HasClaim(task) {
			SetCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionFalse, note.Reason, note.Message)
		}
		setStalled(task, note.Stalled, note.Reason, note.Message)
		setPresent(task, v1alpha1.ConditionQuotaExceeded, note.Quota, note.Reason, note.Message)
		task.Status.NextAttemptTime = metav1.Time{}
		if note.Quota {
			task.Status.NextAttemptTime = metav1.NewTime(note.NextAttempt)
		}
	}
}
