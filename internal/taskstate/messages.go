package taskstate

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// MaxMessage bounds each message of a status, in bytes. The API server has the same limit
// for the note of an Event.
const MaxMessage = 1024

// TruncateMessage returns the message as valid UTF-8 of at most most bytes. A truncated
// message ends with an ellipsis.
func TruncateMessage(message string, most int) string {
	message = strings.ToValidUTF8(message, "�")
	if len(message) <= most {
		return message
	}
	return strings.ToValidUTF8(message[:most-len("…")], "") + "…"
}

// UpperFirst returns s with its first letter in upper case, as messages of conditions
// start.
func UpperFirst(s string) string {
	r := []rune(s)
	if len(r) > 0 {
		r[0] = unicode.ToUpper(r[0])
	}
	return string(r)
}

// QueuedMessage is the message of a task that waits for its turn only. Ahead may follow it.
const QueuedMessage = "Queued; will be submitted when its turn comes"

// submittedMessage is the message of the condition Submitted if it is True.
func submittedMessage(refused int) string {
	if refused > 0 {
		return fmt.Sprintf("Every target was handed over to EdgeOne, which refused %d", refused)
	}
	return "Every target was handed over to EdgeOne"
}

// progressMessage puts the number of submitted targets before the reason why the others
// wait. The number is the one in the status.
func progressMessage(task *v1alpha1.PrefetchTask, why string) string {
	why = coldMessage(task) + why
	if IsNewRun(task) {
		return why
	}
	return countSubmitted(task) + why
}

// countSubmitted is the start of the message of a run that has submitted some of its targets.
func countSubmitted(task *v1alpha1.PrefetchTask) string {
	submitted, total := ptr.Deref(task.Status.Targets.Submitted, 0), ptr.Deref(task.Status.Targets.Total, 0)
	if submitted == 0 || submitted >= total {
		return ""
	}
	return fmt.Sprintf("%d of %d targets submitted, %d waiting. ", submitted, total, total-submitted)
}

// TrimSubmitted removes from a message of a task's status how many targets are submitted, for
// readers who know it.
func TrimSubmitted(task *v1alpha1.PrefetchTask, message string) string {
	return strings.TrimPrefix(message, countSubmitted(task))
}

// prefetchingMessage is the message of a run whose targets are all submitted.
func prefetchingMessage(task *v1alpha1.PrefetchTask) string {
	t := task.Status.Targets
	ended := ptr.Deref(t.Succeeded, 0) + ptr.Deref(t.Failed, 0)
	if ended == 0 {
		return "EdgeOne is prefetching the targets"
	}
	failed := ""
	if n := ptr.Deref(t.Failed, 0); n > 0 {
		failed = fmt.Sprintf(", %d failed", n)
	}
	return fmt.Sprintf("%d of %d targets prefetched%s; EdgeOne is prefetching the rest", ptr.Deref(t.Succeeded, 0), ptr.Deref(t.Total, 0), failed)
}

// withNextAttempt adds to a message when the quota is expected to be available again.
func withNextAttempt(message string, next time.Time) string {
	if next.IsZero() {
		return message
	}
	return message + "; new quota is expected at " + next.UTC().Format(time.RFC3339)
}

// countFailed is the start of each message about failed targets.
func countFailed(failed, total int) string {
	if total == 1 {
		return "The target failed"
	}
	return fmt.Sprintf("%d of %d targets failed", failed, total)
}

// maxShownURL and maxShownCause bound the parts of a message about a failed target, in
// bytes.
const (
	maxShownURL   = 256
	maxShownCause = 256
)

// seeFailedTargets ends a message about failed targets that it does not name.
const seeFailedTargets = ", see status.failedTargets"

// TrimSeeFailedTargets removes from a message where the failed targets are, for readers who see them.
func TrimSeeFailedTargets(message string) string {
	return strings.TrimSuffix(message, seeFailedTargets)
}

// failedMessage says how many targets failed, and names the first one with its cause.
func failedMessage(task *v1alpha1.PrefetchTask, failed, total int) string {
	message := countFailed(failed, total)
	if len(task.Status.FailedTargets) == 0 {
		return message + seeFailedTargets
	}
	first := task.Status.FailedTargets[0]
	message += ": " + TruncateMessage(first.URL, maxShownURL) + " (" + TruncateMessage(joinSentences(first.Reason, first.Message), maxShownCause) + ")"
	if failed > 1 {
		message += fmt.Sprintf(" and %d more", failed-1) + seeFailedTargets
	}
	return message
}

// failureAdvice says what to do about the failed targets that the status names. A retry
// alone mends what EdgeOne did not manage in time. It cannot mend what EdgeOne refuses or
// the origin does not have.
func failureAdvice(task *v1alpha1.PrefetchTask) string {
	has := func(reason string) bool {
		return slices.ContainsFunc(task.Status.FailedTargets, func(f v1alpha1.FailedTarget) bool { return f.Reason == reason })
	}
	var first []string
	if has(v1alpha1.FailedRefused) {
		first = append(first, "correct what EdgeOne refused")
	}
	if has(v1alpha1.FailedPurge) {
		first = append(first, "find out why EdgeOne did not purge")
	}
	if has(v1alpha1.FailedInvalid) {
		first = append(first, "make the origin answer with a 2xx status")
	}
	retry := "change the annotation " + v1alpha1.RetryAnnotation + " to retry"
	if len(first) == 0 {
		return UpperFirst(retry)
	}
	return UpperFirst(strings.Join(first, ", ")) + ", then " + retry + "; or correct the list, which starts a new run"
}
