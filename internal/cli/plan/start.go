package plan

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/account"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// startTask returns the task as it waits for its next call, and the beginning of its plan. What is
// under way has succeeded.
func startTask(task Task, store *account.Store, now time.Time) (*v1alpha1.PrefetchTask, *TaskPlan) {
	current := withAccount(withOwnStatus(task.PrefetchTask), store)
	plan := &TaskPlan{
		Namespace: current.Namespace, Name: current.Name, ZoneID: current.Spec.ZoneID, Mode: modeOf(current),
		Account: taskstate.AccountKeyOf(current).Account, Targets: len(taskstate.DistinctTargets(current)),
	}
	plan.Duplicates = len(current.Spec.Targets) - plan.Targets
	plan.Suspended = taskstate.IsSuspended(current)
	current.Spec.Suspend = nil
	if !current.Spec.FreshSince.IsZero() && taskstate.IsNewRun(current) {
		plan.addNote("at most: targets that EdgeOne has prefetched since freshSince are not submitted")
	}
	isOver := taskstate.IsRunOver(current)
	switch {
	case taskstate.IsListEdit(current) && hasFormerTargets(task.Former):
		former := withOwnStatus(task.Former)
		endCalls(former, now)
		history, unnamed := readStatus(former, now)
		current.Status = former.Status
		kept := taskstate.KeepFromHistory(current, history, taskstate.FreshURLs{}, taskstate.LastPurges{})
		taskstate.StartFromHistory(kept, now)(current)
		plan.noteUnnamed(unnamed)
	case taskstate.IsNewRun(current):
		if taskstate.IsListEdit(current) {
			plan.addNote("at most: what the run before has prefetched is not submitted again, and its list is not known here")
		}
		current.Status = v1alpha1.PrefetchTaskStatus{}
		taskstate.StartFromHistory(nil, now)(current)
	case taskstate.IsRetryDue(current):
		plan.noteUnnamed(retryFailed(current, now))
	default:
		if taskstate.HasClaim(current) {
			plan.addNote("a call is under way; the plan assumes that EdgeOne accepts it")
		}
		endCalls(current, now)
		if asked := taskstate.RequestedRetry(current); !isOver && asked != "" && asked != current.Status.LastHandledRetry {
			plan.addNote("a retry is requested: what has failed when the run is over is submitted again, and is not in the plan")
		}
	}
	if !taskstate.IsRunOver(current) { // the queue reports no reason that the status already has
		meta.RemoveStatusCondition(&current.Status.Conditions, v1alpha1.ConditionReady)
	}
	plan.Kept = plan.Targets - len(taskstate.OpenPositions(current))
	return current, plan
}

// withOwnStatus returns a copy of a task that shares the list of targets, from which much is derived.
func withOwnStatus(task *v1alpha1.PrefetchTask) *v1alpha1.PrefetchTask {
	copied := *task
	copied.Status = *task.Status.DeepCopy()
	return &copied
}

// waitsForUser reports whether nothing of a task is submitted until a user acts.
func waitsForUser(task *v1alpha1.PrefetchTask) bool {
	return taskstate.IsSuspended(task) || findStall(task) != nil
}

// findStall returns the condition with what a user has to do before targets of the current spec can be
// submitted, or nil. The failures of a run that is over keep nothing from being submitted.
func findStall(task *v1alpha1.PrefetchTask) *metav1.Condition {
	stalled := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionStalled)
	if stalled == nil || stalled.ObservedGeneration != task.Generation || taskstate.IsRunOver(task) && stalled.Reason == taskstate.ReadyReason(task) {
		return nil
	}
	return stalled
}

