package sts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// StepCVMRole is the action in the errors of CVM.
const StepCVMRole = "the CVM role"

const (
	// metadataEndpoint is the metadata service of the node on which the process runs.
	metadataEndpoint = "http://metadata.tencentyun.com"
	metadataPath     = "/latest/meta-data/cam/security-credentials/"
	// metadataTimeout bounds a read. The service is on the node's own network.
	metadataTimeout = 3 * time.Second
	// maxMetadata bounds an answer in bytes. It has at most 5,000.
	maxMetadata = 32 << 10
)

// CVMOptions configure a CVM. The zero value is for production.
type CVMOptions struct {
	Endpoint string // default: http://metadata.tencentyun.com
	// Transport sends the requests. The default uses no proxy: the answer contains keys.
	Transport http.RoundTripper
}

// CVM reads the keys of roles from the metadata service of a CVM. Every process on the node
// that may connect to the service has the same identity. It is safe for concurrent use.
type CVM struct {
	endpoint string
	client   *http.Client
}

// NewCVM returns a CVM.
func NewCVM(options CVMOptions) *CVM {
	c := &CVM{strings.TrimSuffix(options.Endpoint, "/"), &http.Client{
		Transport: options.Transport,
		Timeout:   metadataTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}}
	if c.endpoint == "" {
		c.endpoint = metadataEndpoint
	}
	if c.client.Transport == nil {
		c.client.Transport = &http.Transport{
			DialContext:            (&net.Dialer{Timeout: metadataTimeout}).DialContext,
			DisableKeepAlives:      true, // a read every hour
			MaxResponseHeaderBytes: 16 << 10,
		}
	}
	return c
}

// cvmRoleName matches the name of a role. A name of dots only would be another path.
var cvmRoleName = regexp.MustCompile(`^[\w+=,.@-]{0,127}[\w+=,@-][\w+=,.@-]{0,127}$`)

// metadata is the answer of the metadata service.
type metadata struct {
	Code         string `json:"Code"`
	TmpSecretID  string `json:"TmpSecretId"`
	TmpSecretKey string `json:"TmpSecretKey"`
	Token        string `json:"Token"`
	ExpiredTime  int64  `json:"ExpiredTime"` // Unix time
}

// Keys returns the keys of a role of the node. The service refreshes the keys itself, so it
// may answer with the same keys again.
func (c *CVM) Keys(ctx context.Context, role string) (Keys, error) {
	if len(role) > 128 || !cvmRoleName.MatchString(role) {
		return Keys{}, noCVMRole(role)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.endpoint+metadataPath+url.PathEscape(role), nil)
	if err != nil {
		return Keys{}, metadataFailed("the address is not a URL", nil)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return Keys{}, metadataFailed("it did not answer", err)
	}
	defer func() { _ = resp.Body.Close() }()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return Keys{}, noCVMRole(role)
	default:
		return Keys{}, metadataFailed(fmt.Sprintf("it answered with HTTP %d", resp.StatusCode), nil)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxMetadata+1))
	if err != nil {
		return Keys{}, metadataFailed("its answer broke off", err)
	}
	var answer metadata
	if len(body) > maxMetadata || json.Unmarshal(body, &answer) != nil {
		return Keys{}, metadataFailed("its answer has another form", nil)
	}
	return answer.keys(role, serverTime(resp.Header))
}

// keys returns the keys in an answer. now is the time on the clock of the service.
func (m metadata) keys(role string, now time.Time) (Keys, error) {
	creds := teo.Credentials{SecretID: m.TmpSecretID, SecretKey: m.TmpSecretKey, Token: m.Token, Principal: CVMPrincipal(role)}
	lifetime := time.Unix(m.ExpiredTime, 0).Sub(now)
	switch {
	case m.Code != "Success" && isWord(m.Code):
		return Keys{}, metadataFailed("its answer has the code "+m.Code, nil)
	case m.Code != "Success", m.Token == "", m.ExpiredTime <= 0, creds.Validate() != nil:
		return Keys{}, metadataFailed("its answer has no keys", nil)
	case lifetime <= 0:
		return Keys{}, metadataFailed("its keys have already expired", nil)
	}
	return Keys{creds, time.Now().Add(lifetime)}, nil
}

// CVMPrincipal returns the principal of the keys of a CVM role. The metadata service does
// not say to which account the role belongs. All roles of a node belong to one.
func CVMPrincipal(role string) string { return "cvmRole/" + role }

// serverTime returns the time of an answer, or the local time if the answer has none.
func serverTime(header http.Header) time.Time {
	if at, err := http.ParseTime(header.Get("Date")); err == nil {
		return at
	}
	return time.Now()
}

// isWord says whether a code may appear in a message.
func isWord(code string) bool {
	return code != "" && len(code) <= 64 && !strings.ContainsFunc(code, func(r rune) bool { return r <= ' ' || r > '~' })
}

// noCVMRole returns the error for a role that the node does not have.
func noCVMRole(role string) error {
	fact := fmt.Sprintf("the CVM metadata service has no role %q", role)
	const advice = "attach the role to the CVM instance on which the operator runs"
	return &explained{fact, advice, fmt.Errorf("%w: %s; %s", ErrNoCVMRole, fact, advice)}
}

// metadataFailed returns the error of a read that a later one may correct. The cause is for
// the log: its text contains addresses.
func metadataFailed(what string, cause error) error {
	if wrapped := (*url.Error)(nil); errors.As(cause, &wrapped) {
		cause = wrapped.Err
	}
	return unavailable(StepCVMRole, "The CVM metadata service gave no keys: "+what,
		"check that the operator runs on a CVM instance, and that no NetworkPolicy keeps it from the metadata service", cause)
}
