// Package why says in sentences what a PrefetchTask waits for. It decides nothing: everything comes
// from the status that the operator has written, and from the operator's own rules.
//
//   - why.go: the explanation. advice.go: what a person can do, by reason. operator.go: when it
//     is worth to look whether an operator runs.
package why

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/progress"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// Explanation says what a task waits for.
type Explanation struct {
	progress.Progress
	// Cause says what happens, or what the task waits for.
	Cause string
	// Since is when the cause began; zero if the status does not tell.
	Since time.Time
	// Until is when it ends; zero if that is not known, or if the time is past.
	Until time.Time
	// Ahead is what goes before a task that waits for its turn. The cause says it as well.
	Ahead taskstate.Ahead
	// Advice is what a person can do; "" if there is nothing to do.
	Advice string
	// Notes are what else explains the state, in sentences.
	Notes []string
}

// Facts are what is known beside the task.
type Facts struct {
	// Operators says where operators run; "" if that is not known. It matters if
	// MayLackOperator.
	Operators string
	// Account is the EdgeOneAccount of the task; nil if it has none, or if it cannot be read.
	Account *v1alpha1.EdgeOneAccount
	// ResumeCommand and RetryCommand are the commands that resume and retry the task.
	ResumeCommand, RetryCommand string
}

// Explain says what a task waits for, or how its run has ended.
func Explain(task *v1alpha1.PrefetchTask, facts Facts, now time.Time) Explanation {
	e := Explanation{Progress: progress.Of(task)}
	e.Cause = strings.TrimSuffix(taskstate.TrimSubmitted(task, e.Message), ".")
	switch {
	case e.Reason == progress.NotObserved:
		e.explainUnobserved(task)
	case e.Phase.IsOver():
		e.explainOver(task, facts, now)
	case e.Reason == progress.RetryRequested && e.Phase == progress.Running:
		e.Advice = laterAdvice
	default:
		e.explainWait(task, facts, now)
	}
	if MayLackOperator(task, now) {
		e.addOperators(task, facts)
	}
	return e
}

// explainWait explains a run that is not over.
func (e *Explanation) explainWait(task *v1alpha1.PrefetchTask, facts Facts, now time.Time) {
	e.Ahead = taskstate.AheadOf(task)
	if now.Before(e.NextAttempt) {
		e.Until = e.NextAttempt
	}
	if e.Phase == progress.Running {
		e.Since = sinceOf(task, e.Reason)
	}
	if e.Phase != progress.Stalled { // the message of a stalled task has the advice
		e.Advice = e.adviceFor(task, facts)
	}
	e.addNotes(task, facts)
}

// explainUnobserved explains a task, or a version of it, that no operator has seen.
func (e *Explanation) explainUnobserved(task *v1alpha1.PrefetchTask) {
	e.Since = task.CreationTimestamp.Time
	e.Cause = "The task has no status yet. An operator writes one when it submits the task, and otherwise within about a minute"
	if task.Status.ObservedGeneration > 0 {
		e.Since = time.Time{}
		e.Cause = fmt.Sprintf("The status is not about the last edit yet: it is about generation %d, and the task has generation %d. "+
			"The operator writes a new one when it submits the task, and otherwise within about a minute",
			task.Status.ObservedGeneration, task.Generation)
	}
}

// explainOver explains a run that is over.
func (e *Explanation) explainOver(task *v1alpha1.PrefetchTask, facts Facts, now time.Time) {
	e.Since = task.Status.CompletionTime.Time
	stalled := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionStalled)
	if e.Phase != progress.Succeeded && stalled != nil && stalled.Status == metav1.ConditionTrue {
		e.Cause = strings.TrimSuffix(stalled.Message, ".")
	}
	switch {
	case e.Phase == progress.Failed && len(e.FailedTargets) > 0:
		which := "The failed URL is"
		if e.Failed > 1 {
			which = fmt.Sprintf("The first of %d failed URLs is", e.Failed)
		}
		first := e.FailedTargets[0]
		e.Notes = append(e.Notes, fmt.Sprintf("%s %s (%s)", which, first.URL, joinReason(first)))
	}
	if e.Phase == progress.Failed {
		e.Advice = "To retry: " + facts.RetryCommand
	}
	if at, expires := taskstate.ExpiryOf(task); expires {
		verb := "will be"
		if at.Before(now) {
			verb = "was to be"
		}
		e.Notes = append(e.Notes, "The task "+verb+" deleted at "+formatTime(at))
	} else if owner := taskstate.RecreatedBy(task); owner != "" && task.Spec.TTLSecondsAfterFinished > 0 {
		e.Notes = append(e.Notes, "The task is not deleted, because "+owner+" would create it again")
	}
}

func joinReason(failed v1alpha1.FailedTarget) string {
	if failed.Message == "" {
		return failed.Reason
	}
	return failed.Reason + ": " + strings.TrimSuffix(failed.Message, ".")
}

