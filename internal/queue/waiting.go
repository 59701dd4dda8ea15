package queue

import (
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

// isWritten says whether the task's status has the note already. A later time of the
// next attempt alone is not worth a write more often than once a day.
func (n WaitingStatus) isWritten() bool {
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
