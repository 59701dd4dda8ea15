package taskstate

import (
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

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
	// Ahead is what goes before a queued task.
	Ahead Ahead
}

// IsQueued reports whether the task waits for its turn only.
func (n WaitingStatus) IsQueued() bool { return n.Cause == QueuedCause }

// hasNextAttempt reports whether the status has an acceptable time of the next attempt. A
// later time than ours is acceptable, because another leader may have written it:
// otherwise, two leaders would overwrite each other's times again and again.
func (n WaitingStatus) hasNextAttempt(next time.Time) bool {
	return next.IsZero() == n.NextAttempt.IsZero() && next.Unix() >= metav1.NewTime(n.NextAttempt).Unix()
}

// nextAttemptFor returns the time of the next attempt for a status. A time that the status
// has stays if it is acceptable.
func (n WaitingStatus) nextAttemptFor(task *v1alpha1.PrefetchTask) time.Time {
	if has := task.Status.NextAttemptTime.Time; n.hasNextAttempt(has) {
		return has
	}
	return n.NextAttempt
}

// FullMessageFor returns messageFor with the advice, for the condition Stalled and Events.
func (n WaitingStatus) FullMessageFor(task *v1alpha1.PrefetchTask) string {
	return joinAdvice(n.messageFor(task), n.Advice)
}

// messageFor returns the message of the report: how many targets are submitted, and why
// and until when the others wait, or what is ahead of them. It has the length of a
// condition's message, so that IsWritten recognizes it.
func (n WaitingStatus) messageFor(task *v1alpha1.PrefetchTask) string {
	message := n.Message
	if n.IsQueued() {
		message = n.Ahead.addTo(message)
	}
	if n.Reason == v1alpha1.ReasonDailyQuota || n.Reason == v1alpha1.ReasonBudget {
		message = withNextAttempt(message, n.nextAttemptFor(task))
	}
	return TruncateMessage(progressMessage(task, message), MaxMessage)
}

// IsWritten reports whether the task's status already contains the report. A later time of
// the next attempt alone is worth at most one write a day. A change of what is ahead of a
// queued task is worth no write: it would cost a write of every queued task for each call.
func (n WaitingStatus) IsWritten() bool {
	task := n.Task
	if task.Status.ObservedGeneration != task.Generation {
		return false
	}
	if n.Reason == "" {
		return true
	}
	if IsNewRun(task) && !HasClaim(task) && ptr.Deref(task.Status.Targets.Submitted, 0) > 0 {
		return false // the counts are those of the run before
	}
	if earlier := AheadOf(task); !earlier.Time.IsZero() {
		n.Ahead = earlier
	}
	ready := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && ready.Reason == n.Reason && ready.Message == n.messageFor(task) &&
		n.hasNextAttempt(task.Status.NextAttemptTime.Time) &&
		meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionStalled) == n.Stalled
}

// TargetsUnavailable reports why the targets of a run are unknown. Such a run neither
// starts nor continues.
func TargetsUnavailable(why Cause, stalled bool) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		if IsRunOver(task) && !IsNewRun(task) { // the finished run asks for a retry
			RetryWaits(why, stalled)(task)
			return
		}
		stalled = stalled || IsStalledFor(task, why.Reason)
		startCounts(task)
		setNotReady(task, why.Reason, why.Message)
		switch {
		case !IsBoundToList(task):
			SetCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionFalse, why.Reason, "")
		case task.Status.Submission != nil: // without targets, its outcome stays unknown
			SetCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionUnknown, why.Reason, "")
		case meta.IsStatusConditionFalse(task.Status.Conditions, v1alpha1.ConditionSubmitted):
			SetCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionFalse, why.Reason, "")
		}
		setStalled(task, stalled, why.Reason, why.FullMessage())
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
		setStalled(task, true, why.Reason, joinAdvice(message, why.Advice))
		observeGeneration(task)
	}
}

// PurgeUnreadable reports why the outcome of a purge cannot be read. FollowPurges removes the report
// as soon as it can be.
func PurgeUnreadable(why Cause) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		if !HasOpenPurge(task) || IsRunOver(task) {
			return
		}
		message := coldMessage(task) + unreadPurgeMessage + why.Message
		setNotReady(task, why.Reason, message)
		setStalled(task, true, why.Reason, joinAdvice(message, why.Advice))
		observeGeneration(task)
	}
}

// unreadPurgeMessage is in each message of PurgeUnreadable.
const unreadPurgeMessage = "The outcome of the purge cannot be read: "

// IsPurgeUnreadReported reports whether the status says that the outcome of a purge cannot be read.
func IsPurgeUnreadReported(task *v1alpha1.PrefetchTask) bool {
	stalled := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionStalled)
	return stalled != nil && strings.Contains(stalled.Message, unreadPurgeMessage) && !IsRunOver(task)
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
			setNotReady(task, v1alpha1.ReasonWaiting, newRunMessage(task))
			startCounts(task)
		} else {
			UpdateSummary(task, now)
		}
		observeGeneration(task)
		if note.Reason == "" || !IsNewRun(task) && IsRunOver(task) {
			return
		}
		next := note.nextAttemptFor(task)
		message := note.messageFor(task)
		setNotReady(task, note.Reason, message)
		submitted := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionSubmitted)
		if submitted == nil || submitted.Status != metav1.ConditionUnknown || !HasClaim(task) {
			SetCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionFalse, note.Reason, "")
		}
		setStalled(task, note.Stalled, note.Reason, note.FullMessageFor(task))
		setPresent(task, v1alpha1.ConditionQuotaExceeded, note.Quota, note.Reason, "")
		task.Status.NextAttemptTime = metav1.Time{}
		if note.Quota {
			task.Status.NextAttemptTime = metav1.NewTime(next)
		}
	}
}

// newRunMessage says what a new run waits for.
func newRunMessage(task *v1alpha1.PrefetchTask) string {
	switch {
	case NeedsHistory(task) && CanStartFromHistory(task):
		return "New run reads EdgeOne's history for what is prefetched already"
	case HasOpenPurge(task):
		return "New run waits until the purge of the run before has ended, which would delete what it prefetches"
	case AwaitsFormerPrefetches(task):
		return "New run waits until the prefetches of the run before have ended, which could store older copies after the purge"
	}
	return "New run queued"
}

// startCounts sets the counts of a run that has not started: they are there from the first status
// on, and those of the run before are not about the current spec. The total is unknown while the
// list is missing.
func startCounts(task *v1alpha1.PrefetchTask) {
	if !IsNewRun(task) {
		return
	}
	task.Status.Targets = v1alpha1.TargetCounts{Submitted: ptr.To[int32](0), Succeeded: ptr.To[int32](0), Failed: ptr.To[int32](0)}
	if !IsUnresolved(task) {
		task.Status.Targets.Total = countPointer(CountTargets(task))
	}
}
