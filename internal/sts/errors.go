package sts

import (
	"errors"
	"fmt"
	"strings"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

var (
	// ErrRole is in the error chain if STS or the metadata service gave no keys for a role.
	// The error is a *teo.Error without a code, because the codes of STS mean something else
	// in EdgeOne's error table. Its Kind is Denied if STS refused the call or if the keys have
	// expired, and otherwise Unavailable. Its Message names the step, the code of STS, and
	// what to check. Explain splits it.
	ErrRole = errors.New("no keys from STS")
	// ErrKey is in the error chain, with ErrRole, if the reason is not the role: STS does not
	// accept the keys that assume it, or the keys of the role have expired.
	ErrKey = fmt.Errorf("%w: the keys are not valid", ErrRole)
	// ErrToken is in the error chain if there is no usable web identity token. The text
	// names the file.
	ErrToken = errors.New("no web identity token")
	// ErrNoCVMRole is in the error chain if the node does not have a CVM role.
	ErrNoCVMRole = errors.New("no such CVM role")
)

// errClock is in the error chain if STS found the signature too old or too far in the
// future.
var errClock = fmt.Errorf("%w: the clocks differ", ErrKey)

// explained adds an explanation to an error.
type explained struct {
	fact, advice string
	err          error
}

func (e *explained) Error() string { return e.err.Error() }
func (e *explained) Unwrap() error { return e.err }

// Explain splits the text of an error of this package: what is wrong, and what to check.
// The fact names the step that failed, and the code of STS. The advice is "" if there is
// nothing to do but wait.
func Explain(err error) (fact, advice string) {
	var e *explained
	if errors.As(err, &e) {
		return e.fact, e.advice
	}
	return teo.Message(err), ""
}

// WithSubject adds to the text of an error whose keys are concerned.
func WithSubject(subject string, err error) error {
	fact, advice := Explain(err)
	return &teo.Error{
		Kind: teo.KindOf(err), Message: subject + ": " + teo.Message(err),
		Err: &explained{subject + ": " + fact, advice, err},
	}
}

// noToken returns the error of an unusable web identity token.
func noToken(fact, advice string, cause error) error {
	err := fmt.Errorf("%w: %s", ErrToken, fact)
	switch {
	case cause != nil:
		err = fmt.Errorf("%w: %s: %w", ErrToken, fact, cause) // the cause names the file
		fact += ": " + cause.Error()
	case advice != "":
		err = fmt.Errorf("%w; %s", err, advice)
	}
	return &explained{ErrToken.Error() + ": " + fact, advice, err}
}

// unavailable returns an error after which a later call may succeed.
func unavailable(action, fact, advice string, cause error) *teo.Error {
	return &teo.Error{Action: action, Kind: teo.Unavailable, Message: fact, Err: &explained{fact, advice, withErrRole(cause)}}
}

// withErrRole adds ErrRole to the chain of a cause.
func withErrRole(cause error) error {
	if cause == nil {
		return ErrRole
	}
	return fmt.Errorf("%w: %w", ErrRole, cause)
}

// expired returns the error of keys that have expired and could not be refreshed.
func expired(failure *teo.Error) *teo.Error {
	const prefix = "The keys of the role have expired and cannot be refreshed: "
	fact, advice := Explain(failure)
	return &teo.Error{
		Action: failure.Action, Kind: teo.Denied, Message: prefix + failure.Message,
		Err: &explained{prefix + fact, advice, fmt.Errorf("%w: %w", ErrKey, failure)},
	}
}

// maxWords bounds the words of STS in a fact, in bytes.
const maxWords = 300

// describe returns the error of a step for the error of its call. The message has the code
// and what to check before the words of STS, because the end of a long message is cut.
func describe(action string, err error) error {
	code := teo.Code(err)
	words := strings.TrimPrefix(teo.Message(err), code+": ")
	switch {
	case code == "":
		return unavailable(action, "STS did not answer "+action+": "+strings.ReplaceAll(words, "one of EdgeOne's", "one of an API"),
			"check the network path to STS (--sts-endpoint)", err)
	case isTemporary(code):
		return unavailable(action, "STS failed "+action+" with "+code+": "+words, "", err)
	}
	fact, advice := "STS refused "+action+" with "+code, advise(action, code)
	message := fact + "; " + advice + ". STS says: " + words
	if len(words) > maxWords {
		words = strings.ToValidUTF8(words[:maxWords], "") + "…"
	}
	return &teo.Error{
		Action: action, Kind: teo.Denied, Message: message,
		Err: &explained{fact + ". STS says: " + words, advice, fmt.Errorf("%w: %w", sentinelFor(code), err)},
	}
}

// sentinelFor returns what a refusal with a code is, for errors.Is.
func sentinelFor(code string) error {
	switch {
	case code == "AuthFailure.SignatureExpire":
		return errClock
	case strings.HasPrefix(code, "AuthFailure"):
		return ErrKey
	}
	return ErrRole
}

// isTemporary says whether a later call may succeed although nobody changes anything.
// STS answers with InternalError.GetRoleError and InternalError.IllegalRole for roles that
// it does not find or that may not be assumed.
func isTemporary(code string) bool {
	switch {
	case code == "InternalError.GetRoleError", code == "InternalError.IllegalRole":
		return false
	case strings.HasPrefix(code, "InternalError"), strings.HasPrefix(code, "RequestLimitExceeded"),
		strings.HasPrefix(code, "LimitExceeded"), strings.HasPrefix(code, "ServiceUnavailable"):
		return true
	}
	return false
}

// advise returns what to check after a refusal.
func advise(action, code string) string {
	isWebIdentity := action == ActionAssumeRoleWithWebIdentity
	switch {
	case code == "AuthFailure.SignatureExpire":
		return "check NTP on the node: its clock is minutes off"
	case strings.HasPrefix(code, "AuthFailure"):
		return "check the keys that assume the role"
	case code == "InvalidParameter.WebIdentityTokenError":
		return "check in CAM that the identity provider has the cluster's issuer URL and its current signing keys, " +
			"that the token's audience is one of its client IDs, and the provider ID"
	case isWebIdentity && strings.HasPrefix(code, "UnauthorizedOperation"):
		return "check that the role's trust policy names the identity provider and accepts the token's issuer, audience and subject"
	case isWebIdentity:
		return "check the role ARN, the provider ID, and the role's trust policy"
	case strings.HasPrefix(code, "UnauthorizedOperation"), code == "InternalError.IllegalRole":
		return "check that the role's trust policy names the caller and its external ID, and that the caller may call sts:AssumeRole"
	}
	return "check the ARN of the role to assume, the external ID, and the role's trust policy"
}
