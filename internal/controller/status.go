package controller

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// transition is one step in the life of a task. Everything that may happen to a
// status is a change in this file.
type transition func(*v1alpha1.PrefetchTask)

const (
	maxFailedTargets = 100
	maxEarlierJobs   = 100 // half of them of the run before, half of others
)

// claimTargets is the intent to call, written before the call. It holds all that is
// needed to settle the call without the spec.
func claimTargets(submission v1alpha1.Submission, now time.Time) transition {
	return func(task *v1alpha1.PrefetchTask) {
		beginRun(task, now)
		task.Status.Submission = &submission
		updateSummary(task, now)
		if hasTrouble(task) {
			return // the call finds out whether that is over
		}
		removeConditions(task, v1alpha1.ConditionStalled) // for want of the targets
		setNotReady(task, v1alpha1.ReasonSubmitting, "A call to EdgeOne is being made")
		setCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionFalse, v1alpha1.ReasonSubmitting, "")
	}
}

// beginRun makes the status one of the run that the task asks for, unless it is. As
// long as nothing was submitted, a run may begin again with other targets.
func beginRun(task *v1alpha1.PrefetchTask, now time.Time) {
	if taskstate.IsBoundToList(task) {
		return
	}
	begun := v1alpha1.PrefetchTaskStatus{Run: taskstate.RunHash(task), StartTime: metav1.NewTime(now), LastHandledRetry: taskstate.RequestedRetry(task)}
	if taskstate.IsFromConfigMap(task) {
		begun.TargetsHash = taskstate.HashTargets(task)
	}
	if s := task.Status; s.Run != begun.Run || s.TargetsHash != begun.TargetsHash {
		task.Status = begun
	}
}

// recordJob writes EdgeOne's answer to the call of the task's claim: the job of the
// accepted targets, and those that were refused by what EdgeOne said of them.
func recordJob(jobID string, refused map[string]string, now time.Time) transition {
	return func(task *v1alpha1.PrefetchTask) {
		submission := task.Status.Submission
		positions, targets := statusPositions(task, submission.Targets), taskstate.DistinctTargets(task)
		var no taskstate.Positions
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
		updateSummary(task, now)
	}
}

// refuseTargets records targets that EdgeOne does not take at all.
func refuseTargets(positions taskstate.Positions, message string, now time.Time) transition {
	return func(task *v1alpha1.PrefetchTask) {
		beginRun(task, now)
		targets := taskstate.DistinctTargets(task)
		for _, i := range positions {
			addFailedTarget(task, targets[i], v1alpha1.FailedRefused, message)
		}
		addRefused(task, positions)
		task.Status.Submission = nil
		updateSummary(task, now)
	}
}

// releaseClaim gives up the claim of a call that was certainly not executed.
func releaseClaim(why queue.Cause, now time.Time) transition {
	return func(task *v1alpha1.PrefetchTask) {
		task.Status.Submission = nil
		updateSummary(task, now)
		if why.Reason != "" && !isRunOver(task) {
			setNotReady(task, why.Reason, why.Message)
		}
	}
}

// expireClaim notes that the call of a claim cannot be executed any more, and has not
// been looked for.
func expireClaim(task *v1alpha1.PrefetchTask) { task.Status.Submission.Expired = true }

// adoptedJob is a job found in EdgeOne's history, and the positions it covers.
type adoptedJob struct {
	jobID     string
	positions taskstate.Positions
}

