package controller

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/schedule"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// change is one step in the life of a task. Everything that may happen to a
// status is a change in this file.
type change func(*v1alpha1.PrefetchTask)

const (
	maxFailedTargets = 100
	maxEarlierJobs   = 100 // half of them of the run before, half of others
)

// claim is the intent to call, written before the call. It holds all that is
// needed to settle the call without the spec.
func claim(submission v1alpha1.Submission, now time.Time) change {
	return func(task *v1alpha1.PrefetchTask) {
		begin(task, now)
		task.Status.Submission = &submission
		sum(task, now)
		if inTrouble(task) {
			return // the call finds out whether that is over
		}
		unset(task, v1alpha1.ConditionStalled) // for want of the targets
		notReady(task, v1alpha1.ReasonSubmitting, "A call to EdgeOne is being made")
		set(task, v1alpha1.ConditionSubmitted, metav1.ConditionFalse, v1alpha1.ReasonSubmitting, "")
	}
}

// begin makes the status one of the run that the task asks for, unless it is. As
// long as nothing was submitted, a run may begin again with other targets.
func begin(task *v1alpha1.PrefetchTask, now time.Time) {
	if schedule.IsBoundToList(task) {
		return
	}
	begun := v1alpha1.PrefetchTaskStatus{Run: schedule.RunHash(task), StartTime: metav1.NewTime(now), LastHandledRetry: schedule.RequestedRetry(task)}
	if schedule.IsFromConfigMap(task) {
		begun.TargetsHash = schedule.HashTargets(task)
	}
	if s := task.Status; s.Run != begun.Run || s.TargetsHash != begun.TargetsHash {
		task.Status = begun
	}
}

// record writes EdgeOne's answer to the call of the task's claim: the job of the
// accepted targets, and those that were refused by what EdgeOne said of them.
func record(jobID string, refused map[string]string, now time.Time) change {
	return func(task *v1alpha1.PrefetchTask) {
		submission := task.Status.Submission
		positions, targets := covered(task, submission.Targets), schedule.DistinctTargets(task)
		var no schedule.Positions
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
				fail(task, targets[i], v1alpha1.FailedRefused, refused[target.Identity(targets[i])])
			}
		}
		addRefused(task, no)
		addJob(task, jobID, positions.Minus(no))
		task.Status.Submission = nil
		troubleOver(task)
		sum(task, now)
	}
}

// refuse records targets that EdgeOne does not take at all.
func refuse(positions schedule.Positions, message string, now time.Time) change {
	return func(task *v1alpha1.PrefetchTask) {
		begin(task, now)
		targets := schedule.DistinctTargets(task)
		for _, i := range positions {
			fail(task, targets[i], v1alpha1.FailedRefused, message)
		}
		addRefused(task, positions)
		task.Status.Submission = nil
		sum(task, now)
	}
}

// release gives up the claim of a call that was certainly not executed.
func release(why schedule.Cause, now time.Time) change {
	return func(task *v1alpha1.PrefetchTask) {
		task.Status.Submission = nil
		sum(task, now)
		if why.Reason != "" && !over(task) {
			notReady(task, why.Reason, why.Message)
		}
	}
}

// expire notes that the call of a claim cannot be executed any more, and has not
// been looked for.
func expire(task *v1alpha1.PrefetchTask) { task.Status.Submission.Expired = true }

// adoption is a job found in EdgeOne's history, and the positions it covers.
type adoption struct {
	jobID     string
	positions schedule.Positions
}

// adopt hands over what the history shows of a call whose outcome was unknown.
// Whatever it does not show goes back to waiting. A single target whose calls fail
// alone, again and again, needs a person.
func adopt(jobs []adoption, now time.Time) change {
	return func(task *v1alpha1.PrefetchTask) {
		claim := *task.Status.Submission
		single := isSingle(task, &claim)
		for _, job := range jobs {
			addJob(task, job.jobID, job.positions)
		}
		if len(jobs) == 0 {
			task.Status.LostCalls++
		}
		task.Status.Submission = nil
		troubleOver(task)
		sum(task, now)
		if len(jobs) == 0 && single && schedule.HasRepeatedLosses(task) && !over(task) {
			message := oftenLost(&claim)
			notReady(task, v1alpha1.ReasonOutcomeUnknown, message)
			stall(task, true, v1alpha1.ReasonOutcomeUnknown, message)
		}
	}
}

