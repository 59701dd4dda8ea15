package queue

import (
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// ZoneStats is what a queue knows about a zone, for metrics.
type ZoneStats struct {
	// Waiting is the backlog by the reason why it waits. The keys are reasons of the
	// Ready condition; tasks that are only queued have the reason Waiting.
	Waiting map[string]Backlog
	// Left is the rest of the day's quota in the default mode; -1 means unknown.
	Left int
	// PurgesLeft is the rest of the day's quota of purges by type, as far as it is known.
	PurgesLeft map[v1alpha1.PurgeType]int
	// Cold are the targets that are purged, or may be, and are not handed over for their
	// prefetch. Cold.Since is when the first of their purges was signed.
	Cold Backlog
}

// Backlog sums up a group of waiting tasks.
type Backlog struct {
	// Targets is the number of their unsubmitted targets, as countOpenTargets counts
	// them.
	Targets int
	// Since is when the longest-waiting task started to wait.
	Since time.Time
}

// Merge returns the backlog of both groups together.
func (l Backlog) Merge(other Backlog) Backlog {
	if l.Since.IsZero() || !other.Since.IsZero() && other.Since.Before(l.Since) {
		l.Since = other.Since
	}
	l.Targets += other.Targets
	return l
}

// setLeft records what is left of the day's quota of a type of purge, or of prefetches if purge
// is "".
func (z *ZoneStats) setLeft(purge v1alpha1.PurgeType, left int) {
	if purge == "" {
		z.Left = left
		return
	}
	z.addPurgesLeft(purge, left)
}

// addPurgesLeft records what is left of a quota of purges. The lower of two values counts.
func (z *ZoneStats) addPurgesLeft(purge v1alpha1.PurgeType, left int) {
	if z.PurgesLeft == nil {
		z.PurgesLeft = map[v1alpha1.PurgeType]int{}
	}
	if known, ok := z.PurgesLeft[purge]; !ok || left < known {
		z.PurgesLeft[purge] = left
	}
}

// Merge returns what two queues know about the same zone. Backlogs add up, and the lower of
// two known quotas counts.
func (z ZoneStats) Merge(other ZoneStats) ZoneStats {
	merged := ZoneStats{Waiting: map[string]Backlog{}, Left: z.Left, Cold: z.Cold.Merge(other.Cold)}
	if z.Left < 0 || other.Left >= 0 && other.Left < z.Left {
		merged.Left = other.Left
	}
	for _, of := range []ZoneStats{z, other} {
		for reason, backlog := range of.Waiting {
			merged.Waiting[reason] = merged.Waiting[reason].Merge(backlog)
		}
		for purge, left := range of.PurgesLeft {
			merged.addPurgesLeft(purge, left)
		}
	}
	return merged
}

// StatsByZone returns statistics of all zones in which tasks wait or whose quota is
// known. It reads each waiting task once, and only two numbers of its status, so that it
// is cheap for large tasks.
func (q *Queue) StatsByZone(now time.Time) map[string]ZoneStats {
	zones := map[string]ZoneStats{}
	of := func(id string) ZoneStats {
		if zone, known := zones[id]; known {
			return zone
		}
		return ZoneStats{Waiting: map[string]Backlog{}, Left: -1}
	}
	for _, it := range q.items {
		if it.inFlight || it.queue == nil && it.blockedBy == nil && it.suspectGroups == 0 && !q.postponed[it] && !q.denied[it] && !q.awaitsList(it.task) {
			continue // the task is in a call, or it only needs a status write
		}
		zone := of(it.lane.ZoneID)
		reason := q.waitReason(it)
		zone.Waiting[reason] = zone.Waiting[reason].Merge(Backlog{countOpenTargets(it.task), it.waitingSince()})
		zones[it.lane.ZoneID] = zone
	}
	for key, p := range q.zoneQuotas {
		if !key.edge && p.remaining >= 0 && !p.readAt.Before(q.lastReset(now)) { // an older value is yesterday's
			zone := of(key.zoneID)
			zone.setLeft(key.purge, p.remaining)
			zones[key.zoneID] = zone
		}
	}
	for _, p := range q.promises {
		zone := of(p.pool.zoneID)
		zone.Cold = zone.Cold.Merge(Backlog{p.urls, p.since})
		zones[p.pool.zoneID] = zone
	}
	return zones
}

// waitReason returns the reason why a task waits. An expired back-off counts until a call
// or a quota read shows that the problem is solved.
func (q *Queue) waitReason(it *queueItem) string {
	if q.denied[it] {
		return it.denied.Reason
	}
	if q.postponed[it] {
		return it.postponed.Reason
	}
	for _, h := range append(q.activeBackOffs(it.lane), &it.backOff) {
		if h.Reason != "" {
			return h.Reason
		}
	}
	return v1alpha1.ReasonWaiting
}

// countOpenTargets returns the approximate number of unsubmitted targets of a waiting
// task, without reading its target list. It uses the counts in the status. If the status
// is about another generation of the spec, it returns the number of all targets.
func countOpenTargets(task *v1alpha1.PrefetchTask) int {
	s := &task.Status
	if s.ObservedGeneration == task.Generation && s.Targets.Total != nil && s.Targets.Submitted != nil && *s.Targets.Total > *s.Targets.Submitted {
		return int(*s.Targets.Total - *s.Targets.Submitted)
	}
	if taskstate.IsElided(task) {
		return taskstate.CountTargets(task)
	}
	return len(task.Spec.Targets)
}

// waitingSince returns when a task started to wait for a call: when it joined the queue,
// or after its last call. A task that has never run waits since its creation, even if
// this process started later, unless it was suspended.
func (it *queueItem) waitingSince() time.Time {
	task, since := it.task, it.joined
	if task.Status.Run == "" && taskstate.ReadyReason(task) != v1alpha1.ReasonSuspended {
		since = task.CreationTimestamp.Time
	}
	if n := len(task.Status.Jobs); n > 0 && task.Status.Jobs[n-1].SubmitTime.After(since) {
		since = task.Status.Jobs[n-1].SubmitTime.Time
	}
	return since
}