// adoptJobs hands over what the history shows of a call whose outcome was unknown.
// Whatever it does not show goes back to waiting. A single target whose calls fail
// alone, again and again, needs a person.
func adoptJobs(jobs []adoptedJob, now time.Time) transition {
	return func(task *v1alpha1.PrefetchTask) {
		claim := *task.Status.Submission
		single := isSingleTarget(task, &claim)
		for _, job := range jobs {
			addJob(task, job.jobID, job.positions)
		}
		if len(jobs) == 0 {
			task.Status.LostCalls++
		}
		task.Status.Submission = nil
		clearTrouble(task)
		updateSummary(task, now)
		if len(jobs) == 0 && single && taskstate.HasRepeatedLosses(task) && !isRunOver(task) {
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
	return claim.CallHash == "" || claim.CallHash == hashCall([]string{taskstate.DistinctTargets(task)[positions[0]]})
}

// unansweredMessage begins a message about a call of unknown outcome: with EdgeOne's words
// if it answered.
func unansweredMessage(claim *v1alpha1.Submission) string {
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

// recordWords notes EdgeOne's words where they leave open whether it executed the call.
func recordWords(words string) transition {
	return func(task *v1alpha1.PrefetchTask) {
		if task.Status.Submission == nil {
			return
		}
		task.Status.Submission.Answer = truncateMessage(words, maxMessage)
		outcomeUnknown(unansweredMessage(task.Status.Submission)+"; checking its history for whether the call was executed", false)(task)
	}
}

// outcomeUnknown says that the outcome of the task's call is being looked up, or that it
// cannot be, and what a person can do then.
func outcomeUnknown(message string, stalled bool) transition {
	return func(task *v1alpha1.PrefetchTask) {
		stalled := stalled || taskstate.HasRepeatedLosses(task) && isStalledFor(task, v1alpha1.ReasonOutcomeUnknown)
		setNotReady(task, v1alpha1.ReasonOutcomeUnknown, message)
		setCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionUnknown, v1alpha1.ReasonOutcomeUnknown, message)
		setStalled(task, stalled, v1alpha1.ReasonOutcomeUnknown, message)
		observeGeneration(task)
	}
}

// targetsUnavailable says why the targets of a run are not known, which then neither
// starts nor goes on.
func targetsUnavailable(why queue.Cause, stalled bool) transition {
	return func(task *v1alpha1.PrefetchTask) {
		if isRunOver(task) { // and asks for a retry
			retryWaits(why.Message)(task)
			return
		}
		stalled = stalled || isStalledFor(task, why.Reason)
		setNotReady(task, why.Reason, why.Message)
		switch {
		case !taskstate.IsBoundToList(task):
			setCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionFalse, why.Reason, why.Message)
		case task.Status.Submission != nil: // of which nothing is found out now
			setCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionUnknown, why.Reason, why.Message)
		}
		setStalled(task, stalled, why.Reason, why.Message)
		removeConditions(task, v1alpha1.ConditionQuotaExceeded)
		task.Status.NextAttemptTime = metav1.Time{}
		observeGeneration(task)
	}
}

// isStalledFor says whether the status says Stalled for this reason.
func isStalledFor(task *v1alpha1.PrefetchTask, reason string) bool {
	stalled := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionStalled)
	return stalled != nil && stalled.Reason == reason
}

// outcomesUnreadable says why the outcomes of a run that is handed over cannot be read. It is taken
// back as soon as they can; see followJobs.
func outcomesUnreadable(why queue.Cause) transition {
	return func(task *v1alpha1.PrefetchTask) {
		if isRunOver(task) { // what was read was enough
			return
		}
		message := unreadMessage + why.Message
		setNotReady(task, why.Reason, message)
		setStalled(task, true, why.Reason, message)
		observeGeneration(task)
	}
}

const unreadMessage = "Every target was handed over, but their outcomes cannot be read: "

// isUnreadReported says whether the status says that outcomes cannot be read.
func isUnreadReported(task *v1alpha1.PrefetchTask) bool {
	stalled := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionStalled)
	return stalled != nil && strings.HasPrefix(stalled.Message, unreadMessage) && !isRunOver(task) &&
		meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionSubmitted)
}

// reportWaiting says why a task waits.
func reportWaiting(note queue.WaitingStatus, now time.Time) transition {
	return func(task *v1alpha1.PrefetchTask) {
		if taskstate.IsNewRun(task) && !taskstate.HasClaim(task) {
			// What the status says of the run before stays until the new one is
			// claimed; only that it is over is no longer true.
			setNotReady(task, v1alpha1.ReasonWaiting, "New run queued")
		} else {
			updateSummary(task, now)
		}
		observeGeneration(task)
		if note.Reason == "" || !taskstate.IsNewRun(task) && isRunOver(task) {
			return
		}
		setNotReady(task, note.Reason, note.Message)
		submitted := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionSubmitted)
		if submitted == nil || submitted.Status != metav1.ConditionUnknown || !taskstate.HasClaim(task) {
			setCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionFalse, note.Reason, note.Message)
		}
		setStalled(task, note.Stalled, note.Reason, note.Message)
		setPresent(task, v1alpha1.ConditionQuotaExceeded, note.Quota, note.Reason, note.Message)
		task.Status.NextAttemptTime = metav1.Time{}
		if note.Quota {
			task.Status.NextAttemptTime = metav1.NewTime(note.NextAttempt)
		}
	}
}

