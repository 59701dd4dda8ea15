package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// targetsDesc describes the counter of TargetCounter.
var targetsDesc = prometheus.NewDesc("teo_prefetch_targets_total",
	"URLs by zone and outcome: Succeeded, or the reason in status.failedTargets (Refused, PurgeFailed, Failed, Timeout, Canceled, Invalid, NoOutcome; "+
		"Unnamed if the status has no room for the reason: it names the first 100 failed URLs). "+
		"A URL counts when the outcome is written to the status, and again if it is retried. "+
		"The first 100 zones have their own series, 50 of them at most zones that only tenants' keys have used; the others share the zone other.",
	[]string{"zone", "outcome"}, nil)

// targetOutcomes are the values of the label outcome.
var targetOutcomes = []string{
	v1alpha1.ReasonSucceeded, v1alpha1.FailedRefused, v1alpha1.FailedFailed, v1alpha1.FailedTimeout, v1alpha1.FailedCanceled,
	v1alpha1.FailedInvalid, v1alpha1.FailedNoOutcome, v1alpha1.FailedPurge, taskstate.UnnamedFailure,
}

// purgedDesc describes the counter of purges of TargetCounter.
var purgedDesc = prometheus.NewDesc("teo_prefetch_purged_total",
	"What tasks with spec.purge have purged (URLs, prefixes, hosts, cache tags), by zone and outcome: Succeeded, or Failed if EdgeOne refused or failed to purge it. "+
		"It counts when the outcome is written to the status. The zones have series as those of teo_prefetch_targets_total.",
	[]string{"zone", "outcome"}, nil)

// purgeOutcomes are the values of the label outcome of the counter of purges.
var purgeOutcomes = []string{v1alpha1.ReasonSucceeded, v1alpha1.FailedFailed}

const (
	// maxTenantZones is how many of the MaxZones zones with their own series may be zones
	// that only tenants' keys have used. Tenants may own any number of zones, and a counter
	// must keep its label.
	maxTenantZones = MaxZones / 2
	// zeroPeriod is how long the series of a new zone stay 0. They hide the first outcomes
	// from rate() and increase() unless Prometheus has scraped a 0 before.
	zeroPeriod = 90 * time.Second
)

// TargetCounter counts URLs and purges by zone and outcome. It is a collector. Its methods may be called
// concurrently.
type TargetCounter struct {
	mu      sync.Mutex // guards the rest
	zones   map[string]*zoneOutcomes
	tenants int // zones that only tenants' keys have used
}

// zoneOutcomes holds the counts of a zone.
type zoneOutcomes struct {
	since    time.Time
	isTenant bool           // only tenants' keys have used the zone
	counts   map[string]int // of targets
	purged   map[string]int // of purges
}

// NewTargetCounter returns a counter without zones.
func NewTargetCounter() *TargetCounter { return &TargetCounter{zones: map[string]*zoneOutcomes{}} }

// countOutcomes adds outcomes to a zone. isTenant says that the outcomes belong to a call that
// was not made with the operator's own key. A zone has its series from the first call on, even
// without outcomes.
func (c *TargetCounter) countOutcomes(zoneID string, isTenant bool, outcomes, purged map[string]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	zone := c.findZone(zoneID, isTenant)
	for outcome, n := range outcomes {
		zone.counts[outcome] += n
	}
	for outcome, n := range purged {
		zone.purged[outcome] += n
	}
}

// findZone returns the counts of a zone, or those of the zone other if there are too many
// zones. The caller holds c.mu.
func (c *TargetCounter) findZone(zoneID string, isTenant bool) *zoneOutcomes {
	zone, isKnown := c.zones[zoneID]
	switch {
	case isKnown && zone.isTenant && !isTenant:
		zone.isTenant = false
		c.tenants--
	case isKnown:
	case zoneID != otherZonesLabel && (c.ownSeries() >= MaxZones || isTenant && c.tenants >= maxTenantZones):
		return c.findZone(otherZonesLabel, false)
	default:
		zone = &zoneOutcomes{since: time.Now(), isTenant: isTenant, counts: map[string]int{}, purged: map[string]int{}}
		c.zones[zoneID] = zone
		if isTenant {
			c.tenants++
		}
	}
	return zone
}

// ownSeries returns how many zones have their own series. The caller holds c.mu.
func (c *TargetCounter) ownSeries() int {
	n := len(c.zones)
	if c.zones[otherZonesLabel] != nil {
		n--
	}
	return n
}

// Describe sends the descriptions of the counters.
func (c *TargetCounter) Describe(descs chan<- *prometheus.Desc) {
	descs <- targetsDesc
	descs <- purgedDesc
}

// Collect sends the counts. The counts of a new zone are 0 for the zeroPeriod.
func (c *TargetCounter) Collect(out chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for id, zone := range c.zones {
		send := func(desc *prometheus.Desc, outcomes []string, counts map[string]int) {
			for _, outcome := range outcomes {
				n := counts[outcome]
				if now.Sub(zone.since) < zeroPeriod {
					n = 0
				}
				out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), id, outcome)
			}
		}
		send(targetsDesc, targetOutcomes, zone.counts)
		send(purgedDesc, purgeOutcomes, zone.purged)
	}
}

// ObserveStatusWrite counts the outcomes that a write added to a task's status. before is the
// version that the write changed, so no outcome counts twice, whoever else writes. It is for
// kube.NewStatusWriter.
func (c *TargetCounter) ObserveStatusWrite(before, after *v1alpha1.PrefetchTask) {
	outcomes, purged := taskstate.NewOutcomes(before, after), taskstate.NewPurgeOutcomes(before, after)
	if len(outcomes)+len(purged) == 0 && len(after.Status.Jobs) <= len(before.Status.Jobs) {
		return
	}
	zoneID := before.Spec.ZoneID
	if claim := before.Status.Submission; claim != nil && before.Status.Run == after.Status.Run {
		zoneID = claim.ZoneID // the spec may name another zone by now
	}
	c.countOutcomes(zoneID, taskstate.AccountKeyOf(before).IsTenants(), outcomes, purged)
}
