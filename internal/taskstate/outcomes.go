package taskstate

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// FollowJobs records the outcomes of the task's jobs that a pass has read. If isRead, the
// pass could read all jobs, and the status stops reporting unreadable outcomes. If EdgeOne
// has forgotten all jobs with missing outcomes, the run ends.
func FollowJobs(seen *HistoryRead, limits OutcomeLimits, now time.Time, isRead bool) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		targets := DistinctTargets(task)
		forgotten, missing := 0, 0 // numbers of jobs
		for i := range task.Status.Jobs {
			job := &task.Status.Jobs[i]
			if followJob(task, job, targets, seen, limits) {
				forgotten++
			}
			if IsJobOpen(*job) {
				missing++
			}
		}
		if isRead && IsUnreadReported(task) {
			removeConditions(task, v1alpha1.ConditionStalled)
		}
		UpdateSummary(task, now)
		if forgotten > 0 && forgotten == missing {
			EndForgotten(now)(task)
		}
	}
}

// failedReasons maps EdgeOne's status of a target to the reason of a failed target.
var failedReasons = map[string]string{
	teo.StatusFailed:   v1alpha1.FailedFailed,
	teo.StatusTimeout:  v1alpha1.FailedTimeout,
	teo.StatusCanceled: v1alpha1.FailedCanceled,
	teo.StatusInvalid:  v1alpha1.FailedInvalid,
}

// followJob updates the counts of a job. It reports whether EdgeOne's history no longer
// shows the remaining outcomes of the job. The number of ended targets never decreases: a
// pass that shows fewer is incomplete.
func followJob(task *v1alpha1.PrefetchTask, job *v1alpha1.Job, targets []string, seen *HistoryRead, limits OutcomeLimits) (isForgotten bool) {
	positions := CoveredPositions(job.Targets, len(targets))
	if int(job.Succeeded+job.Failed) >= len(positions) || seen.Listing[job.ID] == nil && !seen.Whole[job.ID] {
		return false
	}
	outcomes := make([]JobOutcome, len(positions))
	var counts [TargetForgotten + 1]int32
	for n, i := range positions {
		outcomes[n] = limits.JudgeTarget(seen, job, target.Identity(targets[i]))
		counts[outcomes[n]]++
	}
	if counts[TargetForgotten] > 0 && counts[TargetUnderWay] == 0 {
		isForgotten = true // every other target of the job has its outcome
	}
	ended := counts[TargetSucceeded] + counts[TargetFailed] + counts[TargetNoOutcome]
	// A pass with fewer outcomes than the status is incomplete. The counts stay.
	if ended < job.Succeeded+job.Failed {
		return isForgotten
	}
	job.Succeeded, job.Failed = counts[TargetSucceeded], ended-counts[TargetSucceeded]
	for n, i := range positions {
		switch outcomes[n] {
		case TargetFailed:
			record := seen.Listing[job.ID][target.Identity(targets[i])]
			addFailedTarget(task, targets[i], failedReasons[record.Status], joinSentences(record.FailType, record.FailMessage))
		case TargetNoOutcome:
			addFailedTarget(task, targets[i], v1alpha1.FailedNoOutcome, "EdgeOne named no outcome before the deadline")
		case TargetUnderWay, TargetSucceeded, TargetForgotten:
		}
	}
	return isForgotten
}

// EndNotFollowed ends a run whose outcomes cannot be read. The operator continues to read
// them, less often. If it succeeds, the outcomes count.
func EndNotFollowed(why string, now time.Time) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		UpdateSummary(task, now)
		if !IsRunOver(task) {
			endUnseen(task, unreadMessage+why+". The run ends without them; they are looked at again while EdgeOne's history shows them", now)
		}
	}
}

// EndForgotten ends a run whose outcomes EdgeOne's history no longer shows. It does not
// replace an outcome that is known.
func EndForgotten(now time.Time) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		if !IsRunOver(task) || IsUnseen(task) {
			endUnseen(task, "Every target was handed over, but EdgeOne's history no longer shows the outcomes of all", now)
		}
	}
}

// endUnseen ends a run with the outcome unknown. A run with an open call or open targets
// does not end.
func endUnseen(task *v1alpha1.PrefetchTask, message string, now time.Time) {
	if task.Status.Submission != nil || len(OpenPositions(task)) > 0 {
		return
	}
	// The completion time stays if the run ended before: the TTL counts from it.
	if task.Status.CompletionTime.IsZero() {
		task.Status.CompletionTime = metav1.NewTime(now)
	}
	SetCondition(task, v1alpha1.ConditionReady, metav1.ConditionUnknown, v1alpha1.ReasonNotFollowed, message)
	SetCondition(task, v1alpha1.ConditionFinished, metav1.ConditionTrue, v1alpha1.ReasonNotFollowed, message)
	setStalled(task, true, v1alpha1.ReasonNotFollowed, message)
}

// IsJobOpen reports whether outcomes of a job are missing.
func IsJobOpen(job v1alpha1.Job) bool {
	positions, _ := ParsePositions(job.Targets)
	return int(job.Succeeded+job.Failed) < len(positions)
}
