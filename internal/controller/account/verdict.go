package account

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	accounts "github.com/prefetch-operator/teo-prefetch-operator/internal/account"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/backoff"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/credentials"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// acceptedMemory is how long a call that EdgeOne accepted counts although EdgeOne lets the
// key read no quota. The policy of a key may allow calls and not the reading of quotas.
const acceptedMemory = 2 * quotaInterval

// verdict is what is known about the credentials of an account.
type verdict struct {
	status metav1.ConditionStatus
	taskstate.Cause
	isKept bool // nothing is known beyond what the status says
}

// judge returns what the answers to this process say about the credentials of an account:
// those to this controller, and the last one to the calls of tasks, if any.
func (s *accountState) judge(account *v1alpha1.EdgeOneAccount, answer *accounts.Answer, now time.Time) verdict {
	if answer != nil && !s.isAbout(answer) {
		answer = nil
	}
	refused, called := s.refusal, time.Time{} // called is when EdgeOne accepted a call of a task
	switch {
	case answer == nil:
	case answer.Err == nil:
		called = answer.At
	case needsUser(answer.Err) && answer.At.After(refused.at):
		refused = refusal{answer.Err, answer.At}
	}
	accepted, denied, note := s.judgeZones(account)
	if called.After(accepted) {
		accepted = called
	}
	switch {
	case refused.err != nil && refused.at.After(accepted):
		return verdict{status: metav1.ConditionFalse, Cause: s.causeOf(refused.err)}
	case denied.err != nil && now.Sub(accepted) > acceptedMemory:
		why := s.causeOf(denied.err)
		why.Message = note
		return verdict{status: metav1.ConditionFalse, Cause: why}
	case !accepted.IsZero():
		return acceptedFor("EdgeOne accepts the credentials", note)
	}
	return s.judgeUnanswered(account)
}

// judgeUnanswered is judge as long as EdgeOne has answered nothing.
func (s *accountState) judgeUnanswered(account *v1alpha1.EdgeOneAccount) verdict {
	ready := meta.FindStatusCondition(account.Status.Conditions, v1alpha1.ConditionReady)
	isCarried := s.isCarried && ready != nil
	switch {
	case isCarried && (ready.Status == metav1.ConditionTrue || s.trouble != nil):
		return verdict{isKept: true}
	case !s.keysAt.IsZero() && s.keys.isRole:
		return acceptedFor("STS issues the keys of the role; EdgeOne has not been called with them yet", "")
	case isCarried && ready.Reason == v1alpha1.ReasonCredentialsRefused:
		return verdict{isKept: true}
	}
	message := "Neither EdgeOne nor STS has answered yet"
	switch {
	case s.trouble != nil:
		message += ": " + s.causeOf(s.trouble).Message
	case len(zonesOf(account, nil)) == 0:
		message += "; the first call of a task shows whether EdgeOne accepts the credentials. With a zone in spec.zones, the operator verifies them at once"
	}
	return verdict{status: metav1.ConditionUnknown, Cause: taskstate.Cause{Reason: v1alpha1.ReasonNotVerified, Message: message}}
}

// acceptedFor returns the verdict Accepted.
func acceptedFor(message, note string) verdict {
	if note != "" {
		message += ". " + note
	}
	return verdict{status: metav1.ConditionTrue, Cause: taskstate.Cause{Reason: v1alpha1.ReasonAccepted, Message: message}}
}

// isAbout says whether an answer is about the present keys.
func (s *accountState) isAbout(answer *accounts.Answer) bool {
	switch {
	case answer.Principal != "" && s.keys.principal != "" && answer.Principal != s.keys.principal, answer.At.Before(s.keysNew):
		return false
	case isKeysError(answer.Err): // later, there were keys
		return !answer.At.Before(s.keysAt)
	}
	return true
}

// judgeZones returns when EdgeOne last accepted the keys for a zone, and the refusal of the
// first zone that it refuses to them, with a note. denied is zero if EdgeOne accepts the
// keys for another zone.
func (s *accountState) judgeZones(account *v1alpha1.EdgeOneAccount) (accepted time.Time, denied zoneRead, note string) {
	var zones []string
	for zone := range s.zones {
		zones = append(zones, zone)
	}
	for _, zone := range shownZones(account, countOne(zones)) {
		read, ok := s.zones[zone]
		switch {
		case !ok:
		case read.err == nil:
			if read.at.After(accepted) {
				accepted = read.at
			}
		case note == "":
			denied, note = read, fmt.Sprintf("EdgeOne refuses zone %q: %s", zone, teo.Message(read.err))
		}
	}
	if !accepted.IsZero() {
		denied = zoneRead{}
	}
	return accepted, denied, note
}

// countOne returns a count of 1 for each zone.
func countOne(zones []string) map[string]int {
	counts := map[string]int{}
	for _, zone := range zones {
		counts[zone] = 1
	}
	return counts
}

// needsUser says whether an error persists until a user acts.
func needsUser(err error) bool { return backoff.PlanWait(err, 1, 0).NeedsUser }

// causeOf returns the cause for an error, in the terms of an account.
func (s *accountState) causeOf(err error) taskstate.Cause {
	why := backoff.PlanWait(err, 1, 0).Cause
	if reason := credentials.ReasonOf(err); reason != "" {
		why.Reason = reason
	}
	switch {
	case why.Reason == v1alpha1.ReasonCredentialsRefused && s.keys.isRole && !isKeysError(err) && !teo.IsSignatureExpire(err):
		why.Advice = "Check that the role still exists and that its sessions are not revoked"
	case why.Reason == v1alpha1.ReasonZoneNotFound:
		why.Reason, why.Advice = v1alpha1.ReasonPermissionDenied, "Check spec.zones, and that the key belongs to the zone's account"
	}
	return why
}
