package simulator

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	algorithm = "TC3-HMAC-SHA256"
)

// authorization is a parsed TC3 Authorization header.
type authorization struct {
	secretID, date, service string
	signedHeaders           []string
	signature               string
}

// parseAuthorization parses a header of this form:
//
//	TC3-HMAC-SHA256 Credential=ID/DATE/SERVICE/tc3_request, SignedHeaders=a;b, Signature=HEX
func parseAuthorization(header string) (a authorization, ok bool) {
	method, rest, _ := strings.Cut(header, " ")
	if method != algorithm {
		return a, false
	}
	fields := map[string]string{}
	for _, field := range strings.Split(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		fields[name] = value
	}
	scope := strings.Split(fields["Credential"], "/")
	if len(scope) != 4 || scope[3] != "tc3_request" || fields["SignedHeaders"] == "" || fields["Signature"] == "" {
		return a, false
	}
	return authorization{
		secretID:      scope[0],
		date:          scope[1],
		service:       scope[2],
		signedHeaders: strings.Split(fields["SignedHeaders"], ";"),
		signature:     fields["Signature"],
	}, true
}

// authenticateUnsigned checks a call of an action that takes no signature.
func (c *call) authenticateUnsigned() *apiError {
	if c.header.Get("Authorization") != "SKIP" {
		return fail("AuthFailure.InvalidAuthorization", "The action takes no signature: Authorization must be SKIP.")
	}
	return nil
}

// authenticate verifies the signature of a call, and sets its key and the time of the
// signature.
func (s *Simulator) authenticate(c *call) *apiError {
	auth, ok := parseAuthorization(c.header.Get("Authorization"))
	if !ok {
		return fail("AuthFailure.InvalidAuthorization", "The Authorization header is not a TC3-HMAC-SHA256 one.")
	}
	unix, err := strconv.ParseInt(c.header.Get("X-TC-Timestamp"), 10, 64)
	if err != nil {
		return fail("InvalidParameter", "X-TC-Timestamp is not a number of seconds.")
	}
	c.signedAt = time.Unix(unix, 0)

	s.mu.Lock()
	key, known := s.keys[auth.secretID]
	age := s.now().Sub(c.signedAt)
	s.mu.Unlock()
	switch {
	case !known || key.Disabled:
		return fail("AuthFailure.SecretIdNotFound", "The SecretId is not found. Check that the key was not deleted or disabled.")
	case age.Abs() > s.config.SignatureValidity:
		return fail("AuthFailure.SignatureExpire", "The signature expired: it is %s from the server's time.", age.Abs().Round(time.Second))
	case !key.Expires.IsZero() && !s.Now().Before(key.Expires):
		return fail("AuthFailure.TokenFailure", "The token has expired.")
	case c.header.Get("X-TC-Token") != key.Token:
		return fail("AuthFailure.TokenFailure", "The token is not the one of this key.")
	case !auth.covers("content-type", "host") || auth.service != actions[c.Action].service || auth.date != c.signedAt.UTC().Format(time.DateOnly):
		return fail("AuthFailure.SignatureFailure", "The credential scope or the signed headers are not as the server expects.")
	}
	// The host is signed with its port by the vendor's Go SDK, and without it by the Node
	// SDK.
	for _, host := range []string{c.host, withoutPort(c.host)} {
		expected := auth.sign(key.SecretKey, unix, c.canonicalRequest(auth.signedHeaders, host))
		if hmac.Equal([]byte(expected), []byte(auth.signature)) {
			c.key = key
			return nil
		}
	}
	return fail("AuthFailure.SignatureFailure", "The provided credentials could not be validated. Check that the signature is correct.")
}

// covers says whether the signature covers the headers.
func (a authorization) covers(names ...string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(a.signedHeaders, name) })
}

// canonicalRequest returns the text whose hash is signed.
func (c *call) canonicalRequest(signedHeaders []string, host string) string {
	lines := []string{c.method, c.path, ""}
	for _, name := range signedHeaders {
		value := c.header.Get(name)
		if name == "host" {
			value = host
		}
		lines = append(lines, name+":"+strings.ToLower(strings.TrimSpace(value)))
	}
	lines = append(lines, "", strings.Join(signedHeaders, ";"), hexSHA256(c.body))
	return strings.Join(lines, "\n")
}

// sign returns the signature of a canonical request.
func (a authorization) sign(secretKey string, unix int64, canonicalRequest string) string {
	toSign := strings.Join([]string{
		algorithm,
		strconv.FormatInt(unix, 10),
		a.date + "/" + a.service + "/tc3_request",
		hexSHA256([]byte(canonicalRequest)),
	}, "\n")
	key := []byte("TC3" + secretKey)
	for _, part := range []string{a.date, a.service, "tc3_request", toSign} {
		key = hmacSHA256(key, part)
	}
	return hex.EncodeToString(key)
}

func hexSHA256(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func hmacSHA256(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

func withoutPort(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return hostport
}