// followJobs copies what a look has read of the task's jobs. If all jobs could be read,
// the status no longer says that they cannot.
func followJobs(seen *historyRead, limits outcomeLimits, now time.Time, isRead bool) transition {
	return func(task *v1alpha1.PrefetchTask) {
		targets := taskstate.DistinctTargets(task)
		forgotten, missing := 0, 0 // jobs
		for i := range task.Status.Jobs {
			job := &task.Status.Jobs[i]
			if followJob(task, job, targets, seen, limits) {
				forgotten++
			}
			if isJobOpen(*job) {
				missing++
			}
		}
		if isRead && isUnreadReported(task) {
			removeConditions(task, v1alpha1.ConditionStalled)
		}
		updateSummary(task, now)
		if forgotten > 0 && forgotten == missing {
			endForgotten(now)(task)
		}
	}
}

// failedReasons are the reasons of failed targets by EdgeOne's status of them.
var failedReasons = map[string]string{
	teo.StatusFailed:   v1alpha1.FailedFailed,
	teo.StatusTimeout:  v1alpha1.FailedTimeout,
	teo.StatusCanceled: v1alpha1.FailedCanceled,
	teo.StatusInvalid:  v1alpha1.FailedInvalid,
}

// followJob counts the outcomes of a job, and says whether EdgeOne has forgotten what
// became of the rest of it. What was counted once never becomes less.
func followJob(task *v1alpha1.PrefetchTask, job *v1alpha1.Job, targets []string, seen *historyRead, limits outcomeLimits) (isForgotten bool) {
	positions := taskstate.CoveredPositions(job.Targets, len(targets))
	if int(job.Succeeded+job.Failed) >= len(positions) || seen.listing[job.ID] == nil && !seen.whole[job.ID] {
		return false
	}
	outcomes := make([]jobOutcome, len(positions))
	var counts [targetForgotten + 1]int32
	for n, i := range positions {
		outcomes[n] = limits.judgeTarget(seen, job, target.Identity(targets[i]))
		counts[outcomes[n]]++
	}
	if counts[targetForgotten] > 0 && counts[targetUnderWay] == 0 {
		isForgotten = true
	}
	ended := counts[targetSucceeded] + counts[targetFailed] + counts[targetNoOutcome]
	if ended < job.Succeeded+job.Failed {
		return isForgotten
	}
	job.Succeeded, job.Failed = counts[targetSucceeded], ended-counts[targetSucceeded]
	for n, i := range positions {
		switch outcomes[n] {
		case targetFailed:
			record := seen.listing[job.ID][target.Identity(targets[i])]
			addFailedTarget(task, targets[i], failedReasons[record.Status], joinSentences(record.FailType, record.FailMessage))
		case targetNoOutcome:
			addFailedTarget(task, targets[i], v1alpha1.FailedNoOutcome, "EdgeOne named no outcome before the deadline")
		case targetUnderWay, targetSucceeded, targetForgotten:
		}
	}
	return isForgotten
}

// endNotFollowed ends a run whose outcomes cannot be read. They are looked at again, less
// often, and count if they can.
func endNotFollowed(why string, now time.Time) transition {
	return func(task *v1alpha1.PrefetchTask) {
		updateSummary(task, now)
		if !isRunOver(task) {
			endUnseen(task, unreadMessage+why+". The run ends without them; they are looked at again while EdgeOne's history shows them", now)
		}
	}
}

// endForgotten ends a run of which EdgeOne's history no longer shows what became.
func endForgotten(now time.Time) transition {
	return func(task *v1alpha1.PrefetchTask) {
		if !isRunOver(task) || taskstate.IsUnseen(task) {
			endUnseen(task, "Every target was handed over, but EdgeOne's history no longer shows the outcomes of all", now)
		}
	}
}

func endUnseen(task *v1alpha1.PrefetchTask, message string, now time.Time) {
	if task.Status.Submission != nil || len(taskstate.OpenPositions(task)) > 0 {
		return
	}
	if task.Status.CompletionTime.IsZero() {
		task.Status.CompletionTime = metav1.NewTime(now)
	}
	setCondition(task, v1alpha1.ConditionReady, metav1.ConditionUnknown, v1alpha1.ReasonNotFollowed, message)
	setCondition(task, v1alpha1.ConditionFinished, metav1.ConditionTrue, v1alpha1.ReasonNotFollowed, message)
	setStalled(task, true, v1alpha1.ReasonNotFollowed, message)
}

