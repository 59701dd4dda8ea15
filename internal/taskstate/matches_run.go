package taskstate

import (
	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// MatchesList says whether the task's run may go on with targets of this hash.
func MatchesList(task *v1alpha1.PrefetchTask, hash string) bool {
	return !IsBoundToList(task) || task.Status.TargetsHash == hash
}
