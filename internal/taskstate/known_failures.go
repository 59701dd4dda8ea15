package taskstate

import (
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// KnownFailures returns the failed targets that the status of a task names: by their URLs, or by
// positions that can only be failures. A target that only a position names has no message, and no
// reason if the position does not tell it. unnamed is how many more targets have failed.
//
// If the targets of the status's run are not in the spec, positions name nothing.
func KnownFailures(task *v1alpha1.PrefetchTask) (failed []v1alpha1.FailedTarget, unnamed int) {
	s := &task.Status
	failed = append(failed, s.FailedTargets...)
	if knowsTargets(task) && (!IsFromConfigMap(task) || HasList(task, HashTargets(task))) {
		failed = addFailedPositions(task, failed)
	}
	return failed, max(0, CountFailures(task)-len(failed))
}

// CountFailures returns how many targets of the status's run have failed. While a new run waits, the
// counts in the status are about that one.
func CountFailures(task *v1alpha1.PrefetchTask) int {
	if !IsNewRun(task) {
		return int(ptr.Deref(task.Status.Targets.Failed, 0))
	}
	_, failed := countOutcomes(task)
	_, refused := HandedOverPositions(task)
	return int(failed) + len(refused)
}

// addFailedPositions adds the targets that only positions name.
func addFailedPositions(task *v1alpha1.PrefetchTask, failed []v1alpha1.FailedTarget) []v1alpha1.FailedTarget {
	targets := DistinctTargets(task)
	isNamed := make(map[string]bool, len(failed))
	for _, f := range failed {
		isNamed[f.URL] = true
	}
	add := func(positions Positions, reason func(position int) string) {
		for _, i := range positions {
			if !isNamed[targets[i]] {
				isNamed[targets[i]] = true
				failed = append(failed, v1alpha1.FailedTarget{URL: targets[i], Reason: reason(i)})
			}
		}
	}
	refused := CoveredPositions(task.Status.RefusedPositions, len(targets))
	add(refused, refusalReason(task))
	for i := range task.Status.Jobs {
		if job := &task.Status.Jobs[i]; job.Kind == v1alpha1.JobPrefetch {
			if f := FailuresOf(task, job, nil); f.isKnown {
				add(f.positions, func(int) string { return "" })
			}
		}
	}
	return failed
}

// refusalReason returns the reason of refused positions: EdgeOne refused their prefetch, or their purge
// failed. The purge of anything else than the targets themselves leaves it open.
func refusalReason(task *v1alpha1.PrefetchTask) func(position int) string {
	unpurged := map[int]bool{}
	if purgesOwnTargets(task) {
		for _, i := range CoveredPositions(task.Status.Purge.FailedPositions, CountTargets(task)) {
			unpurged[i] = true
		}
	}
	return func(i int) string {
		switch {
		case unpurged[i]:
			return v1alpha1.FailedPurge
		case HasPurge(task) && !purgesOwnTargets(task):
			return ""
		}
		return v1alpha1.FailedRefused
	}
}
