package queue

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// queueItem is a task in the queue.
type queueItem struct {
	key    types.NamespacedName
	task   *v1alpha1.PrefetchTask // the newest version seen
	lane   *laneState
	joined time.Time       // when it came into the queue
	since  time.Time       // when it joined the lane's line: see queuedSince; of a task whose call was lost: after that was found out
	queue  *namespaceQueue // where it stands in line; nil while it does not
	index  int             // in the strand's heap

	inFlight      bool // in a call that has not come back
	deleted       bool // while in flight
	blocked       bool // waits for a claim that may have one of its URLs
	suspectGroups int  // in how many groups of suspects it is; out of line if any
	trial         int  // tells those groups from earlier ones
	reportQueued  bool // stands in the list of those to be told something at once

	postponed postponement
	failed    time.Time // when its last call failed: it goes behind those who came before
	backOff   backOff   // of a target that cannot be sent
	verdict   rejectionRecord
}

func isOlder(a, b *queueItem) bool {
	return cmp.Or(
		a.since.Compare(b.since),
		cmp.Compare(a.key.Name, b.key.Name),
		cmp.Compare(a.key.Namespace, b.key.Namespace),
	) < 0
}

// laneState is a Lane with those who wait in it, by namespace.
type laneState struct {
	BatchKey
	pool   *zoneQuota
	tenant *tenantState               // whose own lane it is, if any
	queues map[string]*namespaceQueue // those with tasks
	// rotation has the namespaces of the lane, taken in turn to fill a call, and
	// strands that ran empty until they are skipped.
	rotation []*namespaceQueue

	inFlight       bool // a call is unanswered: what arrives meanwhile shares the next
	backOff        backOff
	ready          bool // its strands are offered to their namespaces
	unknownCalls   int  // calls of unknown outcome
	failures       failureCounts
	suspects       []suspectGroup         // what shared a call that failed, to be sent apart
	testInFlight   bool                   // a group of suspects is under way
	suspectsListed bool                   // it stands in the list of lanes with suspects
	postponed      map[*suspectGroup]bool // groups that are to be tried later
}

// namespaceQueue is one namespace's line in a lane, oldest first.
type namespaceQueue struct {
	lane      *laneState
	namespace *namespaceState
	items     []*queueItem
	index     int // in the namespace's heap; -1 while the lane is not ready
}

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

// namespaceState holds the strands of its ready lanes, the one with the oldest task
// first.
type namespaceState struct {
	name        string
	readyQueues []*namespaceQueue
	sequence    int64 // of its next call
	since       int64 // orders namespaces of the same turn: the one goes first that has waited longer
	index       int   // in the line; -1 while it is not in it

	queueCount int       // in all lanes
	idleSince  time.Time // when the last one went
}

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

// enqueueItem puts the item in line.
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
		if l.pool.readQueued {
			q.quotaReads.others.Push(ns.name, l.pool)
		}
	}
	heap.Push(s, it)
	q.offerQueue(s)
}

// removeFromLine removes the item from its line.
func (q *Queue) removeFromLine(it *queueItem) {
	s := it.queue
	if s == nil {
		return
	}
	heap.Remove(s, it.index)
	if len(s.items) == 0 {
		if s.index >= 0 {
			// The heap compares heads, so an empty strand must leave by position.
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

// dropEmptyQueues forgets empty strands, once they are the most: to look for one at each
// time would make a call of many namespaces cost their square.
func (l *laneState) dropEmptyQueues() {
	if len(l.rotation) > 2*len(l.queues)+16 || len(l.queues) == 0 {
		l.rotation = slices.DeleteFunc(l.rotation, func(s *namespaceQueue) bool { return len(s.items) == 0 })
	}
}

// offerQueue lets the namespace choose the strand, while its lane is ready.
func (q *Queue) offerQueue(s *namespaceQueue) {
	switch {
	case !s.lane.ready || len(s.items) == 0:
	case s.index >= 0:
		heap.Fix(s.namespace, s.index)
	default:
		heap.Push(s.namespace, s)
		if len(s.namespace.readyQueues) == 1 { // it saves no turns for later while it has nothing to submit
			q.enqueueNamespace(s.namespace, max(s.namespace.sequence, q.sequence))
		}
	}
}

// idleNamespace is a namespace that nothing waits of, since a time.
type idleNamespace struct {
	*namespaceState
	since time.Time
}

// idleMemory is for how long the turn of a namespace is remembered that nothing waits of:
// one that came back sooner would have its next turn too early.
const idleMemory = time.Minute

func (q *Queue) dropIdleNamespaces(now time.Time) {
	for len(q.idle) > 0 && now.Sub(q.idle[0].since) >= idleMemory {
		ns := q.idle[0]
		q.idle = q.idle[1:]
		if ns.queueCount == 0 && ns.idleSince.Equal(ns.since) && q.namespaces[ns.name] == ns.namespaceState {
			delete(q.namespaces, ns.name)
		}
	}
}

// namespaceHeap has the namespaces with something ready, and those that have run empty until
// they come first.
type namespaceHeap []*namespaceState

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

// enqueueNamespace puts a namespace where its next turn belongs.
func (q *Queue) enqueueNamespace(ns *namespaceState, turn int64) {
	q.arrivals++
	ns.sequence, ns.since = turn, q.arrivals
	if ns.index < 0 {
		heap.Push(&q.readyNamespaces, ns)
	} else {
		heap.Fix(&q.readyNamespaces, ns.index)
	}
}

// firstNamespace is the namespace whose turn comes next, nil if none has anything ready.
func (q *Queue) firstNamespace() *namespaceState {
	for len(q.readyNamespaces) > 0 {
		if ns := q.readyNamespaces[0]; len(ns.readyQueues) > 0 {
			return ns
		}
		heap.Pop(&q.readyNamespaces)
	}
	return nil
}

// setLaneReady offers or withdraws all strands of a lane.
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