// updateSummary derives counts and conditions from what the status holds of the run.
func updateSummary(task *v1alpha1.PrefetchTask, now time.Time) {
	if taskstate.IsNewRun(task) || taskstate.IsUnresolved(task) {
		return
	}
	s := &task.Status
	total := taskstate.CountTargets(task)
	handed, refused := taskstate.HandedOverPositions(task)
	succeeded, failed := int32(0), int32(len(refused))
	for i := range s.Jobs {
		job := &s.Jobs[i]
		succeeded += job.Succeeded
		failed += job.Failed - int32(len(taskstate.RetriedPositions(job, total)))
	}
	s.Targets = v1alpha1.TargetCounts{
		Total: countPointer(total), Submitted: countPointer(len(handed)), Succeeded: ptr.To(succeeded), Failed: ptr.To(failed),
	}
	s.JobCount = int32(len(s.Jobs))
	observeGeneration(task)
	if isRunOver(task) && !taskstate.IsUnseen(task) {
		return
	}
	switch {
	case int(succeeded+failed) >= total:
		finishRun(task, total, int(failed), now)
	case isRunOver(task) || len(handed) >= total && isUnreadReported(task): // until they can be read
	case len(handed) >= total:
		removeConditions(task, v1alpha1.ConditionStalled, v1alpha1.ConditionQuotaExceeded)
		s.NextAttemptTime = metav1.Time{}
		setCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionTrue, v1alpha1.ReasonSubmitted, "Every target was handed over to EdgeOne")
		setNotReady(task, v1alpha1.ReasonSubmitted, "EdgeOne is prefetching the targets")
	default:
		if s.Submission == nil && !hasTrouble(task) && !isSuspendReported(task) {
			removeConditions(task, v1alpha1.ConditionStalled)
			setCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionFalse, v1alpha1.ReasonWaiting, "")
			setNotReady(task, v1alpha1.ReasonWaiting, "Queued; will be submitted when its turn comes")
		}
	}
}

// hasTrouble says whether the status names trouble that keeps the task from being
// submitted. News of calls already made does not replace it, and neither does a
// new attempt, only its success: or the status would flap.
func hasTrouble(task *v1alpha1.PrefetchTask) bool {
	switch taskstate.ReadyReason(task) {
	case v1alpha1.ReasonThrottled, v1alpha1.ReasonUnavailable, v1alpha1.ReasonDailyQuota, v1alpha1.ReasonBatchQuota,
		v1alpha1.ReasonCredentialsMissing, v1alpha1.ReasonCredentialsRefused, v1alpha1.ReasonPermissionDenied, v1alpha1.ReasonTooLarge:
		return true
	case v1alpha1.ReasonOutcomeUnknown:
		return isStalledFor(task, v1alpha1.ReasonOutcomeUnknown) && taskstate.HasRepeatedLosses(task)
	}
	return false
}

func isSuspendReported(task *v1alpha1.PrefetchTask) bool {
	return taskstate.ReadyReason(task) == v1alpha1.ReasonSuspended && taskstate.IsSuspended(task)
}

// clearTrouble takes back what the status says of trouble: a call went through.
func clearTrouble(task *v1alpha1.PrefetchTask) {
	removeConditions(task, v1alpha1.ConditionStalled, v1alpha1.ConditionQuotaExceeded)
	task.Status.NextAttemptTime = metav1.Time{}
	if hasTrouble(task) {
		setNotReady(task, v1alpha1.ReasonWaiting, "Queued; will be submitted when its turn comes")
	}
}

// finishRun ends the run.
func finishRun(task *v1alpha1.PrefetchTask, total, failed int, now time.Time) {
	reason, ready, message := v1alpha1.ReasonSucceeded, metav1.ConditionTrue, fmt.Sprintf("All %d targets are prefetched", total)
	switch {
	case failed > 0 && failed >= total:
		reason, ready, message = v1alpha1.ReasonFailed, metav1.ConditionFalse, failedMessage(failed, total)+retryHint
	case failed > 0:
		reason, ready, message = v1alpha1.ReasonPartiallyFailed, metav1.ConditionFalse, failedMessage(failed, total)+retryHint
	case total == 1:
		message = "The target is prefetched"
	}
	task.Status.CompletionTime = metav1.NewTime(now)
	task.Status.NextAttemptTime = metav1.Time{}
	removeConditions(task, v1alpha1.ConditionQuotaExceeded)
	setCondition(task, v1alpha1.ConditionSubmitted, metav1.ConditionTrue, v1alpha1.ReasonSubmitted, "Every target was handed over to EdgeOne")
	setCondition(task, v1alpha1.ConditionReady, ready, reason, message)
	setCondition(task, v1alpha1.ConditionFinished, metav1.ConditionTrue, reason, message)
	setStalled(task, failed > 0, reason, message)
}

func failedMessage(failed, total int) string {
	return fmt.Sprintf("%d of %d targets failed, see status.failedTargets", failed, total)
}

const retryHint = "; a new value of the annotation " + v1alpha1.RetryAnnotation + " tries those again"

