package target

import "strings"

// Offset returns the byte at which the problem that Check reports begins. It is 0 if the problem is
// the URL as a whole, or if there is none.
func Offset(rawURL string) int {
	at := 0
	switch problem := Check(rawURL); problem {
	case problemWildcard:
		at = strings.Index(rawURL, "*")
	case problemSpace:
		at = spaces.FindStringIndex(rawURL)[0]
	case problemInvisible:
		if place := invisible.FindStringIndex(rawURL); place != nil {
			at = place[0]
		} else {
			at = len(rawURL) - len(strings.TrimLeftFunc(rawURL, func(r rune) bool { return r != '\uFFFD' }))
		}
	case problemBackslash:
		at = strings.Index(rawURL, `\`)
	case problemHTML:
		at = strings.Index(rawURL, "&amp;")
	case problemPercent:
		for !startsInvalidEscape(rawURL[at:]) {
			at++
		}
	}
	return max(at, 0)
}

// startsInvalidEscape reports whether s starts with a % that does not start an escape.
func startsInvalidEscape(s string) bool {
	return s == "" || s[0] == '%' && (len(s) < 3 || !isHex(s[1]) || !isHex(s[2]))
}
