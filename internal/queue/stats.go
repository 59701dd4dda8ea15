package queue

import (
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// ZoneStats is what a queue knows of a zone, for metrics.
type ZoneStats struct {
	// Waiting is what waits for a call, by what holds it: the reason of the condition
	// Ready, which is Waiting where nothing does.
	Waiting map[string]Backlog
	// Left is what is left of the day's quota in the default mode; -1 is not known.
	Left int
}

// Backlog is a part of what waits.
type Backlog struct {
	// Targets is how many URLs that is.
	Targets int
	// Since is from when the task waits that has waited longest.
	Since time.Time
}

// Merge joins two parts.
func (l Backlog) Merge(other Backlog) Backlog {
	if l.Since.IsZero() || !other.Since.IsZero() && other.Since.Before(l.Since) {
		l.Since = other.Since
	}
	l.Targets += other.Targets
	return l
}

// StatsByZone tells of the zones in which tasks wait or whose quota is known. It looks
// once at each task that waits, and at no status longer than it takes to read two
// numbers.
func (q *Queue) StatsByZone(now time.Time) map[string]ZoneStats {
	zones := map[string]ZoneStats{}
	of := func(id string) ZoneStats {
		if zone, known := zones[id]; known {
			return zone
		}
		return ZoneStats{Waiting: map[string]Backlog{}, Left: -1}
	}
	for _, it := range q.items {
		if it.inFlight || it.queue == nil && !it.blocked && it.suspectGroups == 0 && !q.postponed[it] && !taskstate.AwaitsList(it.task) {
			continue // it is called for, or only has to be told something
		}
		zone := of(it.lane.ZoneID)
		reason := q.waitReason(it)
		zone.Waiting[reason] = zone.Waiting[reason].Merge(Backlog{countOpenTargets(it.task), it.waitingSince()})
		zones[it.lane.ZoneID] = zone
	}
	for key, p := range q.zoneQuotas {
		if !key.edge && p.remaining >= 0 && !p.readAt.Before(q.lastReset(now)) { // else it is yesterday's
			zone := of(key.zoneID)
			zone.Left = p.remaining
			zones[key.zoneID] = zone
		}
	}
	return zones
}

// waitReason is the reason of what holds a waiting task. A hold that is over counts until a
// call or a look has shown that the trouble is.
func (q *Queue) waitReason(it *queueItem) string {
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

// countOpenTargets is about how many targets a waiting task has yet to hand over, without
// reading its list: what its status counts, or all if that speaks of another spec.
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

// waitingSince is from when a task waits for a call: since its last one, or since it
// joined the line. One that was never called for waits since it was created, also if
// this process came later, unless it was suspended.
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
