package target

import "strings"

// Host returns the host of a URL in the form that NormalizeHost returns. All spellings of a
// URL have the same host.
func Host(rawURL string) string {
	head, _ := splitAuthority(Identity(rawURL))
	_, authority, _ := strings.Cut(head, "://")
	host := authority[strings.LastIndexByte(authority, '@')+1:]
	if colon := strings.LastIndexByte(host, ':'); colon >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:colon]
	}
	return NormalizeHost(host)
}

// NormalizeHost returns a host name in lower case, in its ASCII form (xn--…), and without a
// dot at the end, so that all spellings of a name are equal.
func NormalizeHost(host string) string {
	return strings.TrimSuffix(lower(toASCII(lower(host))), ".")
}
