package teo

import (
	"cmp"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

const redacted = "[redacted]"

// redactor cleans every text that leaves the package: texts of EdgeOne, texts of
// intermediaries, and errors of libraries that quote either. It removes the key and the
// signature of the call, in all spellings in which they may come back, and passwords in
// URLs.
//
// It does not change targets. They belong to the caller, which compares them.
type redactor struct{ secrets []string } // the longest first

// userinfo matches the user and password of a URL.
var userinfo = regexp.MustCompile(`://[^/\s"'@]*@`)

// newRedactor returns a redactor for a call with that Authorization header. proxy is the
// user of the proxy, if any. more are further secrets.
func newRedactor(creds Credentials, authorization string, proxy *url.Userinfo, more ...string) redactor {
	_, sum, _ := strings.Cut(authorization, "Signature=")
	r := redactor{secrets: make([]string, 0, 8)}
	for _, secret := range [...]string{creds.SecretID, creds.SecretKey, creds.Token, sum} {
		r.add(secret, 8) // a real key is too long to be part of a word
	}
	for _, secret := range more {
		r.add(secret, 8)
	}
	if password, ok := proxy.Password(); ok {
		r.add(password, 4)
		r.add(base64.StdEncoding.EncodeToString([]byte(proxy.Username()+":"+password)), 8)
	}
	slices.SortFunc(r.secrets, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return r
}

// add adds a secret to remove, in each spelling, if it has at least atLeast bytes.
func (r *redactor) add(secret string, atLeast int) {
	if len(secret) < atLeast {
		return
	}
	quoted := secret
	if strings.ContainsAny(secret, `"\`) {
		quoted = strconv.Quote(secret)
		quoted = quoted[1 : len(quoted)-1]
	}
	for _, spelling := range [...]string{secret, url.QueryEscape(secret), url.PathEscape(secret), quoted} {
		if !slices.Contains(r.secrets, spelling) {
			r.secrets = append(r.secrets, spelling)
		}
	}
}

// proxyUser returns the user that the transport sends to its proxy for the endpoint, or
// nil.
func proxyUser(transport http.RoundTripper, endpoint *url.URL) *url.Userinfo {
	t, ok := transport.(*http.Transport)
	if !ok || t.Proxy == nil {
		return nil
	}
	proxy, err := t.Proxy(&http.Request{URL: endpoint, Host: endpoint.Host})
	if err != nil || proxy == nil {
		return nil
	}
	return proxy.User
}

// words returns a text that is safe to show. It has no secrets, no characters that move
// the cursor or change the writing direction, and at most limit bytes and an ellipsis.
func (r redactor) words(text string, limit int) string {
	for _, secret := range r.secrets {
		text = strings.ReplaceAll(text, secret, redacted)
	}
	if strings.Contains(text, "://") {
		text = userinfo.ReplaceAllString(text, "://"+redacted+"@")
	}
	text = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c) {
			return ' '
		}
		return c
	}, text)
	return shorten(text, limit)
}

// shorten cuts a text to at most limit bytes, and adds an ellipsis to a text that it cut.
func shorten(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "…"
}

// err applies words to the error of a library; it returns nil for nil. errors.Is and
// errors.As still find the original error.
func (r redactor) err(cause error) error {
	if cause == nil {
		return nil
	}
	text := r.words(cause.Error(), maxWords)
	if text == cause.Error() {
		return cause
	}
	return &redactedError{text, cause}
}

// redactedError has no Unwrap, so that code that prints a chain does not reach the cause.
type redactedError struct {
	text  string
	cause error
}

func (e *redactedError) Error() string        { return e.text }
func (e *redactedError) Is(target error) bool { return errors.Is(e.cause, target) }
func (e *redactedError) As(target any) bool   { return errors.As(e.cause, target) }
