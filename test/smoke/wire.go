package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// maxKept bounds the bytes that are kept of an answer. Every answer here is short.
const maxKept = 4 << 20

var errSecondSubmission = errors.New("this run has already submitted its URL")

// wire is the transport of all calls. It lets one submission pass, and keeps what facts
// are about: the headers of the answers, and the answer to the submission.
type wire struct {
	next http.RoundTripper

	mu        sync.Mutex
	endpoint  *url.URL // of the calls
	submitted bool
	answers   []exchange
	body      *bytes.Buffer // of the answer to the submission
}

// exchange is what is kept of an answer.
type exchange struct {
	sent, received time.Time
	status         int
	header         http.Header
}

func newWire() *wire {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.IdleConnTimeout = 45 * time.Second // as the operator: EdgeOne closes after about 60 s
	return &wire{next: t}
}

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	isSubmission := r.Header.Get("X-Tc-Action") == teo.ActionCreatePrefetchTask
	w.mu.Lock()
	w.endpoint = r.URL
	again := isSubmission && w.submitted
	w.submitted = w.submitted || isSubmission
	w.mu.Unlock()
	if again {
		return nil, errSecondSubmission
	}
	sent := time.Now()
	resp, err := w.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers = append(w.answers, exchange{sent, time.Now(), resp.StatusCode, resp.Header})
	if isSubmission {
		w.body = &bytes.Buffer{}
		resp.Body = readCloser{io.TeeReader(io.LimitReader(resp.Body, maxKept), w.body), resp.Body}
	}
	return resp, nil
}

type readCloser struct {
	io.Reader
	io.Closer
}

// last returns the latest answer.
func (w *wire) last() exchange {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.answers) == 0 {
		return exchange{}
	}
	return w.answers[len(w.answers)-1]
}

// all returns all answers so far.
func (w *wire) all() []exchange {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.answers[:len(w.answers):len(w.answers)]
}

// failedList describes the field FailedList of the answer to the submission.
func (w *wire) failedList() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.body == nil {
		return ""
	}
	var answer struct{ Response map[string]json.RawMessage }
	if json.Unmarshal(w.body.Bytes(), &answer) != nil {
		return ""
	}
	field, ok := answer.Response["FailedList"]
	var list []json.RawMessage
	switch {
	case !ok:
		return "no FailedList"
	case string(field) == "null":
		return "FailedList null"
	case json.Unmarshal(field, &list) != nil:
		return "a FailedList that is no list"
	}
	return fmt.Sprintf("a FailedList with %d reasons", len(list))
}

// rawAnswer is the answer to a read that the operator's client does not make.
type rawAnswer struct {
	Error      struct{ Code, Message string }
	TotalCount int
	Tasks      []rawRecord
}

// rawRecord is a record of the history as it was sent.
type rawRecord struct{ JobID, Target, CreateTime, UpdateTime string }

var errorCode = regexp.MustCompile(`^[A-Za-z0-9.]{1,100}$`)

// outcome returns the code of a refusal, or "accepted".
func (a rawAnswer) outcome() string {
	switch code := a.Error.Code; {
	case code == "":
		return "accepted"
	case !errorCode.MatchString(code):
		return "refused with a code that is none"
	default:
		return "refused with " + code
	}
}

// has says whether the answer lists a job.
func (a rawAnswer) has(jobID string) bool {
	for _, t := range a.Tasks {
		if t.JobID == jobID {
			return true
		}
	}
	return false
}

