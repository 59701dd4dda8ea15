package taskstate

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// namedFailures returns the failed positions of a job that the status names and no retry
// has reopened. It also returns all positions that could have failed (rest) and the number
// of failures (count). isCertain reports that named has every failure, and that EdgeOne
// reported each of them.
func namedFailures(task *v1alpha1.PrefetchTask, job *v1alpha1.Job) (named, rest Positions, count int, isCertain bool) {
	targets := DistinctTargets(task)
	retried := RetriedPositions(job, len(targets))
	rest = CoveredPositions(job.Positions, len(targets)).Minus(retried)
	count = int(job.Failed) - len(retried)
	reasons := make(map[string]string, len(task.Status.FailedTargets))
	for _, f := range task.Status.FailedTargets {
		reasons[f.URL] = f.Reason
	}
	isCertain = true
	for _, i := range rest {
		if reason := reasons[targets[i]]; reason != "" {
			named = append(named, i)
			isCertain = isCertain && reason != v1alpha1.FailedNoOutcome
		}
	}
	return named, rest, count, isCertain && len(named) == count
}

// NamesAllFailures reports whether the status names all failed targets of a job, and
// EdgeOne reported each of these failures. A target without an outcome may have succeeded
// since, so it is not certain.
func NamesAllFailures(task *v1alpha1.PrefetchTask, job *v1alpha1.Job) bool {
	_, _, _, isCertain := namedFailures(task, job)
	return isCertain
}

// JobFailures is the set of a job's targets that a retry submits again.
type JobFailures struct {
	positions Positions
	isKnown   bool // positions has all failures; nothing is retried otherwise
}

// FailuresOf returns the failed targets of a job that no retry has reopened. If the status
// names them with certainty, FailuresOf takes them from the status. Otherwise, it takes
// them from EdgeOne's records of the job, if these still cover the failures that the
// status counts.
//
// Without a read (seen is nil), the status is enough if it names as many failures as it
// counts, or if the whole job failed. Targets that have succeeded since then count as
// failed.
func FailuresOf(task *v1alpha1.PrefetchTask, job *v1alpha1.Job, seen *HistoryRead) JobFailures {
	named, rest, count, isCertain := namedFailures(task, job)
	switch {
	case isCertain:
		return JobFailures{named, true}
	case count < 0:
		return JobFailures{}
	case seen == nil && len(named) == count:
		return JobFailures{named, true}
	case seen == nil:
		return JobFailures{rest, len(rest) == count}
	}
	var failed Positions
	targets := DistinctTargets(task)
	for _, i := range rest {
		if seen.Listing[job.ID][target.Identity(targets[i])].Status != teo.StatusSuccess {
			failed = append(failed, i)
		}
	}
	// A late target may have succeeded since, so there can be fewer failures than the
	// status counts. More failures mean that EdgeOne has forgotten targets.
	return JobFailures{failed, len(failed) <= count}
}

// HasWholeJob reports whether the pass has read every target of a job that can have
// failed.
func (r *HistoryRead) HasWholeJob(task *v1alpha1.PrefetchTask, job *v1alpha1.Job) bool {
	if r.Whole[job.ID] || r.Listing[job.ID] == nil {
		return r.Whole[job.ID]
	}
	_, rest, _, _ := namedFailures(task, job)
	targets := DistinctTargets(task)
	return !slices.ContainsFunc(rest, func(i int) bool {
		_, isListed := r.Listing[job.ID][target.Identity(targets[i])]
		return !isListed
	})
}

