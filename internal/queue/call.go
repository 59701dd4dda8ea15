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
	size, tasks := l.callSize(q.limits, now), max(1, q.tasksPerCall()>>l.lost)
	if slices.ContainsFunc(q.activeBackOffs(l), func(h *backOff) bool { return h.probe }) {
		tasks = 1 // trouble may not be over: a probe should cost one claim, not 500
	}
	refusal := &Call{Lane: l.BatchKey, lane: l}
	if i := slices.Index(l.rotation, first); i > 0 {
		l.rotation = slices.Concat(l.rotation[i:], l.rotation[:i])
	}
	urls := q.newURLSet()
	for len(l.queues) > 0 && len(call.Parts) < tasks && len(refusal.Parts) < tasks {
		s := l.rotation[0]
		if len(s.items) == 0 {
			l.rotation = l.rotation[1:]
			continue
		}
		l.rotation = append(l.rotation[1:], s)
		it := s.items[0]
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
	switch {
	case len(refusal.Parts) > 0:
		return refusal // asks for nothing, so the lane is not busy
	case len(call.Parts) == 0:
		q.refreshLane(l, now)
		q.dropLane(l, now)
		return nil
	}
	l.inFlight = true
	if l.pool.backOff.probe {
		l.pool.prober = l
		q.refreshMode(l.pool, now)
	}
	if l.tenant != nil && l.tenant.backOff.probe {
		l.tenant.prober = l
		q.refreshTenantLanes(l.tenant, now)
	}
	q.refreshLane(l, now)
	return call
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