// isRunOver says whether the status's run is finished.
func isRunOver(task *v1alpha1.PrefetchTask) bool {
	return taskstate.IsSlimmed(task) || meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionFinished)
}

// knowsTargets says whether the targets of the status's run are known: not if the
// spec no longer asks for it, or they are in a ConfigMap that has other ones.
func knowsTargets(task *v1alpha1.PrefetchTask) bool {
	return !taskstate.IsNewRun(task) && !taskstate.IsUnresolved(task) && !taskstate.IsElided(task)
}

// statusPositions reads positions in the status. Those of a run that the spec no longer
// asks for stay as they are: its targets are not known any more, and the spec may
// be changed back to it.
func statusPositions(task *v1alpha1.PrefetchTask, text string) taskstate.Positions {
	if !knowsTargets(task) {
		positions, _ := taskstate.ParsePositions(text)
		return positions
	}
	return taskstate.CoveredPositions(text, taskstate.CountTargets(task))
}

func addJob(task *v1alpha1.PrefetchTask, jobID string, positions taskstate.Positions) {
	if len(positions) == 0 {
		return
	}
	submission := task.Status.Submission
	for i := range task.Status.Jobs {
		if job := &task.Status.Jobs[i]; job.ID == jobID {
			have := statusPositions(task, job.Targets)
			job.Targets = have.Union(positions).String()
			if retried, err := taskstate.ParsePositions(job.Retried); err == nil {
				job.Retried = retried.Minus(positions).String()
			}
			return
		}
	}
	task.Status.Jobs = append(task.Status.Jobs, v1alpha1.Job{
		ID: jobID, ClaimID: submission.ClaimID, Targets: positions.String(), SubmitTime: submission.SignedAt,
	})
}

func addRefused(task *v1alpha1.PrefetchTask, positions taskstate.Positions) {
	have := statusPositions(task, task.Status.RefusedTargets)
	task.Status.RefusedTargets = have.Union(positions).String()
}

// addFailedTarget names a failed target, once and as far as there is room.
func addFailedTarget(task *v1alpha1.PrefetchTask, target, reason, message string) {
	s := &task.Status
	known := func(f v1alpha1.FailedTarget) bool { return f.URL == target }
	if len(s.FailedTargets) >= maxFailedTargets || slices.ContainsFunc(s.FailedTargets, known) {
		return
	}
	s.FailedTargets = append(s.FailedTargets, v1alpha1.FailedTarget{URL: target, Reason: reason, Message: truncateMessage(message, maxMessage)})
}

// observeGeneration says that the status speaks of the current generation.
func observeGeneration(task *v1alpha1.PrefetchTask) {
	task.Status.ObservedGeneration = task.Generation
	for i := range task.Status.Conditions {
		task.Status.Conditions[i].ObservedGeneration = task.Generation
	}
}

// setNotReady says what comes next for a run that is not over.
func setNotReady(task *v1alpha1.PrefetchTask, reason, message string) {
	setCondition(task, v1alpha1.ConditionReady, metav1.ConditionFalse, reason, message)
	setCondition(task, v1alpha1.ConditionFinished, metav1.ConditionFalse, reason, "")
}

func setStalled(task *v1alpha1.PrefetchTask, stalled bool, reason, message string) {
	setPresent(task, v1alpha1.ConditionStalled, stalled, reason, message)
}

// setPresent sets a condition that is there only while it is True. One that stays
// keeps its time, or telling the same again would be a write.
func setPresent(task *v1alpha1.PrefetchTask, conditionType string, isTrue bool, reason, message string) {
	if isTrue {
		setCondition(task, conditionType, metav1.ConditionTrue, reason, message)
	} else {
		removeConditions(task, conditionType)
	}
}

func setCondition(task *v1alpha1.PrefetchTask, conditionType string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&task.Status.Conditions, metav1.Condition{
		Type: conditionType, Status: status, Reason: reason, Message: truncateMessage(message, maxMessage), ObservedGeneration: task.Generation,
	})
}

func removeConditions(task *v1alpha1.PrefetchTask, conditionTypes ...string) {
	for _, conditionType := range conditionTypes {
		meta.RemoveStatusCondition(&task.Status.Conditions, conditionType)
	}
}

func countPointer(n int) *int32 { return ptr.To(int32(n)) }

func joinSentences(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ": ")
}

// isJobOpen says whether outcomes of a job are missing.
func isJobOpen(job v1alpha1.Job) bool {
	positions, _ := taskstate.ParsePositions(job.Targets)
	return int(job.Succeeded+job.Failed) < len(positions)
}
