package target

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxLength is the maximum number of characters of a target.
const MaxLength = 2048

// The problems that Check reports. Each text says what a target must be, or what to write
// instead. The validation rules of the API (api/v1alpha1) have the same texts.
const (
	problemScheme    = "must be a full URL that starts with http:// or https://"
	problemWildcard  = "must not have a wildcard: EdgeOne prefetches single URLs (write a literal * as %2A)"
	problemSpace     = "must not have spaces, no-break or others: write a space as %20"
	problemInvisible = "must not have control, zero-width or other invisible characters: remove them, or percent-encode those that belong to the URL"
	problemBackslash = "must not have backslashes: write / in a path, and a literal backslash as %5C"
	problemHTML      = "must not have &amp;, which is HTML for &: write &"
	problemPercent   = "must have two hexadecimal digits after each %: write a literal % as %25, and %u4e2d as the character itself"
	problemHost      = "must be a valid URL: a host name, which no user name and no @ precedes, a port from 1 to 65535 if any, then / or ?, " +
		"and two hexadecimal digits after each %"
)

var (
	spaces    = regexp.MustCompile(`\pZ`) // Unicode category Z: separators
	invisible = regexp.MustCompile(`\pC`) // Unicode category C: control, format and others
)

// Check returns the problem with a target, or "" if a task may have it. It has the same
// rules as the CRD (api/v1alpha1), so it accepts exactly the URLs that the API server
// accepts in spec.targets.
func Check(rawURL string) string {
	switch {
	case utf8.RuneCountInString(rawURL) > MaxLength:
		return fmt.Sprintf("must not be longer than %d characters", MaxLength)
	case !strings.HasPrefix(rawURL, "http://") && !strings.HasPrefix(rawURL, "https://"):
		return problemScheme
	case strings.Contains(rawURL, "*"):
		return problemWildcard
	case spaces.MatchString(rawURL):
		return problemSpace
	case !utf8.ValidString(rawURL) || invisible.MatchString(rawURL):
		return problemInvisible
	case strings.Contains(rawURL, `\`):
		return problemBackslash
	case strings.Contains(rawURL, "&amp;"):
		return problemHTML
	case !hasValidEscapes(rawURL):
		return problemPercent
	case !hasValidHost(rawURL):
		return problemHost
	}
	return ""
}

// hasValidEscapes reports whether each % starts an escape.
func hasValidEscapes(s string) bool {
	for i := range len(s) {
		if s[i] == '%' && (i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2])) {
			return false
		}
	}
	return true
}

// hasValidHost reports whether there is only a host, and possibly a port, between scheme
// and path. A user name or an address in brackets is not valid.
func hasValidHost(rawURL string) bool {
	u, err := url.ParseRequestURI(rawURL)
	if err != nil || u.Hostname() == "" {
		return false
	}
	rest, ok := strings.CutPrefix(rawURL, u.Scheme+"://"+u.Host)
	if !ok || rest != "" && rest[0] != '/' && rest[0] != '?' {
		return false
	}
	if u.Port() == "" {
		return u.Host == u.Hostname()
	}
	port, err := strconv.Atoi(u.Port())
	return err == nil && len(u.Port()) <= 5 && 1 <= port && port <= 65535 && u.Host == u.Hostname()+":"+u.Port()
}
