// Package backoff turns an error into a wait: which tasks wait, for how long, and what
// their status reports meanwhile. The controller that submits and the controllers that
// read EdgeOne's history share its rules.
//
// The package decides only by the error and the number of failures. It has no state and
// does not know the queue: the caller counts failures and applies the plan.
package backoff

import (
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/credentials"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// Scope defines which tasks wait after a failure.
type Scope int

// The scopes, from narrow to wide.
const (
	ScopeNone    Scope = iota // no tasks
	ScopeLane                 // tasks that could share the call
	ScopeBlamed               // the scope that the queue derives from other failures of the same kind
	ScopeAccount              // all tasks of the account
)

// Plan is the wait after a failed call: its scope, its length, and the cause that the
// statuses of the waiting tasks report. It does not decide what happens to the targets of
// the call. The zero Plan means that no task waits.
type Plan struct {
	Scope Scope
	time.Duration
	taskstate.Cause
}

const (
	// maxBackoff is the longest wait after EdgeOne was unreachable or throttled a call.
	maxBackoff = 30 * time.Second
	// maxRecheck is the longest wait for a zone in which EdgeOne has never accepted a call,
	// unless the recheck interval is longer.
	maxRecheck = 10 * time.Minute
	// fewThrottles is the number of throttled calls in a row up to which only the lane
	// waits. The limiter handles the usual case, in which other programs use the account.
	fewThrottles = 3
	// fewLost is the number of calls in a row with an unknown outcome up to which no task
	// waits. More of them indicate a problem at EdgeOne or in the network. Each lost call
	// costs its tasks minutes, so single tasks then probe whether the problem persists.
	fewLost = 2
)

var (
	// ErrNotClaimed reports that no claim could be written, so no call was made.
	ErrNotClaimed = errors.New("cannot write the claim to the task status; no call was made")
	// ErrNoServerTime reports that EdgeOne's responses have no Date header, so no call can be
	// signed.
	ErrNoServerTime = errors.New("EdgeOne's answers have no Date header, by which calls are signed and looked up; check the proxies in between")
)

// PlanWait returns the wait after a failure. No other code decides it. failures is the
// number of consecutive failed calls in the scope that the failure affects. lookAgain is
// the recheck interval: the wait after a failure that needs user action.
func PlanWait(err error, failures int, lookAgain time.Duration) Plan {
	message := teo.Message(err)
	var answer *teo.Error
	switch {
	case errors.Is(err, credentials.ErrMissing):
		fact, advice := credentials.Explain(err)
		reason := v1alpha1.ReasonCredentialsMissing
		if errors.Is(err, credentials.ErrNoAccount) {
			reason = v1alpha1.ReasonAccountMissing
		}
		return Plan{ScopeAccount, lookAgain, taskstate.Cause{
			Reason: reason, NeedsUser: true, Message: taskstate.UpperFirst(fact), Advice: taskstate.UpperFirst(advice),
		}}
	case errors.Is(err, ErrNotClaimed):
		return Plan{ScopeLane, Delay(failures), taskstate.Cause{Reason: v1alpha1.ReasonUnavailable, Message: taskstate.UpperFirst(withoutAddresses(err))}}
	case !errors.As(err, &answer): // the Secret cannot be read from the Kubernetes API
		return Plan{ScopeAccount, Delay(failures), taskstate.Cause{Reason: v1alpha1.ReasonUnavailable, Message: taskstate.UpperFirst(withoutAddresses(err))}}
	case errors.Is(err, teo.ErrTooOld):
		return Plan{ScopeLane, Delay(failures), taskstate.Cause{Reason: v1alpha1.ReasonUnavailable, Message: message}}
	case teo.IsSignatureExpire(err):
		// The wait is short: the response contains EdgeOne's time, and the next call is
		// signed with it.
		return Plan{ScopeAccount, Delay(failures), taskstate.Cause{
			Reason: v1alpha1.ReasonCredentialsRefused, NeedsUser: true,
			Message: message, Advice: "The operator's clock is minutes off; check NTP on the node",
		}}
	}
	switch teo.KindOf(err) {
	case teo.Throttled:
		if failures <= fewThrottles {
			return Plan{ScopeLane, 100 * time.Millisecond, taskstate.Cause{Reason: v1alpha1.ReasonThrottled, Message: message + throttledHint}}
		}
		return Plan{ScopeAccount, Delay(failures - fewThrottles), taskstate.Cause{Reason: v1alpha1.ReasonThrottled, Message: message + throttledHint}}
	case teo.Denied:
		return planDenied(err, failures, lookAgain)
	case teo.Unavailable:
		switch {
		case errors.Is(err, sts.ErrRole):
			message = explainRetry(err)
		case answer.Code == "":
			message = "Cannot call EdgeOne: " + message + unreachableHint
		}
		return Plan{ScopeAccount, Delay(failures), taskstate.Cause{Reason: v1alpha1.ReasonUnavailable, Message: message}}
	case teo.Ambiguous:
		if failures > fewLost {
			return Plan{ScopeBlamed, Delay(failures - fewLost), taskstate.Cause{Reason: v1alpha1.ReasonUnavailable, Message: message}}
		}
	}
	return Plan{}
}

// explainRetry returns the message while STS or a node's metadata service gives no keys.
func explainRetry(err error) string {
	fact, advice := credentials.Explain(err)
	if advice == "" {
		return fact
	}
	return fact + " (the operator retries; " + advice + ")"
}

// planDenied returns the wait after EdgeOne refused the key, or the zone to the key. It ends
// when a user corrects one of them.
func planDenied(err error, failures int, lookAgain time.Duration) Plan {
	why := taskstate.Cause{Reason: v1alpha1.ReasonPermissionDenied, NeedsUser: true, Message: teo.Message(err), Advice: advisePolicy(err)}
	if teo.DeniedAccount(err) {
		why.Reason, why.Advice = v1alpha1.ReasonCredentialsRefused, "Replace the secretId and secretKey"
		if errors.Is(err, sts.ErrRole) {
			fact, advice := credentials.Explain(err)
			why.Message, why.Advice = fact, taskstate.UpperFirst(advice)
		}
		return Plan{ScopeAccount, lookAgain, why}
	}
	if teo.IsZoneNotFound(err) {
		why.Reason, why.Advice = v1alpha1.ReasonZoneNotFound, "Check spec.zoneID, and that the key belongs to the zone's account"
	}
	wait := max(lookAgain, min(maxRecheck, lookAgain<<min(max(failures-1, 0), 10)))
	if teo.IsPlanLacking(err) {
		// Only calls that ask for the same need the plan to change.
		why.Reason, why.Quota = v1alpha1.ReasonBatchQuota, true
		why.Advice = "Choose a plan for the zone that includes this, or correct the task"
		return Plan{ScopeLane, wait, why}
	}
	return Plan{ScopeBlamed, wait, why}
}

// advisePolicy names the action that the key may not call, and those that the operator needs
// besides. Only tasks that purge need the actions of purges.
func advisePolicy(err error) string {
	needed := []string{teo.ActionCreatePrefetchTask, teo.ActionDescribePrefetchTasks, teo.ActionDescribeContentQuota}
	var answer *teo.Error
	if !errors.As(err, &answer) || !slices.Contains(teo.Actions(), answer.Action) {
		return "Let the key call " + camActions(needed) + " in this zone"
	}
	if answer.Action == teo.ActionCreatePurgeTask || answer.Action == teo.ActionDescribePurgeTasks {
		needed = teo.Actions()
	}
	others := slices.DeleteFunc(needed, func(action string) bool { return action == answer.Action })
	return "Let the key call " + camActions([]string{answer.Action}) + " in this zone; the operator also needs " + camActions(others)
}

// camActions returns the names of actions in CAM policies, as a list for people.
func camActions(actions []string) string {
	list := "teo:" + strings.Join(actions, ", teo:")
	if last := strings.LastIndex(list, ", "); last >= 0 {
		return list[:last] + " and" + list[last+1:]
	}
	return list
}

// throttledHint and unreachableHint follow EdgeOne's words, or those about the connection.
const (
	throttledHint   = " (the operator slows down; other programs and clusters share the account's limit)"
	unreachableHint = " (the operator retries; check DNS, proxies and network policies)"
)

// withoutAddresses returns the text of an error without the URL of a request to the Kubernetes
// API, which names a task or a Secret of any namespace, and without the addresses of the
// connection, which are different each time. Tasks of other namespaces may report the text.
func withoutAddresses(err error) string {
	request, connection := (*url.Error)(nil), (*net.OpError)(nil)
	if !errors.As(err, &request) {
		return err.Error()
	}
	cause := request.Err
	if errors.As(cause, &connection) {
		cause = connection.Err
	}
	return strings.ReplaceAll(err.Error(), request.Error(), "the request to the Kubernetes API failed: "+cause.Error())
}

// Delay returns the wait after a number of consecutive failures. It starts at 1 s and
// doubles with each failure, up to 30 s.
func Delay(failures int) time.Duration {
	return min(maxBackoff, time.Second<<min(max(failures-1, 0), 10))
}
