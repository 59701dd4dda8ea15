package queue

import (
	"cmp"
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// aheadOf returns what is ahead of an item that waits for its turn. The Time is zero if the item
// is in no namespace queue. A count of all items serves all reports of the next reportPatience.
func (q *Queue) aheadOf(it *queueItem, now time.Time) taskstate.Ahead {
	if it.queue == nil {
		return taskstate.Ahead{}
	}
	if it.ahead.Time.IsZero() || !it.ahead.Time.Equal(q.aheadCounted) || now.Sub(q.aheadCounted) >= reportPatience {
		q.countAhead(now)
	}
	return it.ahead
}

// itemTurn is the turn of an item, if each turn of its namespace is for its oldest item.
type itemTurn struct {
	*queueItem
	sequence int64
	since    int64 // breaks ties: see namespaceState
}

// countAhead counts for each item in a namespace queue what is ahead of it. Namespaces take turns
// as in planNextCall. Items that back off are ahead of nobody.
func (q *Queue) countAhead(now time.Time) {
	q.aheadCounted = now
	byNamespace := map[*namespaceState][]*queueItem{}
	sizes := map[*laneState]int{}
	for _, l := range q.lanes {
		if slices.ContainsFunc(q.activeBackOffs(l), func(h *backOff) bool { return h.isActive(now) }) {
			continue
		}
		sizes[l] = l.callSize(q.limits, now)
		for _, s := range l.queues {
			byNamespace[s.namespace] = append(byNamespace[s.namespace], s.items...)
		}
	}
	var turns []itemTurn
	for ns, items := range byNamespace {
		slices.SortFunc(items, compareAge)
		first := ns.sequence
		if len(ns.readyQueues) == 0 { // offerQueue does the same when a lane becomes ready
			first = max(first, q.sequence)
		}
		for i, it := range items {
			turns = append(turns, itemTurn{it, first + int64(i), ns.since})
		}
	}
	slices.SortFunc(turns, func(a, b itemTurn) int {
		return cmp.Or(cmp.Compare(a.sequence, b.sequence), cmp.Compare(a.since, b.since))
	})
	ahead := taskstate.Ahead{Time: now}
	for _, turn := range turns {
		turn.ahead = ahead
		ahead.Tasks++
		ahead.Targets += min(q.countWaitingTargets(turn.task), sizes[turn.lane])
	}
}

// countWaitingTargets returns the approximate number of targets of a task that wait for a call of
// the queue's kind, without reading its target list.
func (q *Queue) countWaitingTargets(task *v1alpha1.PrefetchTask) int {
	if purge := &task.Spec.Purge; q.limits.Kind == v1alpha1.JobPurge && purge.Type != v1alpha1.PurgeURL {
		return len(purge.Targets)
	}
	return countOpenTargets(task)
}
