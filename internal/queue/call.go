package queue

import (
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// Call is one planned call. Its tasks are out of the queue until it is told what
// became of it by Accepted, Lost, Rejected or Released.
type Call struct {
	Lane  BatchKey
	Parts []CallPart
	// URLs are the distinct targets of all parts.
	URLs []string
	// Refusal is why EdgeOne would refuse these targets, if that is known.
	Refusal string
	// Planned is when the call was planned.
	Planned time.Time
	// Sequence orders calls that are planned and wait for a slot: the lowest goes first.
	Sequence int64

	lane     *laneState
	test     bool         // it tries suspects
	suspects suspectGroup // those
	probe    bool         // it tries whether the account works again
	refused  bool         // EdgeOne refused its only URL
}

// CallPart is what a task has in a call.
type CallPart struct {
	Task      *v1alpha1.PrefetchTask
	Positions taskstate.Positions
	item      *queueItem
}

// fillCall makes a call of the lane, starting with the given strand's oldest task and
// going on with the lane's namespaces in turn.
func (q *Queue) fillCall(first *namespaceQueue, now time.Time) *Call {
	l := first.lane
	call := &Call{Lane: l.BatchKey, lane: l}
	size, tasks := l.callSize(q.limits, now), q.maxTasks(l)
	refusal := &Call{Lane: l.BatchKey, lane: l}
	if i := slices.Index(l.rotation, first); i > 0 {
		l.rotation = slices.Concat(l.rotation[i:], l.rotation[:i])
	}
	urls := q.newURLSet()
	for len(call.Parts) < tasks && len(refusal.Parts) < tasks {
		it := l.nextItem()
		if it == nil {
			break
		}
		targets, open := taskstate.DistinctTargets(it.task), taskstate.OpenPositions(it.task)
		if q.blockItem(it, open, targets) {
			continue
		}
		open, bad, message := q.splitRejected(it, l, open, targets, now)
		if len(bad) > 0 && len(call.Parts) > 0 || len(bad) == 0 && len(refusal.Parts) > 0 {
			break // its turn comes right after this call
		}
		if urls.len() >= size && (len(bad) > 0 || !urls.contains(targets[open[0]])) {
			break // the call is full, and only takes those who want what it has
		}
		if len(bad) > 0 {
			if !refusal.addRefused(it, bad, message) {
				break
			}
			q.removeFromLine(it)
			continue
		}
		q.removeFromLine(it)
		it.inFlight = true
		call.addPart(it, open, targets, urls, size)
	}
	return q.startFilled(call, refusal, now)
}

// startFilled returns the call or the refusal that was filled, nil if neither was.
func (q *Queue) startFilled(call, refusal *Call, now time.Time) *Call {
	l := call.lane
	switch {
	case len(refusal.Parts) > 0:
		return refusal // asks for nothing, so the lane is not busy
	case len(call.Parts) == 0:
		q.refreshLane(l, now)
		q.dropLane(l, now)
		return nil
	}
	l.inFlight = true
	q.startProbes(l, now)
	q.refreshLane(l, now)
	return call
}

// maxTasks returns how many tasks a call of the lane may have. Calls that were lost lately
// halve it. A probe costs one claim, not 500: the trouble may not be over.
func (q *Queue) maxTasks(l *laneState) int {
	if slices.ContainsFunc(q.activeBackOffs(l), func(h *backOff) bool { return h.probe }) {
		return 1
	}
	return max(1, q.tasksPerCall()>>l.lost)
}

// nextItem returns the oldest task of the namespace whose turn it is, nil if no task waits in
// the lane. The namespace goes behind the others.
func (l *laneState) nextItem() *queueItem {
	for len(l.queues) > 0 {
		s := l.rotation[0]
		if len(s.items) == 0 {
			l.rotation = l.rotation[1:]
			continue
		}
		l.rotation = append(l.rotation[1:], s)
		return s.items[0]
	}
	return nil
}

// startProbes lets a call of the lane probe for the end of the trouble of its mode and of its
// tenant. Until it ends, no other lane of theirs is tried.
func (q *Queue) startProbes(l *laneState, now time.Time) {
	if l.pool.backOff.probe {
		l.pool.prober = l
		q.refreshMode(l.pool, now)
	}
	if l.tenant != nil && l.tenant.backOff.probe {
		l.tenant.prober = l
		q.refreshTenantLanes(l.tenant, now)
	}
}

// addRefused adds targets that EdgeOne is known to refuse. What it refuses in other
// words does not fit in.
func (c *Call) addRefused(it *queueItem, bad taskstate.Positions, message string) bool {
	if len(c.Parts) > 0 && c.Refusal != message {
		return false
	}
	it.inFlight = true
	c.Refusal = message
	c.Parts = append(c.Parts, CallPart{it.task, bad, it})
	return true
}

// addPart puts as many of the item's open targets into the call as fit. A URL that is
// in it already, whatever way it is written in, costs nothing: the first spelling
// is sent. It returns the positions.
func (c *Call) addPart(it *queueItem, open taskstate.Positions, targets []string, urls urlSet, size int) taskstate.Positions {
	part := CallPart{Task: it.task, item: it}
	for _, i := range open {
		u := targets[i]
		if !urls.contains(u) {
			if urls.len() >= size {
				continue
			}
			urls.insert(u)
			c.URLs = append(c.URLs, u)
		}
		part.Positions = append(part.Positions, i)
	}
	c.Parts = append(c.Parts, part)
	return part.Positions
}

// urlSet is a set of URLs, in which all spellings of one are one.
type urlSet struct {
	normalize func(string) string
	seen      map[string]bool
}

func (q *Queue) newURLSet() urlSet { return urlSet{q.limits.Normalize, map[string]bool{}} }

func (s urlSet) contains(u string) bool { return s.seen[s.normalize(u)] }

func (s urlSet) insert(u string) { s.seen[s.normalize(u)] = true }

func (s urlSet) len() int { return len(s.seen) }
