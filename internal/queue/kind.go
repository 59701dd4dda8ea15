package queue

import (
	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// isAbout reports whether a task may concern the queue. Most tasks do not purge.
func (q *Queue) isAbout(key types.NamespacedName, task *v1alpha1.PrefetchTask) bool {
	claim := task.Status.Submission
	return q.limits.Kind == v1alpha1.JobPrefetch || taskstate.HasPurge(task) || taskstate.HasOpenPurge(task) ||
		claim != nil && claim.Kind == v1alpha1.JobPurge || q.holders[key].claim != ""
}

// isWaiting reports whether a task waits for a call of the queue's kind.
func (q *Queue) isWaiting(task *v1alpha1.PrefetchTask) bool {
	return taskstate.IsWaiting(task, q.limits.Kind)
}

// awaitsList reports whether a task waits for such a call as soon as its targets are in memory.
func (q *Queue) awaitsList(task *v1alpha1.PrefetchTask) bool {
	return taskstate.AwaitsList(task, q.limits.Kind)
}

// targetsOf returns the list to which the positions of the queue's calls refer.
func (q *Queue) targetsOf(task *v1alpha1.PrefetchTask) []string {
	return taskstate.CallTargets(task, q.limits.Kind)
}

// openPositions returns the positions of a task that the next call may contain.
func (q *Queue) openPositions(task *v1alpha1.PrefetchTask) taskstate.Positions {
	return taskstate.CallPositions(task, q.limits.Kind)
}
