package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// quotaTypes has EdgeOne's names of the types of purges, in the order of the output.
var quotaTypes = []struct {
	purge v1alpha1.PurgeType
	name  string
}{
	{v1alpha1.PurgeURL, teo.TypePurgeURL}, {v1alpha1.PurgePrefix, teo.TypePurgePrefix},
	{v1alpha1.PurgeHost, teo.TypePurgeHost}, {v1alpha1.PurgeCacheTag, teo.TypePurgeCacheTag},
}

// note prints what only some tasks need. It does not count as a failure.
func (c *check) note(format string, args ...any) { c.say("note", format, args...) }

// zoneCheck is a check of keys in a zone.
type zoneCheck struct {
	*check
	client *teo.Client
	creds  teo.Credentials
	zone   string
}

// mayPurge reports whether tasks with spec.purge can run in a zone: the quotas of the allowed
// types of purges, and whether the history of purges is readable. Whether the keys may call
// CreatePurgeTask, only a purge could show.
func (z zoneCheck) mayPurge(ctx context.Context, allowed []v1alpha1.PurgeType, quota teo.ContentQuota) {
	if len(allowed) == 0 {
		return
	}
	now := z.client.ServerTime()
	_, err := z.client.FirstRecords(ctx, z.creds, teo.ListRequest{History: teo.PurgeHistory, ZoneID: z.zone, StartTime: now.Add(-time.Second), EndTime: now})
	if err != nil {
		z.note("Tasks with spec.purge cannot run in zone %s, because the keys do not read its history of purges: %s. "+
			"If tasks purge, let the policy of the keys allow teo:CreatePurgeTask and teo:DescribePurgeTasks.", z.zone, strings.TrimSuffix(teo.Message(err), "."))
		return
	}
	var left, missing []string
	for _, t := range quotaTypes {
		of, isKnown := quota.Purge[t.name]
		switch {
		case !slices.Contains(allowed, t.purge):
		case !isKnown || of.IsZero():
			missing = append(missing, string(t.purge))
		default:
			left = append(left, fmt.Sprintf("%s %d of %d", t.purge, of.DailyAvailable, of.Daily))
		}
	}
	if len(left) > 0 {
		z.ok("The keys read the history of purges in zone %s. Purges left today: %s. For purges, their policy must also allow teo:CreatePurgeTask.",
			z.zone, strings.Join(left, ", "))
	}
	if len(missing) > 0 {
		z.note("EdgeOne reports no quota for purges of type %s in zone %s: tasks with these types cannot run there.", strings.Join(missing, ", "), z.zone)
	}
}
