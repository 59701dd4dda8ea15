package taskstate

import (
	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// UnnamedFailure is the outcome of a target that a status counts as failed and does not name
// in failedTargets, so that its reason is unknown.
const UnnamedFailure = "Unnamed"

// NewOutcomes returns the number of targets whose outcome is in the status of after and not in
// that of before, by outcome: Succeeded, a reason of a failed target, or UnnamedFailure. The
// two are consecutive versions of a task. A retried target counts again when it has its next
// outcome. A target that succeeded after it had counted as failed counts as Succeeded as well.
//
// All numbers are exact except that a status names only its first failed targets. Refused
// targets do not need the names: the status has all their positions.
func NewOutcomes(before, after *v1alpha1.PrefetchTask) map[string]int {
	was, is := &before.Status, &after.Status
	if was.Run != is.Run || was.TargetsHash != is.TargetsHash {
		was = &v1alpha1.PrefetchTaskStatus{}
	}
	outcomes := map[string]int{}
	add := func(outcome string, n int) {
		if n > 0 {
			outcomes[outcome] += n
		}
	}
	refusedBefore, _ := ParsePositions(was.RefusedPositions)
	refused, _ := ParsePositions(is.RefusedPositions)
	newlyRefused := len(refused.Minus(refusedBefore))
	unpurged := min(newlyRefused, countUnpurged(after, was))
	add(v1alpha1.FailedRefused, newlyRefused-unpurged)
	add(v1alpha1.FailedPurge, unpurged)
	failed := 0
	for i := range is.Jobs {
		if is.Jobs[i].Kind == v1alpha1.JobPurge {
			continue
		}
		job, old := &is.Jobs[i], v1alpha1.Job{}
		switch {
		case i < len(was.Jobs) && was.Jobs[i].ID == job.ID: // jobs are only ever appended
			old = was.Jobs[i]
		case job.Adopted: // its outcomes were known before the run
			old = *job
		}
		add(v1alpha1.ReasonSucceeded, int(job.Succeeded-old.Succeeded))
		failed += max(0, int(job.Failed-old.Failed))
	}
	for _, reason := range newFailureReasons(was, is) {
		if failed > 0 {
			add(reason, 1)
			failed--
		}
	}
	add(UnnamedFailure, failed)
	return outcomes
}

// NewPurgeOutcomes returns how many purges have their outcome in the status of after and not in
// that of before: Succeeded or Failed. A purge that a retry repeats counts again. The outcomes of
// purges whose run the spec no longer asks for are not known.
func NewPurgeOutcomes(before, after *v1alpha1.PrefetchTask) map[string]int {
	was, is := &before.Status, &after.Status
	if was.Run != is.Run || was.TargetsHash != is.TargetsHash {
		was = &v1alpha1.PrefetchTaskStatus{}
	}
	outcomes := map[string]int{}
	for i := range is.Jobs {
		if is.Jobs[i].Kind != v1alpha1.JobPurge {
			continue
		}
		purged, _ := ParsePositions(is.Jobs[i].PurgedPositions)
		n := len(purged)
		if i < len(was.Jobs) && was.Jobs[i].ID == is.Jobs[i].ID { // jobs are only ever appended
			known, _ := ParsePositions(was.Jobs[i].PurgedPositions)
			n -= len(known)
		}
		if n > 0 {
			outcomes[v1alpha1.ReasonSucceeded] += n
		}
	}
	known, _ := ParsePositions(was.Purge.FailedPositions)
	failed, _ := ParsePositions(is.Purge.FailedPositions)
	if n := len(failed.Minus(known)); n > 0 {
		outcomes[v1alpha1.FailedFailed] = n
	}
	return outcomes
}

// countUnpurged returns how many targets at most failed since the status was because their
// purge failed.
func countUnpurged(task *v1alpha1.PrefetchTask, was *v1alpha1.PrefetchTaskStatus) int {
	before, _ := ParsePositions(was.Purge.FailedPositions)
	failed, _ := ParsePositions(task.Status.Purge.FailedPositions)
	switch n := len(failed.Minus(before)); {
	case n == 0 || purgesOwnTargets(task):
		return n
	}
	return MaxTargets // one purge that fails fails all targets
}

// newFailureReasons returns the reasons of the targets that EdgeOne accepted and that only
// the second status names as failed.
func newFailureReasons(was, is *v1alpha1.PrefetchTaskStatus) (reasons []string) {
	isKnown := make(map[string]bool, len(was.FailedTargets))
	for _, f := range was.FailedTargets {
		isKnown[f.URL] = true
	}
	for _, f := range is.FailedTargets {
		if !isKnown[f.URL] && f.Reason != v1alpha1.FailedRefused && f.Reason != v1alpha1.FailedPurge {
			reasons = append(reasons, f.Reason)
		}
	}
	return reasons
}
