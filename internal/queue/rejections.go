package queue

import (
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// rejectionRecord is what EdgeOne's responses show about a task as a whole.
type rejectionRecord struct {
	way, url string // of the first URL that EdgeOne refused alone
	taken    bool   // EdgeOne accepted a URL, so it does not refuse the whole task
	refusal  string // why EdgeOne would refuse every target; "" if it may accept some
}

// RecordRejection records that EdgeOne refused the only URL of a call. way is EdgeOne's
// error code. If the error is about the request and not about a target, the cause may be
// something that all targets of the task share, such as a header. The evidence for such a
// cause is that EdgeOne refused two different URLs in the same way and accepted none. The
// queue then refuses the other targets without a call.
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
// Bisection isolates adjacent targets one after the other, and adjacent targets may share
// a fault of their own. In the reversed order, the second refused URL comes from the part
// with most of the remaining targets.
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

// splitRejected splits an item's open positions by whether EdgeOne is known to refuse
// them. It returns the positions that a call may contain, the refused positions, and
// EdgeOne's message for them.
func (q *Queue) splitRejected(it *queueItem, l *laneState, open taskstate.Positions, targets []string, now time.Time) (rest, bad taskstate.Positions, message string) {
	if it.verdict.refusal != "" {
		return nil, q.openPositions(it.task), it.verdict.refusal
	}
	return l.pool.splitRefusedHosts(open, targets, q.limits.Normalize, now)
}
