// Package teo is a client for the actions of the EdgeOne (TEO) API 2022-09-01 that
// prefetching and purging need. It does not depend on Kubernetes.
//
// A call that starts a job costs quota and must not happen twice. The client therefore
// makes one attempt, and the error's Kind says whether EdgeOne may have executed it. The
// client signs with a time that the caller chose, so the caller knows when a lost request
// can no longer be executed. The client also estimates EdgeOne's clock, which decides
// when a signature expires.
//
//   - client.go sends one request; options.go configures the client. service.go sends the
//     calls of other APIs of Tencent Cloud in the same way.
//   - credentials.go describes a key; sign.go signs with it.
//   - body.go ensures that a request is sent only once.
//   - answer.go reads an answer; redact.go removes secrets from its texts.
//   - clock.go estimates EdgeOne's clock.
//   - actions.go names the actions. create.go starts jobs, and purge.go has what only
//     purges need. listing.go lists the records of jobs; history.go describes them.
//     reading.go joins the pages of a listing, and torn.go recognizes a listing that kept
//     changing. quota.go reads quotas.
//   - errors.go describes failures; error_codes.go classifies EdgeOne's codes.
//   - limiter.go limits the rate of calls, and slot.go is the permission for one call.
//     limiters.go keeps the limiters of all keys.
package teo

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	service    = "teo"
	apiVersion = "2022-09-01"

	// maxRequest is EdgeOne's limit for a request, in bytes.
	maxRequest = 10 << 20

	// maxJobID is the maximum length of a JobId, in bytes. EdgeOne's are much shorter. It
	// is also the maximum length of a job ID in the status of a task.
	maxJobID = 256

	// throttledAttempts is how many times in total the client sends a read-only call
	// while EdgeOne throttles it.
	throttledAttempts = 4
)

// Client calls EdgeOne. It is safe for concurrent use.
type Client struct {
	service  string // the name in signatures
	version  string // the version of the API
	options  Options
	endpoint *url.URL
	http     http.Client
	clock    serverClock

	limiters limiters
	proxy    *url.Userinfo // the user for the proxy, if any
}

// NewClient returns a client, or an error that names the invalid option.
func NewClient(options Options) (*Client, error) {
	options, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	endpoint, err := parseEndpoint(options.Endpoint)
	if err != nil {
		return nil, err
	}
	return &Client{
		service:  service,
		version:  apiVersion,
		options:  options,
		endpoint: endpoint,
		http: http.Client{
			Transport: options.Transport,
			// Following a redirect could send a signed call to another host, or send it twice.
			// The client treats a redirect as any other answer that is not EdgeOne's.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		limiters: limiters{
			limit: options.QPS, observe: options.ObserveWait, pairs: map[pair]*accountLimits{}, proved: map[string]*accountLimits{},
		},
		proxy: proxyUser(options.Transport, endpoint),
	}, nil
}

// ServerTime returns EdgeOne's clock as far as it is known: the Date of the latest answer
// plus the time since that answer arrived. It is late by at most the transit time of that
// answer and the one-second granularity of Date, and it never runs ahead. Before the
// first answer, it is the local clock; see ServerTimeKnown.
func (c *Client) ServerTime() time.Time { return c.clock.now() }

// ServerTimeKnown says whether EdgeOne has answered since the client was created. Only
// answers of the API itself count, including refusals.
func (c *Client) ServerTimeKnown() bool { return c.clock.known() }

// SendBefore returns the last moment, by ServerTime, at which the client still sends a
// request signed at signedAt: after half of Options.SignatureValidity. The other half is
// for the transit of the request.
func (c *Client) SendBefore(signedAt time.Time) time.Time {
	return signedAt.Add(c.options.SignatureValidity / 2)
}

// Limiter returns the limiter of an account and action, because EdgeOne meters calls by
// account and action. All callers with the same SecretID and SecretKey share it, and so
// do all keys of one SecretID that EdgeOne has accepted, and all keys of one Principal.
// Do not store a limiter without using it: after some minutes without calls, Limiter
// returns a new one.
func (c *Client) Limiter(creds Credentials, action string) *Limiter {
	return c.limiters.get(creds, action)
}

// lineKey is the context key of InLine.
type lineKey struct{}

// InLine returns a context whose read-only calls wait for their slots in the wait queue
// with that name; see Turn. All calls without a name share one wait queue.
func InLine(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, lineKey{}, name)
}

// lookUp makes a read-only call. It waits for a slot, signs with the server's time, and
// retries when EdgeOne throttles the call. fresh returns an empty content for each
// attempt; the last one holds the answer.
func (c *Client) lookUp(ctx context.Context, creds Credentials, action string, in any, fresh func() content) error {
	line, _ := ctx.Value(lineKey{}).(string)
	for attempt := 1; ; attempt++ {
		slot, err := c.Limiter(creds, action).Wait(ctx, Turn{Line: line})
		if err != nil {
			return err
		}
		_, err = c.call(slot.For(ctx), request{creds: creds, action: action, signedAt: c.ServerTime(), parameters: in}, fresh())
		throttled := KindOf(err) == Throttled
		slot.Done(throttled)
		if !throttled || attempt == throttledAttempts {
			return err
		}
	}
}

