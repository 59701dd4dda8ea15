package metrics

import (
	"maps"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
)

// ZoneStats is what the lines of all accounts know of a zone.
type ZoneStats struct {
	queue.ZoneStats
	Daily    int // the quota of a day; 0 is not known
	Accepted acceptedFrom
}

// acceptedFrom is whose call for a zone, or read of its quota, EdgeOne accepted lately.
type acceptedFrom int

// The callers whose calls for a zone EdgeOne accepted, from the least trusted.
const (
	AcceptedFromNobody acceptedFrom = iota
	AcceptedFromTenant
	AcceptedFromOperator
)

// MergeStats joins what two accounts know of the same zone.
func (z ZoneStats) MergeStats(other ZoneStats) ZoneStats {
	z.Waiting = maps.Clone(z.Waiting)
	for reason, line := range other.Waiting {
		z.Waiting[reason] = z.Waiting[reason].Merge(line)
	}
	if z.Left < 0 || other.Left >= 0 && other.Left < z.Left {
		z.Left = other.Left
	}
	z.Daily, z.Accepted = max(z.Daily, other.Daily), max(z.Accepted, other.Accepted)
	return z
}
