package teo

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
)

// Credentials sign requests. Token is set for temporary keys only.
//
// Whatever prints a Credentials value (fmt, slog, encoding/json) prints the
// hash of its SecretID instead. Do not keep one in an unexported field of
// something that is printed: fmt cannot ask such a field to describe itself.
type Credentials struct{ SecretID, SecretKey, Token string }

// Hash names the account without revealing it: 16 hex digits of the SHA-256
// of the SecretID. It is meant for a status, to notice that the key behind a
// reference has changed.
func (c Credentials) Hash() string {
	sum := sha256.Sum256([]byte(c.SecretID))
	return hex.EncodeToString(sum[:8])
}

// String is a description that is safe to print.
func (c Credentials) String() string { return "credentials " + c.Hash() }

// GoString is the same as String.
func (c Credentials) GoString() string { return c.String() }

// Format writes String for every verb: %x and %+v do not consult the others.
func (c Credentials) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue is String as a slog value.
func (c Credentials) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalJSON is String as a JSON string.
func (c Credentials) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }

// The most bytes that keys of Tencent Cloud can have, with room to spare:
// SecretIds and SecretKeys have 36 and 32, those of temporary keys some more,
// and a token has at most 4,096.
const (
	maxKey   = 256
	maxToken = 8 << 10
)

// Validate says why the credentials cannot be those of any account, with an
// error of kind Denied, or returns nil. It makes no call.
func (c Credentials) Validate() error {
	if problem := c.problem(); problem != "" {
		return &Error{Kind: Denied, Message: problem}
	}
	return nil
}

// problem says why the credentials cannot sign anything, or "". A line break
// at the end, the usual accident with Secrets, would otherwise come back as a
// signature failure that tells nobody what is wrong.
func (c Credentials) problem() string {
	if c.SecretID == "" || c.SecretKey == "" {
		return "the credentials lack a SecretId or a SecretKey"
	}
	if len(c.SecretID) > maxKey || len(c.SecretKey) > maxKey || len(c.Token) > maxToken {
		return "the credentials are longer than any key"
	}
	for _, s := range []string{c.SecretID, c.SecretKey, c.Token} {
		for _, b := range []byte(s) {
			if b <= ' ' || b > '~' {
				return "the credentials contain white space or other characters that no key has"
			}
		}
	}
	return ""
}
