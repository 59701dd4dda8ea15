package taskstate

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// namedFailures are the positions of a job that failed and were not retried yet, as far
// as the status names them, how many there are, and what could be one of them.
func namedFailures(task *v1alpha1.PrefetchTask, job *v1alpha1.Job) (named, rest Positions, count int, isCertain bool) {
	targets := DistinctTargets(task)
	retried := RetriedPositions(job, len(targets))
	rest = CoveredPositions(job.Targets, len(targets)).Minus(retried)
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

// NamesAllFailures says whether the status tells what of a job failed: it names all, and
// EdgeOne has said so. What had no outcome may have succeeded since.
func NamesAllFailures(task *v1alpha1.PrefetchTask, job *v1alpha1.Job) bool {
	_, _, _, isCertain := namedFailures(task, job)
	return isCertain
}

// JobFailures is what a retry submits again of a job.
type JobFailures struct {
	positions Positions
	isKnown   bool
}

// FailuresOf finds out what of a job failed and was not retried yet: by the status if
// that tells it, else by EdgeOne's listing of the job, if that still has what the
// status counted. The status tells it as well if the whole job failed, but not what of
// it has succeeded since; without a reading there is no news.
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
	// One that was late may have succeeded since. More than were counted have not
	// failed since: EdgeOne has forgotten them.
	return JobFailures{failed, len(failed) <= count}
}

// HasWholeJob says whether a look has read all of what failed of a job.
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

// ReopenFailed makes what failed of a run that is over wait for a call again, and
// counts as succeeded what has succeeded since. That it was asked for is handled by the
// same write, so that it never happens twice. What read tells was read of EdgeOne's
// history, by job.
func ReopenFailed(read map[string]JobFailures, now time.Time) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		s := &task.Status
		failed := make([]Positions, len(s.Jobs))
		isOpen, isNews := s.RefusedTargets != "", false
		for i := range s.Jobs {
			f, isRead := read[s.Jobs[i].ID]
			if !isRead {
				f = FailuresOf(task, &s.Jobs[i], nil)
			}
			if !f.isKnown {
				retryRefused("EdgeOne's history no longer tells which they were")(task)
				return
			}
			failed[i] = f.positions
			isOpen = isOpen || len(f.positions) > 0
			isNews = isNews || succeededSince(task, &s.Jobs[i], f.positions) > 0
		}
		s.LastHandledRetry = RequestedRetry(task)
		if !isOpen && !isNews {
			return
		}
		opened := s.DeepCopy()
		opened.RefusedTargets, opened.FailedTargets, opened.CompletionTime = "", nil, metav1.Time{}
		for i, positions := range failed {
			job := &opened.Jobs[i]
			late := succeededSince(task, job, positions)
			job.Failed, job.Succeeded = job.Failed-late, job.Succeeded+late
			job.Retried = RetriedPositions(job, len(DistinctTargets(task))).Union(positions).String()
		}
		// What is retried adds its positions up to three times, of 24 KB each at most.
		if isOpen && JSONSize(opened) > MaxStatus {
			retryRefused("the status has no room for the jobs of one more retry")(task)
			return
		}
		*s = *opened
		removeConditions(task, v1alpha1.ConditionStalled)
		setNotReady(task, v1alpha1.ReasonWaiting, "Queued; will be submitted when its turn comes")
		UpdateSummary(task, now)
	}
}

// succeededSince is how many targets of a job counted as failed and have succeeded
// since, if those at these positions failed.
func succeededSince(task *v1alpha1.PrefetchTask, job *v1alpha1.Job, failed Positions) int32 {
	retried := RetriedPositions(job, len(DistinctTargets(task)))
	return max(0, job.Failed-int32(len(retried)+len(failed)))
}

// retryRefused says why a retry does nothing. That it was asked for is handled.
func retryRefused(why string) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		task.Status.LastHandledRetry = RequestedRetry(task)
		reportRetry(task, "they cannot be tried again by themselves, as "+why+"; set spec.revision to a new value to submit everything again")
	}
}

// RetryWaits says why a retry that is asked for has not begun.
func RetryWaits(message string) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		reportRetry(task, "retry pending: "+message)
	}
}

// reportRetry adds to the outcome of a run what becomes of a retry.
func reportRetry(task *v1alpha1.PrefetchTask, message string) {
	message = failedMessage(int(ptr.Deref(task.Status.Targets.Failed, 0)), int(ptr.Deref(task.Status.Targets.Total, 0))) + "; " + message
	for _, conditionType := range []string{v1alpha1.ConditionReady, v1alpha1.ConditionFinished, v1alpha1.ConditionStalled} {
		if c := meta.FindStatusCondition(task.Status.Conditions, conditionType); c != nil {
			SetCondition(task, conditionType, c.Status, c.Reason, message)
		}
	}
	observeGeneration(task)
}
