package schedule

import (
	"cmp"
	"container/heap"
	"encoding/json"
	"net/textproto"
	"slices"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// Lane is what all targets of one call have in common.
type Lane struct {
	ZoneID        string
	Edge          bool
	MediaSegments bool
	Encode        string // EncodeUrl as "true" or "false", "" to leave it out
	headers       string // in canonical form, so that lanes compare by ==
	// lost keeps tasks whose calls were lost among themselves: if something in
	// them makes calls fail, others do not share it.
	lost int32
	// apart is the namespace that alone uses the lane, as it is kept apart; "" if all
	// may.
	apart string
}

// Same says whether calls of two lanes fetch URLs in the same way.
func (l Lane) Same(other Lane) bool {
	l.lost, l.apart = other.lost, other.apart
	return l == other
}

// SharesZone says whether calls of two lanes may be for the same zone: zone * is all.
func (l Lane) SharesZone(other Lane) bool {
	return l.ZoneID == other.ZoneID || l.ZoneID == "*" || other.ZoneID == "*"
}

func laneOf(task *v1alpha1.PrefetchTask) Lane {
	lane := Lane{
		ZoneID:        task.Spec.ZoneID,
		Edge:          isEdge(task),
		MediaSegments: task.Spec.MediaSegments == v1alpha1.MediaSegmentsPrefetch,
	}
	if encode := task.Spec.EncodeURL; encode != nil {
		lane.Encode = strconv.FormatBool(*encode)
	}
	if len(task.Spec.Headers) > 0 {
		headers := slices.Clone(task.Spec.Headers)
		for i := range headers { // names that differ by case only are one header
			headers[i].Name = textproto.CanonicalMIMEHeaderKey(headers[i].Name)
		}
		slices.SortStableFunc(headers, byName)
		text, err := json.Marshal(headers)
		if err != nil {
			panic(err) // two strings each
		}
		lane.headers = string(text)
	}
	if !NewRun(task) {
		lane.lost = min(task.Status.LostCalls, MaxLostCalls)
	}
	return lane
}

// Headers are the headers that calls of the lane carry, sorted by name.
func (l Lane) Headers() []v1alpha1.HTTPHeader {
	var headers []v1alpha1.HTTPHeader
	if l.headers != "" {
		if err := json.Unmarshal([]byte(l.headers), &headers); err != nil {
			panic(err) // laneOf wrote it
		}
	}
	return headers
}

func byName(a, b v1alpha1.HTTPHeader) int { return cmp.Compare(a.Name, b.Name) }

// item is a task in the queue.
type item struct {
	key    types.NamespacedName
	task   *v1alpha1.PrefetchTask // the newest version seen
	lane   *lane
	joined time.Time // when it came into the queue
	since  time.Time // when it joined the lane's line: see inLineSince; of a task whose call was lost: after that was found out
	strand *strand   // where it stands in line; nil while it does not
	index  int       // in the strand's heap

	inFlight bool // in a call that has not come back
	deleted  bool // while in flight
	parked   bool // waits for a claim that may have one of its URLs
	suspects int  // in how many groups of suspects it is; out of line if any
	trial    int  // tells those groups from earlier ones
	unsaid   bool // stands in the list of those to be told something at once

	postponed postponement
	failed    time.Time // when its last call failed: it goes behind those who came before
	hold      hold      // of a target that cannot be sent
	verdict   verdict
}

func older(a, b *item) bool {
	return cmp.Or(
		a.since.Compare(b.since),
		cmp.Compare(a.key.Name, b.key.Name),
		cmp.Compare(a.key.Namespace, b.key.Namespace),
	) < 0
}

// lane is a Lane with those who wait in it, by namespace.
type lane struct {
	Lane
	pool    *pool
	tenant  *tenant            // whose own lane it is, if any
	strands map[string]*strand // those with tasks
	// turn has the namespaces of the lane, taken in turn to fill a call, and
	// strands that ran empty until they are skipped.
	turn []*strand

	busy       bool // a call is unanswered: what arrives meanwhile shares the next
	hold       hold
	ready      bool // its strands are offered to their namespaces
	unknown    int  // calls of unknown outcome
	troubles   troubles
	suspects   []group         // what shared a call that failed, to be sent apart
	testing    bool            // a group of suspects is under way
	suspicious bool            // it stands in the list of lanes with suspects
	postponed  map[*group]bool // groups that are to be tried later
}

// strand is one namespace's line in a lane, oldest first.
type strand struct {
	lane      *lane
	namespace *namespace
	items     []*item
	index     int // in the namespace's heap; -1 while the lane is not ready
}

func (s *strand) Len() int           { return len(s.items) }
func (s *strand) Less(i, j int) bool { return older(s.items[i], s.items[j]) }
func (s *strand) Swap(i, j int) {
	s.items[i], s.items[j] = s.items[j], s.items[i]
	s.items[i].index, s.items[j].index = i, j
}
func (s *strand) Push(x any) {
	it := x.(*item)
	it.index, it.strand = len(s.items), s
	s.items = append(s.items, it)
}
func (s *strand) Pop() any {
	last := len(s.items) - 1
	it := s.items[last]
	s.items[last] = nil
	s.items = s.items[:last]
	it.strand = nil
	return it
}

// namespace holds the strands of its ready lanes, the one with the oldest task
// first.
type namespace struct {
	name  string
	ready []*strand
	turn  int64 // of its next call
	since int64 // orders namespaces of the same turn: the one goes first that has waited longer
	index int   // in the line; -1 while it is not in it

	strands   int       // in all lanes
	idleSince time.Time // when the last one went
}

func (n *namespace) Len() int { return len(n.ready) }
func (n *namespace) Less(i, j int) bool {
	return older(n.ready[i].items[0], n.ready[j].items[0])
}
func (n *namespace) Swap(i, j int) {
	n.ready[i], n.ready[j] = n.ready[j], n.ready[i]
	n.ready[i].index, n.ready[j].index = i, j
}
func (n *namespace) Push(x any) {
	s := x.(*strand)
	s.index = len(n.ready)
	n.ready = append(n.ready, s)
}
func (n *namespace) Pop() any {
	last := len(n.ready) - 1
	s := n.ready[last]
	n.ready[last] = nil
	n.ready = n.ready[:last]
	s.index = -1
	return s
}

// add puts the item in line.
func (q *Queue) add(it *item) {
	l := it.lane
	s := l.strands[it.key.Namespace]
	if s == nil {
		ns := q.namespaces[it.key.Namespace]
		if ns == nil {
			ns = &namespace{name: it.key.Namespace, index: -1}
			q.namespaces[ns.name] = ns
		}
		s = &strand{lane: l, namespace: ns, index: -1}
		l.strands[ns.name] = s
		l.turn = append(l.turn, s)
		ns.strands++
		if l.pool.queued {
			q.reads.others.Push(ns.name, l.pool)
		}
	}
	heap.Push(s, it)
	q.offer(s)
}

// take removes the item from its line.
func (q *Queue) take(it *item) {
	s := it.strand
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
		delete(s.lane.strands, s.namespace.name)
		if s.namespace.strands--; s.namespace.strands == 0 {
			s.namespace.idleSince = q.now
			q.idle = append(q.idle, idle{s.namespace, q.now})
		}
		s.lane.tidy()
		return
	}
	q.offer(s)
}

