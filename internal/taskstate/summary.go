package taskstate

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// UpdateSummary derives counts and conditions from what the status holds of the run.
func UpdateSummary(task *v1alpha1.PrefetchTask, now time.Time) {
	if IsNewRun(task) || IsUnresolved(task) {
		return
	}
	s := &task.Status
	total := CountTargets(task)
	handed, refused := HandedOverPositions(task)
	succeeded, failed := int32(0), int32(len(refused))
	for i := range s.Jobs {
		job := &s.Jobs[i]
		succeeded += job.Succeeded
		failed += job.Failed - int32(len(RetriedPositions(job, total)))
	}
	s.Targets = v1alpha1.TargetCounts{
		Total: countPointer(total), Submitted: countPointer(len(handed)), Succeeded: ptr.To(succeeded), Failed: ptr.To(failed),
	}
	s.JobCount = int32(len(s.Jobs))
	observeGeneration(task)
	if IsRunOver(task) && !IsUnseen(task) {
		return
	}
	switch {
	case int(succeeded+failed) >= total:
		FinishRun(task, total, int(failed), now)
	case IsRunOver(task) || len(handed) >= total && IsUnreadReported(task): // until they can be read
	case len(handed) >= total:
		removeConditions(task, v1alpha1.ConditionStalled, v1alpha1.ConditionQuotaExceeded)
		s.NextAttemptTime = metav1.Time{}
		SetCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionTrue, v1alpha1.ReasonSubmitted, "Every target was handed over to EdgeOne")
		setNotReady(task, v1alpha1.ReasonSubmitted, "EdgeOne is prefetching the targets")
	default:
		if s.Submission == nil && !hasTrouble(task) && !isSuspendReported(task) {
			removeConditions(task, v1alpha1.ConditionStalled)
			SetCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionFalse, v1alpha1.ReasonWaiting, "")
			setNotReady(task, v1alpha1.ReasonWaiting, "Queued; will be submitted when its turn comes")
		}
	}
}

// hasTrouble says whether the status names trouble that keeps the task from being
// submitted. News of calls already made does not replace it, and neither does a
// new attempt, only its success: or the status would flap.
func hasTrouble(task *v1alpha1.PrefetchTask) bool {
	switch ReadyReason(task) {
	case v1alpha1.ReasonThrottled, v1alpha1.ReasonUnavailable, v1alpha1.ReasonDailyQuota, v1alpha1.ReasonBatchQuota,
		v1alpha1.ReasonCredentialsMissing, v1alpha1.ReasonCredentialsRefused, v1alpha1.ReasonPermissionDenied, v1alpha1.ReasonTooLarge:
		return true
	case v1alpha1.ReasonOutcomeUnknown:
		return IsStalledFor(task, v1alpha1.ReasonOutcomeUnknown) && HasRepeatedLosses(task)
	}
	return false
}

func isSuspendReported(task *v1alpha1.PrefetchTask) bool {
	return ReadyReason(task) == v1alpha1.ReasonSuspended && IsSuspended(task)
}

// clearTrouble takes back what the status says of trouble: a call went through.
func clearTrouble(task *v1alpha1.PrefetchTask) {
	removeConditions(task, v1alpha1.ConditionStalled, v1alpha1.ConditionQuotaExceeded)
	task.Status.NextAttemptTime = metav1.Time{}
	if hasTrouble(task) {
		setNotReady(task, v1alpha1.ReasonWaiting, "Queued; will be submitted when its turn comes")
	}
}

// FinishRun ends the run.
func FinishRun(task *v1alpha1.PrefetchTask, total, failed int, now time.Time) {
	reason, ready, message := v1alpha1.ReasonSucceeded, metav1.ConditionTrue, fmt.Sprintf("All %d targets are prefetched", total)
	switch {
	case failed > 0 && failed >= total:
		reason, ready, message = v1alpha1.ReasonFailed, metav1.ConditionFalse, failedMessage(failed, total)+retryHint
	case failed > 0:
		reason, ready, message = v1alpha1.ReasonPartiallyFailed, metav1.ConditionFalse, failedMessage(failed, total)+retryHint
	case total == 1:
		message = "The target is prefetched"
	}
	task.Status.CompletionTime = metav1.NewTime(now)
	task.Status.NextAttemptTime = metav1.Time{}
	removeConditions(task, v1alpha1.ConditionQuotaExceeded)
	SetCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionTrue, v1alpha1.ReasonSubmitted, "Every target was handed over to EdgeOne")
	SetCondition(task, v1alpha1.ConditionReady, ready, reason, message)
	SetCondition(task, v1alpha1.ConditionFinished, metav1.ConditionTrue, reason, message)
	setStalled(task, failed > 0, reason, message)
}

func failedMessage(failed, total int) string {
	return fmt.Sprintf("%d of %d targets failed, see status.failedTargets", failed, total)
}

const retryHint = "; a new value of the annotation " + v1alpha1.RetryAnnotation + " tries those again"

func countPointer(n int) *int32 { return ptr.To(int32(n)) }
