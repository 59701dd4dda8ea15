package teo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// Kind sorts failures by what to do about them.
type Kind string

// The kinds. Of all but Ambiguous it is certain that nothing was executed.
const (
	Throttled   Kind = "Throttled"   // too many calls: slow down, send again
	Exhausted   Kind = "Exhausted"   // the quota is used up: wait until it returns
	Denied      Kind = "Denied"      // credentials, permissions or the zone are wrong: a person must act
	Rejected    Kind = "Rejected"    // this very request can never work
	Unavailable Kind = "Unavailable" // not sent, or a look-up that got no answer: try again
	Ambiguous   Kind = "Ambiguous"   // may have been executed: look before sending again
)

var (
	// ErrTooOld is in the chain of the error of a call whose signature was too
	// old to send; see Client.SendBefore. Its kind is Unavailable.
	ErrTooOld = errors.New("signed too long ago to be sent")
	// ErrCutOff is in the chain of the error of a call that ended in the middle
	// of its request: a part of the body was read, and not all of it, when the
	// connection broke, the time was up, or somebody answered. Its kind is
	// Unavailable. A path that does not take requests of that size ends calls in
	// this way each time, and a connection that was kept open for too long once;
	// a call that did not leave at all (DNS, dial, TLS) has other errors.
	ErrCutOff = errors.New("the connection ended in the middle of the request")
	// ErrTooManyPages is in the chain when a listing is longer than the caller
	// wants to read, or than EdgeOne lets it. Its kind is Unavailable.
	ErrTooManyPages = errors.New("the listing is longer than asked for")
	// ErrNoPrefetchQuota is in the chain when a zone has no quota for prefetch
	// by URL, or one of 0 URLs a day or a call: its plan does not include it, and
	// no tomorrow brings any. Its kind is Rejected.
	ErrNoPrefetchQuota = errors.New("the zone's plan has no prefetch quota")
	// ErrZeroQuota is in the chain, with ErrNoPrefetchQuota, when EdgeOne names the
	// quota and it is 0. Without it EdgeOne names none, which calls may still have.
	ErrZeroQuota = fmt.Errorf("%w: it is 0", ErrNoPrefetchQuota)
)

// errNotEdgeOnes is the cause of the error of an answer that looks like none of
// the API's.
var errNotEdgeOnes = errors.New("no success")

// Error is a call that did not succeed. Its texts, and those of the errors in its
// chain, have no secrets in them and are bounded.
type Error struct {
	Action     string
	Kind       Kind
	Code       string // EdgeOne's, "" if there was no such answer
	Message    string // EdgeOne's, or ours where there is no Code
	RequestID  string // to quote to Tencent's support, "" without an answer
	HTTPStatus int    // 0 without an answer
	Err        error  // the cause, if it is not an answer
}