// isSingle says whether the call of a claim had one URL alone.
func isSingle(task *v1alpha1.PrefetchTask, claim *v1alpha1.Submission) bool {
	positions := covered(task, claim.Targets)
	if len(positions) != 1 || !knowsTargets(task) {
		return false
	}
	return claim.CallHash == "" || claim.CallHash == hashCall([]string{schedule.DistinctTargets(task)[positions[0]]})
}

// unanswered begins a message about a call of unknown outcome: with EdgeOne's words
// if it answered.
func unanswered(claim *v1alpha1.Submission) string {
	if claim.Answer == "" {
		return "EdgeOne's answer to a call was lost"
	}
	return "EdgeOne answered " + claim.Answer
}

// oftenLost says why a task is tried seldom.
func oftenLost(claim *v1alpha1.Submission) string {
	if claim.Answer == "" {
		return "Several calls got no response and were not executed. Retrying less often. " +
			"Check what these targets have in common and the network path to EdgeOne"
	}
	return "EdgeOne answered " + claim.Answer + ". It did not execute the call, also not of this URL alone. Retrying less often. " +
		"Check the target and its domain in EdgeOne's console"
}

// noteWords notes EdgeOne's words where they leave open whether it executed the call.
func noteWords(words string) change {
	return func(task *v1alpha1.PrefetchTask) {
		if task.Status.Submission == nil {
			return
		}
		task.Status.Submission.Answer = cut(words, maxMessage)
		unknown(unanswered(task.Status.Submission)+"; checking its history for whether the call was executed", false)(task)
	}
}

// unknown says that the outcome of the task's call is being looked up, or that it
// cannot be, and what a person can do then.
func unknown(message string, stalled bool) change {
	return func(task *v1alpha1.PrefetchTask) {
		stalled := stalled || schedule.HasRepeatedLosses(task) && stalledFor(task, v1alpha1.ReasonOutcomeUnknown)
		notReady(task, v1alpha1.ReasonOutcomeUnknown, message)
		set(task, v1alpha1.ConditionSubmitted, metav1.ConditionUnknown, v1alpha1.ReasonOutcomeUnknown, message)
		stall(task, stalled, v1alpha1.ReasonOutcomeUnknown, message)
		observe(task)
	}
}

// targetless says why the targets of a run are not known, which then neither
// starts nor goes on.
func targetless(why schedule.Cause, stalled bool) change {
	return func(task *v1alpha1.PrefetchTask) {
		if over(task) { // and asks for a retry
			retryWaits(why.Message)(task)
			return
		}
		stalled = stalled || stalledFor(task, why.Reason)
		notReady(task, why.Reason, why.Message)
		switch {
		case !schedule.IsBoundToList(task):
			set(task, v1alpha1.ConditionSubmitted, metav1.ConditionFalse, why.Reason, why.Message)
		case task.Status.Submission != nil: // of which nothing is found out now
			set(task, v1alpha1.ConditionSubmitted, metav1.ConditionUnknown, why.Reason, why.Message)
		}
		stall(task, stalled, why.Reason, why.Message)
		unset(task, v1alpha1.ConditionQuotaExceeded)
		task.Status.NextAttemptTime = metav1.Time{}
		observe(task)
	}
}

// stalledFor says whether the status says Stalled for this reason.
func stalledFor(task *v1alpha1.PrefetchTask, reason string) bool {
	stalled := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionStalled)
	return stalled != nil && stalled.Reason == reason
}

// blind says why the outcomes of a run that is handed over cannot be read. It is taken
// back as soon as they can; see followJobs.
func blind(why schedule.Cause) change {
	return func(task *v1alpha1.PrefetchTask) {
		if over(task) { // what was read was enough
			return
		}
		message := unreadMessage + why.Message
		notReady(task, why.Reason, message)
		stall(task, true, why.Reason, message)
		observe(task)
	}
}

const unreadMessage = "Every target was handed over, but their outcomes cannot be read: "

// saysUnread says whether the status says that outcomes cannot be read.
func saysUnread(task *v1alpha1.PrefetchTask) bool {
	stalled := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionStalled)
	return stalled != nil && strings.HasPrefix(stalled.Message, unreadMessage) && !over(task) &&
		meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionSubmitted)
}

