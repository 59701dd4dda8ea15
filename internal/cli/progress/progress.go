// Package progress reads from the status of a PrefetchTask how far its run is. It decides nothing:
// the operator's conditions say it all, as long as they are about the current spec.
package progress

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// Phase says what a person or a pipeline that waits for a run can expect of it.
type Phase string

const (
	// Running says that the run is not over, and nobody needs to act.
	Running Phase = "Running"
	// Suspended says that the run is not over, and continues when a person resumes it.
	Suspended Phase = "Suspended"
	// Stalled says that the run is not over, and a person needs to act.
	Stalled Phase = "Stalled"
	// Succeeded says that the run is over, and every target is prefetched.
	Succeeded Phase = "Succeeded"
	// Failed says that the run is over, and some or all targets failed.
	Failed Phase = "Failed"
	// NotFollowed says that the run is over, and the outcomes of some targets cannot be known.
	NotFollowed Phase = "NotFollowed"
	// Deleted says that the task was deleted before its run was over.
	Deleted Phase = "Deleted"
)

// IsOver reports whether the run is over.
func (p Phase) IsOver() bool { return p == Succeeded || p == Failed || p == NotFollowed }

// Reasons of a run that is not in the status yet.
const (
	// NotObserved says that the operator has not seen the current spec.
	NotObserved = "NotObserved"
	// RetryRequested says that the operator has not started the retry that an annotation asks for.
	RetryRequested = "RetryRequested"
)

// Progress is how far the run of a task is.
type Progress struct {
	UID   types.UID
	Phase Phase
	// Reason and Message are those of the condition Ready, or say that the status is not
	// about the current spec. With the phase Stalled, Message also says what to do.
	Reason, Message string
	// IsSuspended says that spec.suspend is true. Only then a resume of the task continues it.
	IsSuspended                         bool
	Total, Submitted, Succeeded, Failed int
	NextAttempt                         time.Time
	FailedTargets                       []v1alpha1.FailedTarget
}

// Of returns how far the run of a task is. It needs no targets in the task's spec.
func Of(task *v1alpha1.PrefetchTask) Progress {
	s := &task.Status
	p := Progress{
		UID: task.UID, Phase: Running, IsSuspended: taskstate.IsSuspended(task), NextAttempt: s.NextAttemptTime.Time, FailedTargets: s.FailedTargets,
		Total: int(ptr.Deref(s.Targets.Total, 0)), Submitted: int(ptr.Deref(s.Targets.Submitted, 0)),
		Succeeded: int(ptr.Deref(s.Targets.Succeeded, 0)), Failed: int(ptr.Deref(s.Targets.Failed, 0)),
	}
	ready := current(task, v1alpha1.ConditionReady)
	if s.ObservedGeneration != task.Generation || ready == nil {
		return p.notObserved(task)
	}
	p.Reason, p.Message = ready.Reason, ready.Message
	stalled := current(task, v1alpha1.ConditionStalled)
	isStalled := stalled != nil && stalled.Status == metav1.ConditionTrue
	finished := current(task, v1alpha1.ConditionFinished)
	if finished != nil && finished.Status == metav1.ConditionTrue {
		return p.over(task, ready, stalled)
	}
	if s.Run != "" && taskstate.IsNewRun(task) {
		p.forgetRunBefore(task)
	}
	switch {
	case isStalled:
		p.Phase, p.Message = Stalled, stalled.Message
	case ready.Reason == v1alpha1.ReasonSuspended:
		p.Phase = Suspended
	}
	return p
}

// current returns a condition that is about the current spec, or nil.
func current(task *v1alpha1.PrefetchTask, conditionType string) *metav1.Condition {
	c := meta.FindStatusCondition(task.Status.Conditions, conditionType)
	if c == nil || c.ObservedGeneration != task.Generation {
		return nil
	}
	return c
}

// notObserved returns the progress of a run that the operator does not know: the counts and failures
// in the status are of another run.
func (p Progress) notObserved(task *v1alpha1.PrefetchTask) Progress {
	return Progress{
		UID: p.UID, Phase: Running, Reason: NotObserved, Message: "The status is not about this version of the task yet",
		Total: taskstate.CountTargets(task),
	}
}

// forgetRunBefore counts a run that has not started: until then, the counts and failures in the status are
// those of the run before. The total is 0 if the targets are in a ConfigMap and not in the spec.
func (p *Progress) forgetRunBefore(task *v1alpha1.PrefetchTask) {
	p.Total, p.Submitted, p.Succeeded, p.Failed, p.FailedTargets = taskstate.CountTargets(task), 0, 0, 0, nil
}

// over returns the progress of a run that is over, unless its failed targets are to be retried.
func (p Progress) over(task *v1alpha1.PrefetchTask, ready, stalled *metav1.Condition) Progress {
	switch {
	case ready.Status == metav1.ConditionTrue:
		p.Phase = Succeeded
	case ready.Status == metav1.ConditionUnknown:
		p.Phase = NotFollowed
	default:
		p.Phase = Failed
	}
	retry := taskstate.RequestedRetry(task)
	if p.Phase == Succeeded || retry == "" || retry == task.Status.LastHandledRetry {
		return p
	}
	// Stalled has the reason of the outcome, or that for which a person must act before the retry.
	p.Phase, p.Reason, p.Message = Running, RetryRequested, "The operator has not started the retry yet. "+p.Message
	if stalled != nil && stalled.Reason != ready.Reason {
		p.Phase, p.Message = Stalled, stalled.Message
	}
	return p
}
