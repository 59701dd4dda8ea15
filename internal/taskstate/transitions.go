package taskstate

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
)

// Transition is one step in the life of a task. Everything that may happen to a
// status is a change in this file.
type Transition func(*v1alpha1.PrefetchTask)

const (
	maxFailedTargets = 100
	// MaxEarlierJobs bounds Submission.EarlierJobs: half for the task's own jobs, half for
	// those of others.
	MaxEarlierJobs = 100
)

// ClaimTargets is the intent to call, written before the call. It holds all that is
// needed to settle the call without the spec.
func ClaimTargets(submission v1alpha1.Submission, now time.Time) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		BeginRun(task, now)
		task.Status.Submission = &submission
		UpdateSummary(task, now)
		if hasTrouble(task) {
			return // the call finds out whether that is over
		}
		removeConditions(task, v1alpha1.ConditionStalled) // for want of the targets
		setNotReady(task, v1alpha1.ReasonSubmitting, "A call to EdgeOne is being made")
		SetCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionFalse, v1alpha1.ReasonSubmitting, "")
	}
}

// BeginRun makes the status one of the run that the task asks for, unless it is. As
// long as nothing was submitted, a run may begin again with other targets.
func BeginRun(task *v1alpha1.PrefetchTask, now time.Time) {
	if IsBoundToList(task) {
		return
	}
	begun := v1alpha1.PrefetchTaskStatus{Run: RunHash(task), StartTime: metav1.NewTime(now), LastHandledRetry: RequestedRetry(task)}
	if IsFromConfigMap(task) {
		begun.TargetsHash = HashTargets(task)
	}
	if s := task.Status; s.Run != begun.Run || s.TargetsHash != begun.TargetsHash {
		task.Status = begun
	}
}

// RecordJob writes EdgeOne's answer to the call of the task's claim: the job of the
// accepted targets, and those that were refused by what EdgeOne said of them.
func RecordJob(jobID string, refused map[string]string, now time.Time) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		submission := task.Status.Submission
		positions, targets := statusPositions(task, submission.Targets), DistinctTargets(task)
		var no Positions
		switch {
		case jobID == "":
			no = positions // there is none unless all were refused
		case !knowsTargets(task):
			// The spec no longer says which targets were refused. If it is changed
			// back, all count as handed over.
		default:
			for _, i := range positions {
				if _, ok := refused[target.Identity(targets[i])]; ok {
					no = append(no, i)
				}
			}
		}
		if knowsTargets(task) {
			for _, i := range no {
				addFailedTarget(task, targets[i], v1alpha1.FailedRefused, refused[target.Identity(targets[i])])
			}
		}
		addRefused(task, no)
		addJob(task, jobID, positions.Minus(no))
		task.Status.Submission = nil
		clearTrouble(task)
		UpdateSummary(task, now)
	}
}

// RefuseTargets records targets that EdgeOne does not take at all.
func RefuseTargets(positions Positions, message string, now time.Time) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		BeginRun(task, now)
		targets := DistinctTargets(task)
		for _, i := range positions {
			addFailedTarget(task, targets[i], v1alpha1.FailedRefused, message)
		}
		addRefused(task, positions)
		task.Status.Submission = nil
		UpdateSummary(task, now)
	}
}

// ReleaseClaim gives up the claim of a call that was certainly not executed.
func ReleaseClaim(why Cause, now time.Time) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		task.Status.Submission = nil
		UpdateSummary(task, now)
		if why.Reason != "" && !IsRunOver(task) {
			setNotReady(task, why.Reason, why.Message)
		}
	}
}

// ExpireClaim notes that the call of a claim cannot be executed any more, and has not
// been looked for.
func ExpireClaim(task *v1alpha1.PrefetchTask) { task.Status.Submission.Expired = true }

// AdoptedJob is a job found in EdgeOne's history, and the positions it covers.
type AdoptedJob struct {
	JobID     string
	Positions Positions
}

