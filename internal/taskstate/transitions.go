package taskstate

import (
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// Transition is one change of a task's status. Nothing else changes a status.
type Transition func(*v1alpha1.PrefetchTask)

const (
	// maxFailedTargets bounds how many failed targets a status names.
	maxFailedTargets = 100
	// MaxEarlierJobs bounds Submission.EarlierJobs: half for the task's own jobs, half for
	// jobs of other tasks.
	MaxEarlierJobs = 100
)

// ClaimTargets writes the intent to make a call, before the call. The claim contains
// everything that is needed to settle the call without the spec.
func ClaimTargets(submission v1alpha1.Submission, now time.Time) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		BeginRun(task, now)
		task.Status.Submission = &submission
		UpdateSummary(task, now)
		if hasTrouble(task) {
			return // the result of the call decides whether the problem persists
		}
		removeConditions(task, v1alpha1.ConditionStalled) // the targets are available now
		reason, message := v1alpha1.ReasonSubmitting, "A call to EdgeOne is being made"
		if submission.Kind == v1alpha1.JobPurge {
			reason, message = v1alpha1.ReasonPurging, purgingMessage(task)
		}
		setNotReady(task, reason, message)
		SetCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionFalse, reason, "")
	}
}

// BeginRun resets the status to a new run, unless the status already describes the run
// that the task asks for. Before anything is submitted, a run may start over with other
// targets.
func BeginRun(task *v1alpha1.PrefetchTask, now time.Time) {
	if IsBoundToList(task) {
		return
	}
	begun := v1alpha1.PrefetchTaskStatus{Run: RunHash(task), Request: RequestHash(task), StartTime: metav1.NewTime(now), LastHandledRetry: RequestedRetry(task)}
	if IsFromConfigMap(task) {
		begun.TargetsHash = HashTargets(task)
	}
	if s := task.Status; s.Run != begun.Run || s.TargetsHash != begun.TargetsHash {
		task.Status = begun
	}
}

// RecordJob records EdgeOne's response to the call of the task's claim: the job of the
// accepted targets, and the refused targets with EdgeOne's reasons.
func RecordJob(jobID string, refused map[string]string, now time.Time) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		submission := task.Status.Submission
		positions := statusCallPositions(task, submission.Positions, submission.Kind)
		var no Positions
		var identities []string // a long list takes time, and EdgeOne rarely refuses a target
		if len(refused) > 0 {
			identities = CallIdentities(task, submission.Kind)
		}
		switch {
		case jobID == "":
			no = positions // a response without a job refuses all targets
		case len(refused) == 0:
		case !knowsTargets(task):
			// The spec no longer identifies the refused targets. If a user changes it
			// back, all targets count as handed over.
		default:
			for _, i := range positions {
				if _, ok := refused[identities[i]]; ok {
					no = append(no, i)
				}
			}
		}
		addJob(task, jobID, positions.Minus(no))
		refuse(task, submission.Kind, no, func(i int) string {
			if i >= len(identities) {
				return ""
			}
			return refused[identities[i]]
		})
		task.Status.Submission = nil
		clearTrouble(task)
		UpdateSummary(task, now)
	}
}

// refuse records positions that EdgeOne refuses in a call of a kind.
func refuse(task *v1alpha1.PrefetchTask, kind v1alpha1.JobKind, positions Positions, message func(position int) string) {
	if kind == v1alpha1.JobPurge {
		failPurge(task, positions, message)
		return
	}
	if knowsTargets(task) {
		targets := DistinctTargets(task)
		for _, i := range positions {
			addFailedTarget(task, targets[i], v1alpha1.FailedRefused, message(i))
		}
	}
	addRefused(task, positions)
}

// RefuseTargets records targets that EdgeOne refuses in a call of a kind, and removes the claim.
func RefuseTargets(kind v1alpha1.JobKind, positions Positions, message string, now time.Time) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		BeginRun(task, now)
		task.Status.Submission = nil
		refuse(task, kind, positions, func(int) string { return message })
		UpdateSummary(task, now)
	}
}

// ReleaseClaim removes the claim of a call that was certainly not executed. The targets of
// the call are open again.
func ReleaseClaim(why Cause, now time.Time) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		task.Status.Submission = nil
		UpdateSummary(task, now)
		if why.Reason != "" && !IsRunOver(task) {
			setNotReady(task, why.Reason, progressMessage(task, why.Message))
			SetCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionFalse, why.Reason, "")
		}
	}
}

// ExpireClaim records that the call of a claim can no longer be executed, and that its
// outcome was not read. The claim stays in the status.
func ExpireClaim(task *v1alpha1.PrefetchTask) { task.Status.Submission.Expired = true }

