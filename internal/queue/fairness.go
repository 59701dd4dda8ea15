package queue

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// queueItem is a task in the queue.
type queueItem struct {
	key    types.NamespacedName
	task   *v1alpha1.PrefetchTask // the newest version seen
	lane   *laneState
	joined time.Time       // when the task joined the queue
	since  time.Time       // its age in the lane: see queuedSince; after a lost call, when it changed lanes
	queue  *namespaceQueue // where it waits; nil if it is in no namespace queue
	index  int             // in the heap of its namespace queue

	inFlight      bool         // in a call that has not returned
	deleted       bool         // left the queue, or its task was deleted in flight
	blockedBy     *reservation // waits for a claim that may have submitted one of its URLs; nil if it does not
	suspectGroups int          // number of suspect groups with it; if above 0, it is in no namespace queue
	trial         int          // number of times it was cleared; groups with another number are outdated
	reportQueued  bool         // is in reportsDue

	ahead taskstate.Ahead // of the count at its Time: see aheadOf

	denied    denial          // keeps the task out of calls because of its account
	postponed postponement    // keeps the task out of calls because of the task's own problem
	failed    time.Time       // when its last call failed: it goes behind tasks that were queued before
	backOff   backOff         // for a target that cannot be sent
	verdict   rejectionRecord // what EdgeOne said about the task as a whole
}

// isOlder orders items by age. It compares name and namespace if the ages are equal, so
// that the order is stable.
func isOlder(a, b *queueItem) bool { return compareAge(a, b) < 0 }

// compareAge returns a negative number if a is older than b, and a positive one if b is older.
func compareAge(a, b *queueItem) int {
	return cmp.Or(
		a.since.Compare(b.since),
		cmp.Compare(a.key.Name, b.key.Name),
		cmp.Compare(a.key.Namespace, b.key.Namespace),
	)
}

// laneState is a lane with its waiting tasks, by namespace.
type laneState struct {
	BatchKey
	pool   *zoneQuota
	tenant *tenantState               // the namespace that has the lane to itself, if any
	queues map[string]*namespaceQueue // by namespace; only queues with tasks
	// rotation holds the lane's namespace queues in the order in which they fill a call.
	// An empty queue stays until nextItem skips it or dropEmptyQueues removes it.
	rotation []*namespaceQueue

	inFlight       bool // a call is unanswered; tasks that arrive now share the next call
	backOff        backOff
	ready          bool // the lane may make a call: its queues are offered to their namespaces
	unknownCalls   int  // number of calls of unknown outcome: see maxUnknownCalls
	failures       failureCounts
	suspects       []suspectGroup         // parts of failed calls, to be tested separately
	testInFlight   bool                   // a test is in flight
	suspectsListed bool                   // is in lanesWithSuspects
	postponed      map[*suspectGroup]bool // groups that are set aside
}

// namespaceQueue holds the waiting tasks of one namespace in a lane. It is a heap with
// the oldest task first.
type namespaceQueue struct {
	lane      *laneState
	namespace *namespaceState
	items     []*queueItem
	index     int // in the namespace's heap; -1 while the queue is not offered
}

// Len, Less, Swap, Push and Pop implement heap.Interface. They keep index and queue of
// the items up to date.
func (s *namespaceQueue) Len() int           { return len(s.items) }
func (s *namespaceQueue) Less(i, j int) bool { return isOlder(s.items[i], s.items[j]) }
func (s *namespaceQueue) Swap(i, j int) {
	s.items[i], s.items[j] = s.items[j], s.items[i]
	s.items[i].index, s.items[j].index = i, j
}
func (s *namespaceQueue) Push(x any) {
	it := x.(*queueItem)
	it.index, it.queue = len(s.items), s
	s.items = append(s.items, it)
}
func (s *namespaceQueue) Pop() any {
	last := len(s.items) - 1
	it := s.items[last]
	s.items[last] = nil
	s.items = s.items[:last]
	it.queue = nil
	return it
}

// namespaceState holds a namespace's queues in ready lanes. It is a heap with the queue
// of the oldest task first.
type namespaceState struct {
	name        string
	readyQueues []*namespaceQueue
	sequence    int64 // sequence of its next call
	since       int64 // breaks ties between equal sequences: the namespace that waits longest goes first
	index       int   // in readyNamespaces; -1 if it is not there

	queueCount int       // number of its namespace queues in all lanes
	idleSince  time.Time // when the last of these queues became empty
}

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (n *namespaceState) Len() int { return len(n.readyQueues) }
func (n *namespaceState) Less(i, j int) bool {
	return isOlder(n.readyQueues[i].items[0], n.readyQueues[j].items[0])
}
func (n *namespaceState) Swap(i, j int) {
	n.readyQueues[i], n.readyQueues[j] = n.readyQueues[j], n.readyQueues[i]
	n.readyQueues[i].index, n.readyQueues[j].index = i, j
}
func (n *namespaceState) Push(x any) {
	s := x.(*namespaceQueue)
	s.index = len(n.readyQueues)
	n.readyQueues = append(n.readyQueues, s)
}
func (n *namespaceState) Pop() any {
	last := len(n.readyQueues) - 1
	s := n.readyQueues[last]
	n.readyQueues[last] = nil
	n.readyQueues = n.readyQueues[:last]
	s.index = -1
	return s
}

