package metrics

import (
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
)

// ZoneStats is what the queues of all accounts know about a zone.
type ZoneStats struct {
	queue.ZoneStats
	Daily    int // the daily quota; 0 if unknown
	Accepted acceptedFrom
}

// acceptedFrom says whose call for a zone, or whose read of its quota, EdgeOne recently
// accepted.
type acceptedFrom int

// The owners of the accepted calls, the least trusted first. limitZones sorts by this
// order.
const (
	AcceptedFromNobody acceptedFrom = iota
	AcceptedFromTenant
	AcceptedFromOperator
)

// MergeStats merges what two accounts know about the same zone.
func (z ZoneStats) MergeStats(other ZoneStats) ZoneStats {
	return ZoneStats{ZoneStats: z.Merge(other.ZoneStats), Daily: max(z.Daily, other.Daily), Accepted: max(z.Accepted, other.Accepted)}
}
