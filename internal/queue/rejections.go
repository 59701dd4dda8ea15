package queue

import (
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// rejectionRecord is what EdgeOne's answers say about a task as a whole.
type rejectionRecord struct {
	way, url string // of the first target that EdgeOne refused alone
	taken    bool   // EdgeOne accepted a target, so it does not refuse the whole task
	refusal  string // why EdgeOne would refuse every target; "" if it may accept some
}

// RecordRejection records that EdgeOne refused the only URL of a call. If EdgeOne's error
// is about the request and not about a target, the cause may be something that all
// targets of the task share, such as a header. Two different URLs that EdgeOne refused in
// the same way, with no URL accepted, are evidence for such a cause: the queue then
// refuses the other targets without a call.
func (q *Queue) RecordRejection(call *Call, way, message string, aboutTarget bool) {
	call.refused = true
	for _, part := range call.Parts {
		v := &part.item.verdict
		url := q.limits.Normalize(call.URLs[0])
		switch {
		case aboutTarget || v.taken:
		case v.way != way:
			v.way, v.url = way, url
			call.lane.reverseSuspects(part.item)
		case v.url != url:
			v.refusal = message
		}
	}
}

// reverseSuspects reverses the order in which the queue tests the groups of an item.
// Bisection isolates neighbors one after the other, and neighbors may share the same
// fault. The reversed order takes the second witness from where most of the remaining
// targets are.
func (l *laneState) reverseSuspects(it *queueItem) {
	var at []int
	for i, g := range l.suspects {
		if slices.ContainsFunc(g, func(s suspect) bool { return s.item == it && s.isCurrent() }) {
			at = append(at, i)
		}
	}
	for i, j := 0, len(at)-1; i < j; i, j = i+1, j-1 {
		l.suspects[at[i]], l.suspects[at[j]] = l.suspects[at[j]], l.suspects[at[i]]
	}
}

// splitRejected splits an item's open positions into the positions that a call may
// contain and the positions that EdgeOne is known to refuse, with EdgeOne's message.
func (q *Queue) splitRejected(it *queueItem, l *laneState, open taskstate.Positions, targets []string, now time.Time) (rest, bad taskstate.Positions, message string) {
	if it.verdict.refusal != "" {
		return nil, taskstate.OpenPositions(it.task), it.verdict.refusal
	}
	return l.pool.splitRefusedHosts(open, targets, q.limits.Normalize, now)
}