// read makes a read that the operator's client does not offer, signed at a time on
// EdgeOne's clock. It waits for a slot of the client's limiter, and sends again what
// EdgeOne throttles.
func (s *smoke) read(ctx context.Context, action string, parameters map[string]any, signedAt time.Time) (answer rawAnswer, err error) {
	if !strings.HasPrefix(action, "Describe") {
		return rawAnswer{}, fmt.Errorf("%s is not a read", action)
	}
	for range 4 {
		slot, err := s.client.Limiter(s.creds, action).Wait(ctx, teo.Turn{})
		if err != nil {
			return rawAnswer{}, err
		}
		answer, err = s.readOnce(slot.For(ctx), action, parameters, signedAt)
		throttled := strings.HasPrefix(answer.Error.Code, "RequestLimitExceeded")
		slot.Done(throttled)
		if err != nil || !throttled {
			return answer, err
		}
	}
	return answer, errors.New("EdgeOne throttles the account")
}

func (s *smoke) readOnce(ctx context.Context, action string, parameters map[string]any, signedAt time.Time) (rawAnswer, error) {
	const contentType = "application/json; charset=utf-8"
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	body, err := json.Marshal(parameters)
	if err != nil {
		return rawAnswer{}, err
	}
	endpoint := s.wire.endpoint // the client has made calls before
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint.String(), bytes.NewReader(body))
	if err != nil {
		return rawAnswer{}, err
	}
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("User-Agent", userAgent)
	r.Header.Set("X-Tc-Action", action)
	r.Header.Set("X-Tc-Version", "2022-09-01")
	r.Header.Set("X-Tc-Language", "en-US")
	r.Header.Set("X-Tc-Timestamp", strconv.FormatInt(signedAt.Unix(), 10))
	if s.creds.Token != "" {
		r.Header.Set("X-Tc-Token", s.creds.Token)
	}
	r.Header.Set("Authorization", teo.Authorization(s.creds, "teo", []teo.SignedHeader{
		{Name: "content-type", Value: contentType}, {Name: "host", Value: endpoint.Host}, {Name: "x-tc-action", Value: action},
	}, body, signedAt))
	resp, err := s.wire.RoundTrip(r)
	if err != nil {
		return rawAnswer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct{ Response *rawAnswer }
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxKept)).Decode(&answer); err != nil {
		return rawAnswer{}, fmt.Errorf("the answer (HTTP %d) is not one of EdgeOne's", resp.StatusCode)
	}
	if answer.Response == nil {
		return rawAnswer{}, fmt.Errorf("the answer (HTTP %d) has no Response", resp.StatusCode)
	}
	return *answer.Response, nil
}

// redacting is a writer that removes secrets. Each Write is a whole text.
type redacting struct {
	to      io.Writer
	secrets []string
}

var userinfo = regexp.MustCompile(`://[^/\s"'@]*@`)

// Write implements io.Writer.
func (r redacting) Write(p []byte) (int, error) {
	text := string(p)
	for _, secret := range r.secrets {
		text = strings.ReplaceAll(text, secret, "[redacted]")
	}
	text = userinfo.ReplaceAllString(text, "://[redacted]@")
	if _, err := io.WriteString(r.to, text); err != nil {
		return 0, err
	}
	return len(p), nil
}

// secretsOf returns what must not be printed: the keys, the query of the URL, which may
// have a signature or a token, and the password of a proxy.
func secretsOf(s *settings) (secrets []string) {
	for _, secret := range []string{s.creds.SecretID, s.creds.SecretKey, s.creds.Token} {
		if secret != "" {
			secrets = append(secrets, secret)
		}
	}
	for _, spelling := range []string{s.url, target.Encode(s.url)} {
		if _, query, _ := strings.Cut(spelling, "?"); len(query) >= 8 {
			secrets = append(secrets, query)
		}
	}
	endpoint := s.endpoint
	if endpoint == "" {
		endpoint = teo.DefaultEndpoint
	}
	r, err := http.NewRequest(http.MethodPost, endpoint, nil)
	if err != nil {
		return secrets
	}
	proxy, err := http.ProxyFromEnvironment(r)
	if err != nil || proxy == nil {
		return secrets
	}
	if password, ok := proxy.User.Password(); ok && password != "" {
		secrets = append(secrets, password, base64.StdEncoding.EncodeToString([]byte(proxy.User.Username()+":"+password)))
	}
	return secrets
}
