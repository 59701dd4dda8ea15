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

// Kind classifies failures by the right response to them.
type Kind string

// The kinds of failures. For every kind except Ambiguous, it is certain that EdgeOne
// executed nothing.
const (
	Throttled   Kind = "Throttled"   // too many calls: slow down and send again
	Exhausted   Kind = "Exhausted"   // the quota is used up: wait until it returns
	Denied      Kind = "Denied"      // credentials, permissions, the zone or its plan are wrong: a user must act
	Rejected    Kind = "Rejected"    // this request can never succeed
	Unavailable Kind = "Unavailable" // not sent, or a read-only call without an answer: try again
	Ambiguous   Kind = "Ambiguous"   // EdgeOne may have executed it: read the history before sending again
)

var (
	// ErrTooOld is in the error chain of a call whose signature was too old to send; see
	// Client.SendBefore. The kind is Unavailable.
	ErrTooOld = errors.New("signed too long ago to be sent")
	// ErrCutOff is in the error chain of a call that ended in the middle of its request:
	// the transport had read only a part of the body when the connection broke, the call
	// timed out, or an answer arrived. The kind is Unavailable. A network path that rejects
	// requests of that size ends calls in this way every time; a connection that was kept
	// open for too long does so once. A call that was not sent at all (DNS, dial, TLS)
	// has other errors.
	ErrCutOff = errors.New("the connection ended in the middle of the request")
	// ErrTooManyPages is in the error chain when a listing is longer than the caller
	// allows, or than EdgeOne allows. The kind is Unavailable.
	ErrTooManyPages = errors.New("the listing is longer than asked for")
	// ErrNoPrefetchQuota is in the error chain when a zone has no quota for prefetch by
	// URL, or a quota of 0 URLs per day or per call: its plan does not include prefetch,
	// and no later day brings any quota. The kind is Rejected.
	ErrNoPrefetchQuota = errors.New("the zone's plan has no prefetch quota")
	// ErrZeroQuota is in the error chain, with ErrNoPrefetchQuota, when EdgeOne reports
	// the quota and it is 0. Without ErrZeroQuota, EdgeOne reports no quota, but calls
	// may still have one.
	ErrZeroQuota = fmt.Errorf("%w: it is 0", ErrNoPrefetchQuota)
)

// errNotEdgeOnes is the cause of the error when an answer does not have the form of the
// API's answers.
var errNotEdgeOnes = errors.New("no success")

// Error describes a call that did not succeed. Its texts, and those of its error chain,
// have bounded length and contain no secrets.
type Error struct {
	Action     string
	Kind       Kind
	Code       string // EdgeOne's code; "" without such an answer
	Message    string // EdgeOne's message, or the client's if there is no Code
	RequestID  string // for Tencent's support; "" without an answer
	HTTPStatus int    // 0 without an answer
	Err        error  // the cause, if it is not an answer
}

// Error returns the full description for a log: action, code, message, cause and request
// ID.
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

// refusal returns the error of an answer in which EdgeOne refuses the call.
func refusal(action, code, message, requestID string, status int) *Error {
	return &Error{Action: action, Kind: classify(action, code), Code: code, Message: message, RequestID: requestID, HTTPStatus: status}
}

// uselessAnswer returns the error of an answer that neither accepts nor refuses the call.
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

// noAnswer returns the error of a call without any answer. If the request was not sent
// completely, it is certain that EdgeOne did not execute it.
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

// cutOffBy adds ErrCutOff to the chain of a cause.
func cutOffBy(cause error) error {
	if cause == nil {
		return ErrCutOff
	}
	return fmt.Errorf("%w: %w", ErrCutOff, cause)
}

// describe returns a description of a cause that is the same every time the cause occurs.
// The errors' own texts contain addresses, ports and times.
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

// KindOf returns the kind of an error: "" for nil, and Ambiguous for an error from
// another package, because nothing is known about it.
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

// varying matches what differs between two answers to the same failure: request IDs,
// times, addresses, and the count in a throttling answer.
var varying = regexp.MustCompile("(?i)" + strings.Join([]string{
	`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`,
	`\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)?`,
	`\d{1,3}(\.\d{1,3}){3}(:\d+)?`,
	`\b\d{10,}\b`,
	"`\\d+`",
}, "|"))

// The bounds of texts, in bytes.
const (
	// maxMessage bounds a Message, which goes into objects that clients list by the
	// thousand.
	maxMessage = 512
	// maxWords bounds a text of EdgeOne or of a library that goes into a log.
	maxWords = 2 * maxMessage
	// maxWord bounds a code, a request ID and similar texts.
	maxWord = 128
)

// Message returns the text for a status: code and message without the parts that vary, so
// that the same failure always has the same text. It has at most 512 bytes and an
// ellipsis, and is "" for nil.
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

// IsBatchQuota says whether the call had more targets than the plan allows in one call.
// For a single target, this means that the plan has no prefetch quota at all.
func IsBatchQuota(err error) bool { return Code(err) == codeBatchQuota }

// IsPlanLacking says whether the zone's plan does not include what a call asks for, such as
// its type of purge. EdgeOne refuses every such call in the zone until the plan changes.
func IsPlanLacking(err error) bool { return Code(err) == codePlanLacking }

// IsDomainNotFound says whether a target's host is unknown to EdgeOne or belongs to
// another account.
func IsDomainNotFound(err error) bool { return Code(err) == codeDomainNotFound }

// IsZoneNotFound says whether EdgeOne does not know the zone of a call, or the account of
// the key does not have it.
func IsZoneNotFound(err error) bool {
	code := Code(err)
	return strings.HasSuffix(code, ".ZoneNotFound") || code == "ResourceNotFound" || strings.HasPrefix(code, "ResourceNotFound.")
}

// RequestID returns the ID that EdgeOne gave the request of an error, or "". Tencent's
// support finds a request by it.
func RequestID(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.RequestID
	}
	return ""
}

// IsSignatureExpire says whether EdgeOne found the signature too old or too far in the
// future. For a fresh signature, this means that the local clock is wrong; the answer has
// corrected ServerTime.
func IsSignatureExpire(err error) bool { return Code(err) == codeSignatureExpire }

// DeniedAccount says whether a Denied error affects every call with these credentials, as
// a wrong key does, and not only the zone of the call.
func DeniedAccount(err error) bool {
	if KindOf(err) != Denied {
		return false
	}
	_, zone := lookUpCode(Code(err))
	return !zone
}

// IsReadRefused says whether EdgeOne does not allow this key to read the zone. It is
// false if the key is missing, or refused for all calls, because that says nothing about
// the zone.
func IsReadRefused(err error) bool {
	kind := KindOf(err)
	return kind == Denied && !DeniedAccount(err) || kind == Rejected
}
