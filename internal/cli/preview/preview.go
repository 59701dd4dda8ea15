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
	// Unknown if the list cannot be read, or if it depends on outcomes that are not known yet.
	URLs int
	// Purges is how many targets are purged first.
	Purges int
	// IsAtMost says that fewer URLs may be submitted: those that EdgeOne's history shows as prefetched are not.
	IsAtMost bool
	// Nothing is why the change would do nothing, or "".
	Nothing string
	// Cause is what makes an update start a new run, or "".
	Cause string
	// Notes are what else a user should know.
	Notes []string
}

// Unknown is the number of URLs that nobody can count yet.
const Unknown = -1

// Retry previews a new value of the retry annotation. The counts in the status stay those of the run
// after an edit that starts no new one, also before the operator has seen it.
func Retry(task *v1alpha1.PrefetchTask) Preview {
	failed := int(ptr.Deref(task.Status.Targets.Failed, 0))
	p := Preview{URLs: failed, Purges: countFailedPurges(task)}
	switch {
	case taskstate.IsNewRun(task):
		return Preview{Nothing: "a new run waits for its start, and submits what has failed anyway"}
	case !taskstate.IsFinished(task):
		p = Preview{URLs: Unknown, Notes: []string{fmt.Sprintf("the run is not over: what has failed when it ends is submitted again (so far %d targets)", failed)}}
	case failed == 0 && taskstate.IsUnseen(task):
		return Preview{Nothing: "no target is known to have failed, because the outcomes cannot be read; rerun submits every target again"}
	case failed == 0:
		return Preview{Nothing: "no target has failed"}
	}
	if retry := taskstate.RequestedRetry(task); retry != "" && retry != task.Status.LastHandledRetry {
		p.Notes = append(p.Notes, "a retry is requested already: "+progress.Of(task).Message)
	}
	return p
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

// Rerun previews a value of spec.revision.
func Rerun(task *v1alpha1.PrefetchTask, revision string) Preview {
	if revision == task.Spec.Revision {
		return Preview{Nothing: fmt.Sprintf("its revision is %q already; another revision submits every target again", revision)}
	}
	p := Preview{URLs: Unknown, IsAtMost: !task.Spec.FreshSince.IsZero(), Purges: countPurges(task, true)}
	if !taskstate.IsUnresolved(task) {
		p.URLs = taskstate.CountTargets(task)
	}
	if submitted := ptr.Deref(task.Status.Targets.Submitted, 0); submitted > 0 && !taskstate.IsRunOver(task) && !taskstate.IsNewRun(task) {
		p.Notes = append(p.Notes, fmt.Sprintf("the run is not over: %d targets are submitted already, and are submitted again", submitted))
	}
	return p
}
