package controller

import (
	"cmp"
	"errors"
	"time"
	"unicode"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// backOffScope is what a failure keeps waiting.
type backOffScope int

const (
	nothing backOffScope = iota
	theLane
	theBlamed // whom the queue blames, by what else has failed in the same way
	theAccount
)

// backOffPlan is what to do about a failed call, apart from its own targets: who waits,
// how long, and what their status says meanwhile.
type backOffPlan struct {
	scope backOffScope
	time.Duration
	taskstate.Cause
}

var noReason taskstate.Cause

const (
	// maxBackoff bounds how long EdgeOne is left alone after it could not be
	// reached or kept throttling.
	maxBackoff = 30 * time.Second
	// maxRecheck bounds how seldom a zone is tried in which EdgeOne has never accepted
	// a call.
	maxRecheck = 10 * time.Minute
	// fewThrottles may happen in a row before the account pauses: the limiter
	// alone copes with other programs that share the account.
	fewThrottles = 3
	// fewLost calls in a row may have an unknown outcome before those pause whom that
	// concerns. More are trouble of EdgeOne's or the network's; each costs its tasks
	// minutes, so the end of the trouble is found out with a single task at a time.
	fewLost = 2
)

var (
	// errNotClaimed: the Kubernetes API took no claim, so no call was made.
	errNotClaimed = errors.New("cannot write the claim to the task status; no call was made")
	// errNoServerTime: EdgeOne's answers have no time, so no call can be made.
	errNoServerTime = errors.New("EdgeOne's answers have no Date header, by which calls are signed and looked up; check the proxies in between")
)

// planBackOff is the only place where a failure becomes a wait. Failures is how
// many calls failed in a row among those whom it concerns; lookAgain is when what a person has
// to mend is tried again.
func planBackOff(err error, failures int, lookAgain time.Duration) backOffPlan {
	message := teo.Message(err)
	var answer *teo.Error
	switch {
	case errors.Is(err, errMissing):
		return backOffPlan{theAccount, lookAgain, taskstate.Cause{Reason: v1alpha1.ReasonCredentialsMissing, Message: upperFirst(err.Error()), NeedsUser: true}}
	case errors.Is(err, errNotClaimed):
		return backOffPlan{theLane, backOffTime(failures), taskstate.Cause{Reason: v1alpha1.ReasonUnavailable, Message: upperFirst(err.Error())}}
	case !errors.As(err, &answer): // the Kubernetes API did not give the Secret
		return backOffPlan{theAccount, backOffTime(failures), taskstate.Cause{Reason: v1alpha1.ReasonUnavailable, Message: upperFirst(err.Error())}}
	case errors.Is(err, teo.ErrTooOld):
		return backOffPlan{theLane, backOffTime(failures), taskstate.Cause{Reason: v1alpha1.ReasonUnavailable, Message: message}}
	case teo.IsSignatureExpire(err):
		// The answer has told EdgeOne's time, by which the next call is signed.
		return backOffPlan{theAccount, backOffTime(failures), taskstate.Cause{
			Reason: v1alpha1.ReasonCredentialsRefused, NeedsUser: true,
			Message: message + " (the operator's clock is minutes off; check NTP on the node)",
		}}
	}
	switch teo.KindOf(err) {
	case teo.Throttled:
		if failures <= fewThrottles {
			return backOffPlan{theLane, 100 * time.Millisecond, taskstate.Cause{Reason: v1alpha1.ReasonThrottled, Message: message}}
		}
		return backOffPlan{theAccount, backOffTime(failures - fewThrottles), taskstate.Cause{Reason: v1alpha1.ReasonThrottled, Message: message}}
	case teo.Denied:
		why := taskstate.Cause{Reason: v1alpha1.ReasonPermissionDenied, NeedsUser: true, Message: message +
			" (check spec.zoneID, and that the key may call teo:CreatePrefetchTask, teo:DescribePrefetchTasks and teo:DescribeContentQuota in this zone)"}
		if teo.DeniedAccount(err) {
			why.Reason, why.Message = v1alpha1.ReasonCredentialsRefused, message+" (replace the secretId and secretKey)"
			return backOffPlan{theAccount, lookAgain, why}
		}
		return backOffPlan{theBlamed, max(lookAgain, min(maxRecheck, lookAgain<<min(max(failures-1, 0), 10))), why}
	case teo.Unavailable:
		return backOffPlan{theAccount, backOffTime(failures), taskstate.Cause{Reason: v1alpha1.ReasonUnavailable, Message: message}}
	case teo.Ambiguous:
		if failures > fewLost {
			return backOffPlan{theBlamed, backOffTime(failures - fewLost), taskstate.Cause{Reason: v1alpha1.ReasonUnavailable, Message: message}}
		}
	}
	return backOffPlan{}
}

// attributeFailure counts a failure and says whom it concerns and how often in a row that has
// failed. A failure that says nothing about what was asked for is the account's.
func (s *Submitter) attributeFailure(l *accountQueue, call *queue.Call, err error, now time.Time) (queue.Scope, int) {
	way := cmp.Or(teo.Code(err), "no answer")
	switch kind := teo.KindOf(err); {
	case call == nil:
	case kind == teo.Ambiguous:
		return l.queue.AttributeFailure(call, way, now)
	case kind == teo.Denied && !teo.DeniedAccount(err):
		return l.queue.AttributeDenial(call, way, now)
	}
	if call == nil || call.Planned.After(l.failedAt) {
		l.failures++
		l.failedAt = now
	}
	return queue.ScopeAccount, l.failures
}

func backOffTime(failures int) time.Duration {
	return min(maxBackoff, time.Second<<min(max(failures-1, 0), 10))
}

func upperFirst(s string) string {
	r := []rune(s)
	if len(r) > 0 {
		r[0] = unicode.ToUpper(r[0])
	}
	return string(r)
}
