package teo

import (
	"context"
	"net/http"
	"time"
)

// Service sends the calls of another API of Tencent Cloud. Signing, timeouts, the bounds
// of answers and the redaction of errors are those of Client. It does not limit the rate
// of calls, and the error table of EdgeOne does not apply: the caller classifies an error
// by its Code. It is safe for concurrent use.
type Service struct{ client *Client }

// NewService returns a Service. name is the name of the API in signatures. version is its
// version. The options need an Endpoint.
func NewService(name, version string, options Options) (*Service, error) {
	client, err := NewClient(options)
	if err != nil {
		return nil, err
	}
	client.service, client.version = name, version
	return &Service{client}, nil
}

// ServiceCall is one call of a Service.
type ServiceCall struct {
	Action     string
	Region     string       // "" for an API without regions
	Signer     *Credentials // nil sends the call unsigned, with Authorization SKIP
	Parameters any          // the body, before it is encoded as JSON
	Secrets    []string     // texts in Parameters that no error may contain
	// Read reads or skips the value of a field of the answer. It must call exactly one
	// method of the Value.
	Read func(field string, value Value)
	// Problem returns what is missing from a complete answer, or nil.
	Problem func() error
}

// Call makes one attempt. It returns the time of the answer on the clock of the API: the
// Date of the answer, or the local time if there is none. An error is an *Error.
func (s *Service) Call(ctx context.Context, call ServiceCall) (time.Time, error) {
	r := request{
		action: call.Action, signedAt: s.client.ServerTime(), parameters: call.Parameters,
		isUnsigned: call.Signer == nil, secrets: call.Secrets, region: call.Region,
	}
	if call.Signer != nil {
		r.creds = *call.Signer
	}
	_, err := s.client.call(ctx, r, serviceContent{call})
	return s.client.ServerTime(), err
}

// serviceContent is the content of an answer to a ServiceCall.
type serviceContent struct{ call ServiceCall }

func (c serviceContent) read(field string, from *jsonReader) { c.call.Read(field, Value{from}) }
func (c serviceContent) problem(response) error              { return c.call.Problem() }

// Value is a value in an answer of a Service. A value of an unexpected type reads as zero,
// and makes the answer malformed.
type Value struct{ from *jsonReader }

// Text reads a string, or "" for null.
func (v Value) Text() string { return v.from.text() }

// Number reads an integer, or nil for null.
func (v Value) Number() *int { return v.from.number() }

// Object reads an object. It calls field with each name; field must call exactly one
// method of the Value.
func (v Value) Object(field func(name string, value Value)) {
	v.from.object(func(name string) { field(name, v) })
}

// Skip reads a value of any type.
func (v Value) Skip() { v.from.skip() }

// setRegion sets the header for the region of a call, if it has one.
func setRegion(header http.Header, region string) {
	if region != "" {
		header.Set("X-Tc-Region", region)
	}
}
