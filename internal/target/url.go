// Package target defines target URLs: which URLs a task may have (Check), which spellings
// denote the same URL (Identity), and how a URL is sent (Encode, Literal). All code that
// checks, compares, counts or sends targets uses this package. The package knows neither
// Kubernetes nor EdgeOne's API.
package target

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Encode returns the URL in the form in which it is sent. It takes the result of Literal,
// and percent-encodes every byte that RFC 3986 does not allow in a URL: non-ASCII bytes,
// white space, quotes and similar characters, and each % that does not start an escape.
// Existing escapes stay unchanged. Encode is idempotent.
func Encode(rawURL string) string {
	head, rest := splitAuthority(Literal(rawURL))
	return head + escape(rest, false)
}

// Literal returns the URL in the form for a receiver that encodes it. Path and query stay
// unchanged, and the host is in its ASCII form (xn--…). There is no fragment, because a
// request never contains one.
func Literal(rawURL string) string {
	rawURL = withoutFragment(rawURL)
	head, rest := splitAuthority(rawURL)
	if isASCII(head) {
		return rawURL
	}
	scheme, authority, _ := strings.Cut(head, "://")
	at := strings.LastIndexByte(authority, '@') + 1
	return scheme + "://" + authority[:at] + toASCII(authority[at:]) + rest
}

// withoutFragment removes the fragment and its #.
func withoutFragment(rawURL string) string {
	rawURL, _, _ = strings.Cut(rawURL, "#")
	return rawURL
}

// splitAuthority splits a URL after its host and port. If the URL has no scheme, head is
// empty.
func splitAuthority(rawURL string) (head, rest string) {
	scheme, tail, ok := strings.Cut(rawURL, "://")
	if !ok || !isScheme(scheme) {
		return "", rawURL
	}
	start := len(scheme) + len("://")
	if end := strings.IndexAny(tail, "/?#"); end >= 0 {
		return rawURL[:start+end], rawURL[start+end:]
	}
	return rawURL, ""
}

// isScheme reports whether s is a scheme as RFC 3986 defines it.
func isScheme(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if letter := 'a' <= c && c <= 'z'; !letter && (i == 0 || !strings.ContainsRune("0123456789+-.", rune(s[i]))) {
			return false
		}
	}
	return s != ""
}

// hostNames maps international host names as browsers do (UTS #46, not transitional). It
// does not restrict the ASCII characters of a name, because names with an underscore are
// in use.
var hostNames = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false), idna.StrictDomainName(false))

// toASCII converts the name in a host to its ASCII form. The host may have a port. A name
// without an ASCII form stays unchanged: EdgeOne refuses it and reports the reason.
func toASCII(host string) string {
	if isASCII(host) || !utf8.ValidString(host) {
		return host
	}
	name, port := host, ""
	if colon := strings.LastIndexByte(host, ':'); colon >= 0 {
		name, port = host[:colon], host[colon:]
	}
	ascii, err := hostNames.ToASCII(name)
	if err != nil || !isHostName(ascii) {
		return host
	}
	return ascii + port
}

// isHostName reports whether s is a lower-case ASCII name without a port. toASCII needs
// this check because UTS #46 maps a full-width colon or slash to ASCII. It must not
// become the start of a port or a path.
func isHostName(s string) bool {
	for _, c := range []byte(s) {
		if ok := 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_'; !ok {
			return false
		}
	}
	return s != ""
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

const hexDigits = "0123456789ABCDEF"

// escape percent-encodes the bytes that a URL may not contain. If upper is true, it also
// changes the digits of existing escapes to upper case.
func escape(s string, upper bool) string {
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			digits := s[i+1 : i+3]
			if upper {
				digits = strings.ToUpper(digits)
			}
			b.WriteString("%" + digits)
			i += 2
		case c == '%' || mustEscape(c):
			b.WriteByte('%')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// mustEscape reports whether a URL may not contain c. Callers handle % themselves.
func mustEscape(c byte) bool {
	switch c {
	case '"', '<', '>', '\\', '^', '`', '{', '|', '}':
		return true
	}
	return c <= ' ' || c > '~'
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

func isUpperHex(c byte) bool { return '0' <= c && c <= '9' || 'A' <= c && c <= 'F' }
