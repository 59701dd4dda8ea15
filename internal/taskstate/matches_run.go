package taskstate

import (
	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// MatchesList reports whether the task's run may continue with targets of this hash. A run
// that has submitted nothing may continue with any targets.
func MatchesList(task *v1alpha1.PrefetchTask, hash string) bool {
	return !IsBoundToList(task) || task.Status.TargetsHash == hash
}
