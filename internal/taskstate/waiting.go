package taskstate

import (
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// WaitingStatus is something to tell a task in its status that is not about a call.
type WaitingStatus struct {
	Task *v1alpha1.PrefetchTask
	// Cause it waits; no Reason if only the generation is to be acknowledged.
	Cause
	// Stalled: it will not get better without a person.
	Stalled bool
	// NextAttempt is when quota is expected to return to a task held by it.
	NextAttempt time.Time
}

// hasNextAttempt says whether a status names the next attempt well enough. A later one
// than ours may be another leader's; two of them would go on correcting each other.
func (n WaitingStatus) hasNextAttempt(next time.Time) bool {
	return next.IsZero() == n.NextAttempt.IsZero() && next.Unix() >= metav1.NewTime(n.NextAttempt).Unix()
}

// IsWritten says whether the task's status has the note already. A later time of the
// next attempt alone is not worth a write more often than once a day.
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

// TargetsUnavailable says why the targets of a run are not known, which then neither
// starts nor goes on.
func TargetsUnavailable(why Cause, stalled bool) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		if IsRunOver(task) { // and asks for a retry
			RetryWaits(why.Message)(task)
			return
		}
		stalled = stalled || IsStalledFor(task, why.Reason)
		setNotReady(task, why.Reason, why.Message)
		switch {
		case !IsBoundToList(task):
			SetCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionFalse, why.Reason, why.Message)
		case task.Status.Submission != nil: // of which nothing is found out now
			SetCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionUnknown, why.Reason, why.Message)
		}
		setStalled(task, stalled, why.Reason, why.Message)
		removeConditions(task, v1alpha1.ConditionQuotaExceeded)
		task.Status.NextAttemptTime = metav1.Time{}
		observeGeneration(task)
	}
}

// OutcomesUnreadable says why the outcomes of a run that is handed over cannot be read. It is taken
// back as soon as they can; see FollowJobs.
func OutcomesUnreadable(why Cause) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		if IsRunOver(task) { // what was read was enough
			return
		}
		message := unreadMessage + why.Message
		setNotReady(task, why.Reason, message)
		setStalled(task, true, why.Reason, message)
		observeGeneration(task)
	}
}

const unreadMessage = "Every target was handed over, but their outcomes cannot be read: "

// IsUnreadReported says whether the status says that outcomes cannot be read.
func IsUnreadReported(task *v1alpha1.PrefetchTask) bool {
	stalled := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionStalled)
	return stalled != nil && strings.HasPrefix(stalled.Message, unreadMessage) && !IsRunOver(task) &&
		meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionSubmitted)
}

// ReportWaiting says why a task waits.
func ReportWaiting(note WaitingStatus, now time.Time) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		if IsNewRun(task) && !HasClaim(task) {
			// What the status says of the run before stays until the new one is
			// claimed; only that it is over is no longer true.
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