// waits says why a task waits.
func waits(note schedule.WaitingStatus, now time.Time) change {
	return func(task *v1alpha1.PrefetchTask) {
		if schedule.IsNewRun(task) && !schedule.HasClaim(task) {
			// What the status says of the run before stays until the new one is
			// claimed; only that it is over is no longer true.
			notReady(task, v1alpha1.ReasonWaiting, "A new run is submitted when its turn comes")
		} else {
			sum(task, now)
		}
		observe(task)
		if note.Reason == "" || !schedule.IsNewRun(task) && over(task) {
			return
		}
		notReady(task, note.Reason, note.Message)
		submitted := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionSubmitted)
		if submitted == nil || submitted.Status != metav1.ConditionUnknown || !schedule.HasClaim(task) {
			set(task, v1alpha1.ConditionSubmitted, metav1.ConditionFalse, note.Reason, note.Message)
		}
		stall(task, note.Stalled, note.Reason, note.Message)
		present(task, v1alpha1.ConditionQuotaExceeded, note.Quota, note.Reason, note.Message)
		task.Status.NextAttemptTime = metav1.Time{}
		if note.Quota {
			task.Status.NextAttemptTime = metav1.NewTime(note.NextAttempt)
		}
	}
}

// followJobs copies what a look has read of the task's jobs. If all jobs could be read,
// the status no longer says that they cannot.
func followJobs(seen *reading, limits limits, now time.Time, isRead bool) change {
	return func(task *v1alpha1.PrefetchTask) {
		targets := schedule.DistinctTargets(task)
		forgotten, missing := 0, 0 // jobs
		for i := range task.Status.Jobs {
			job := &task.Status.Jobs[i]
			if followJob(task, job, targets, seen, limits) {
				forgotten++
			}
			if underWay(*job) {
				missing++
			}
		}
		if isRead && saysUnread(task) {
			unset(task, v1alpha1.ConditionStalled)
		}
		sum(task, now)
		if forgotten > 0 && forgotten == missing {
			forgetOutcomes(now)(task)
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
func followJob(task *v1alpha1.PrefetchTask, job *v1alpha1.Job, targets []string, seen *reading, limits limits) (isForgotten bool) {
	positions := schedule.CoveredPositions(job.Targets, len(targets))
	if int(job.Succeeded+job.Failed) >= len(positions) || seen.listing[job.ID] == nil && !seen.whole[job.ID] {
		return false
	}
	outcomes := make([]outcome, len(positions))
	var counts [targetForgotten + 1]int32
	for n, i := range positions {
		outcomes[n] = limits.judge(seen, job, target.Identity(targets[i]))
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
			fail(task, targets[i], failedReasons[record.Status], join(record.FailType, record.FailMessage))
		case targetNoOutcome:
			fail(task, targets[i], v1alpha1.FailedNoOutcome, "EdgeOne named no outcome before the deadline")
		case targetUnderWay, targetSucceeded, targetForgotten:
		}
	}
	return isForgotten
}

// notFollowed ends a run whose outcomes cannot be read. They are looked at again, less
// often, and count if they can.
func notFollowed(why string, now time.Time) change {
	return func(task *v1alpha1.PrefetchTask) {
		sum(task, now)
		if !over(task) {
			endUnseen(task, unreadMessage+why+". The run ends without them; they are looked at again while EdgeOne's history shows them", now)
		}
	}
}

// forgetOutcomes ends a run of which EdgeOne's history no longer shows what became.
func forgetOutcomes(now time.Time) change {
	return func(task *v1alpha1.PrefetchTask) {
		if !over(task) || schedule.IsUnseen(task) {
			endUnseen(task, "Every target was handed over, but EdgeOne's history no longer shows the outcomes of all", now)
		}
	}
}

func endUnseen(task *v1alpha1.PrefetchTask, message string, now time.Time) {
	if task.Status.Submission != nil || len(schedule.OpenPositions(task)) > 0 {
		return
	}
	if task.Status.CompletionTime.IsZero() {
		task.Status.CompletionTime = metav1.NewTime(now)
	}
	set(task, v1alpha1.ConditionReady, metav1.ConditionUnknown, v1alpha1.ReasonNotFollowed, message)
	set(task, v1alpha1.ConditionFinished, metav1.ConditionTrue, v1alpha1.ReasonNotFollowed, message)
	stall(task, true, v1alpha1.ReasonNotFollowed, message)
}

// sum derives counts and conditions from what the status holds of the run.
func sum(task *v1alpha1.PrefetchTask, now time.Time) {
	if schedule.IsNewRun(task) || schedule.IsUnresolved(task) {
		return
	}
	s := &task.Status
	total := schedule.CountTargets(task)
	handed, refused := schedule.HandedOverPositions(task)
	succeeded, failed := int32(0), int32(len(refused))
	for i := range s.Jobs {
		job := &s.Jobs[i]
		succeeded += job.Succeeded
		failed += job.Failed - int32(len(schedule.RetriedPositions(job, total)))
	}
	s.Targets = v1alpha1.TargetCounts{
		Total: count(total), Submitted: count(len(handed)), Succeeded: ptr.To(succeeded), Failed: ptr.To(failed),
	}
	s.JobCount = int32(len(s.Jobs))
	observe(task)
	if over(task) && !schedule.IsUnseen(task) {
		return
	}
	switch {
	case int(succeeded+failed) >= total:
		finish(task, total, int(failed), now)
	case over(task) || len(handed) >= total && saysUnread(task): // until they can be read
	case len(handed) >= total:
		unset(task, v1alpha1.ConditionStalled, v1alpha1.ConditionQuotaExceeded)
		s.NextAttemptTime = metav1.Time{}
		set(task, v1alpha1.ConditionSubmitted, metav1.ConditionTrue, v1alpha1.ReasonSubmitted, "Every target was handed over to EdgeOne")
		notReady(task, v1alpha1.ReasonSubmitted, "EdgeOne is prefetching the targets")
	default:
		if s.Submission == nil && !inTrouble(task) && !saysSuspended(task) {
			unset(task, v1alpha1.ConditionStalled)
			set(task, v1alpha1.ConditionSubmitted, metav1.ConditionFalse, v1alpha1.ReasonWaiting, "")
			notReady(task, v1alpha1.ReasonWaiting, "Submitted when its turn comes")
		}
	}
}

// inTrouble says whether the status names trouble that keeps the task from being
// submitted. News of calls already made does not replace it, and neither does a
// new attempt, only its success: or the status would flap.
func inTrouble(task *v1alpha1.PrefetchTask) bool {
	switch readyReason(task) {
	case v1alpha1.ReasonThrottled, v1alpha1.ReasonUnavailable, v1alpha1.ReasonDailyQuota, v1alpha1.ReasonBatchQuota,
		v1alpha1.ReasonCredentialsMissing, v1alpha1.ReasonCredentialsRefused, v1alpha1.ReasonPermissionDenied, v1alpha1.ReasonTooLarge:
		return true
	case v1alpha1.ReasonOutcomeUnknown:
		return stalledFor(task, v1alpha1.ReasonOutcomeUnknown) && schedule.HasRepeatedLosses(task)
	}
	return false
}

func saysSuspended(task *v1alpha1.PrefetchTask) bool {
	return readyReason(task) == v1alpha1.ReasonSuspended && schedule.IsSuspended(task)
}

func readyReason(task *v1alpha1.PrefetchTask) string {
	if ready := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		return ready.Reason
	}
	return ""
}

// troubleOver takes back what the status says of trouble: a call went through.
func troubleOver(task *v1alpha1.PrefetchTask) {
	unset(task, v1alpha1.ConditionStalled, v1alpha1.ConditionQuotaExceeded)
	task.Status.NextAttemptTime = metav1.Time{}
	if inTrouble(task) {
		notReady(task, v1alpha1.ReasonWaiting, "Submitted when its turn comes")
	}
}

// finish ends the run.
func finish(task *v1alpha1.PrefetchTask, total, failed int, now time.Time) {
	reason, ready, message := v1alpha1.ReasonSucceeded, metav1.ConditionTrue, fmt.Sprintf("All %d targets are prefetched", total)
	switch {
	case failed > 0 && failed >= total:
		reason, ready, message = v1alpha1.ReasonFailed, metav1.ConditionFalse, failedOf(failed, total)+retryHint
	case failed > 0:
		reason, ready, message = v1alpha1.ReasonPartiallyFailed, metav1.ConditionFalse, failedOf(failed, total)+retryHint
	case total == 1:
		message = "The target is prefetched"
	}
	task.Status.CompletionTime = metav1.NewTime(now)
	task.Status.NextAttemptTime = metav1.Time{}
	unset(task, v1alpha1.ConditionQuotaExceeded)
	set(task, v1alpha1.ConditionSubmitted, metav1.ConditionTrue, v1alpha1.ReasonSubmitted, "Every target was handed over to EdgeOne")
	set(task, v1alpha1.ConditionReady, ready, reason, message)
	set(task, v1alpha1.ConditionFinished, metav1.ConditionTrue, reason, message)
	stall(task, failed > 0, reason, message)
}

func failedOf(failed, total int) string {
	return fmt.Sprintf("%d of %d targets failed, see status.failedTargets", failed, total)
}

const retryHint = "; a new value of the annotation " + v1alpha1.RetryAnnotation + " tries those again"

// over says whether the status's run is finished.
func over(task *v1alpha1.PrefetchTask) bool {
	return schedule.IsSlimmed(task) || meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionFinished)
}