// enqueueItem puts an item into its namespace queue. It creates the queue and the
// namespace if necessary.
func (q *Queue) enqueueItem(it *queueItem) {
	l := it.lane
	s := l.queues[it.key.Namespace]
	if s == nil {
		ns := q.namespaces[it.key.Namespace]
		if ns == nil {
			ns = &namespaceState{name: it.key.Namespace, index: -1}
			q.namespaces[ns.name] = ns
		}
		s = &namespaceQueue{lane: l, namespace: ns, index: -1}
		l.queues[ns.name] = s
		l.rotation = append(l.rotation, s)
		ns.queueCount++
		// The zone waits for a quota read in each namespace with tasks there.
		if l.pool.readQueued {
			q.quotaReads.others.Push(ns.name, l.pool)
		}
	}
	heap.Push(s, it)
	q.offerQueue(s)
}

// removeFromLine removes an item from its namespace queue. An empty queue leaves its lane
// and its namespace.
func (q *Queue) removeFromLine(it *queueItem) {
	s := it.queue
	if s == nil {
		return
	}
	heap.Remove(s, it.index)
	if len(s.items) == 0 {
		if s.index >= 0 {
			// The namespace's heap compares the oldest items of its queues, so an empty
			// queue cannot be compared. Restore the item while the heap removes the
			// queue.
			s.items = append(s.items, it)
			heap.Remove(s.namespace, s.index)
			s.items = s.items[:0]
		}
		delete(s.lane.queues, s.namespace.name)
		if s.namespace.queueCount--; s.namespace.queueCount == 0 {
			s.namespace.idleSince = q.now
			q.idle = append(q.idle, idleNamespace{s.namespace, q.now})
		}
		s.lane.dropEmptyQueues()
		return
	}
	q.offerQueue(s)
}

// dropEmptyQueues removes empty namespace queues from the rotation once most queues in it
// are empty. A search after each removal would make the cost of a call quadratic in the
// number of its namespaces.
func (l *laneState) dropEmptyQueues() {
	if len(l.rotation) > 2*len(l.queues)+16 || len(l.queues) == 0 {
		l.rotation = slices.DeleteFunc(l.rotation, func(s *namespaceQueue) bool { return len(s.items) == 0 })
	}
}

// offerQueue offers a namespace queue to its namespace if the lane is ready. If the queue
// is already there, offerQueue updates its position.
func (q *Queue) offerQueue(s *namespaceQueue) {
	switch {
	case !s.lane.ready || len(s.items) == 0:
	case s.index >= 0:
		heap.Fix(s.namespace, s.index)
	default:
		heap.Push(s.namespace, s)
		if len(s.namespace.readyQueues) == 1 { // an idle namespace does not accumulate turns
			q.enqueueNamespace(s.namespace, max(s.namespace.sequence, q.sequence))
		}
	}
}

// idleNamespace is a namespace without waiting tasks, with the time of its last removal.
type idleNamespace struct {
	*namespaceState
	since time.Time
}

// idleMemory is how long the queue keeps the sequence of an idle namespace. If the queue
// forgot it sooner, a namespace that returns could get its next call too early.
const idleMemory = time.Minute

// dropIdleNamespaces forgets the namespaces that have been idle for idleMemory. The list
// idle is ordered by time. A namespace that became active in between is skipped.
func (q *Queue) dropIdleNamespaces(now time.Time) {
	for len(q.idle) > 0 && now.Sub(q.idle[0].since) >= idleMemory {
		ns := q.idle[0]
		q.idle = q.idle[1:]
		if ns.queueCount == 0 && ns.idleSince.Equal(ns.since) && q.namespaces[ns.name] == ns.namespaceState {
			delete(q.namespaces, ns.name)
		}
	}
}

// namespaceHeap holds the namespaces with a ready queue, the lowest sequence first. A
// namespace whose queues were withdrawn stays until firstNamespace removes it.
type namespaceHeap []*namespaceState

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (l namespaceHeap) Len() int { return len(l) }
func (l namespaceHeap) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(l[i].sequence, l[j].sequence), cmp.Compare(l[i].since, l[j].since)) < 0
}
func (l namespaceHeap) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].index, l[j].index = i, j
}
func (l *namespaceHeap) Push(x any) {
	ns := x.(*namespaceState)
	ns.index = len(*l)
	*l = append(*l, ns)
}
func (l *namespaceHeap) Pop() any {
	last := len(*l) - 1
	ns := (*l)[last]
	(*l)[last] = nil
	*l = (*l)[:last]
	ns.index = -1
	return ns
}

// enqueueNamespace sets the sequence of a namespace's next call, and puts the namespace
// at the matching position in readyNamespaces. Among equal sequences, it goes last.
func (q *Queue) enqueueNamespace(ns *namespaceState, turn int64) {
	q.arrivals++
	ns.sequence, ns.since = turn, q.arrivals
	if ns.index < 0 {
		heap.Push(&q.readyNamespaces, ns)
	} else {
		heap.Fix(&q.readyNamespaces, ns.index)
	}
}

// firstNamespace returns the namespace that makes the next call, or nil if no namespace
// has a ready queue.
func (q *Queue) firstNamespace() *namespaceState {
	for len(q.readyNamespaces) > 0 {
		if ns := q.readyNamespaces[0]; len(ns.readyQueues) > 0 {
			return ns
		}
		heap.Pop(&q.readyNamespaces)
	}
	return nil
}

// setLaneReady makes a lane ready or not ready. It offers all namespace queues of the
// lane to their namespaces, or withdraws them.
func (q *Queue) setLaneReady(l *laneState, ready bool) {
	if l.ready == ready {
		return
	}
	l.ready = ready
	for _, s := range l.rotation {
		if ready {
			q.offerQueue(s)
		} else if s.index >= 0 {
			heap.Remove(s.namespace, s.index)
		}
	}
}