// AdoptedJob is a job in EdgeOne's history, and the positions that it covers.
type AdoptedJob struct {
	JobID     string
	Positions Positions
}

// AdoptJobs records the jobs that the history shows for a call of unknown outcome. Targets
// that no job covers are queued again. If the calls of a single target are lost
// repeatedly, the task needs user action. A loss in a shared call may be the fault of
// another target, so it does not stall the task.
func AdoptJobs(jobs []AdoptedJob, now time.Time) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		claim := *task.Status.Submission
		single := isSingleTarget(task, &claim) // before the claim is removed
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
			SetCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionFalse, v1alpha1.ReasonOutcomeUnknown, "")
			setStalled(task, true, v1alpha1.ReasonOutcomeUnknown, message)
		}
	}
}

// isSingleTarget reports whether the call of a claim had only one URL.
func isSingleTarget(task *v1alpha1.PrefetchTask, claim *v1alpha1.Submission) bool {
	positions := statusCallPositions(task, claim.Positions, claim.Kind)
	if len(positions) != 1 || !knowsTargets(task) {
		return false
	}
	return claim.CallHash == "" || claim.CallHash == HashCall([]string{CallTargets(task, claim.Kind)[positions[0]]})
}

// UnansweredMessage returns the start of a message about a call of unknown outcome. If
// EdgeOne responded, the message contains the response.
func UnansweredMessage(claim *v1alpha1.Submission) string {
	switch isPurge := claim.Kind == v1alpha1.JobPurge; {
	case isPurge && claim.Answer == "":
		return "EdgeOne's answer to a purge was lost"
	case isPurge:
		return "EdgeOne answered a purge with " + claim.Answer
	case claim.Answer == "":
		return "EdgeOne's answer to a call was lost"
	}
	return "EdgeOne answered " + claim.Answer
}

// repeatedLossMessage explains why the operator submits a task less often.
func repeatedLossMessage(claim *v1alpha1.Submission) string {
	if claim.Answer == "" {
		return "Several calls got no response and were not executed. Retrying less often. " +
			"Check what these targets have in common and the network path to EdgeOne"
	}
	return "EdgeOne answered " + strings.TrimSuffix(claim.Answer, ".") + ". It did not execute the call, not even with this URL alone. Retrying less often. " +
		"Check the target and its domain in EdgeOne's console"
}

// RecordWords records a response of EdgeOne that does not show whether the call was
// executed.
func RecordWords(words string) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		if task.Status.Submission == nil {
			return
		}
		task.Status.Submission.Answer = TruncateMessage(words, MaxMessage)
		OutcomeUnknown(UnansweredMessage(task.Status.Submission)+"; checking its history for whether the call was executed", false)(task)
	}
}

// OutcomeUnknown reports that the operator is reading the history for the outcome of the
// task's call, or that it cannot, and what a user can do then. A task with repeated losses
// stays Stalled.
func OutcomeUnknown(message string, stalled bool) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		stalled := stalled || HasRepeatedLosses(task) && IsStalledFor(task, v1alpha1.ReasonOutcomeUnknown)
		message := coldMessage(task) + message
		setNotReady(task, v1alpha1.ReasonOutcomeUnknown, message)
		SetCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionUnknown, v1alpha1.ReasonOutcomeUnknown, "")
		setStalled(task, stalled, v1alpha1.ReasonOutcomeUnknown, message)
		observeGeneration(task)
	}
}

// addJob adds positions to a job of the status. Positions that a retry had reopened are
// handed over again.
func addJob(task *v1alpha1.PrefetchTask, jobID string, positions Positions) {
	if len(positions) == 0 {
		return
	}
	submission := task.Status.Submission
	for i := range task.Status.Jobs {
		if job := &task.Status.Jobs[i]; job.ID == jobID {
			have := statusCallPositions(task, job.Positions, job.Kind)
			job.Positions = have.Union(positions).String()
			if retried, err := ParsePositions(job.RetriedPositions); err == nil {
				job.RetriedPositions = retried.Minus(positions).String()
			}
			return
		}
	}
	task.Status.Jobs = append(task.Status.Jobs, v1alpha1.Job{
		ID: jobID, ClaimID: submission.ClaimID, Kind: submission.Kind, Positions: positions.String(), SharedURLs: submission.SharedURLs, SubmitTime: submission.SignedAt,
	})
}

// addRefused adds positions to the refused targets of the status.
func addRefused(task *v1alpha1.PrefetchTask, positions Positions) {
	have := statusPositions(task, task.Status.RefusedPositions)
	task.Status.RefusedPositions = have.Union(positions).String()
}
