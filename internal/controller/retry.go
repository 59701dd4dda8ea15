package controller

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/schedule"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// failures are the positions of a job that failed and were not retried yet. The
// status tells them if it names all of them or the whole job failed; of others
// EdgeOne's listing of the job does, if it still has what the status counted.
func failures(task *v1alpha1.PrefetchTask, job *v1alpha1.Job, listed map[string]teo.PrefetchTask) (failed schedule.Positions, known bool) {
	targets := schedule.Targets(task)
	retried := schedule.Retried(job, len(targets))
	rest := schedule.Covered(job.Targets, len(targets)).Minus(retried)
	count := int(job.Failed) - len(retried)
	if count == len(rest) {
		return rest, true
	}
	for _, i := range rest {
		if slices.ContainsFunc(task.Status.FailedTargets, func(f v1alpha1.FailedTarget) bool { return f.URL == targets[i] }) {
			failed = append(failed, i)
		}
	}
	if len(failed) == count || count < 0 {
		return failed, count >= 0
	}
	failed = nil
	for _, i := range rest {
		if listed[target.Identity(targets[i])].Status != teo.StatusSuccess {
			failed = append(failed, i)
		}
	}
	// One that was late may have succeeded since. More than were counted have not
	// failed since: EdgeOne has forgotten them.
	return failed, len(failed) <= count
}

// retryRoom is how many bytes a status may have for a retry to add to it. Each adds
// the places of what failed three times over, up to 24 KB each, and etcd takes 1.5 MB
// with the spec.
const retryRoom = 256 << 10

// reopen makes what failed of a run that is over wait for a call again. That it was
// asked for is handled by the same write, so that it never happens twice.
func reopen(listed listing, now time.Time) change {
	return func(task *v1alpha1.PrefetchTask) {
		s := &task.Status
		failed := make([]schedule.Positions, len(s.Jobs))
		open := s.RefusedTargets != ""
		for i := range s.Jobs {
			var known bool
			if failed[i], known = failures(task, &s.Jobs[i], listed[s.Jobs[i].ID]); !known {
				retryRefused("EdgeOne's history no longer tells which they were")(task)
				return
			}
			open = open || len(failed[i]) > 0
		}
		s.LastHandledRetry = schedule.Retry(task)
		if !open {
			return
		}
		if text, err := json.Marshal(s); err == nil && len(text) > retryRoom {
			retryRefused("the status has no room for the jobs of one more retry")(task)
			return
		}
		for i, positions := range failed {
			job := &s.Jobs[i]
			retried := schedule.Retried(job, len(schedule.Targets(task)))
			if late := job.Failed - int32(len(retried)+len(positions)); late > 0 { // they have succeeded since
				job.Failed, job.Succeeded = job.Failed-late, job.Succeeded+late
			}
			job.Retried = retried.Union(positions).String()
		}
		s.RefusedTargets, s.FailedTargets, s.CompletionTime = "", nil, metav1.Time{}
		unset(task, v1alpha1.ConditionStalled)
		notReady(task, v1alpha1.ReasonWaiting, "Submitted when its turn comes")
		sum(task, now)
	}
}

// retryRefused says why a retry does nothing. That it was asked for is handled.
func retryRefused(why string) change {
	return func(task *v1alpha1.PrefetchTask) {
		task.Status.LastHandledRetry = schedule.Retry(task)
		sayOfRetry(task, "they cannot be tried again by themselves, as "+why+"; set spec.revision to a new value to submit everything again")
	}
}

// retryWaits says why a retry that is asked for has not begun.
func retryWaits(message string) change {
	return func(task *v1alpha1.PrefetchTask) {
		sayOfRetry(task, "that they are tried again waits: "+message)
	}
}

// sayOfRetry adds to the outcome of a run what becomes of a retry.
func sayOfRetry(task *v1alpha1.PrefetchTask, message string) {
	message = failedOf(int(ptr.Deref(task.Status.Targets.Failed, 0)), int(ptr.Deref(task.Status.Targets.Total, 0))) + "; " + message
	for _, conditionType := range []string{v1alpha1.ConditionReady, v1alpha1.ConditionFinished, v1alpha1.ConditionStalled} {
		if c := meta.FindStatusCondition(task.Status.Conditions, conditionType); c != nil {
			set(task, conditionType, c.Status, c.Reason, message)
		}
	}
}

// refuseRetry begins a retry of a task that EdgeOne cannot be asked about if the
// status tells what failed. Else it says why it does not: for good, where EdgeOne does
// not take the question, or after a while what keeps it from asking.
func (p *Poller) refuseRetry(ctx context.Context, task *v1alpha1.PrefetchTask, message string, forGood, lasting bool) {
	unclear := func(job v1alpha1.Job) bool {
		_, known := failures(task, &job, nil)
		return !known
	}
	switch {
	case !slices.ContainsFunc(task.Status.Jobs, unclear):
		p.write(ctx, task, reopen(nil, time.Now()))
	case forGood:
		p.write(ctx, task, retryRefused("EdgeOne does not tell which they were: "+message))
	case lasting:
		p.write(ctx, task, retryWaits("EdgeOne's history, which tells which they are, cannot be read: "+message))
	}
}

// retried reports that a retry was handled, if that means anything.
func (o *operator) retried(before, after *v1alpha1.PrefetchTask) {
	ready := meta.FindStatusCondition(after.Status.Conditions, v1alpha1.ConditionReady)
	switch {
	case !over(before) || before.Status.LastHandledRetry == after.Status.LastHandledRetry || ready == nil:
	case !over(after):
		o.event(after, corev1.EventTypeNormal, "Retried", "Retry", "What failed is submitted again")
	case ptr.Deref(after.Status.Targets.Failed, 0) > 0:
		o.event(after, corev1.EventTypeWarning, "NotRetried", "Retry", ready.Message)
	}
}
