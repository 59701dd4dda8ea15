// Package teo is a client for the few actions of the EdgeOne (TEO) API
// 2022-09-01 that prefetching needs. It knows nothing of Kubernetes.
//
// A call of CreatePrefetchTask costs quota and must not happen twice. So the
// client makes one attempt and says with the error's Kind what may have become
// of it; it signs with a time that its caller chose, so that the caller knows
// when a request that got lost can no longer be executed; and it keeps
// EdgeOne's clock, by which that is decided.
//
// The files: client.go sends one request, answer.go reads the answer and
// redact.go cleans its words. prefetch.go, listing.go and quota.go are the
// actions; reading.go puts the pages of a listing together. errors.go describes
// failures and error_codes.go says what EdgeOne's codes mean. limiter.go says
// how fast to go and limiters.go for whom; slot.go is the permission for one
// call. sign.go signs.
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

	// EdgeOne's limit for a request.
	maxRequest = 10 << 20

	// maxJobID is longer than any JobId, in bytes. A longer one would not fit into
	// a status.
	maxJobID = 256

	// throttledAttempts is how often a look-up is sent in all while EdgeOne
	// answers that it is asked too often.
	throttledAttempts = 4
)

// Client calls EdgeOne. It may be used by many goroutines at once.
type Client struct {
	options  Options
	endpoint *url.URL
	http     http.Client
	clock    serverClock

	limiters limiters
	proxy    *url.Userinfo // what a proxy is told, if there is one
}

// NewClient returns a client, or an error that says which option is wrong.
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
		options:  options,
		endpoint: endpoint,
		http: http.Client{
			Transport: options.Transport,
			// A redirect would send a signed call to another place, perhaps
			// again. Its answer is read like any other that makes no sense.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		limiters: limiters{
			limit: options.QPS, observe: options.ObserveWait, pairs: map[pair]*accountLimits{}, proved: map[string]*accountLimits{},
		},
		proxy: proxyUser(options.Transport, endpoint),
	}, nil
}

// ServerTime is EdgeOne's clock as far as it is known: the Date of the latest
// answer plus the time since that answer came. It is late by at most the way
// of that answer and Date's granularity of a second, and it does not run ahead.
// Before the first answer it is the local clock; see ServerTimeKnown.
func (c *Client) ServerTime() time.Time { return c.clock.now() }

// ServerTimeKnown says whether EdgeOne has answered since the client was made.
// Only answers of the API itself count; one that refuses a call does.
func (c *Client) ServerTimeKnown() bool { return c.clock.known() }

// SendBefore is the last moment, by ServerTime, at which a request signed at
// signedAt is still sent: after half of Options.SignatureValidity. The other
// half is for the request to arrive in.
func (c *Client) SendBefore(signedAt time.Time) time.Time {
	return signedAt.Add(c.options.SignatureValidity / 2)
}

var actions = [...]string{ActionCreatePrefetchTask, ActionDescribePrefetchTasks, ActionDescribeContentQuota}

// Limiter returns the limiter of an account and action, the same one for all who
// ask with the same SecretID and SecretKey, and for all keys of one SecretID that
// EdgeOne has accepted. EdgeOne meters calls by account and action. A limiter is not
// kept by who does not use it: after some minutes without calls there is a new one.
func (c *Client) Limiter(creds Credentials, action string) *Limiter {
	return c.limiters.get(creds, action)
}

type lineKey struct{}

// InLine returns a context whose look-ups wait for their slots in a line of that
// name; see Turn. Without it they wait in a line of those who said nothing.
func InLine(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, lineKey{}, name)
}

// lookUp makes a read-only call: it waits for a slot, signs at the server's
// time and asks again when throttled. What fresh returned last has the answer.
func (c *Client) lookUp(ctx context.Context, creds Credentials, action string, in any, fresh func() content) error {
	line, _ := ctx.Value(lineKey{}).(string)
	for attempt := 1; ; attempt++ {
		slot, err := c.Limiter(creds, action).Wait(ctx, Turn{Line: line})
		if err != nil {
			return err
		}
		_, err = c.call(slot.For(ctx), request{creds, action, c.ServerTime(), in}, fresh())
		throttled := KindOf(err) == Throttled
		slot.Done(throttled)
		if !throttled || attempt == throttledAttempts {
			return err
		}
	}
}

// request is a call that is yet to be made.
type request struct {
	creds      Credentials
	action     string
	signedAt   time.Time // on EdgeOne's clock
	parameters any       // the body, before it is encoded
}

// call makes one attempt and reports it to Observe. into gets the content of the
// answer, if it is a success; otherwise what it has does not count.
func (c *Client) call(ctx context.Context, r request, into content) (response, error) {
	req, body, err := c.buildHTTPRequest(ctx, r)
	if err != nil {
		return response{}, err
	}
	start := time.Now()
	answer, err := c.attempt(req, body, r.creds, r.action, into)
	c.options.Observe(Call{Action: r.action, Kind: KindOf(err), Code: Code(err), Duration: time.Since(start)})
	return answer, err
}

// buildHTTPRequest checks, encodes and signs a request.
func (c *Client) buildHTTPRequest(ctx context.Context, r request) (*http.Request, *onceBody, error) {
	if problem := r.creds.problem(); problem != "" {
		return nil, nil, &Error{Action: r.action, Kind: Denied, Message: problem}
	}
	content, err := encode(r.parameters)
	if err != nil {
		return nil, nil, noAnswer(r.action, unsent, err, redactor{})
	}
	if len(content) > maxRequest {
		// The gateway's own code, so that callers split the call as they would
		// had it gone out.
		return nil, nil, &Error{Action: r.action, Kind: Rejected, Code: codeRequestSize,
			Message: "the request would be larger than 10 MiB"}
	}
	body := &onceBody{rest: content}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint.String(), body)
	if err != nil {
		return nil, nil, noAnswer(r.action, unsent, err, redactor{})
	}
	req.ContentLength = int64(len(content))
	// In the spelling of net/http, which would make a copy of any other.
	req.Header.Set("User-Agent", c.options.UserAgent)
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("X-Tc-Action", r.action)
	req.Header.Set("X-Tc-Version", apiVersion)
	req.Header.Set("X-Tc-Timestamp", strconv.FormatInt(r.signedAt.Unix(), 10))
	req.Header.Set("X-Tc-Language", "en-US")
	if r.creds.Token != "" {
		req.Header.Set("X-Tc-Token", r.creds.Token)
	}
	req.Header.Set("Authorization", Authorization(r.creds, service, []SignedHeader{
		{"content-type", contentType}, {"host", c.endpoint.Host}, {"x-tc-action", r.action},
	}, content, r.signedAt))
	return req, body, nil
}

func (c *Client) attempt(req *http.Request, body *onceBody, creds Credentials, action string, into content) (response, error) {
	ctx, cancel := context.WithTimeout(req.Context(), c.options.Timeout)
	defer cancel()
	redact := newRedactor(creds, req.Header.Get("Authorization"), c.proxy)
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

// encode is json.Marshal without HTML escapes, which would make six bytes of
// every & in a URL.
func encode(in any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(in); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}
