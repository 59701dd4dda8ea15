package taskstate

import (
	"maps"
	"strconv"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// An elided task is a copy in memory without its targets. It keeps what has to be known
// of them as annotations that the API server refuses, so that no user can write them.
// Nothing is written from these annotations either: a write sends the status alone.
const (
	elidedRun   = "\x00run"
	elidedCount = "\x00targets"
)

// ElideTargets returns a copy of a task whose spec has targets, without them. IsNewRun, Open and
// the counts of its status are the same for both; only the URLs are unknown.
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

// IsElided says whether the task's targets are in its spec and were left out in memory.
func IsElided(task *v1alpha1.PrefetchTask) bool {
	return len(task.Spec.Targets) == 0 && task.Annotations[elidedRun] != ""
}

// AwaitsList says whether a task wants a call as soon as its list is in memory.
func AwaitsList(task *v1alpha1.PrefetchTask) bool { return IsElided(task) && NeedsCall(task) }

// CountTargets is the number of distinct targets of a task, 0 if it is not known.
func CountTargets(task *v1alpha1.PrefetchTask) int {
	if IsElided(task) {
		n, _ := strconv.Atoi(task.Annotations[elidedCount]) // Elide wrote it
		return n
	}
	return len(DistinctTargets(task))
}

// MaxCachedTargets is the size of a task's target list, in bytes, up to which the cache keeps
// it. Longer lists are read when they are needed.
const MaxCachedTargets = 16 << 10

// HasLongList says whether the list in the task's spec is too long for the cache.
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

// LacksTargets says whether the targets of this version are not in memory.
func LacksTargets(task *v1alpha1.PrefetchTask) bool {
	return IsUnresolved(task) || IsElided(task)
}

// WithTargets returns a copy of the task that has these targets in its spec.
func WithTargets(task *v1alpha1.PrefetchTask, targets []v1alpha1.Target) *v1alpha1.PrefetchTask {
	resolved := *task
	resolved.Spec.Targets = targets
	return &resolved
}
