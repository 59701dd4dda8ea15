package queue

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// refusedHost is EdgeOne's refusal of a host. It applies until a time, some minutes
// later.
type refusedHost struct {
	until   time.Time
	message string
}

// RefuseHost records that EdgeOne does not know the host of a URL in a zone. rawURL is
// the URL as it was sent. Until the given time, the queue refuses the host's other URLs
// without a call. RefuseHost ignores zone *, because it covers all zones.
func (q *Queue) RefuseHost(zoneID, rawURL, message string, until time.Time) {
	for _, mode := range q.modesOf(zoneID) {
		if p := q.zoneQuotas[mode]; p != nil && zoneID != "*" {
			p.addRefusedHost(rawURL, refusedHost{until, message})
		}
	}
}

// maxRefusedHosts is the maximum number of refused hosts that the queue remembers per
// mode of a zone.
const maxRefusedHosts = 1000

// addRefusedHost remembers a refused host. At maxRefusedHosts, the host replaces the one
// that expires first. It ignores URLs without a plain host name: see hostOfURL.
func (p *zoneQuota) addRefusedHost(rawURL string, bad refusedHost) {
	host := hostOfURL(rawURL)
	if host == "" {
		return
	}
	if _, known := p.refusedHosts[host]; !known && len(p.refusedHosts) >= maxRefusedHosts {
		oldest := slices.MinFunc(slices.Collect(maps.Keys(p.refusedHosts)), func(a, b string) int {
			return p.refusedHosts[a].until.Compare(p.refusedHosts[b].until)
		})
		delete(p.refusedHosts, oldest)
	}
	p.refusedHosts[host] = bad
}

// splitRefusedHosts splits open positions by whether EdgeOne is known to refuse their
// host. It returns the positions that a call may contain, the refused positions, and
// EdgeOne's message for them. It removes expired refusals.
func (p *zoneQuota) splitRefusedHosts(
	open taskstate.Positions, targets []string, normalize func(string) string, now time.Time,
) (rest, bad taskstate.Positions, message string) {
	if len(p.refusedHosts) == 0 {
		return open, nil, ""
	}
	for _, i := range open {
		host := hostOfURL(normalize(targets[i]))
		b, known := p.refusedHosts[host]
		switch {
		case known && !now.Before(b.until):
			delete(p.refusedHosts, host)
			fallthrough
		case !known:
			rest = append(rest, i)
		default:
			bad, message = append(bad, i), b.message
		}
	}
	return rest, bad, message
}

// hostOfURL returns the host of a URL if it is a plain host name in lower-case ASCII,
// without a port or a user. Otherwise it returns "". EdgeOne may refuse another spelling
// because of its form, and such a refusal is no evidence against the host.
func hostOfURL(rawURL string) string {
	_, host, _ := strings.Cut(rawURL, "://")
	if end := strings.IndexAny(host, "/?#"); end >= 0 {
		host = host[:end]
	}
	for _, c := range []byte(host) {
		if ok := 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '.'; !ok {
			return ""
		}
	}
	return host
}
