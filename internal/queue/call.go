package queue

import (
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// Call is one planned call. Its tasks stay out of the queue until one of these functions
// records the outcome: RecordAccepted, TrackLostCall, BisectRejected, BisectCutOff or
// RecordReleased.
type Call struct {
	Lane  BatchKey
	Parts []CallPart
	// URLs are the distinct targets of all parts, each in the spelling to send.
	URLs []string
	// Refusal is EdgeOne's message if EdgeOne is known to refuse these targets; ""
	// otherwise. The caller records such targets as refused and sends no request.
	Refusal string
	// Planned is when the call was planned.
	Planned time.Time
	// Sequence orders the planned calls that wait for a slot. The lowest sequence goes
	// first.
	Sequence int64

	lane     *laneState
	test     bool           // the call tests suspects
	suspects suspectGroup   // the suspects that the call tests
	probe    bool           // the call checks whether the account works again
	refused  bool           // EdgeOne refused the only URL of the call
	planned  map[string]int // URLs that count in Queue.planned, by namespace
	// unpromised is how many of its URLs count in zoneQuota.unpromised.
	unpromised int
	promises   []plannedPromise // what the tasks of a purge need afterwards, until their claims are written
}

// CallPart is a task's share of a call.
type CallPart struct {
	Task      *v1alpha1.PrefetchTask
	Positions taskstate.Positions // positions of the task's targets in the call
	item      *queueItem
}

// fillCall plans a call of a lane. It starts with the oldest task in the given namespace
// queue, and then takes the oldest task of each of the lane's namespaces in turn. If
// EdgeOne is known to refuse targets of the first task, fillCall returns a refusal
// instead. It returns nil if no task of the lane can be in a call now.
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
		targets, open, room := q.takeOpen(it, urls, now)
		if len(open) == 0 {
			continue
		}
		open, bad, message := q.splitRejected(it, l, open, targets, now)
		if len(bad) > 0 && len(call.Parts) > 0 || len(bad) == 0 && len(refusal.Parts) > 0 {
			break // a call and a refusal do not mix; this task comes next
		}
		if urls.len() >= size && (len(bad) > 0 || !urls.contains(targets[open[0]])) {
			break // the call is full: only tasks whose next URL is already in it still fit
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
		before := urls.len()
		call.addPart(it, open, targets, urls, min(size, before+min(room, size)))
		q.planURLs(call, it.key.Namespace, urls.len()-before)
		q.takeFree(call, it, urls.len()-before)
	}
	return q.startFilled(call, refusal, now)
}

// takeOpen returns the targets of an item, the positions that a call may have now, and how many
// URLs its account leaves. urls are those of the call. If there are no such positions, the item
// is no longer in its namespace queue.
func (q *Queue) takeOpen(it *queueItem, urls urlSet, now time.Time) (targets []string, open taskstate.Positions, room int) {
	targets, open = q.targetsOf(it.task), q.openPositions(it.task)
	if open = q.takeUnreserved(it, open, targets); len(open) == 0 {
		return targets, nil, 0
	}
	room, ok := q.admitToCall(it, urls.contains(targets[open[0]]), now)
	if !ok {
		return targets, nil, 0
	}
	return targets, open, room
}

// startFilled returns the call or the refusal that fillCall filled, or nil if both are
// empty. A call that will be sent occupies its lane and starts the probes.
func (q *Queue) startFilled(call, refusal *Call, now time.Time) *Call {
	l := call.lane
	switch {
	case len(refusal.Parts) > 0:
		return refusal // a refusal is not sent, so it does not occupy the lane
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

// maxTasks returns how many tasks a call of the lane may have. Each lost call in the
// status of the lane's tasks halves the number. A probe has only one task: if the problem
// persists, the probe costs one claim instead of up to TasksPerCall claims.
func (q *Queue) maxTasks(l *laneState) int {
	if slices.ContainsFunc(q.activeBackOffs(l), func(h *backOff) bool { return h.probe }) {
		return 1
	}
	return max(1, q.tasksPerCall()>>l.lost)
}

// nextItem returns the oldest task of the next namespace in the lane, or nil if no task
// waits in the lane. The namespace then moves to the end of the rotation.
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

// startProbes makes a call of the lane the probe of its mode and of its tenant, if they
// recover from a back-off. Until the probe ends, no other lane of that mode or tenant
// makes a call.
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

// addRefused adds targets that EdgeOne is known to refuse. A call has only one message:
// addRefused returns false if the message differs from the message of the call.
func (c *Call) addRefused(it *queueItem, bad taskstate.Positions, message string) bool {
	if len(c.Parts) > 0 && c.Refusal != message {
		return false
	}
	it.inFlight = true
	c.Refusal = message
	c.Parts = append(c.Parts, CallPart{it.task, bad, it})
	return true
}

// addPart adds as many of the item's open targets as fit into the call, and returns their
// positions. A URL that the call already contains in any spelling takes no space. EdgeOne
// gets the first spelling.
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

// urlSet is a set of URLs. All spellings of a URL count as the same element.
type urlSet struct {
	normalize func(string) string
	seen      map[string]bool
}

// newURLSet returns an empty set that compares URLs with Limits.Normalize.
func (q *Queue) newURLSet() urlSet { return urlSet{q.limits.Normalize, map[string]bool{}} }

func (s urlSet) contains(u string) bool { return s.seen[s.normalize(u)] }

func (s urlSet) insert(u string) { s.seen[s.normalize(u)] = true }

func (s urlSet) len() int { return len(s.seen) }
