package taskstate

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// UpdateSummary computes the counts and conditions from the rest of the status. A new run
// has no summary before its first claim. The conditions of a finished run do not change,
// unless the run ended with unread outcomes.
func UpdateSummary(task *v1alpha1.PrefetchTask, now time.Time) {
	if IsNewRun(task) || IsUnresolved(task) {
		return
	}
	s := &task.Status
	total := CountTargets(task)
	handed, refused := HandedOverPositions(task)
	// A refused target counts as failed. A retried one no longer does.
	succeeded, failed := countOutcomes(task)
	failed += int32(len(refused))
	isProgress := ptr.Deref(s.Targets.Submitted, -1) != int32(len(handed))
	s.Targets = v1alpha1.TargetCounts{
		Total: countPointer(total), Submitted: countPointer(len(handed)), Succeeded: ptr.To(succeeded), Failed: ptr.To(failed),
	}
	s.JobCount = int32(len(s.Jobs))
	updatePurgeCounts(task)
	observeGeneration(task)
	if IsRunOver(task) && !IsUnseen(task) {
		return
	}
	// The run is finished once every target has succeeded or failed.
	switch {
	case int(succeeded+failed) >= total:
		FinishRun(task, total, int(failed), now)
	case IsRunOver(task) || len(handed) >= total && IsUnreadReported(task): // the report stays until the outcomes can be read
	case len(handed) >= total:
		removeConditions(task, v1alpha1.ConditionStalled, v1alpha1.ConditionQuotaExceeded)
		s.NextAttemptTime = metav1.Time{}
		SetCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionTrue, v1alpha1.ReasonSubmitted, submittedMessage(len(refused)))
		setNotReady(task, v1alpha1.ReasonSubmitted, prefetchingMessage(task))
	default:
		reportProgress(task, isProgress)
	}
}

// countOutcomes returns how many targets of the task's jobs have succeeded, and how many have failed
// and are not queued again.
func countOutcomes(task *v1alpha1.PrefetchTask) (succeeded, failed int32) {
	total := CountTargets(task)
	for i := range task.Status.Jobs {
		if job := &task.Status.Jobs[i]; job.Kind == v1alpha1.JobPrefetch {
			succeeded += job.Succeeded
			failed += job.Failed - int32(len(RetriedPositions(job, total)))
		}
	}
	return succeeded, failed
}

// reportProgress reports what a run does that has targets to hand over: it waits for EdgeOne to
// purge them, or for a call. What the status says about a call or a problem stays.
func reportProgress(task *v1alpha1.PrefetchTask, isProgress bool) {
	switch {
	case task.Status.Submission != nil || hasTrouble(task) || isSuspendReported(task):
	case HasOpenPurge(task) && IsPurgeUnreadReported(task): // the report stays until it can be read
	case HasOpenPurge(task):
		removeConditions(task, v1alpha1.ConditionStalled)
		setNotReady(task, v1alpha1.ReasonPurging, purgingMessage(task))
		SetCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionFalse, v1alpha1.ReasonPurging, "")
	default:
		reportQueued(task, isProgress)
	}
}

// reportQueued reports that the task waits for a call. The queue may already have reported
// what the task waits for. That message stays unless there is progress: the queue would write
// it again.
func reportQueued(task *v1alpha1.PrefetchTask, isProgress bool) {
	removeConditions(task, v1alpha1.ConditionStalled)
	SetCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionFalse, v1alpha1.ReasonWaiting, "")
	if isProgress || ReadyReason(task) != v1alpha1.ReasonWaiting {
		setNotReady(task, v1alpha1.ReasonWaiting, progressMessage(task, QueuedMessage))
	}
}

// hasTrouble reports whether the status names a problem that prevents the submission of
// the task. Only a successful call clears the problem. Outcomes of earlier calls and new
// attempts do not, because the status would alternate between two reasons.
func hasTrouble(task *v1alpha1.PrefetchTask) bool {
	switch ReadyReason(task) {
	case v1alpha1.ReasonThrottled, v1alpha1.ReasonUnavailable, v1alpha1.ReasonDailyQuota, v1alpha1.ReasonBatchQuota,
		v1alpha1.ReasonBudget, v1alpha1.ReasonNotAllowed, v1alpha1.ReasonAccountMissing, v1alpha1.ReasonCredentialsMissing,
		v1alpha1.ReasonCredentialsRefused, v1alpha1.ReasonPermissionDenied, v1alpha1.ReasonZoneNotFound, v1alpha1.ReasonTooLarge:
		return true
	case v1alpha1.ReasonOutcomeUnknown:
		return IsStalledFor(task, v1alpha1.ReasonOutcomeUnknown) && HasRepeatedLosses(task)
	}
	return false
}

// isSuspendReported reports whether the status reports a suspension that the spec still
// asks for.
func isSuspendReported(task *v1alpha1.PrefetchTask) bool {
	return ReadyReason(task) == v1alpha1.ReasonSuspended && IsSuspended(task)
}

// clearTrouble removes the report of a problem after EdgeOne has accepted or settled a
// call.
func clearTrouble(task *v1alpha1.PrefetchTask) {
	removeConditions(task, v1alpha1.ConditionStalled, v1alpha1.ConditionQuotaExceeded)
	task.Status.NextAttemptTime = metav1.Time{}
	if hasTrouble(task) {
		setNotReady(task, v1alpha1.ReasonWaiting, progressMessage(task, QueuedMessage))
	}
}

// FinishRun ends the run with its final conditions. The run is Succeeded without a failed
// target, Failed if all targets failed, and PartiallyFailed otherwise. A run with failed
// targets is Stalled, because only a user can ask for a retry. Ready says what happened,
// Stalled what to do, and Finished adds nothing to its reason.
func FinishRun(task *v1alpha1.PrefetchTask, total, failed int, now time.Time) {
	reason, ready, message, advice := v1alpha1.ReasonSucceeded, metav1.ConditionTrue, fmt.Sprintf("All %d targets are prefetched", total), ""
	switch {
	case failed > 0:
		reason, ready = v1alpha1.ReasonPartiallyFailed, metav1.ConditionFalse
		if failed >= total {
			reason = v1alpha1.ReasonFailed
		}
		message, advice = failedMessage(task, failed, total), countFailed(failed, total)+". "+failureAdvice(task)
	case total == 1:
		message = "The target is prefetched"
	}
	_, refused := HandedOverPositions(task)
	task.Status.CompletionTime = metav1.NewTime(now)
	task.Status.NextAttemptTime = metav1.Time{}
	removeConditions(task, v1alpha1.ConditionQuotaExceeded)
	SetCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionTrue, v1alpha1.ReasonSubmitted, submittedMessage(len(refused)))
	SetCondition(task, v1alpha1.ConditionReady, ready, reason, message)
	SetCondition(task, v1alpha1.ConditionFinished, metav1.ConditionTrue, reason, "")
	setStalled(task, failed > 0, reason, advice)
}

// countPointer converts a count for the status, in which an absent count differs from 0.
func countPointer(n int) *int32 { return ptr.To(int32(n)) }
