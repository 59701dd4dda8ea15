package queue

import (
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// Call is one planned call. Its tasks are out of the queue until RecordAccepted,
// TrackLostCall, BisectRejected, BisectCutOff or RecordReleased records the outcome.
type Call struct {
	Lane  BatchKey
	Parts []CallPart
	// URLs are the distinct targets of all parts, each in the spelling to send.
	URLs []string
	// Refusal is why EdgeOne would refuse these targets, if that is known. The targets
	// are then recorded as refused without a request.
	Refusal string
	// Planned is when the call was planned.
	Planned time.Time
	// Sequence orders planned calls that wait for a slot: the lowest goes first.
	Sequence int64

	lane     *laneState
	test     bool         // it tests suspects
	suspects suspectGroup // the suspects that it tests
	probe    bool         // it checks whether the account works again
	refused  bool         // EdgeOne refused its only URL
}

// CallPart is a task's share of a call: the positions of its targets.
type CallPart struct {
	Task      *v1alpha1.PrefetchTask
	Positions taskstate.Positions
	item      *queueItem
}

// fillCall plans a call of the lane. It starts with the oldest task of the given
// namespace queue and continues with the lane's namespaces in turn. If EdgeOne is known
// to refuse targets of the first task, it returns a refusal instead.
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
			break // a call and a refusal do not mix; this task comes next
		}
		if urls.len() >= size && (len(bad) > 0 || !urls.contains(targets[open[0]])) {
			break // the call is full and accepts only tasks that want its URLs
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

// startFilled returns the call or the refusal that was filled, or nil if neither was.
func (q *Queue) startFilled(call, refusal *Call, now time.Time) *Call {
	l := call.lane
	switch {
	case len(refusal.Parts) > 0:
		return refusal // nothing is sent, so the lane is not busy
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

// maxTasks returns how many tasks a call of the lane may have. Each recently lost call
// halves the number. A probe has one task, because the trouble may not be over: it costs
// one claim, not 500.
func (q *Queue) maxTasks(l *laneState) int {
	if slices.ContainsFunc(q.activeBackOffs(l), func(h *backOff) bool { return h.probe }) {
		return 1
	}
	return max(1, q.tasksPerCall()>>l.lost)
}

// nextItem returns the oldest task of the namespace whose turn it is, or nil if no task
// waits in the lane. The namespace goes behind the others.
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

// startProbes makes a call of the lane the probe for its mode and its tenant, if they
// recover from a back-off. Until the probe ends, their other lanes make no calls.
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

// addRefused adds targets that EdgeOne is known to refuse. It returns false if their
// message differs from that of the call, because a call has one message.
func (c *Call) addRefused(it *queueItem, bad taskstate.Positions, message string) bool {
	if len(c.Parts) > 0 && c.Refusal != message {
		return false
	}
	it.inFlight = true
	c.Refusal = message
	c.Parts = append(c.Parts, CallPart{it.task, bad, it})
	return true
}

// addPart adds as many of the item's open targets as fit to the call and returns their
// positions. A URL that the call already contains in any spelling takes no space: the
// first spelling is sent.
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

// urlSet is a set of URLs in which all spellings of a URL are one element.
type urlSet struct {
	normalize func(string) string
	seen      map[string]bool
}

func (q *Queue) newURLSet() urlSet { return urlSet{q.limits.Normalize, map[string]bool{}} }

func (s urlSet) contains(u string) bool { return s.seen[s.normalize(u)] }

func (s urlSet) insert(u string) { s.seen[s.normalize(u)] = true }

func (s urlSet) len() int { return len(s.seen) }
