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

// redactor cleans every text that leaves the package: what EdgeOne says, what
// stands between it and us, and the errors of libraries that quote either. It takes
// out what a call was signed with, in the spellings in which it may come back, and
// passwords in URLs.
//
// It leaves targets alone. They are the caller's, who compares them.
type redactor struct{ secrets []string } // the longest first

// userinfo matches the user and password of a URL.
var userinfo = regexp.MustCompile(`://[^/\s"'@]*@`)

// newRedactor returns a redactor for a call that is sent with an Authorization
// header, perhaps by a proxy that knows the user.
func newRedactor(creds Credentials, authorization string, proxy *url.Userinfo) redactor {
	_, sum, _ := strings.Cut(authorization, "Signature=")
	r := redactor{secrets: make([]string, 0, 8)}
	for _, secret := range [...]string{creds.SecretID, creds.SecretKey, creds.Token, sum} {
		r.add(secret, 8) // nothing so short that it may be part of a word is a real key
	}
	if password, ok := proxy.Password(); ok {
		r.add(password, 4)
		r.add(base64.StdEncoding.EncodeToString([]byte(proxy.Username()+":"+password)), 8)
	}
	slices.SortFunc(r.secrets, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return r
}

// add makes a secret of at least so many bytes one to take out.
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

// proxyUser is who the transport calls a host as, if it does so by a proxy that wants
// to know.
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

// words returns a text that may be shown: no secrets, nothing that moves a cursor or
// turns the direction of writing, and at most limit bytes and an ellipsis.
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

// shorten cuts a text to at most limit bytes, and an ellipsis that says so.
func shorten(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "…"
}

// err is words for the error of a library, nil for nil. What the error is can still
// be asked with errors.Is and errors.As.
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

// redactedError has no Unwrap: who prints a chain shall not come to the cause.
type redactedError struct {
	text  string
	cause error
}

func (e *redactedError) Error() string        { return e.text }
func (e *redactedError) Is(target error) bool { return errors.Is(e.cause, target) }
func (e *redactedError) As(target any) bool   { return errors.As(e.cause, target) }
