package teo

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

const (
	algorithm   = "TC3-HMAC-SHA256"
	terminator  = "tc3_request"
	contentType = "application/json; charset=utf-8"
)

// SignedHeader is a header that a signature covers. Name is in lower case.
type SignedHeader struct{ Name, Value string }

// Authorization returns the Authorization header of a POST of body to "/" at the given
// time (whole seconds, UTC), by TC3-HMAC-SHA256. The headers must be sorted by name and
// sent exactly as they are signed. The client always signs the same three headers; the
// function is exported for tests that compare it with other signers. The API reference of
// every Tencent product describes the method as "Signature v3".
func Authorization(creds Credentials, service string, headers []SignedHeader, body []byte, at time.Time) string {
	canonical, names := canonicalRequest(headers, body)
	return algorithm + " Credential=" + creds.SecretID + "/" + scope(service, at) +
		", SignedHeaders=" + names +
		", Signature=" + signature(creds.SecretKey, service, canonical, at)
}

// canonicalRequest returns the text to sign, and the list of signed headers.
func canonicalRequest(headers []SignedHeader, body []byte) (canonical, names string) {
	var lines, list strings.Builder
	for i, h := range headers {
		if i > 0 {
			list.WriteByte(';')
		}
		list.WriteString(h.Name)
		lines.WriteString(h.Name + ":" + strings.ToLower(strings.TrimSpace(h.Value)) + "\n")
	}
	names = list.String()
	return "POST\n/\n\n" + lines.String() + "\n" + names + "\n" + hexSum(body), names
}

// signature derives a key for the day and the service, and signs the canonical request.
func signature(secretKey, service, canonical string, at time.Time) string {
	toSign := algorithm + "\n" + strconv.FormatInt(at.Unix(), 10) + "\n" +
		scope(service, at) + "\n" + hexSum([]byte(canonical))
	key := mac([]byte("TC3"+secretKey), at.UTC().Format(time.DateOnly))
	key = mac(mac(key, service), terminator)
	return hex.EncodeToString(mac(key, toSign))
}

// scope returns the scope of a credential: the day, the service and the terminator.
func scope(service string, at time.Time) string {
	return at.UTC().Format(time.DateOnly) + "/" + service + "/" + terminator
}

// hexSum returns the SHA-256 of b in hex.
func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// mac returns the HMAC-SHA256 of a text.
func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
