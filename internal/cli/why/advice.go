package why

import (
	"cmp"
	"strings"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// advice is what a person can do about a run that is not over and not Stalled, by reason of the
// condition Ready.
var advice = map[string]string{
	v1alpha1.ReasonWaiting:        "There is nothing to do. If it lasts, look at the operator's log, and at its metric teo_prefetch_waiting_targets",
	v1alpha1.ReasonPurging:        "Wait: EdgeOne usually takes less than a minute",
	v1alpha1.ReasonSubmitting:     "Wait: the answer is due in seconds. If it lasts for more than a minute, check that an operator runs",
	v1alpha1.ReasonSubmitted:      "Wait: EdgeOne usually takes 5 to 30 minutes",
	v1alpha1.ReasonOutcomeUnknown: "Wait until EdgeOne's history shows whether it executed the call. The operator does not repeat it before",
	v1alpha1.ReasonThrottled:      "Find the other programs that call EdgeOne with this account, or give the operator a smaller share: --teo-qps",
	v1alpha1.ReasonUnavailable:    "Run helm test to see whether the operator reaches EdgeOne and the Kubernetes API",
	v1alpha1.ReasonDailyQuota:     "Wait for the next day's quota, or buy more in EdgeOne's console",
	v1alpha1.ReasonBudget:         "Wait for the next day, or ask who manages the EdgeOneAccount for a larger budget",
}

const (
	// queuedAdvice is for a task that waits for its turn behind others.
	queuedAdvice = "Namespaces take turns, and the oldest task of a namespace goes first. Suspend other tasks of the account to let this one go sooner"
	// laterAdvice is for reasons without an entry: what is not worth a wait stalls the task.
	laterAdvice = "If a person has to act, the task becomes Stalled within minutes and says what to do"
)

// adviceFor returns what a person can do about a task; "" if nothing is known.
func (e *Explanation) adviceFor(task *v1alpha1.PrefetchTask, facts Facts) string {
	switch {
	case e.Ahead.Tasks > 0:
		return queuedAdvice
	case e.Reason != v1alpha1.ReasonSuspended:
		return cmp.Or(advice[e.Reason], laterAdvice)
	case taskstate.IsSuspended(task):
		return "To resume it: " + facts.ResumeCommand
	case strings.Contains(e.Cause, "EdgeOneAccount"):
		return "Ask who manages the account to resume it"
	}
	return ""
}