// AdoptJobs hands over what the history shows of a call whose outcome was unknown.
// Whatever it does not show goes back to waiting. A single target whose calls fail
// alone, again and again, needs a person.
func AdoptJobs(jobs []AdoptedJob, now time.Time) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		claim := *task.Status.Submission
		single := isSingleTarget(task, &claim)
		for _, job := range jobs {
			addJob(task, job.JobID, job.Positions)
		}
		if len(jobs) == 0 {
			task.Status.LostCalls++
		}
		task.Status.Submission = nil
		clearTrouble(task)
		UpdateSummary(task, now)
		if len(jobs) == 0 && single && HasRepeatedLosses(task) && !IsRunOver(task) {
			message := repeatedLossMessage(&claim)
			setNotReady(task, v1alpha1.ReasonOutcomeUnknown, message)
			setStalled(task, true, v1alpha1.ReasonOutcomeUnknown, message)
		}
	}
}

// isSingleTarget says whether the call of a claim had one URL alone.
func isSingleTarget(task *v1alpha1.PrefetchTask, claim *v1alpha1.Submission) bool {
	positions := statusPositions(task, claim.Targets)
	if len(positions) != 1 || !knowsTargets(task) {
		return false
	}
	return claim.CallHash == "" || claim.CallHash == HashCall([]string{DistinctTargets(task)[positions[0]]})
}

// UnansweredMessage begins a message about a call of unknown outcome: with EdgeOne's words
// if it answered.
func UnansweredMessage(claim *v1alpha1.Submission) string {
	if claim.Answer == "" {
		return "EdgeOne's answer to a call was lost"
	}
	return "EdgeOne answered " + claim.Answer
}

// repeatedLossMessage says why a task is tried seldom.
func repeatedLossMessage(claim *v1alpha1.Submission) string {
	if claim.Answer == "" {
		return "Several calls got no response and were not executed. Retrying less often. " +
			"Check what these targets have in common and the network path to EdgeOne"
	}
	return "EdgeOne answered " + claim.Answer + ". It did not execute the call, also not of this URL alone. Retrying less often. " +
		"Check the target and its domain in EdgeOne's console"
}

// RecordWords notes EdgeOne's words where they leave open whether it executed the call.
func RecordWords(words string) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		if task.Status.Submission == nil {
			return
		}
		task.Status.Submission.Answer = TruncateMessage(words, MaxMessage)
		OutcomeUnknown(UnansweredMessage(task.Status.Submission)+"; checking its history for whether the call was executed", false)(task)
	}
}

// OutcomeUnknown says that the outcome of the task's call is being looked up, or that it
// cannot be, and what a person can do then.
func OutcomeUnknown(message string, stalled bool) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		stalled := stalled || HasRepeatedLosses(task) && IsStalledFor(task, v1alpha1.ReasonOutcomeUnknown)
		setNotReady(task, v1alpha1.ReasonOutcomeUnknown, message)
		SetCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionUnknown, v1alpha1.ReasonOutcomeUnknown, message)
		setStalled(task, stalled, v1alpha1.ReasonOutcomeUnknown, message)
		observeGeneration(task)
	}
}

func addJob(task *v1alpha1.PrefetchTask, jobID string, positions Positions) {
	if len(positions) == 0 {
		return
	}
	submission := task.Status.Submission
	for i := range task.Status.Jobs {
		if job := &task.Status.Jobs[i]; job.ID == jobID {
			have := statusPositions(task, job.Targets)
			job.Targets = have.Union(positions).String()
			if retried, err := ParsePositions(job.Retried); err == nil {
				job.Retried = retried.Minus(positions).String()
			}
			return
		}
	}
	task.Status.Jobs = append(task.Status.Jobs, v1alpha1.Job{
		ID: jobID, ClaimID: submission.ClaimID, Targets: positions.String(), SubmitTime: submission.SignedAt,
	})
}

func addRefused(task *v1alpha1.PrefetchTask, positions Positions) {
	have := statusPositions(task, task.Status.RefusedTargets)
	task.Status.RefusedTargets = have.Union(positions).String()
}
