package queue

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// refusedHost is EdgeOne's refusal of a host. It counts until a time, some minutes later.
type refusedHost struct {
	until   time.Time
	message string
}

// RefuseHost records that EdgeOne does not know the host of a URL, as it was sent, in the
// zone. Until the given time, the queue refuses the host's other URLs without a call. It
// ignores refusals in zone *.
func (q *Queue) RefuseHost(zoneID, rawURL, message string, until time.Time) {
	for _, edge := range []bool{false, true} {
		if p := q.zoneQuotas[zoneMode{zoneID, edge}]; p != nil && zoneID != "*" {
			p.addRefusedHost(rawURL, refusedHost{until, message})
		}
	}
}

// maxRefusedHosts bounds the hosts that the queue remembers per mode of a zone.
const maxRefusedHosts = 1000

// addRefusedHost remembers a host. At the bound, the host replaces the one that expires
// first.
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

// splitRefusedHosts splits open positions into the positions that a call may contain and
// the positions whose host EdgeOne is known to refuse, with EdgeOne's message.
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
// without a port or a user, and "" otherwise. EdgeOne may refuse any other spelling for
// its form; such a refusal says nothing about the host.
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