// knowsTargets says whether the targets of the status's run are known: not if the
// spec no longer asks for it, or they are in a ConfigMap that has other ones.
func knowsTargets(task *v1alpha1.PrefetchTask) bool {
	return !schedule.IsNewRun(task) && !schedule.IsUnresolved(task) && !schedule.IsElided(task)
}

// covered reads positions in the status. Those of a run that the spec no longer
// asks for stay as they are: its targets are not known any more, and the spec may
// be changed back to it.
func covered(task *v1alpha1.PrefetchTask, text string) schedule.Positions {
	if !knowsTargets(task) {
		positions, _ := schedule.ParsePositions(text)
		return positions
	}
	return schedule.CoveredPositions(text, schedule.CountTargets(task))
}

func addJob(task *v1alpha1.PrefetchTask, jobID string, positions schedule.Positions) {
	if len(positions) == 0 {
		return
	}
	submission := task.Status.Submission
	for i := range task.Status.Jobs {
		if job := &task.Status.Jobs[i]; job.ID == jobID {
			have := covered(task, job.Targets)
			job.Targets = have.Union(positions).String()
			if retried, err := schedule.ParsePositions(job.Retried); err == nil {
				job.Retried = retried.Minus(positions).String()
			}
			return
		}
	}
	task.Status.Jobs = append(task.Status.Jobs, v1alpha1.Job{
		ID: jobID, ClaimID: submission.ClaimID, Targets: positions.String(), SubmitTime: submission.SignedAt,
	})
}