// tidy forgets empty strands, once they are the most: to look for one at each
// time would make a call of many namespaces cost their square.
func (l *lane) tidy() {
	if len(l.turn) > 2*len(l.strands)+16 || len(l.strands) == 0 {
		l.turn = slices.DeleteFunc(l.turn, func(s *strand) bool { return len(s.items) == 0 })
	}
}

// offer lets the namespace choose the strand, while its lane is ready.
func (q *Queue) offer(s *strand) {
	switch {
	case !s.lane.ready || len(s.items) == 0:
	case s.index >= 0:
		heap.Fix(s.namespace, s.index)
	default:
		heap.Push(s.namespace, s)
		if len(s.namespace.ready) == 1 { // it saves no turns for later while it has nothing to submit
			q.stand(s.namespace, max(s.namespace.turn, q.turn))
		}
	}
}

// idle is a namespace that nothing waits of, since a time.
type idle struct {
	*namespace
	since time.Time
}

// idleMemory is for how long the turn of a namespace is remembered that nothing waits of:
// one that came back sooner would have its next turn too early.
const idleMemory = time.Minute

func (q *Queue) dropIdle(now time.Time) {
	for len(q.idle) > 0 && now.Sub(q.idle[0].since) >= idleMemory {
		ns := q.idle[0]
		q.idle = q.idle[1:]
		if ns.strands == 0 && ns.idleSince.Equal(ns.since) && q.namespaces[ns.name] == ns.namespace {
			delete(q.namespaces, ns.name)
		}
	}
}

// line has the namespaces with something ready, and those that have run empty until
// they come first.
type line []*namespace

func (l line) Len() int { return len(l) }
func (l line) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(l[i].turn, l[j].turn), cmp.Compare(l[i].since, l[j].since)) < 0
}
func (l line) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].index, l[j].index = i, j
}
func (l *line) Push(x any) {
	ns := x.(*namespace)
	ns.index = len(*l)
	*l = append(*l, ns)
}
func (l *line) Pop() any {
	last := len(*l) - 1
	ns := (*l)[last]
	(*l)[last] = nil
	*l = (*l)[:last]
	ns.index = -1
	return ns
}

// stand puts a namespace where its next turn belongs.
func (q *Queue) stand(ns *namespace, turn int64) {
	q.stood++
	ns.turn, ns.since = turn, q.stood
	if ns.index < 0 {
		heap.Push(&q.line, ns)
	} else {
		heap.Fix(&q.line, ns.index)
	}
}

// first is the namespace whose turn comes next, nil if none has anything ready.
func (q *Queue) first() *namespace {
	for len(q.line) > 0 {
		if ns := q.line[0]; len(ns.ready) > 0 {
			return ns
		}
		heap.Pop(&q.line)
	}
	return nil
}

// setReady offers or withdraws all strands of a lane.
func (q *Queue) setReady(l *lane, ready bool) {
	if l.ready == ready {
		return
	}
	l.ready = ready
	for _, s := range l.turn {
		if ready {
			q.offer(s)
		} else if s.index >= 0 {
			heap.Remove(s.namespace, s.index)
		}
	}
}

// EncodeURL is the value of EncodeUrl that calls of the lane carry, nil for none.
func (l Lane) EncodeURL() *bool {
	if l.Encode == "" {
		return nil
	}
	encode := l.Encode == "true"
	return &encode
}
