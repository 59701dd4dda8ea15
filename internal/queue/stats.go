package queue

import (
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// ZoneStats is what a queue knows about a zone, for metrics.
type ZoneStats struct {
	// Waiting is the backlog by what holds it back: the reason of the Ready condition,
	// which is Waiting if nothing does.
	Waiting map[string]Backlog
	// Left is what remains of the day's quota in the default mode; -1 means unknown.
	Left int
}

// Backlog is a part of the waiting tasks.
type Backlog struct {
	// Targets is the number of their URLs.
	Targets int
	// Since is when the longest-waiting task started to wait.
	Since time.Time
}

// Merge returns the backlog of both parts.
func (l Backlog) Merge(other Backlog) Backlog {
	if l.Since.IsZero() || !other.Since.IsZero() && other.Since.Before(l.Since) {
		l.Since = other.Since
	}
	l.Targets += other.Targets
	return l
}

// StatsByZone returns the statistics of the zones in which tasks wait or whose quota is
// known. It reads each waiting task once, and only two numbers of its status.
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
			continue // in a call, or it only needs a status write
		}
		zone := of(it.lane.ZoneID)
		reason := q.waitReason(it)
		zone.Waiting[reason] = zone.Waiting[reason].Merge(Backlog{countOpenTargets(it.task), it.waitingSince()})
		zones[it.lane.ZoneID] = zone
	}
	for key, p := range q.zoneQuotas {
		if !key.edge && p.remaining >= 0 && !p.readAt.Before(q.lastReset(now)) { // otherwise the value is yesterday's
			zone := of(key.zoneID)
			zone.Left = p.remaining
			zones[key.zoneID] = zone
		}
	}
	return zones
}

// waitReason returns the reason why a task waits. A back-off that is over counts until a
// call or a quota read shows that the trouble is over.
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

// countOpenTargets returns the approximate number of targets that a waiting task has yet
// to submit, without reading its list. It uses the counts in the status, or all targets
// if the status is about another spec.
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

// waitingSince returns when a task started to wait for a call: after its last call, or
// when it joined the queue. A task without any call waits since its creation, even if
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