func addRefused(task *v1alpha1.PrefetchTask, positions schedule.Positions) {
	have := covered(task, task.Status.RefusedTargets)
	task.Status.RefusedTargets = have.Union(positions).String()
}

// fail names a failed target, once and as far as there is room.
func fail(task *v1alpha1.PrefetchTask, target, reason, message string) {
	s := &task.Status
	known := func(f v1alpha1.FailedTarget) bool { return f.URL == target }
	if len(s.FailedTargets) >= maxFailedTargets || slices.ContainsFunc(s.FailedTargets, known) {
		return
	}
	s.FailedTargets = append(s.FailedTargets, v1alpha1.FailedTarget{URL: target, Reason: reason, Message: cut(message, maxMessage)})
}

// observe says that the status speaks of the current generation.
func observe(task *v1alpha1.PrefetchTask) {
	task.Status.ObservedGeneration = task.Generation
	for i := range task.Status.Conditions {
		task.Status.Conditions[i].ObservedGeneration = task.Generation
	}
}

// notReady says what comes next for a run that is not over.
func notReady(task *v1alpha1.PrefetchTask, reason, message string) {
	set(task, v1alpha1.ConditionReady, metav1.ConditionFalse, reason, message)
	set(task, v1alpha1.ConditionFinished, metav1.ConditionFalse, reason, "")
}

func stall(task *v1alpha1.PrefetchTask, stalled bool, reason, message string) {
	present(task, v1alpha1.ConditionStalled, stalled, reason, message)
}

// present sets a condition that is there only while it is True. One that stays
// keeps its time, or telling the same again would be a write.
func present(task *v1alpha1.PrefetchTask, conditionType string, isTrue bool, reason, message string) {
	if isTrue {
		set(task, conditionType, metav1.ConditionTrue, reason, message)
	} else {
		unset(task, conditionType)
	}
}

func set(task *v1alpha1.PrefetchTask, conditionType string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&task.Status.Conditions, metav1.Condition{
		Type: conditionType, Status: status, Reason: reason, Message: cut(message, maxMessage), ObservedGeneration: task.Generation,
	})
}

func unset(task *v1alpha1.PrefetchTask, conditionTypes ...string) {
	for _, conditionType := range conditionTypes {
		meta.RemoveStatusCondition(&task.Status.Conditions, conditionType)
	}
}

func count(n int) *int32 { return ptr.To(int32(n)) }

func upperFirst(s string) string {
	r := []rune(s)
	if len(r) > 0 {
		r[0] = unicode.ToUpper(r[0])
	}
	return string(r)
}

func join(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ": ")
}
