// Package preview says what a change of a PrefetchTask makes the operator submit. It uses the
// operator's own rules.
package preview

import (
	"fmt"

	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/progress"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// Preview is what a change of a task makes the operator submit.
type Preview struct {
	// URLs is how many URLs are prefetched, and as many are taken from the quota of the zone.
	// Unknown if the list cannot be read.
	URLs int
	// Purges is how many targets are purged first.
	Purges int
	// IsAtMost says that fewer URLs may be submitted: those that EdgeOne's history shows as prefetched are not.
	IsAtMost bool
	// Nothing is why the change would do nothing, or "".
	Nothing string
	// Notes are what else a user should know.
	Notes []string
}

// Unknown is the number of URLs of a list that cannot be read.
const Unknown = -1

// Retry previews a new value of the retry annotation.
func Retry(task *v1alpha1.PrefetchTask) Preview {
	run := progress.Of(task)
	p := Preview{URLs: run.Failed, Purges: countFailedPurges(task)}
	switch {
	case run.Phase == progress.Succeeded:
		return Preview{Nothing: "no target has failed"}
	case run.Phase == progress.NotFollowed && run.Failed == 0:
		return Preview{Nothing: "no target is known to have failed, because the outcomes cannot be read; rerun submits every target again"}
	case run.Reason == progress.NotObserved:
		return Preview{Nothing: "a new run starts, which submits what failed anyway"}
	case run.Reason == progress.RetryRequested:
		p.Notes = append(p.Notes, "a retry is requested already: "+run.Message)
	case !run.Phase.IsOver():
		p.Notes = append(p.Notes, "the run is not over: what has failed when it ends is submitted again")
	}
	return p.withSuspension(task)
}

// countFailedPurges returns how many targets a retry purges again.
func countFailedPurges(task *v1alpha1.PrefetchTask) int {
	positions, _ := taskstate.ParsePositions(task.Status.Purge.FailedPositions)
	return len(positions)
}

// Resume previews spec.suspend=false.
func Resume(task *v1alpha1.PrefetchTask) Preview {
	if !taskstate.IsSuspended(task) {
		return Preview{Nothing: "it is not suspended"}
	}
	return remaining(task)
}

// Suspend previews spec.suspend=true. Its URLs are those that are not submitted until the task is
// resumed.
func Suspend(task *v1alpha1.PrefetchTask) Preview {
	if taskstate.IsSuspended(task) {
		return Preview{Nothing: "it is suspended already"}
	}
	return remaining(task)
}

// remaining previews the rest of the run that the spec asks for.
func remaining(task *v1alpha1.PrefetchTask) Preview {
	isNew := taskstate.IsNewRun(task)
	p := Preview{IsAtMost: isNew && (!task.Spec.FreshSince.IsZero() || taskstate.IsListEdit(task))}
	switch {
	case taskstate.IsUnresolved(task) && isNew:
		p.URLs = Unknown
	case taskstate.IsUnresolved(task):
		p.URLs = int(ptr.Deref(task.Status.Targets.Total, 0) - ptr.Deref(task.Status.Targets.Submitted, 0))
	default:
		p.URLs = len(taskstate.OpenPositions(task))
		p.Purges = countPurges(task, isNew)
	}
	if !isNew && taskstate.IsRunOver(task) {
		p.URLs, p.Purges = 0, 0
	}
	return p
}

// countPurges returns how many purges the run that the spec asks for has yet to ask for.
func countPurges(task *v1alpha1.PrefetchTask, isNew bool) int {
	switch {
	case !taskstate.HasPurge(task):
		return 0
	case isNew:
		return len(taskstate.CallTargets(task, v1alpha1.JobPurge))
	}
	return taskstate.CountUnpurged(task)
}

// Rerun previews a new value of spec.revision.
func Rerun(task *v1alpha1.PrefetchTask) Preview {
	p := Preview{URLs: Unknown, IsAtMost: !task.Spec.FreshSince.IsZero(), Purges: countPurges(task, true)}
	if !taskstate.IsUnresolved(task) {
		p.URLs = taskstate.CountTargets(task)
	}
	if run := progress.Of(task); !run.Phase.IsOver() && run.Submitted > 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("the run is not over: %d targets are submitted already, and are submitted again", run.Submitted))
	}
	return p.withSuspension(task)
}

// withSuspension adds that a suspended task submits nothing yet.
func (p Preview) withSuspension(task *v1alpha1.PrefetchTask) Preview {
	if taskstate.IsSuspended(task) {
		p.Notes = append(p.Notes, "the task is suspended: nothing is submitted before kubectl teo-prefetch resume "+task.Name)
	}
	return p
}
