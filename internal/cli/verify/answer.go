package verify

import (
	"net/http"
	"strconv"
	"strings"
)

// Outcome says what an answer means for the visitors of a URL.
type Outcome string

const (
	// Hit is a fresh copy in the cache.
	Hit Outcome = "Hit"
	// RefreshHit is an expired copy in the cache that the origin confirmed.
	RefreshHit Outcome = "RefreshHit"
	// Miss is an answer that EdgeOne fetched from the origin.
	Miss Outcome = "Miss"
	// NotCacheable is an answer that was not in the cache and that forbids caches to keep it or to use it
	// again.
	NotCacheable Outcome = "NotCacheable"
	// Redirect is an answer that sends the visitor to another URL.
	Redirect Outcome = "Redirect"
	// HTTPError is an answer with a status of 400 or more.
	HTTPError Outcome = "HTTPError"
	// NotEdgeOne is an answer without EO-Cache-Status.
	NotEdgeOne Outcome = "NotEdgeOne"
	// NoAnswer is a request without an answer.
	NoAnswer Outcome = "NoAnswer"
)

// IsHit reports whether the URL was in the cache.
func (o Outcome) IsHit() bool { return o == Hit || o == RefreshHit }

// Answer is the first answer of a URL.
type Answer struct {
	URL     string
	Outcome Outcome
	// Status is the HTTP status, or 0 without an answer.
	Status int
	// CacheStatus, Age, ETag and Location are the headers of these names.
	CacheStatus, Age, ETag, Location string
	// Address is the address of the server that answered.
	Address string
	// Forbids names what in the answer forbids caches to keep it or to use it again.
	Forbids []string
	// Error says why there is no answer.
	Error error
}

// read takes from a response what an answer says.
func (a *Answer) read(response *http.Response) {
	header := response.Header
	a.Status = response.StatusCode
	a.CacheStatus, a.Age = header.Get("EO-Cache-Status"), header.Get("Age")
	a.ETag, a.Location = header.Get("ETag"), header.Get("Location")
	a.Forbids = findForbids(header)
	a.Outcome = a.judge()
}

func (a *Answer) judge() Outcome {
	isHit := strings.EqualFold(a.CacheStatus, "HIT")
	isRefreshHit := strings.EqualFold(a.CacheStatus, "RefreshHit")
	switch {
	case a.Status >= http.StatusBadRequest:
		return HTTPError
	case a.Status >= http.StatusMultipleChoices:
		return Redirect
	case isHit:
		return Hit
	case isRefreshHit:
		return RefreshHit
	case a.CacheStatus == "":
		return NotEdgeOne
	case len(a.Forbids) > 0:
		return NotCacheable
	}
	return Miss
}

// findForbids names what in a header forbids a shared cache to keep an answer, or to use it again
// without asking the origin (RFC 9111).
func findForbids(header http.Header) (forbids []string) {
	directives := parseCacheControl(header)
	for _, name := range []string{"no-store", "no-cache", "private"} {
		if _, isThere := directives[name]; isThere { // many caches also obey a directive about some fields so
			forbids = append(forbids, "Cache-Control: "+name)
		}
	}
	if lifetime := findNoLifetime(header, directives); lifetime != "" {
		forbids = append(forbids, lifetime)
	}
	if len(header.Values("Set-Cookie")) > 0 {
		forbids = append(forbids, "Set-Cookie")
	}
	for name := range strings.SplitSeq(strings.Join(header.Values("Vary"), ","), ",") {
		if strings.TrimSpace(name) == "*" {
			return append(forbids, "Vary: *")
		}
	}
	return forbids
}

// parseCacheControl returns the directives of Cache-Control with their values. Of a directive that is
// there twice, the first counts.
func parseCacheControl(header http.Header) map[string]string {
	directives := map[string]string{}
	isQuoted := false
	isSeparator := func(r rune) bool {
		if r == '"' {
			isQuoted = !isQuoted
		}
		return r == ',' && !isQuoted
	}
	for directive := range strings.FieldsFuncSeq(strings.Join(header.Values("Cache-Control"), ","), isSeparator) {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		if _, isThere := directives[name]; !isThere {
			directives[name] = strings.Trim(value, `"`)
		}
	}
	return directives
}

// findNoLifetime names what says that an answer is expired at once, or returns "". For shared caches,
// s-maxage counts before max-age, and that before Expires.
func findNoLifetime(header http.Header, directives map[string]string) string {
	for _, name := range []string{"s-maxage", "max-age"} {
		if value, isThere := directives[name]; isThere {
			if seconds, err := strconv.Atoi(value); err != nil || seconds > 0 {
				return ""
			}
			return "Cache-Control: " + name + "=" + value
		}
	}
	expires := header.Get("Expires")
	date, err := http.ParseTime(header.Get("Date"))
	if expires == "" || err != nil {
		return ""
	}
	if end, err := http.ParseTime(expires); err == nil && end.After(date) {
		return ""
	}
	return "Expires: " + expires
}
