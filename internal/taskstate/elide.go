package taskstate

import (
	"maps"
	"strconv"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// An elided task is a copy in memory without its targets. Annotations keep the hash of
// its run and the number of its targets. The API server refuses the names of these
// annotations, so no user can set them. The operator never writes them either: a write
// sends the status alone.
const (
	elidedRun   = "\x00run"
	elidedCount = "\x00targets"
)

// ElideTargets returns a copy of a task without the targets in its spec. IsNewRun,
// OpenPositions and the counts of the status have the same result for both. Only the URLs
// are unknown in the copy.
func ElideTargets(task *v1alpha1.PrefetchTask) *v1alpha1.PrefetchTask {
	elided := *task
	elided.Annotations = maps.Clone(task.Annotations)
	if elided.Annotations == nil {
		elided.Annotations = map[string]string{}
	}
	elided.Annotations[elidedRun], elided.Annotations[elidedCount] = RunHash(task), strconv.Itoa(len(DistinctTargets(task)))
	elided.Spec.Targets = nil
	return &elided
}

// IsElided reports whether the targets in the task's spec were left out in memory.
func IsElided(task *v1alpha1.PrefetchTask) bool {
	return len(task.Spec.Targets) == 0 && task.Annotations[elidedRun] != ""
}

// AwaitsList reports whether a task needs a call of a kind as soon as its target list is in
// memory.
func AwaitsList(task *v1alpha1.PrefetchTask, kind v1alpha1.JobKind) bool {
	return IsElided(task) && NeedsCallOf(task, kind)
}

// CountTargets returns the number of distinct targets of a task, or 0 if it is unknown.
func CountTargets(task *v1alpha1.PrefetchTask) int {
	if IsElided(task) {
		n, _ := strconv.Atoi(task.Annotations[elidedCount]) // ElideTargets wrote it
		return n
	}
	return len(DistinctTargets(task))
}

// MaxCachedTargets is the largest size of a target list that the cache keeps, in bytes.
// The operator reads longer lists when it needs them.
const MaxCachedTargets = 16 << 10

// HasLongList reports whether the target list in the task's spec is too long for the
// cache.
func HasLongList(task *v1alpha1.PrefetchTask) bool {
	return !IsFromConfigMap(task) && TargetsSize(task) > MaxCachedTargets
}

// TargetsSize returns the size of the task's targets, in bytes.
func TargetsSize(task *v1alpha1.PrefetchTask) (size int) {
	for _, u := range task.Spec.Targets {
		size += len(u)
	}
	return size
}

// LacksTargets reports whether the targets of this version of the task are not in memory.
func LacksTargets(task *v1alpha1.PrefetchTask) bool {
	return IsUnresolved(task) || IsElided(task)
}

// WithTargets returns a copy of the task with these targets in its spec.
func WithTargets(task *v1alpha1.PrefetchTask, targets []v1alpha1.Target) *v1alpha1.PrefetchTask {
	resolved := *task
	resolved.Spec.Targets = targets
	return &resolved
}