// request is a call that has not been sent.
type request struct {
	creds      Credentials
	action     string
	signedAt   time.Time // on EdgeOne's clock
	parameters any       // the body, before it is encoded
	// isUnsigned sends the call without a signature, as only a Service can.
	isUnsigned bool
	secrets    []string // further texts that no error may contain
	region     string   // EdgeOne has none
}

// call makes one attempt and reports it to Observe. into receives the content of a
// successful answer; after an error, ignore it.
func (c *Client) call(ctx context.Context, r request, into content) (response, error) {
	req, body, err := c.buildHTTPRequest(ctx, r)
	if err != nil {
		return response{}, err
	}
	start := time.Now()
	answer, err := c.attempt(req, body, r, into)
	c.options.Observe(Call{Action: r.action, Kind: KindOf(err), Code: Code(err), Duration: time.Since(start)})
	return answer, err
}

// buildHTTPRequest checks, encodes and signs a request.
func (c *Client) buildHTTPRequest(ctx context.Context, r request) (*http.Request, *onceBody, error) {
	if problem := r.creds.problem(); problem != "" && !r.isUnsigned {
		return nil, nil, &Error{Action: r.action, Kind: Denied, Message: problem}
	}
	content, err := encode(r.parameters)
	if err != nil {
		return nil, nil, noAnswer(r.action, unsent, err, redactor{})
	}
	if len(content) > maxRequest {
		// Use the gateway's own code, so that callers split the call as if it had been
		// sent.
		return nil, nil, &Error{Action: r.action, Kind: Rejected, Code: codeRequestSize,
			Message: "the request would be larger than 10 MiB"}
	}
	body := &onceBody{rest: content}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint.String(), body)
	if err != nil {
		return nil, nil, noAnswer(r.action, unsent, err, redactor{})
	}
	req.ContentLength = int64(len(content))
	// Use the spelling of net/http, which copies a header in any other spelling.
	req.Header.Set("User-Agent", c.options.UserAgent)
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("X-Tc-Action", r.action)
	req.Header.Set("X-Tc-Version", c.version)
	req.Header.Set("X-Tc-Timestamp", strconv.FormatInt(r.signedAt.Unix(), 10))
	req.Header.Set("X-Tc-Language", "en-US")
	setRegion(req.Header, r.region)
	if r.creds.Token != "" {
		req.Header.Set("X-Tc-Token", r.creds.Token)
	}
	if r.isUnsigned {
		req.Header.Set("Authorization", "SKIP")
		return req, body, nil
	}
	req.Header.Set("Authorization", Authorization(r.creds, c.service, []SignedHeader{
		{"content-type", contentType}, {"host", c.endpoint.Host}, {"x-tc-action", r.action},
	}, content, r.signedAt))
	return req, body, nil
}

// attempt sends a request and reads its answer. It seals the body before it decides
// whether EdgeOne may have executed the call, because a transport may still be writing.
func (c *Client) attempt(req *http.Request, body *onceBody, r request, into content) (response, error) {
	creds, action := r.creds, r.action
	ctx, cancel := context.WithTimeout(req.Context(), c.options.Timeout)
	defer cancel()
	redact := newRedactor(creds, req.Header.Get("Authorization"), c.proxy, r.secrets...)
	resp, err := c.http.Do(req.WithContext(ctx))
	if err != nil {
		return response{}, noAnswer(action, body.seal(), err, redact)
	}
	defer func() { _ = resp.Body.Close() }()
	received := time.Now()
	from := newJSONReader(resp.Body, redact)
	answer, err := readAnswer(from, into)
	sent := body.seal()
	if from.bytes.failure != nil {
		return response{}, noAnswer(action, sent, from.bytes.failure, redact)
	}
	if answer.requestID != "" {
		c.clock.learn(resp.Header.Get("Date"), received)
	}
	switch {
	case answer.failure != nil && answer.requestID != "":
		refusal := refusal(action, answer.failure.code, answer.failure.message, answer.requestID, resp.StatusCode)
		c.limiters.learn(creds, refusal)
		c.reportKey(creds, refusal.Code)
		return response{}, refusal
	case err == nil && (answer.requestID == "" || resp.StatusCode != http.StatusOK):
		err = errNotEdgeOnes
	case err == nil:
		err = into.problem(answer)
	}
	if err != nil {
		return response{}, uselessAnswer(action, sent, answer.requestID, resp.StatusCode, redact.err(err))
	}
	c.limiters.learn(creds, nil)
	return answer, nil
}

// reportKey calls KeyRefused if the code says that EdgeOne does not know the key.
func (c *Client) reportKey(creds Credentials, code string) {
	if c.options.KeyRefused != nil && (code == codeSecretIDNotFound || code == codeTokenFailure) {
		c.options.KeyRefused(creds)
	}
}

// encode encodes a value as JSON like json.Marshal, but without HTML escapes, which would
// turn each & in a URL into six bytes.
func encode(in any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(in); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}