// Error is the whole story for a log or a person: action, code, message, cause
// and request ID.
func (e *Error) Error() string {
	var b strings.Builder
	for _, part := range []string{e.Action, e.Code, e.Message} {
		if part == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(part)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	switch {
	case e.RequestID != "":
		fmt.Fprintf(&b, " (request %s)", e.RequestID)
	case e.HTTPStatus != 0 && e.HTTPStatus != http.StatusOK:
		fmt.Fprintf(&b, " (HTTP %d)", e.HTTPStatus)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// refusal is an answer of EdgeOne that says no.
func refusal(action, code, message, requestID string, status int) *Error {
	return &Error{Action: action, Kind: classify(action, code), Code: code, Message: message, RequestID: requestID, HTTPStatus: status}
}

// uselessAnswer is an answer that says neither yes nor no.
func uselessAnswer(action string, sent progress, requestID string, status int, cause error) *Error {
	e := noAnswer(action, sent, cause, redactor{})
	e.RequestID, e.HTTPStatus = requestID, status
	switch {
	case errors.Is(cause, errTooMuch):
		e.Message = errTooMuch.Error()
	case requestID != "":
		e.Message = "the answer is not complete"
	default:
		e.Message = "the answer is not one of EdgeOne's"
	}
	return e
}

// noAnswer is a call that got no answer at all. What was not sent as a whole
// was certainly not executed.
func noAnswer(action string, sent progress, cause error, redact redactor) *Error {
	if wrapped := (*url.Error)(nil); errors.As(cause, &wrapped) {
		cause = wrapped.Err // its text only adds the method and the endpoint
	}
	what := describe(cause)
	cause = redact.err(cause)
	switch sent {
	case unsent:
		return &Error{Action: action, Kind: Unavailable, Message: "not sent: " + what, Err: cause}
	case cutOff:
		return &Error{Action: action, Kind: Unavailable, Message: "not sent completely: " + what, Err: cutOffBy(cause)}
	case sentAll:
	}
	return &Error{Action: action, Kind: classify(action, ""), Message: "no answer: " + what, Err: cause}
}

func cutOffBy(cause error) error {
	if cause == nil {
		return ErrCutOff
	}
	return fmt.Errorf("%w: %w", ErrCutOff, cause)
}

// describe puts a cause into words that are the same each time it strikes: the
// errors' own texts have addresses, ports and times in them.
func describe(cause error) string {
	var (
		dns     *net.DNSError
		cert    *tls.CertificateVerificationError
		timeout interface{ Timeout() bool }
	)
	switch {
	case errors.As(cause, &dns):
		return "the host name cannot be resolved"
	case errors.As(cause, &cert):
		return "the server's certificate is not accepted"
	case errors.Is(cause, context.Canceled):
		return "cancelled"
	case errors.Is(cause, context.DeadlineExceeded), errors.As(cause, &timeout) && timeout.Timeout():
		return "timed out"
	case errors.Is(cause, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(cause, syscall.ECONNRESET), errors.Is(cause, syscall.EPIPE):
		return "connection reset"
	case errors.Is(cause, io.EOF), errors.Is(cause, io.ErrUnexpectedEOF):
		return "connection closed"
	}
	return "the connection failed"
}

// KindOf says what to do about an error: "" for nil, and Ambiguous for an
// error that is not from this package, of which nothing is known.
func KindOf(err error) Kind {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Ambiguous
}

// Code returns EdgeOne's error code, or "" if err is not an answer of EdgeOne.
func Code(err error) string {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// varying matches what differs between two answers to the same failure:
// request IDs, times, addresses, and the count in a throttled answer.
var varying = regexp.MustCompile("(?i)" + strings.Join([]string{
	`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`,
	`\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)?`,
	`\d{1,3}(\.\d{1,3}){3}(:\d+)?`,
	`\b\d{10,}\b`,
	"`\\d+`",
}, "|"))

// The bounds of words, in bytes.
const (
	// maxMessage bounds a Message: it goes into objects that are listed by the
	// thousand.
	maxMessage = 512
	// maxWords bounds a sentence of EdgeOne's or of a library, for a log.
	maxWords = 2 * maxMessage
	// maxWord bounds a code, a request ID and the like.
	maxWord = 128
)

// Message is what to tell a user in a status: code and message without
// anything that changes from one time to the next, so that the same failure
// has the same text. At most 512 bytes and an ellipsis; "" for nil.
func Message(err error) string {
	var e *Error
	switch {
	case err == nil:
		return ""
	case !errors.As(err, &e):
		return "the call failed"
	case e.Code == "" && e.HTTPStatus != 0 && e.HTTPStatus != http.StatusOK:
		return shorten(e.Message, maxMessage) + " (HTTP " + strconv.Itoa(e.HTTPStatus) + ")"
	case e.Code == "":
		return shorten(e.Message, maxMessage)
	}
	text := e.Message
	if e.RequestID != "" {
		text = strings.ReplaceAll(text, e.RequestID, "…")
	}
	return shorten(e.Code+": "+varying.ReplaceAllString(text, "…"), maxMessage)
}

// IsBatchQuota says whether the call had more targets than the plan allows in
// one, which for a single target means that there is no prefetch quota at all.
func IsBatchQuota(err error) bool { return Code(err) == codeBatchQuota }

// IsDomainNotFound says whether a target's host is unknown to EdgeOne or
// belongs to another account.
func IsDomainNotFound(err error) bool { return Code(err) == codeDomainNotFound }

// IsSignatureExpire says whether EdgeOne found the signature too old or too
// far in the future. For a fresh one that means that our clock is wrong; the
// answer has set ServerTime right.
func IsSignatureExpire(err error) bool { return Code(err) == codeSignatureExpire }

// DeniedAccount says whether a Denied error concerns everything these
// credentials do, as a wrong key does, and not only the zone of the call.
func DeniedAccount(err error) bool {
	if KindOf(err) != Denied {
		return false
	}
	_, zone := lookUpCode(Code(err))
	return !zone
}

// IsReadRefused says whether EdgeOne does not let this key read the zone. A key that is
// refused for everything, or missing, says nothing about the zone.
func IsReadRefused(err error) bool {
	kind := KindOf(err)
	return kind == Denied && !DeniedAccount(err) || kind == Rejected
}