// ReopenFailed queues the failed targets of a finished run again. Targets that have
// succeeded since then count as succeeded. The same write marks the requested retry as
// handled, so that the retry never happens twice. Targets whose purge failed are purged again. The
// targets of a failed prefetch are purged already, and are only prefetched.
//
// read holds the failures that were read from EdgeOne's history, by job.
func ReopenFailed(read map[string]JobFailures, now time.Time) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		s := &task.Status
		failed := make([]Positions, len(s.Jobs))
		isOpen, isNews := s.RefusedPositions != "" || s.Purge.FailedPositions != "", false
		for i := range s.Jobs {
			if s.Jobs[i].Kind == v1alpha1.JobPurge {
				continue // it says itself what has failed
			}
			f, isRead := read[s.Jobs[i].ID]
			if !isRead {
				f = FailuresOf(task, &s.Jobs[i], nil)
			}
			if !f.isKnown {
				retryRefused("EdgeOne's history no longer shows which they were")(task)
				return
			}
			failed[i] = f.positions
			isOpen = isOpen || len(f.positions) > 0
			isNews = isNews || succeededSince(task, &s.Jobs[i], f.positions) > 0
		}
		// Without a failure or a late success, the retry is handled and nothing changes.
		s.LastHandledRetry = RequestedRetry(task)
		if !isOpen && !isNews {
			return
		}
		opened := s.DeepCopy()
		opened.RefusedPositions, opened.FailedTargets, opened.CompletionTime = "", nil, metav1.Time{}
		opened.Purge.FailedPositions = ""
		for i, positions := range failed {
			job := &opened.Jobs[i]
			if job.Kind == v1alpha1.JobPurge {
				continue
			}
			late := succeededSince(task, job, positions)
			job.Failed, job.Succeeded = job.Failed-late, job.Succeeded+late
			job.RetriedPositions = RetriedPositions(job, len(DistinctTargets(task))).Union(positions).String()
		}
		// A retry adds its positions up to three times, at most 24 KB each time.
		if isOpen && JSONSize(opened) > MaxStatus {
			retryRefused("the status has no room for the jobs of one more retry")(task)
			return
		}
		*s = *opened
		removeConditions(task, v1alpha1.ConditionStalled)
		setNotReady(task, v1alpha1.ReasonWaiting, progressMessage(task, QueuedMessage))
		UpdateSummary(task, now)
	}
}

// succeededSince returns how many targets of a job counted as failed and have succeeded
// since. failed has the positions that are still failed.
func succeededSince(task *v1alpha1.PrefetchTask, job *v1alpha1.Job, failed Positions) int32 {
	retried := RetriedPositions(job, len(DistinctTargets(task)))
	return max(0, job.Failed-int32(len(retried)+len(failed)))
}

// retryRefused reports why a retry does nothing. The requested retry counts as handled, so
// the task does not ask for it again.
func retryRefused(why string) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		task.Status.LastHandledRetry = RequestedRetry(task)
		reportRetry(task, "", "The failed targets cannot be retried alone: "+why+". Set spec.revision to a new value to submit everything again")
	}
}

// RetryWaits reports why a requested retry has not started, and whether a user must act
// before it can.
func RetryWaits(why Cause, stalled bool) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		reason := ""
		if stalled || IsStalledFor(task, why.Reason) {
			reason = why.Reason
		}
		reportRetry(task, reason, retryPendingMessage+why.FullMessage())
	}
}

// retryPendingMessage is in each message of RetryWaits. IsRetryPendingReported recognizes it.
const retryPendingMessage = "Retry pending: "

// IsRetryPendingReported reports whether the status says why a requested retry has not started.
func IsRetryPendingReported(task *v1alpha1.PrefetchTask) bool {
	ready := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && IsRunOver(task) && strings.Contains(ready.Message, retryPendingMessage)
}

// reportRetry adds the state of a retry to the outcome of a run. The status of each
// condition stays. The condition Stalled has the reason for which a user must act before the
// retry can start, or otherwise that of the outcome.
func reportRetry(task *v1alpha1.PrefetchTask, stalledReason, message string) {
	failed := countFailed(int(ptr.Deref(task.Status.Targets.Failed, 0)), int(ptr.Deref(task.Status.Targets.Total, 0)))
	ready := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionReady)
	if ready != nil {
		SetCondition(task, ready.Type, ready.Status, ready.Reason, failed+". "+message)
	}
	if stalled := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionStalled); stalled != nil && ready != nil {
		SetCondition(task, stalled.Type, stalled.Status, cmp.Or(stalledReason, ready.Reason), failed+". "+message)
	}
	observeGeneration(task)
}
