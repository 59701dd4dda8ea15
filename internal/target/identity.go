package target

import "strings"

// Identity returns a key that is the same for all spellings of a URL:
//
//   - Scheme and host are in lower case, and the host is in its ASCII form (xn--…).
//   - The default port and the fragment are removed.
//   - An empty path becomes "/".
//   - The bytes that Encode encodes are encoded, and all escapes have upper-case digits.
//
// Any other difference gives different keys: dot segments, unnecessary escapes, a dot at
// the end of the host name, or an empty query. A cache may distinguish URLs by each of
// them.
//
// Use Identity to compare URLs, not to send them. Identity accepts any text and is
// idempotent.
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

// isCanonical reports whether an ordinary URL is its own Identity. Most URLs are, and
// this check avoids an allocation for them. It may return false for a URL that Identity
// does not change.
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

// trimDefaultPort removes the default port of the scheme, or an empty port, from a host.
func trimDefaultPort(scheme, host string) string {
	var port string
	switch scheme {
	case "http":
		port = ":80"
	case "https":
		port = ":443"
	}
	for { // repeat until nothing is left to trim, so that Identity is idempotent
		trimmed := strings.TrimSuffix(strings.TrimSuffix(host, port), ":")
		if trimmed == host {
			return host
		}
		host = trimmed
	}
}

// lower converts ASCII letters to lower case. strings.ToLower would also replace bytes
// that are not UTF-8.
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
