package teo

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
)

// Credentials sign requests. Only temporary keys have a Token.
//
// Principal is the account that EdgeOne meters: the ARN of a role for the temporary keys
// of that role, and "" for all other keys, whose principal is their SecretID. The keys of
// a role change at every refresh and its principal does not, so state that must survive a
// refresh belongs to the principal. Only code that received the keys from STS may set it,
// because keys with the same principal share their limiters.
//
// Code that prints a Credentials value (fmt, slog, encoding/json) prints the hash of its
// SecretID instead. Do not store a Credentials value in an unexported field of a struct
// that is printed: fmt does not call the methods of such a field.
type Credentials struct{ SecretID, SecretKey, Token, Principal string }

// Hash identifies the account without revealing it: 16 hex digits of the SHA-256 of the
// principal. It is meant for a status, to detect that the account behind a reference has
// changed. A refresh of a role's keys does not change it.
func (c Credentials) Hash() string {
	sum := sha256.Sum256([]byte(c.PrincipalName()))
	return hex.EncodeToString(sum[:8])
}

// PrincipalName returns the Principal, or its default.
func (c Credentials) PrincipalName() string { return cmp.Or(c.Principal, c.SecretID) }

// String returns a description that is safe to print.
func (c Credentials) String() string { return "credentials " + c.Hash() }

// GoString returns the same as String.
func (c Credentials) GoString() string { return c.String() }

// Format writes String for every verb, because %x and %+v do not call the other methods.
func (c Credentials) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue returns String as a slog value.
func (c Credentials) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalJSON returns String as a JSON string.
func (c Credentials) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }

// The maximum bytes of Tencent Cloud's keys, with room to spare: SecretIds have 36 bytes
// and SecretKeys have 32, those of temporary keys have some more, and a token has at most
// 4,096.
const (
	maxKey   = 256
	maxToken = 8 << 10
)

// Validate returns an error of kind Denied that says why the credentials cannot belong to
// any account, or nil. It makes no call.
func (c Credentials) Validate() error {
	if problem := c.problem(); problem != "" {
		return &Error{Kind: Denied, Message: problem}
	}
	return nil
}

// problem returns why the credentials cannot sign a request, or "". A line break at the
// end is a common accident with Secrets. Without this check, EdgeOne would report it as a
// signature failure, which does not show the cause.
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
