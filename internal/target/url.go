// Package target says what a target URL is: which URLs a task may have (Check),
// which spellings name the same URL (Identity) and how a URL is sent (Encode,
// Literal). It knows neither Kubernetes nor EdgeOne's API; everything that
// checks, compares, counts or sends targets uses it.
package target

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Encode returns the URL as it is sent: Literal, with every byte percent-encoded
// that may not stand in a URL (RFC 3986): non-ASCII, white space, quotes and the
// like, and a % that starts no escape. Escapes stay as they are. Encoding twice
// changes nothing.
func Encode(rawURL string) string {
	head, rest := splitAuthority(Literal(rawURL))
	return head + escape(rest, false)
}

// Literal returns the URL as it is sent to somebody who encodes it: path and query
// are as they were written, the host is in its ASCII form (xn--…), and there is no
// fragment, which is never part of a request.
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

func withoutFragment(rawURL string) string {
	rawURL, _, _ = strings.Cut(rawURL, "#")
	return rawURL
}

// splitAuthority cuts a URL behind its host and port. Without a scheme there
// is none, and head is empty.
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

func isScheme(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if letter := 'a' <= c && c <= 'z'; !letter && (i == 0 || !strings.ContainsRune("0123456789+-.", rune(s[i]))) {
			return false
		}
	}
	return s != ""
}

// hostNames maps an international host name as browsers do (UTS #46, not
// transitional). Which ASCII characters a name may have is not its business:
// names with an underscore are in use.
var hostNames = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false), idna.StrictDomainName(false))

// toASCII returns a host, with or without a port, with its name in ASCII form.
// A name that has none stays as it is: EdgeOne then says what is wrong with it.
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

// isHostName says whether a host is a lower-case ASCII name without a port. A full-width
// colon or slash that was mapped to ASCII must not start a port or a path.
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

// escape percent-encodes what may not stand in a URL. upper asks for upper-case
// digits in the escapes that are there.
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

// mustEscape says whether a byte other than % may not stand in a URL.
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
