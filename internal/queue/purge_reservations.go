package queue

import (
	"cmp"
	"strings"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// isWide reports whether the reservation is about more URLs than it lists. A purge of cache tags
// lists none: nobody but the origin knows the URLs of a tag.
func (c *reservation) isWide() bool { return c.purge != "" && c.purge != v1alpha1.PurgeURL }

// setPurged sets what a wide reservation purges. Each URL of a task is compared with it, so that it
// is a set of prefixes, which end in a slash, or of hosts.
func (c *reservation) setPurged(targets []string, normalize func(string) string) {
	c.purged = make(map[string]bool, len(targets))
	for _, purged := range targets {
		if c.purge == v1alpha1.PurgePrefix {
			purged = normalize(purged)
		}
		c.purged[purged] = true
	}
}

// covers reports whether a wide reservation is about a URL, as Limits.Normalize returns it.
func (c *reservation) covers(url string) bool {
	switch c.purge {
	case v1alpha1.PurgePrefix:
		for end := len(url); end > 0; end = strings.LastIndexByte(url[:end-1], '/') + 1 {
			if c.purged[url[:end]] {
				return true
			}
		}
	case v1alpha1.PurgeHost:
		_, host, _ := strings.Cut(url, "://")
		if end := strings.IndexAny(host, "/?:"); end >= 0 {
			host = host[:end]
		}
		return c.purged[host]
	}
	return false
}

// heldCallOf returns the call of a task that can still be executed, or whose purge EdgeOne can:
// its claim, or a purge under way. targets is nil if the task does not show them. The id is ""
// if there is no such call.
func heldCallOf(task *v1alpha1.PrefetchTask) (held reservation, targets []string) {
	claim := task.Status.Submission
	if claim != nil && claim.Kind == v1alpha1.JobPurge && !taskstate.HasClaim(task) {
		claim = nil // a purge of the run before, which can no longer delete anything
	}
	if claim == nil {
		job, targets := taskstate.OpenPurge(task)
		if job == nil {
			return reservation{}, nil
		}
		return reservation{id: job.ClaimID, zoneID: task.Spec.ZoneID, purge: task.Spec.Purge.Type}, targets
	}
	held = reservation{id: claim.ClaimID, zoneID: claim.ZoneID}
	if claim.Kind == v1alpha1.JobPurge {
		held.purge = cmp.Or(task.Spec.Purge.Type, v1alpha1.PurgeURL)
	}
	if taskstate.IsNewRun(task) || taskstate.IsUnresolved(task) || taskstate.IsElided(task) {
		return held, nil
	}
	all := taskstate.CallTargets(task, claim.Kind)
	targets = []string{}
	for _, i := range taskstate.CoveredPositions(claim.Positions, len(all)) {
		targets = append(targets, all[i])
	}
	return held, targets
}

// KeepPurge records that EdgeOne has accepted a purge. Its URLs stay reserved until the statuses of
// its tasks say that the purge has ended. If isGone, a task of the call is gone, and no status says
// so for its URLs.
func (q *Queue) KeepPurge(claimID string, isGone bool, now time.Time) {
	c := q.reservations[claimID]
	switch {
	case c == nil:
	case c.holders > 0:
		q.loseReservation(claimID, now)
	case !isGone: // all statuses say that it has ended
		q.ReleaseURLs(claimID, now)
	default:
		c.until = now.Add(q.limits.SettleTime)
		q.runAt(c.until, func(now time.Time) { q.expireReservation(c.id, now) })
		q.loseReservation(claimID, now)
	}
}
