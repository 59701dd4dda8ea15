package simulator

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"golang.org/x/net/idna"
)

// Canonical returns one spelling for all spellings of the same URL: scheme and host in
// lower case, the host in ASCII, no default port, no fragment, "/" for an empty path,
// unsafe bytes percent-encoded, and escapes in upper case. It returns a text that is not
// a URL unchanged.
func Canonical(rawURL string) string {
	withoutFragment, _, _ := strings.Cut(rawURL, "#")
	scheme, rest, ok := strings.Cut(withoutFragment, "://")
	if !ok {
		return rawURL
	}
	authority, path := rest, ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	scheme = strings.ToLower(scheme)
	return scheme + "://" + canonicalAuthority(scheme, authority) + encodeUnsafe(normalizeEscapes(path))
}

// canonicalAuthority returns the authority with its host in lower case and ASCII, and
// without the default port of the scheme.
func canonicalAuthority(scheme, authority string) string {
	u, err := url.Parse(scheme + "://" + authority)
	if err != nil {
		return authority
	}
	host := strings.ToLower(u.Hostname())
	if ascii, err := idna.Lookup.ToASCII(host); err == nil {
		host = ascii
	}
	if strings.Contains(host, ":") { // IPv6
		host = "[" + host + "]"
	}
	if port := u.Port(); port != "" && port != map[string]string{"http": "80", "https": "443"}[scheme] {
		host += ":" + port
	}
	if u.User != nil {
		host = u.User.String() + "@" + host
	}
	return host
}

// escape matches an escape, or a percent sign that does not start one.
var escape = regexp.MustCompile(`%([0-9A-Fa-f]{2})?`)

// normalizeEscapes writes escapes in upper case, and a percent sign that does not start
// an escape as %25.
func normalizeEscapes(text string) string {
	if !strings.Contains(text, "%") {
		return text
	}
	return escape.ReplaceAllStringFunc(text, func(found string) string {
		if found == "%" {
			return "%25"
		}
		return strings.ToUpper(found)
	})
}

// encodeURL encodes a URL as EdgeOne does with EncodeUrl. EdgeOne encodes the text as
// sent, including percent signs, so escapes of the caller change their meaning.
func encodeURL(rawURL string) string {
	return encodeUnsafe(strings.ReplaceAll(rawURL, "%", "%25"))
}

// encodeUnsafe percent-encodes the bytes that a URL may contain only as escapes (RFC
// 3986). It does not change existing escapes.
func encodeUnsafe(text string) string {
	const safe = "!#$%&'()*+,-./0123456789:;=?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]_abcdefghijklmnopqrstuvwxyz~"
	var b strings.Builder
	for i := range len(text) {
		if strings.IndexByte(safe, text[i]) >= 0 {
			b.WriteByte(text[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", text[i])
		}
	}
	return b.String()
}

// fetched returns the URLs that EdgeOne requests from the origin if it encoded them, or
// nil if it did not.
func fetched(urls []string, encode bool) []string {
	if !encode {
		return nil
	}
	out := make([]string, len(urls))
	for i, u := range urls {
		out[i] = encodeURL(u)
	}
	return out
}
