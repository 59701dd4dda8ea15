package why

import (
	"strings"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// advice is what a person can do about a run that is not over and not Stalled, by reason of the
// condition Ready. A reason without an entry needs nobody.
var advice = map[string]string{
	v1alpha1.ReasonWaiting:        "There is nothing to do: the task keeps its place. If it lasts, look at the operator's log and at its metric of waiting tasks",
	v1alpha1.ReasonPurging:        "Wait: EdgeOne usually takes less than a minute",
	v1alpha1.ReasonSubmitting:     "Wait: the answer is due in seconds",
	v1alpha1.ReasonSubmitted:      "Wait: EdgeOne usually takes 5 to 30 minutes",
	v1alpha1.ReasonOutcomeUnknown: "Wait until EdgeOne's history shows whether it executed the call. Nothing is sent twice in the meantime",
	v1alpha1.ReasonThrottled:      "Find the other programs that call EdgeOne with this account, or give the operator a smaller share: --teo-qps",
	v1alpha1.ReasonUnavailable:    "Check the network policy and the proxy between the operator and EdgeOne: helm test shows whether it can be reached",
	v1alpha1.ReasonDailyQuota:     "Wait for the next day's quota, or buy more in EdgeOne's console",
	v1alpha1.ReasonBudget:         "Wait for the next day, or ask who manages the EdgeOneAccount for a larger budget",
	v1alpha1.ReasonNotFollowed:    "Let the key of the operator call teo:DescribePrefetchTasks. Outcomes that can be read later still count",
}

// adviceFor returns what a person can do about a task; "" if nothing is known.
func (e *Explanation) adviceFor(task *v1alpha1.PrefetchTask, facts Facts) string {
	switch {
	case e.Reason != v1alpha1.ReasonSuspended:
		return advice[e.Reason]
	case taskstate.IsSuspended(task):
		return "To resume it: " + facts.ResumeCommand
	case strings.Contains(e.Cause, "EdgeOneAccount"):
		return "Ask who manages the account to resume it"
	}
	return ""
}
