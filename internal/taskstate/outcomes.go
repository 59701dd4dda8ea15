package taskstate

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
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
			if job.Kind == v1alpha1.JobPurge {
				continue
			}
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
	positions := CoveredPositions(job.Positions, len(targets))
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
			addFailedTarget(task, targets[i], v1alpha1.FailedNoOutcome, "EdgeOne reported no outcome within --job-deadline")
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
			endUnseen(task, unreadMessage+why+". The run ends without them; the operator rechecks as long as EdgeOne's history shows the jobs", now)
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
	SetCondition(task, v1alpha1.ConditionFinished, metav1.ConditionTrue, v1alpha1.ReasonNotFollowed, "")
	setStalled(task, true, v1alpha1.ReasonNotFollowed, message)
}

// FollowPurges records the outcomes of the task's purges that a pass has read.
func FollowPurges(seen *HistoryRead, limits OutcomeLimits, now time.Time, isRead bool) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		for i := range task.Status.Jobs {
			if job := &task.Status.Jobs[i]; IsPurgeOpen(*job) && seen.HasJob(job.ID) {
				followPurge(task, job, seen, limits)
			}
		}
		if isRead && IsPurgeUnreadReported(task) {
			removeConditions(task, v1alpha1.ConditionStalled)
		}
		UpdateSummary(task, now)
	}
}

// followPurge records the outcomes of a purge. The targets of a purge of an earlier run are not
// known, so that it only ends: when EdgeOne lists each record of it as ended.
func followPurge(task *v1alpha1.PrefetchTask, job *v1alpha1.Job, seen *HistoryRead, limits OutcomeLimits) {
	if !knowsTargets(task) {
		if limits.isPurgeOver(seen, job) {
			positions, _ := ParsePositions(job.Positions)
			job.Succeeded = int32(len(positions)) - job.Failed
		}
		return
	}
	identities, n := CallIdentities(task, v1alpha1.JobPurge), countCallTargets(task, v1alpha1.JobPurge)
	purged, _ := ParsePositions(job.PurgedPositions)
	ended := RetriedPositions(job, n)
	var failed, late Positions
	isOver := limits.isPurgeOver(seen, job)
	isRetried := wasReopenedAfter(task, job.SubmitTime.Add(limits.Deadline))
	for _, i := range CoveredPositions(job.Positions, n).Minus(purged).Minus(ended) {
		switch outcome := limits.JudgeTarget(seen, job, identities[i]); {
		case outcome == TargetSucceeded:
			purged = purged.Union(Positions{i})
		case outcome == TargetUnderWay:
		case outcome == TargetNoOutcome && !isOver && isRetried: // a retry waits for it
		case outcome == TargetNoOutcome && !isOver:
			late = append(late, i) // it has failed, and the purge may still delete it
		case isRetried: // purge it again
			ended = ended.Union(Positions{i})
			job.Failed++
		default:
			failed = append(failed, i)
		}
	}
	job.PurgedPositions, job.RetriedPositions = purged.String(), ended.Union(failed).String()
	job.Succeeded, job.Failed = int32(len(purged)), job.Failed+int32(len(failed))
	known := CoveredPositions(task.Status.Purge.FailedPositions, n)
	failed = failed.Union(late).Minus(known)
	failPurge(task, failed, func(i int) string {
		record, isListed := seen.Listing[job.ID][identities[i]]
		if !isListed || !record.Ended() {
			return "EdgeOne reported no outcome of the purge within --purge-deadline"
		}
		return joinSentences("The purge ended as "+record.Status, record.FailType, record.FailMessage)
	})
}

// wasReopenedAfter reports whether a retry has reopened the run after a time. A new run reopens as
// well, but it has no job that is older.
func wasReopenedAfter(task *v1alpha1.PrefetchTask, at time.Time) bool {
	finished := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionFinished)
	return finished != nil && finished.Status == metav1.ConditionFalse && finished.LastTransitionTime.After(at)
}

// isPurgeOver reports whether EdgeOne no longer executes any part of a purge: every record of it has
// ended. A purge that has not ended after twice its deadline counts as dead.
func (l OutcomeLimits) isPurgeOver(seen *HistoryRead, job *v1alpha1.Job) bool {
	return l.isJobOver(seen, job, 2*l.Deadline)
}

// isJobOver reports whether a pass shows that every record of a job has ended, or that the job is
// older than a limit.
func (l OutcomeLimits) isJobOver(seen *HistoryRead, job *v1alpha1.Job, limit time.Duration) bool {
	isOld := seen.At.Sub(job.SubmitTime.Time) > limit
	if !seen.Whole[job.ID] && !seen.Around[job.ID] {
		return seen.Rejected[job.ID] != nil && isOld
	}
	for _, record := range seen.Listing[job.ID] {
		if !record.Ended() {
			return isOld
		}
	}
	return len(seen.Listing[job.ID]) > 0 || isOld
}

// FollowFormerJobs ends the jobs of the run before, as far as a pass shows that EdgeOne no longer
// fetches anything for them. The targets of that run are not known. If all of a job has succeeded, so
// have they. Otherwise they count as failed: if a user changes the spec back to that run, a retry finds
// out which have succeeded.
func FollowFormerJobs(seen *HistoryRead, limits OutcomeLimits) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		for i := range task.Status.Jobs {
			if job := &task.Status.Jobs[i]; IsJobOpen(*job) && limits.isJobOver(seen, job, limits.Deadline) {
				positions, _ := ParsePositions(job.Positions)
				if seen.hasSucceeded(job.ID) {
					job.Succeeded = int32(len(positions)) - job.Failed
				} else {
					job.Failed = int32(len(positions)) - job.Succeeded
				}
			}
		}
	}
}

// IsJobOpen reports whether outcomes of a job that prefetches are missing.
func IsJobOpen(job v1alpha1.Job) bool {
	if job.Kind == v1alpha1.JobPurge {
		return false
	}
	positions, _ := ParsePositions(job.Positions)
	return int(job.Succeeded+job.Failed) < len(positions)
}
