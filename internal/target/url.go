// Package target says what a target URL is: which spellings name the same URL
// (Identity) and how a URL is sent (Encode). It knows neither Kubernetes nor
// EdgeOne's API; everything that compares, counts or sends targets uses it.
package target

import "strings"

// Encode percent-encodes every byte that may not stand in a URL (RFC 3986):
// non-ASCII, white space, quotes and the like, and a % that starts no escape.
// Escapes that are there stay as they are, and so does the authority: a
// non-ASCII host name wants another encoding, which is not ours to choose.
// Encoding twice changes nothing.
func Encode(rawURL string) string {
	head, rest := splitAuthority(rawURL)
	return head + escape(rest, false)
}

// Identity is a key under which two spellings of a URL compare equal: scheme
// and host in lower case, no default port, no fragment, "/" for an empty path,
// encoded by Encode with the escapes in upper case. It is for comparing the
// URLs that were submitted with those that EdgeOne lists, not for sending.
func Identity(rawURL string) string {
	rawURL, _, _ = strings.Cut(rawURL, "#")
	head, rest := splitAuthority(rawURL)
	rest = escape(rest, true)
	scheme, authority, ok := strings.Cut(head, "://")
	if !ok {
		return rest
	}
	scheme = lower(scheme)
	at := strings.LastIndexByte(authority, '@') + 1
	user, host := authority[:at], trimDefaultPort(scheme, lower(authority[at:]))
	if !strings.HasPrefix(rest, "/") {
		rest = "/" + rest
	}
	return scheme + "://" + user + host + rest
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

func trimDefaultPort(scheme, host string) string {
	var port string
	switch scheme {
	case "http":
		port = ":80"
	case "https":
		port = ":443"
	}
	for { // for the key to be one, what is left must have nothing to trim either
		trimmed := strings.TrimSuffix(strings.TrimSuffix(host, port), ":")
		if trimmed == host {
			return host
		}
		host = trimmed
	}
}

// lower is strings.ToLower for ASCII only; that would rewrite bytes that are
// not UTF-8.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

const hexDigits = "0123456789ABCDEF"

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
		case c <= ' ' || c > '~' || strings.IndexByte("\"%<>\\^`{|}", c) >= 0:
			b.WriteByte('%')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}