// addNotes adds what else is known of a run that is not over.
func (e *Explanation) addNotes(task *v1alpha1.PrefetchTask, facts Facts) {
	if claim := task.Status.Submission; claim != nil && !claim.Expired {
		kind := "call"
		if claim.Kind == v1alpha1.JobPurge {
			kind = "purge"
		}
		e.Notes = append(e.Notes, fmt.Sprintf("The %s was signed at %s; the operator's log has it under the claim %s", kind, formatTime(claim.SignedAt.Time), claim.ClaimID))
	}
	if cold := taskstate.CountCold(task); cold > 0 && e.Reason != v1alpha1.ReasonPurging && !strings.Contains(e.Cause, "purged and not prefetched yet") {
		e.Notes = append(e.Notes, fmt.Sprintf("%s may be purged and not prefetched yet, so that visitors wait for the origin", plural(cold, "URL")))
	}
	if n := len(openJobs(task)); n > 0 && e.Reason == v1alpha1.ReasonSubmitted {
		e.Notes = append(e.Notes, fmt.Sprintf("The outcomes of %s are missing: %s", plural(n, "job"), strings.Join(shorten(openJobs(task)), ", ")))
	}
	e.addWait(task)
	e.Notes = append(e.Notes, e.quotaNotes(task, facts.Account)...)
	if e.Reason != v1alpha1.ReasonSuspended && taskstate.IsSuspended(task) {
		e.Notes = append(e.Notes, "spec.suspend is true, so that nothing more is submitted afterwards")
	}
}

// addWait says how long a task waits, if the status does not say when the cause began. A condition
// says when it became True; the reason that it has now may be a later one.
func (e *Explanation) addWait(task *v1alpha1.PrefetchTask) {
	text, jobs := "The task was created at "+formatTime(task.CreationTimestamp.Time), task.Status.Jobs
	stalled := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionStalled)
	quotaExceeded := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionQuotaExceeded)
	switch {
	case e.Phase == progress.Stalled && stalled != nil:
		text = "The task has been Stalled since " + formatTime(stalled.LastTransitionTime.Time)
	case !e.Since.IsZero() || e.Phase != progress.Running:
		return
	case quotaExceeded != nil:
		text = "The task has waited for quota since " + formatTime(quotaExceeded.LastTransitionTime.Time)
	case len(jobs) > 0:
		text = "Its last call was at " + formatTime(jobs[len(jobs)-1].SubmitTime.Time)
	}
	e.Notes = append(e.Notes, text)
}

// quotaNotes says what is left of the quota or the budget for which a task waits.
func (e *Explanation) quotaNotes(task *v1alpha1.PrefetchTask, account *v1alpha1.EdgeOneAccount) (notes []string) {
	switch {
	case account == nil:
		return nil
	case e.Reason == v1alpha1.ReasonBudget && account.Status.Left != nil:
		return []string{fmt.Sprintf("The daily budget of account %q has %d URLs left", account.Name, *account.Status.Left)}
	case e.Reason != v1alpha1.ReasonDailyQuota || taskstate.IsEdgeMode(task): // the quota of edge mode cannot be read
		return nil
	}
	for _, zone := range account.Status.Zones {
		if zone.ID == task.Spec.ZoneID && zone.Left != nil {
			text := fmt.Sprintf("EdgeOne's prefetch quota of zone %s has %d URLs left today", zone.ID, *zone.Left)
			if zone.Used != nil {
				text += fmt.Sprintf("; the tasks of account %q have used %d", account.Name, *zone.Used)
			}
			notes = append(notes, text)
		}
	}
	return notes
}

// sinceOf returns when what a task waits for began, as far as the status tells.
func sinceOf(task *v1alpha1.PrefetchTask, reason string) time.Time {
	isOfCall := reason == v1alpha1.ReasonSubmitting || reason == v1alpha1.ReasonOutcomeUnknown || reason == v1alpha1.ReasonPurging
	if claim := task.Status.Submission; isOfCall && claim != nil && !claim.Expired {
		return claim.SignedAt.Time
	}
	var last time.Time
	for i := range task.Status.Jobs {
		job := &task.Status.Jobs[i]
		isOfReason := reason == v1alpha1.ReasonSubmitted && taskstate.IsJobOpen(*job) || reason == v1alpha1.ReasonPurging && taskstate.IsPurgeOpen(*job)
		if isOfReason && job.SubmitTime.After(last) {
			last = job.SubmitTime.Time
		}
	}
	return last
}

// openJobs returns the IDs of the prefetches whose outcomes are missing.
func openJobs(task *v1alpha1.PrefetchTask) (ids []string) {
	for _, job := range task.Status.Jobs {
		if taskstate.IsJobOpen(job) {
			ids = append(ids, job.ID)
		}
	}
	return ids
}

// shorten leaves out all but a few items of a list.
func shorten(items []string) []string {
	const most = 3
	if len(items) <= most {
		return items
	}
	return append(items[:most:most], fmt.Sprintf("and %d more", len(items)-most))
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }
