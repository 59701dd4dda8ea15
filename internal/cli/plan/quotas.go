package plan

import (
	"cmp"
	"math"

	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/account"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
)

// quotas are EdgeOne's limits of zones, and what is left of them today. All accounts share them.
type quotas struct {
	zones map[string]*v1alpha1.AccountZoneStatus
	calls map[string]int // by zone: how many calls the plan has made
}

// readQuotas returns what the accounts say of zones. If several know a quota, the least is left: others
// have read it earlier.
func readQuotas(accounts []*v1alpha1.EdgeOneAccount, store *account.Store) *quotas {
	q := &quotas{zones: map[string]*v1alpha1.AccountZoneStatus{}, calls: map[string]int{}}
	for _, a := range accounts {
		for _, zone := range store.Account(a.Name).Status.Zones {
			known := q.zones[zone.ID]
			if known == nil {
				q.zones[zone.ID] = zone.DeepCopy()
				continue
			}
			known.Batch = cmp.Or(known.Batch, zone.Batch)
			known.Daily, known.Left = minKnown(known.Daily, zone.Daily), minKnown(known.Left, zone.Left)
			for _, purge := range zone.Purges {
				mergePurge(known, purge)
			}
		}
	}
	return q
}

// mergePurge adds what an account says of a type of purge.
func mergePurge(zone *v1alpha1.AccountZoneStatus, purge v1alpha1.AccountPurgeStatus) {
	known := findPurge(zone, purge.Type)
	if known == nil {
		zone.Purges = append(zone.Purges, purge)
		return
	}
	known.Batch = cmp.Or(known.Batch, purge.Batch)
	known.Daily, known.Left = minKnown(known.Daily, purge.Daily), minKnown(known.Left, purge.Left)
}

// minKnown returns the lower of two numbers that may be unknown.
func minKnown(a, b *int32) *int32 {
	if a == nil || b != nil && *b < *a {
		return b
	}
	return a
}

// find returns what is known of a zone.
func (q *quotas) find(zoneID string) v1alpha1.AccountZoneStatus {
	if zone := q.zones[zoneID]; zone != nil {
		return *zone
	}
	return v1alpha1.AccountZoneStatus{}
}

// findPurge returns what is known of a type of purge of a zone, or nil.
func findPurge(zone *v1alpha1.AccountZoneStatus, purge v1alpha1.PurgeType) *v1alpha1.AccountPurgeStatus {
	for i := range zone.Purges {
		if zone.Purges[i].Type == purge {
			return &zone.Purges[i]
		}
	}
	return nil
}

// charge subtracts the URLs of a call. What is unknown stays so.
func (q *quotas) charge(call *queue.Call, kind v1alpha1.JobKind) {
	q.calls[call.Lane.ZoneID]++
	zone, task := q.zones[call.Lane.ZoneID], call.Parts[0].Task
	switch {
	case zone == nil:
	case kind == v1alpha1.JobPurge:
		if purge := findPurge(zone, task.Spec.Purge.Type); purge != nil {
			purge.Left = subtractURLs(purge.Left, len(call.URLs))
		}
	case modeOf(task) != v1alpha1.ModeEdge:
		zone.Left = subtractURLs(zone.Left, len(call.URLs))
	}
}

// subtractURLs returns a new number: the old one is in plans and accounts.
func subtractURLs(left *int32, urls int) *int32 {
	if left == nil {
		return nil
	}
	return ptr.To(max(0, *left-int32(urls)))
}

// newQuota returns a quota for the queues. What is unknown here is enough. A batch of 0 is unknown.
func newQuota(batch int, daily, left *int32) queue.Quota {
	return queue.Quota{Batch: batch, Left: int(ptr.Deref(left, math.MaxInt32)), None: daily != nil && *daily == 0}
}
