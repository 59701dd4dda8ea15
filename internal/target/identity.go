package target

import "strings"

// Identity is a key under which the spellings of one URL compare equal. Scheme
// and host are in lower case and the host is in its ASCII form (xn--…); the
// default port and the fragment are absent; an empty path is "/"; what Encode
// encodes is encoded, with upper-case hex digits. Everything else keeps URLs
// apart: dot segments, escapes of characters that need none, the dot at the end
// of a host name, an empty query. A cache may key on any of them.
//
// Identity is for comparing URLs, not for sending them. It accepts any text and
// is idempotent.
func Identity(rawURL string) string {
	if isCanonical(rawURL) {
		return rawURL
	}
	head, rest := splitAuthority(withoutFragment(rawURL))
	rest = escape(rest, true)
	scheme, authority, ok := strings.Cut(head, "://")
	if !ok {
		return rest
	}
	scheme = lower(scheme)
	at := strings.LastIndexByte(authority, '@') + 1
	user, host := authority[:at], trimDefaultPort(scheme, lower(toASCII(authority[at:])))
	if !strings.HasPrefix(rest, "/") {
		rest = "/" + rest
	}
	return scheme + "://" + user + host + rest
}

// isCanonical says whether Identity has nothing to change in an ordinary URL:
// most are like that, and none of them costs an allocation. It may say no where
// Identity changes nothing.
func isCanonical(rawURL string) bool {
	rest, ok := strings.CutPrefix(rawURL, "https://")
	if !ok {
		if rest, ok = strings.CutPrefix(rawURL, "http://"); !ok {
			return false
		}
	}
	slash := strings.IndexByte(rest, '/')
	if slash < 0 || !isHostName(rest[:slash]) {
		return false
	}
	for i := slash; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == '#':
			return false
		case c == '%':
			if i+2 >= len(rest) || !isUpperHex(rest[i+1]) || !isUpperHex(rest[i+2]) {
				return false
			}
		case mustEscape(c):
			return false
		}
	}
	return true
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
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if c := b[i]; 'A' <= c && c <= 'Z' {
					b[i] = c + 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}