// noteHeld says why nothing of a task is submitted now, and what its plan is about.
func (p *TaskPlan) noteHeld(task *v1alpha1.PrefetchTask) {
	stalled := findStall(task)
	switch {
	case !task.DeletionTimestamp.IsZero():
		p.addNote("the task is being deleted: nothing is submitted")
	case p.Suspended:
		p.addNote("the task is suspended: this is what happens when it is resumed")
	case stalled != nil && p.Kept < p.Targets && p.Reason != stalled.Reason:
		p.addNote(fmt.Sprintf("the task is Stalled (%s), and the plan is what happens when a user has mended it: %s", stalled.Reason, stalled.Message))
	}
}

// hasFormerTargets reports whether the list of the run in the status of a task is known.
func hasFormerTargets(former *v1alpha1.PrefetchTask) bool {
	return former != nil && !taskstate.IsUnresolved(former) && !taskstate.IsNewRun(former)
}

// endCalls makes what is under way of the run of a task succeed: the call of a claim, and purges.
func endCalls(task *v1alpha1.PrefetchTask, now time.Time) {
	if taskstate.HasClaim(task) {
		taskstate.RecordJob("under-way", nil, now)(task)
	}
	endPurges(task)
	taskstate.UpdateSummary(task, now)
}

// endPurges makes the purges that EdgeOne has accepted succeed.
func endPurges(task *v1alpha1.PrefetchTask) {
	for i := range task.Status.Jobs {
		if job := &task.Status.Jobs[i]; taskstate.IsPurgeOpen(*job) {
			positions, _ := taskstate.ParsePositions(job.Positions)
			job.PurgedPositions, job.Succeeded = job.Positions, int32(len(positions))-job.Failed
		}
	}
}

// retryFailed opens the failed targets of a finished run, as a retry does. It returns how many of them
// the status does not name.
func retryFailed(task *v1alpha1.PrefetchTask, now time.Time) (unnamed int) {
	history, unnamed := readStatus(task, now)
	failed := map[string]taskstate.JobFailures{}
	for i := range task.Status.Jobs {
		job := &task.Status.Jobs[i]
		failed[job.ID] = taskstate.FailuresOf(task, job, history)
	}
	taskstate.ReopenFailed(failed, now)(task)
	return unnamed
}

// readStatus returns what EdgeOne's history says of the jobs of a task, as far as the status tells it.
// What has not failed has succeeded. The status may count more failures than it names (unnamed): the
// last targets of a job stand for these.
func readStatus(task *v1alpha1.PrefetchTask, now time.Time) (read *taskstate.HistoryRead, unnamed int) {
	read = taskstate.NewHistoryRead(now)
	isNamed := map[string]bool{}
	for _, f := range task.Status.FailedTargets {
		isNamed[f.URL] = true
	}
	targets := taskstate.DistinctTargets(task)
	for i := range task.Status.Jobs {
		job := &task.Status.Jobs[i]
		if job.Kind != v1alpha1.JobPrefetch {
			continue
		}
		read.Whole[job.ID] = true
		retried := taskstate.RetriedPositions(job, len(targets))
		failures := int(job.Failed) - len(retried)
		var others taskstate.Positions // that the status does not name
		for _, p := range taskstate.CoveredPositions(job.Positions, len(targets)).Minus(retried) {
			if isNamed[targets[p]] {
				failures--
			} else {
				others = append(others, p)
			}
		}
		guessed := min(max(failures, 0), len(others))
		unnamed += guessed
		for _, p := range others[:len(others)-guessed] {
			read.AddTasks([]teo.Record{{JobID: job.ID, Target: targets[p], Status: teo.StatusSuccess, CreateTime: job.SubmitTime.Time}})
		}
	}
	return read, unnamed
}

// addNote adds what else to know, once.
func (p *TaskPlan) addNote(note string) {
	if !slices.Contains(p.Notes, note) {
		p.Notes = append(p.Notes, note)
	}
}

// noteUnnamed says that the plan knows the number of some failed targets only.
func (p *TaskPlan) noteUnnamed(unnamed int) {
	if unnamed > 0 {
		p.addNote(fmt.Sprintf("the status names not all failed targets: other targets of the list stand for %d of them", unnamed))
	}
}
