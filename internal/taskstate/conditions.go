package taskstate

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// IsStalledFor reports whether the condition Stalled has this reason.
func IsStalledFor(task *v1alpha1.PrefetchTask, reason string) bool {
	stalled := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionStalled)
	return stalled != nil && stalled.Reason == reason
}

// IsRunOver reports whether the status's run is finished. The spec may already ask for a
// new run; IsFinished takes that into account.
func IsRunOver(task *v1alpha1.PrefetchTask) bool {
	return IsSlimmed(task) || meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionFinished)
}

// observeGeneration marks the status and its conditions as current for the task's
// generation.
func observeGeneration(task *v1alpha1.PrefetchTask) {
	task.Status.ObservedGeneration = task.Generation
	for i := range task.Status.Conditions {
		task.Status.Conditions[i].ObservedGeneration = task.Generation
	}
}

// setNotReady sets the reason and message of a run that is not finished.
func setNotReady(task *v1alpha1.PrefetchTask, reason, message string) {
	SetCondition(task, v1alpha1.ConditionReady, metav1.ConditionFalse, reason, message)
	SetCondition(task, v1alpha1.ConditionFinished, metav1.ConditionFalse, reason, "")
}

// setStalled sets or removes the condition Stalled. It is present, and True, only while
// user action is required.
func setStalled(task *v1alpha1.PrefetchTask, stalled bool, reason, message string) {
	setPresent(task, v1alpha1.ConditionStalled, stalled, reason, message)
}

// setPresent sets a condition that is present only while it is True. A condition that
// stays keeps its transition time: a new time for the same report would cost a write.
func setPresent(task *v1alpha1.PrefetchTask, conditionType string, isTrue bool, reason, message string) {
	if isTrue {
		SetCondition(task, conditionType, metav1.ConditionTrue, reason, message)
	} else {
		removeConditions(task, conditionType)
	}
}

// SetCondition sets a condition for the task's generation. It truncates the message to
// MaxMessage.
func SetCondition(task *v1alpha1.PrefetchTask, conditionType string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&task.Status.Conditions, metav1.Condition{
		Type: conditionType, Status: status, Reason: reason, Message: TruncateMessage(message, MaxMessage), ObservedGeneration: task.Generation,
	})
}

// removeConditions removes conditions by type.
func removeConditions(task *v1alpha1.PrefetchTask, conditionTypes ...string) {
	for _, conditionType := range conditionTypes {
		meta.RemoveStatusCondition(&task.Status.Conditions, conditionType)
	}
}

// ReadyReason returns the reason of the condition Ready, or "" if there is none.
func ReadyReason(task *v1alpha1.PrefetchTask) string {
	if ready := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		return ready.Reason
	}
	return ""
}
