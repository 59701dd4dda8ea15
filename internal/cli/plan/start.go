package plan

import (
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/account"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// startTask returns the task as it waits for its first call, and the beginning of its plan.
func startTask(task Task, store *account.Store, now time.Time) (*v1alpha1.PrefetchTask, *TaskPlan) {
	current := withAccount(task.DeepCopy(), store)
	plan := &TaskPlan{
		Namespace: current.Namespace, Name: current.Name, ZoneID: current.Spec.ZoneID, Mode: modeOf(current),
		Account: taskstate.AccountKeyOf(current).Account, Targets: len(taskstate.DistinctTargets(current)),
	}
	plan.Duplicates = len(current.Spec.Targets) - plan.Targets
	if taskstate.IsSuspended(current) {
		current.Spec.Suspend = nil
		plan.Notes = append(plan.Notes, "the task is suspended: this is what happens when it is resumed")
	}
	if !current.Spec.FreshSince.IsZero() && taskstate.IsNewRun(current) {
		plan.Notes = append(plan.Notes, "at most: targets that EdgeOne has prefetched since freshSince are not submitted")
	}
	switch {
	case taskstate.HasClaim(current) && !taskstate.IsNewRun(current):
		plan.Notes = append(plan.Notes, "a call is under way; the plan assumes that EdgeOne accepts it")
		taskstate.RecordJob("under-way", nil, now)(current)
	case taskstate.IsListEdit(current) && task.Former != nil && !taskstate.IsNewRun(task.Former):
		kept := taskstate.KeepFromHistory(current, ownHistory(task.Former, now), taskstate.FreshURLs{}, taskstate.LastPurges{})
		plan.Kept = kept.Count()
		current.Status.Submission = nil
		taskstate.StartFromHistory(kept, now)(current)
	case taskstate.IsNewRun(current):
		current.Status = v1alpha1.PrefetchTaskStatus{}
		taskstate.StartFromHistory(nil, now)(current)
	default:
		plan.Kept = plan.Targets - len(taskstate.OpenPositions(current))
	}
	return current, plan
}

// ownHistory returns the history of a task's jobs as its status tells it. Failures that the status does
// not name count as prefetched.
func ownHistory(task *v1alpha1.PrefetchTask, now time.Time) *taskstate.HistoryRead {
	read := taskstate.NewHistoryRead(now)
	failed := map[string]bool{}
	for _, f := range task.Status.FailedTargets {
		failed[f.URL] = true
	}
	targets := taskstate.DistinctTargets(task)
	for i := range task.Status.Jobs {
		job := &task.Status.Jobs[i]
		if job.Kind != v1alpha1.JobPrefetch {
			continue
		}
		read.Whole[job.ID] = true
		for _, p := range taskstate.CoveredPositions(job.Positions, len(targets)).Minus(taskstate.RetriedPositions(job, len(targets))) {
			if !failed[targets[p]] {
				read.AddTasks([]teo.Record{{JobID: job.ID, Target: targets[p], Status: teo.StatusSuccess, CreateTime: job.SubmitTime.Time}})
			}
		}
	}
	return read
}
