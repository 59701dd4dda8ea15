// Package backoff turns an error into a wait: who waits, how long, and what their status
// says meanwhile. The same table serves the controller that submits and the ones that read
// EdgeOne's history.
//
// It decides from the error and the number of failures alone. It keeps no state and knows
// nothing of queues: the caller counts failures and applies the plan.
package backoff

import (
	"errors"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/credentials"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// Scope says who waits after a failure.
type Scope int

// The scopes, from narrow to wide.
const (
	ScopeNone    Scope = iota
	ScopeLane          // tasks that could share the call
	ScopeBlamed        // whom the queue blames, from other failures of the same kind
	ScopeAccount       // all tasks of the account
)

// Plan says what to do after a failed call, apart from its own targets. The zero Plan
// means that nobody waits.
type Plan struct {
	Scope Scope
	time.Duration
	taskstate.Cause
}

const (
	// maxBackoff is the longest wait after EdgeOne could not be reached or throttled.
	maxBackoff = 30 * time.Second
	// maxRecheck is the longest wait of a zone in which EdgeOne has never accepted a call.
	maxRecheck = 10 * time.Minute
	// fewThrottles is how many throttled calls in a row make only the lane wait: the
	// limiter alone copes with other programs that share the account.
	fewThrottles = 3
	// fewLost is how many calls in a row may have an unknown outcome before anybody waits.
	// More point to trouble at EdgeOne or in the network. Each lost call costs its tasks
	// minutes, so single tasks probe for the end of the trouble.
	fewLost = 2
)

var (
	// ErrNotClaimed says that the Kubernetes API took no claim, so no call was made.
	ErrNotClaimed = errors.New("cannot write the claim to the task status; no call was made")
	// ErrNoServerTime says that EdgeOne's answers carry no time, so no call can be signed.
	ErrNoServerTime = errors.New("EdgeOne's answers have no Date header, by which calls are signed and looked up; check the proxies in between")
)

// PlanWait returns the wait after a failure; no other place decides that. failures is the
// number of calls in a row that failed for those whom the failure concerns. lookAgain is the
// wait after a failure that needs a user's action.
func PlanWait(err error, failures int, lookAgain time.Duration) Plan {
	message := teo.Message(err)
	var answer *teo.Error
	switch {
	case errors.Is(err, credentials.ErrMissing):
		return Plan{ScopeAccount, lookAgain, taskstate.Cause{Reason: v1alpha1.ReasonCredentialsMissing, Message: taskstate.UpperFirst(err.Error()), NeedsUser: true}}
	case errors.Is(err, ErrNotClaimed):
		return Plan{ScopeLane, Delay(failures), taskstate.Cause{Reason: v1alpha1.ReasonUnavailable, Message: taskstate.UpperFirst(err.Error())}}
	case !errors.As(err, &answer): // the Kubernetes API did not give the Secret
		return Plan{ScopeAccount, Delay(failures), taskstate.Cause{Reason: v1alpha1.ReasonUnavailable, Message: taskstate.UpperFirst(err.Error())}}
	case errors.Is(err, teo.ErrTooOld):
		return Plan{ScopeLane, Delay(failures), taskstate.Cause{Reason: v1alpha1.ReasonUnavailable, Message: message}}
	case teo.IsSignatureExpire(err):
		// The answer has told EdgeOne's time, by which the next call is signed.
		return Plan{ScopeAccount, Delay(failures), taskstate.Cause{
			Reason: v1alpha1.ReasonCredentialsRefused, NeedsUser: true,
			Message: message + " (the operator's clock is minutes off; check NTP on the node)",
		}}
	}
	switch teo.KindOf(err) {
	case teo.Throttled:
		if failures <= fewThrottles {
			return Plan{ScopeLane, 100 * time.Millisecond, taskstate.Cause{Reason: v1alpha1.ReasonThrottled, Message: message}}
		}
		return Plan{ScopeAccount, Delay(failures - fewThrottles), taskstate.Cause{Reason: v1alpha1.ReasonThrottled, Message: message}}
	case teo.Denied:
		why := taskstate.Cause{Reason: v1alpha1.ReasonPermissionDenied, NeedsUser: true, Message: message +
			" (check spec.zoneID, and that the key may call teo:CreatePrefetchTask, teo:DescribePrefetchTasks and teo:DescribeContentQuota in this zone)"}
		if teo.DeniedAccount(err) {
			why.Reason, why.Message = v1alpha1.ReasonCredentialsRefused, message+" (replace the secretId and secretKey)"
			return Plan{ScopeAccount, lookAgain, why}
		}
		return Plan{ScopeBlamed, max(lookAgain, min(maxRecheck, lookAgain<<min(max(failures-1, 0), 10))), why}
	case teo.Unavailable:
		return Plan{ScopeAccount, Delay(failures), taskstate.Cause{Reason: v1alpha1.ReasonUnavailable, Message: message}}
	case teo.Ambiguous:
		if failures > fewLost {
			return Plan{ScopeBlamed, Delay(failures - fewLost), taskstate.Cause{Reason: v1alpha1.ReasonUnavailable, Message: message}}
		}
	}
	return Plan{}
}

// Delay returns the wait after a number of failures in a row: 1 s, doubled each time, up to
// 30 s.
func Delay(failures int) time.Duration {
	return min(maxBackoff, time.Second<<min(max(failures-1, 0), 10))
}
