package taskstate

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// IsStalledFor says whether the status says Stalled for this reason.
func IsStalledFor(task *v1alpha1.PrefetchTask, reason string) bool {
	stalled := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionStalled)
	return stalled != nil && stalled.Reason == reason
}

// IsRunOver says whether the status's run is finished.
func IsRunOver(task *v1alpha1.PrefetchTask) bool {
	return IsSlimmed(task) || meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionFinished)
}

// observeGeneration says that the status speaks of the current generation.
func observeGeneration(task *v1alpha1.PrefetchTask) {
	task.Status.ObservedGeneration = task.Generation
	for i := range task.Status.Conditions {
		task.Status.Conditions[i].ObservedGeneration = task.Generation
	}
}

// setNotReady says what comes next for a run that is not over.
func setNotReady(task *v1alpha1.PrefetchTask, reason, message string) {
	SetCondition(task, v1alpha1.ConditionReady, metav1.ConditionFalse, reason, message)
	SetCondition(task, v1alpha1.ConditionFinished, metav1.ConditionFalse, reason, "")
}

func setStalled(task *v1alpha1.PrefetchTask, stalled bool, reason, message string) {
	setPresent(task, v1alpha1.ConditionStalled, stalled, reason, message)
}

// setPresent sets a condition that is there only while it is True. One that stays
// keeps its time, or telling the same again would be a write.
func setPresent(task *v1alpha1.PrefetchTask, conditionType string, isTrue bool, reason, message string) {
	if isTrue {
		SetCondition(task, conditionType, metav1.ConditionTrue, reason, message)
	} else {
		removeConditions(task, conditionType)
	}
}

// SetCondition sets a condition for the task's generation.
func SetCondition(task *v1alpha1.PrefetchTask, conditionType string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&task.Status.Conditions, metav1.Condition{
		Type: conditionType, Status: status, Reason: reason, Message: TruncateMessage(message, MaxMessage), ObservedGeneration: task.Generation,
	})
}

func removeConditions(task *v1alpha1.PrefetchTask, conditionTypes ...string) {
	for _, conditionType := range conditionTypes {
		meta.RemoveStatusCondition(&task.Status.Conditions, conditionType)
	}
}

// ReadyReason returns the reason of the condition Ready, "" if there is none.
func ReadyReason(task *v1alpha1.PrefetchTask) string {
	if ready := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		return ready.Reason
	}
	return ""
}
