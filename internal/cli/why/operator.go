package why

import (
	"cmp"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/progress"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

const (
	// duePatience is how long after the expected return of quota a task may still wait for it, or be
	// there after it expired. The operator reads the quota every 10 minutes by default.
	duePatience = 15 * time.Minute
	// statusPatience is how long a task may wait with the same status. EdgeOne usually prefetches
	// within 30 minutes, but a queue may be longer.
	statusPatience = time.Hour
)

const (
	newAdvice = "If this lasts for more than a minute, check that an operator runs, and that its --watch-namespaces include the namespace"
	oldAdvice = "If no other task continues either, check that an operator runs, and that its --watch-namespaces include the namespace"
)

// MayLackOperator reports whether it is worth to look for an operator: the status does not answer
// what the task asks for, or it is so old that a running operator should have written another.
func MayLackOperator(task *v1alpha1.PrefetchTask, now time.Time) bool {
	p := progress.Of(task)
	expiry, expires := taskstate.ExpiryOf(task)
	switch {
	case p.Phase.IsOver():
		return expires && now.Sub(expiry) > duePatience
	case p.Phase != progress.Running:
		return false
	case isUnanswered(task, p):
		return true
	case !p.NextAttempt.IsZero():
		return now.Sub(p.NextAttempt) > duePatience
	}
	written := lastWrite(task)
	return !written.IsZero() && now.Sub(written) > statusPatience
}

// isUnanswered reports whether the status is not about the current spec, or not about a requested retry.
func isUnanswered(task *v1alpha1.PrefetchTask, p progress.Progress) bool {
	return p.Reason == progress.NotObserved || p.Reason == progress.RetryRequested && !taskstate.IsRetryPendingReported(task)
}

// lastWrite returns when the status was last written; zero if that is not known.
func lastWrite(task *v1alpha1.PrefetchTask) (last time.Time) {
	for _, entry := range task.ManagedFields {
		if entry.Subresource == "status" && entry.Time != nil && entry.Time.After(last) {
			last = entry.Time.Time
		}
	}
	return last
}

// addOperators adds which operators run, and how old a status is that should be newer.
func (e *Explanation) addOperators(task *v1alpha1.PrefetchTask, facts Facts) {
	switch {
	case isUnanswered(task, e.Progress):
		e.Advice = newAdvice
	case e.Phase.IsOver():
		e.Advice = cmp.Or(e.Advice, oldAdvice)
	default:
		e.Advice = oldAdvice
		if written := lastWrite(task); !written.IsZero() {
			e.Notes = append(e.Notes, "The status was last written at "+formatTime(written))
		}
	}
	if facts.Operators != "" {
		e.Notes = append(e.Notes, facts.Operators)
	}
}
