package teo

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Options are the options of a Client. The zero value is for the international site.
type Options struct {
	// Endpoint is the URL of the API; the default is DefaultEndpoint. It has a scheme, a
	// host and optionally a port, and nothing else. Plain http is allowed for loopback
	// hosts only (127.0.0.0/8, ::1, localhost), because each call carries a signature
	// and, for temporary keys, their token.
	Endpoint string
	// QPS is how many calls per second one account may make of each action, from 1 to
	// 1000; the default is 20, EdgeOne's limit for the actions used here. A higher value
	// makes sense only for an account whose limit Tencent has raised.
	QPS int
	// Timeout limits one call, from dialing to the last byte of the answer; the default
	// is 10 s. It does not include the wait for a slot of the Limiter.
	Timeout time.Duration
	// SignatureValidity is how long EdgeOne accepts a signature; the default is EdgeOne's
	// 5 min. See Client.SendBefore.
	SignatureValidity time.Duration
	// UserAgent is the User-Agent of the calls; the default is "teo-prefetch-operator".
	UserAgent string
	// Transport replaces the built-in transport, which keeps connections alive, takes the
	// proxy from the environment and uses HTTP/1.1 or 2. A transport must not repeat
	// requests; the bodies of the requests also prevent it.
	Transport http.RoundTripper
	// Observe is called once after each HTTP attempt, from the goroutine that made it. It
	// does not receive calls that the client refused before an attempt.
	Observe func(Call)
	// KeyRefused is called when EdgeOne does not know a key or does not accept its token. It
	// lets a source of temporary keys refresh them. It must not block.
	KeyRefused func(Credentials)
	// ObserveWait is called with the time that each call, or intended call, waited for a
	// slot of its action's Limiter.
	ObserveWait func(action string, wait time.Duration)
}

// DefaultEndpoint is the endpoint of the international site. The endpoint of the China
// site is https://teo.tencentcloudapi.com.
const DefaultEndpoint = "https://teo.intl.tencentcloudapi.com"

// Call describes one HTTP attempt, for metrics.
type Call struct {
	Action   string
	Kind     Kind   // "" if it succeeded
	Code     string // EdgeOne's error code; "" if there was none
	Duration time.Duration
}

// withDefaults returns the options with defaults for unset fields, or an error that names
// the invalid option.
func (o Options) withDefaults() (Options, error) {
	if o.Endpoint == "" {
		o.Endpoint = DefaultEndpoint
	}
	if o.QPS == 0 {
		o.QPS = 20
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.SignatureValidity == 0 {
		o.SignatureValidity = 5 * time.Minute
	}
	if o.UserAgent == "" {
		o.UserAgent = "teo-prefetch-operator"
	}
	if o.Transport == nil {
		o.Transport = defaultTransport()
	}
	if o.Observe == nil {
		o.Observe = func(Call) {}
	}
	if o.ObserveWait == nil {
		o.ObserveWait = func(string, time.Duration) {}
	}
	switch {
	case o.QPS < 1 || o.QPS > 1000:
		return o, fmt.Errorf("QPS is %d; it must be from 1 to 1000", o.QPS)
	case o.Timeout < 0:
		return o, fmt.Errorf("timeout is %v; it must be positive", o.Timeout)
	case o.SignatureValidity < 0:
		return o, fmt.Errorf("signature validity is %v; it must be positive", o.SignatureValidity)
	case strings.ContainsFunc(o.UserAgent, func(r rune) bool { return r < ' ' || r > '~' }):
		return o, errors.New("user agent contains characters that may not stand in a header")
	}
	return o, nil
}

// parseEndpoint returns the URL to post to. Its host is the host that the client signs
// and sends: in lower case and without a default port.
func parseEndpoint(endpoint string) (*url.URL, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		// Do not return err: it quotes the endpoint, which may contain a password.
		return nil, errors.New("endpoint is not a URL")
	}
	host := strings.ToLower(u.Hostname())
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("endpoint must start with https://")
	case u.User != nil:
		return nil, errors.New("endpoint must not contain a user or password")
	case !isEndpointHost(host):
		return nil, errors.New("endpoint has no valid host")
	case hasMoreThanHost(u):
		return nil, errors.New("endpoint must be a host only, without path, query or fragment")
	case u.Scheme == "http" && !isLoopback(host):
		return nil, fmt.Errorf("endpoint %s is plain http, which is for loopback hosts only; use https", host)
	}
	return &url.URL{Scheme: u.Scheme, Host: signedHost(u.Scheme, host, u.Port()), Path: "/"}, nil
}

// isEndpointHost says whether a host is valid in the Host header: it has only printable
// ASCII, and no %, which starts an escape or the zone of an IPv6 address.
func isEndpointHost(host string) bool {
	return host != "" && !strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' || r == '%' })
}

// hasMoreThanHost says whether a URL has a path, a query or a fragment.
func hasMoreThanHost(u *url.URL) bool {
	return u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || u.Fragment != ""
}

// signedHost returns the Host header. It omits a default port, as HTTP clients do and
// EdgeOne expects.
func signedHost(scheme, host, port string) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port == "" || scheme == "https" && port == "443" || scheme == "http" && port == "80" {
		return host
	}
	return host + ":" + port
}

// isLoopback says whether a host is localhost or a loopback address.
func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// proxyFromEnvironment is http.ProxyFromEnvironment without its errors, which quote the
// address of the proxy and the password in it.
func proxyFromEnvironment(req *http.Request) (*url.URL, error) {
	proxy, err := http.ProxyFromEnvironment(req)
	if err != nil {
		return nil, errors.New("the address of the proxy in the environment is not a URL")
	}
	return proxy, nil
}

// defaultTransport returns the built-in transport; see Options.Transport.
func defaultTransport() http.RoundTripper {
	return &http.Transport{
		Proxy:                 proxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   5 * time.Second,
		MaxIdleConnsPerHost:   32,               // the number of parallel calls; the default of 2 would dial for each call of a burst
		IdleConnTimeout:       45 * time.Second, // EdgeOne closes after about 60 s; if a POST meets the close, its outcome must be looked up in the history
		ExpectContinueTimeout: time.Second,
		// EdgeOne's headers have a few hundred bytes.
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true, // a custom DialContext disables it otherwise
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
	}
}
