// Package teo is a client for the few actions of the EdgeOne (TEO) API
// 2022-09-01 that prefetching needs. It knows nothing of Kubernetes.
//
// A call of CreatePrefetchTask costs quota and must not happen twice. So the
// client makes one attempt and says with the error's Kind what may have become
// of it; it signs with a time that its caller chose, so that the caller knows
// when a request that got lost can no longer be executed; and it keeps
// EdgeOne's clock, by which that is decided.
//
// The files: client.go sends one request, prefetch.go, listing.go and quota.go
// are the actions, errors.go says what failures mean, limiter.go how fast to
// go, sign.go signs.
package teo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
)

const (
	service    = "teo"
	apiVersion = "2022-09-01"

	// EdgeOne's limit for a request.
	maxRequest = 10 << 20
	// More than any answer here can be: the largest lists the URLs of the
	// largest request, or 1,000 URLs of 2 KiB.
	maxAnswer = 32 << 20

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

	mu       sync.Mutex
	limiters map[limiterKey]*Limiter
}

type limiterKey struct{ secretID, action string }

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
		limiters: map[limiterKey]*Limiter{},
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

// Limiter returns the limiter of an account and action, the same one for all
// who ask. EdgeOne meters calls by just that pair.
func (c *Client) Limiter(secretID, action string) *Limiter {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := limiterKey{secretID, action}
	if c.limiters[key] == nil {
		// All of an account's limiters begin together, so that the first call
		// waits one second for them and not one for each action.
		for _, a := range append(actions[:], action) {
			limiter := newLimiter(a, c.options.QPS)
			limiter.observe = c.options.ObserveWait
			c.limiters[limiterKey{secretID, a}] = limiter
		}
	}
	return c.limiters[key]
}

// lookUp makes a read-only call: it waits for a slot, signs at the server's
// time and asks again when throttled.
func (c *Client) lookUp(ctx context.Context, creds Credentials, action string, in any, decode func([]byte) error) error {
	limiter := c.Limiter(creds.SecretID, action)
	for attempt := 1; ; attempt++ {
		slot, err := limiter.Wait(ctx, 0)
		if err != nil {
			return err
		}
		err = c.call(slot.For(ctx), creds, action, c.ServerTime(), in, decode)
		throttled := KindOf(err) == Throttled
		slot.Done(throttled)
		if !throttled || attempt == throttledAttempts {
			return err
		}
	}
}

// call makes one attempt and reports it to Observe. decode gets the Response
// object of a success; its error means that the answer is not usable.
func (c *Client) call(ctx context.Context, creds Credentials, action string, signedAt time.Time,
	in any, decode func([]byte) error) error {
	req, body, err := c.request(ctx, creds, action, signedAt, in)
	if err != nil {
		return err
	}
	start := time.Now()
	err = c.attempt(req, body, creds, action, decode)
	c.options.Observe(Call{Action: action, Kind: KindOf(err), Code: Code(err), Duration: time.Since(start)})
	return err
}

func (c *Client) request(ctx context.Context, creds Credentials, action string, signedAt time.Time,
	in any) (*http.Request, *onceBody, error) {
	if problem := creds.problem(); problem != "" {
		return nil, nil, &Error{Action: action, Kind: Denied, Message: problem}
	}
	content, err := encode(in)
	if err != nil {
		return nil, nil, noAnswer(action, unsent, err)
	}
	if len(content) > maxRequest {
		// The gateway's own code, so that callers split the call as they would
		// had it gone out.
		return nil, nil, &Error{Action: action, Kind: Rejected, Code: "RequestSizeLimitExceeded",
			Message: "the request would be larger than 10 MiB"}
	}
	body := &onceBody{rest: content}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint.String(), body)
	if err != nil {
		return nil, nil, noAnswer(action, unsent, err)
	}
	req.ContentLength = int64(len(content))
	req.Header.Set("User-Agent", c.options.UserAgent)
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("X-TC-Action", action)
	req.Header.Set("X-TC-Version", apiVersion)
	req.Header.Set("X-TC-Timestamp", strconv.FormatInt(signedAt.Unix(), 10))
	req.Header.Set("X-TC-Language", "en-US")
	if creds.Token != "" {
		req.Header.Set("X-TC-Token", creds.Token)
	}
	req.Header.Set("Authorization", Authorization(creds, service, []SignedHeader{
		{"content-type", contentType}, {"host", c.endpoint.Host}, {"x-tc-action", action},
	}, content, signedAt))
	return req, body, nil
}

func (c *Client) attempt(req *http.Request, body *onceBody, creds Credentials, action string, decode func([]byte) error) error {
	ctx, cancel := context.WithTimeout(req.Context(), c.options.Timeout)
	defer cancel()
	resp, err := c.http.Do(req.WithContext(ctx))
	if err != nil {
		return noAnswer(action, body.seal(), creds.redactError(err))
	}
	defer func() { _ = resp.Body.Close() }()
	received := time.Now()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	sent := body.seal()
	if err == nil && len(raw) > maxAnswer {
		err = errors.New("the answer is larger than any expected one")
	}
	if err != nil {
		return noAnswer(action, sent, creds.redactError(err))
	}
	response, requestID, failure := open(raw)
	if requestID != "" {
		c.clock.learn(resp.Header.Get("Date"), received)
	}
	requestID = creds.redact(requestID)
	switch {
	case failure != nil:
		return refusal(action, creds.redact(failure.Code), creds.redact(failure.Message), requestID, resp.StatusCode)
	case requestID == "" || resp.StatusCode != http.StatusOK:
		return uselessAnswer(action, sent, requestID, resp.StatusCode, nil)
	}
	if err := decode(response); err != nil {
		return uselessAnswer(action, sent, requestID, resp.StatusCode, creds.redactError(err))
	}
	return nil
}

type apiFailure struct{ Code, Message string }

// open unwraps an answer. It is an answer of the API only if it has a request
// ID; without one, requestID is "" and nothing else is set.
func open(raw []byte) (response []byte, requestID string, failure *apiFailure) {
	var envelope struct{ Response json.RawMessage }
	var content struct {
		RequestID string `json:"RequestId"`
		JobID     string `json:"JobId"`
		Error     *apiFailure
	}
	if json.Unmarshal(raw, &envelope) != nil || json.Unmarshal(envelope.Response, &content) != nil || content.RequestID == "" {
		return nil, "", nil
	}
	// A refusal without a code says nothing, and one with a job contradicts itself.
	if content.Error != nil && (content.Error.Code == "" || content.JobID != "") {
		return nil, "", nil
	}
	return envelope.Response, content.RequestID, content.Error
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
