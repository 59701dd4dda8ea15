package teo

import (
	"cmp"
	"context"
	"slices"
	"sort"
	"sync"
	"time"
)

const (
	// window is the period in which EdgeOne counts calls.
	window = time.Second
	// quiet is how long no answer may be throttled before the limiter uses one more slot,
	// and after further such periods two more, four more and so on. After four periods,
	// half of a limit of 20 is the whole limit again.
	quiet = 4 * time.Second
)

// Limiter keeps the calls of one account and action below EdgeOne's limit. It has one
// slot for each call that EdgeOne allows per second. A used slot is free again one second
// after the answer arrived. However long a request takes, and however EdgeOne counts (by
// fixed windows, sliding windows or a bucket), EdgeOne never sees more of this client's
// calls in a second than there are slots.
//
// EdgeOne may also see calls from other programs of the same account. Every throttled
// answer therefore takes a slot out of use, because it shows that there was one call too
// many. The slots return while no further answers are throttled. One slot always stays in
// use.
//
// Several users may share a limiter without knowing of each other. Each user has its own
// wait queue, and the limiter serves the wait queues in turn.
type Limiter struct {
	action  string
	limit   int
	observe func(action string, wait time.Duration)

	mu          *sync.Mutex // shared by all limiters of a client, because limiters merge
	merged      *Limiter    // the limiter that took over this one's slots and waiters, if any
	lines       []*line     // wait queues with waiters; the first is served next
	out         int         // slots that callers hold
	cooling     []time.Time // when the other slots are free again, in order
	share       int         // slots in use since throttledAt
	throttledAt time.Time
	changed     map[string]func() // by wait queue; see Free
}

// newLimiter assumes that the second before since was fully used, perhaps by the previous
// process. Its slots become free shortly one after the other, and not all at once. Each
// slot is free again a second after its answer, so calls keep this distance while there
// is always something to call, and they do not wait for each other on the network.
func newLimiter(mu *sync.Mutex, action string, limit int, since time.Time) *Limiter {
	l := &Limiter{
		action: action, limit: limit, observe: func(string, time.Duration) {}, mu: mu, share: limit, changed: map[string]func(){},
	}
	free := since.Add(window)
	for range limit {
		l.cooling = append(l.cooling, free)
		free = free.Add(window / 8 / time.Duration(limit))
	}
	return l
}

// Turn is a place among the waiters for a slot. The limiter serves the wait queues (Line)
// in turn, one slot each, whatever their numbers. Within a wait queue, the lowest Number
// goes first; of equal numbers, the first to arrive. The zero value is in a wait queue
// like any other.
type Turn struct {
	Line   string
	Number int64
}

// line is the wait queue of one name, ordered by number and then by arrival.
type line struct {
	name    string
	waiting []*waiter
}

// waiter is a caller that waits for a slot. The limiter notifies the first waiter of each
// change.
type waiter struct {
	turn  Turn
	awake chan struct{}
}

// Free returns how many slots the wait queue may expect that are free now or will be
// within lookahead, and how long it takes until there is one more. If other wait queues
// have waiters, they share the slots, with at least one slot for each wait queue.
//
// The duration is 0 if it depends on the answer to a call. In this case, if changed is
// not nil, the limiter calls it once in a goroutine of its own when such an answer
// arrives, whoever made the call. A later function for the same wait queue replaces it.
func (l *Limiter) Free(line string, lookahead time.Duration, changed func()) (n int, more time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l = l.current()
	n, more = l.free(time.Now(), lookahead)
	if more == 0 && l.out > 0 && changed != nil {
		l.changed[line] = changed
	}
	return l.portion(line, n), more
}

// current returns the limiter that counts for this one after a merge.
func (l *Limiter) current() *Limiter {
	for l.merged != nil {
		l = l.merged
	}
	return l
}

// portion returns how many of n slots a wait queue gets if it wants all of them.
func (l *Limiter) portion(name string, n int) int {
	tooMany := func(own int) bool {
		all := own
		for _, line := range l.lines {
			if line.name != name {
				all += min(len(line.waiting), own)
			}
		}
		return all > n
	}
	return max(min(n, 1), sort.Search(n, func(i int) bool { return tooMany(i + 1) }))
}

// free returns how many slots are free within lookahead, and how long it takes until
// there is one more: 0 if that depends on an answer.
func (l *Limiter) free(now time.Time, lookahead time.Duration) (n int, more time.Duration) {
	for len(l.cooling) > 0 && !l.cooling[0].After(now) {
		l.cooling = l.cooling[1:]
	}
	later := l.cooling // slots that are not free within lookahead
	for len(later) > 0 && !later[0].After(now.Add(lookahead)) {
		later = later[1:]
	}
	n = l.inUse(now) - l.out - len(later)
	next := max(0, -n) // the first slots to return make up for those out of use
	if next < len(later) {
		more = later[next].Sub(now) - lookahead
	}
	return max(0, n), more
}

// inUse returns how many slots are in use: share, and 1, 3, 7, … more by the number of
// quiet periods since the last throttled answer.
func (l *Limiter) inUse(now time.Time) int {
	share := l.share
	step := 1
	for since := now.Sub(l.throttledAt); since >= quiet && share < l.limit; since -= quiet {
		share += step
		step *= 2
	}
	return min(share, l.limit)
}

// Wait waits for a free slot and returns it. Waiters get slots in the order of their
// turns. The error is of kind Unavailable if ctx ends first, or if its deadline is before
// a slot can be free.
func (l *Limiter) Wait(ctx context.Context, turn Turn) (*Slot, error) {
	if err := ctx.Err(); err != nil {
		return nil, l.noSlot(err)
	}
	start := time.Now()
	defer func() { l.observe(l.action, time.Since(start)) }()
	w := &waiter{turn, make(chan struct{}, 1)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current().enqueue(w)
	for {
		l := l.current()
		var due <-chan time.Time
		if l.first() == w {
			slot, wait := l.take(ctx)
			switch {
			case slot != nil:
				l.dequeue(w, true)
				return slot, nil
			case wait < 0:
				l.dequeue(w, false)
				return nil, l.noSlot(context.DeadlineExceeded)
			case wait > 0:
				due = time.After(wait)
			}
		}
		l.mu.Unlock()
		select {
		case <-w.awake:
		case <-due:
		case <-ctx.Done():
		}
		l.mu.Lock()
		if err := ctx.Err(); err != nil {
			l.current().dequeue(w, false)
			return nil, l.noSlot(err)
		}
	}
}

// take returns a slot if one is free. Otherwise it returns how long it takes until one
// is: 0 if that depends on an answer, negative if ctx ends before.
func (l *Limiter) take(ctx context.Context) (*Slot, time.Duration) {
	now := time.Now()
	n, wait := l.free(now, 0)
	if n > 0 {
		l.out++
		return &Slot{limiter: l}, 0
	}
	if deadline, limited := ctx.Deadline(); wait > 0 && limited && deadline.Before(now.Add(wait)) {
		return nil, -1
	}
	return nil, wait
}

// enqueue adds a waiter to its wait queue. A new wait queue goes behind the existing
// ones.
func (l *Limiter) enqueue(w *waiter) {
	i := slices.IndexFunc(l.lines, func(line *line) bool { return line.name == w.turn.Line })
	if i < 0 {
		i = len(l.lines)
		l.lines = append(l.lines, &line{name: w.turn.Line})
	}
	q := l.lines[i]
	after, _ := slices.BinarySearchFunc(q.waiting, w.turn.Number, func(o *waiter, number int64) int {
		return cmp.Or(cmp.Compare(o.turn.Number, number), -1)
	})
	q.waiting = slices.Insert(q.waiting, after, w)
}

// dequeue removes a waiter. A wait queue that was served goes behind the others.
func (l *Limiter) dequeue(w *waiter, served bool) {
	i := slices.IndexFunc(l.lines, func(line *line) bool { return line.name == w.turn.Line })
	q := l.lines[i]
	q.waiting = slices.DeleteFunc(q.waiting, func(o *waiter) bool { return o == w })
	if served || len(q.waiting) == 0 {
		l.lines = slices.Delete(l.lines, i, i+1)
		if len(q.waiting) > 0 {
			l.lines = append(l.lines, q)
		}
	}
	l.wakeFirst()
}

// first returns the waiter that gets the next slot, or nil if nobody waits.
func (l *Limiter) first() *waiter {
	if len(l.lines) == 0 {
		return nil
	}
	return l.lines[0].waiting[0]
}

// wakeFirst notifies the first waiter, which then checks for a slot again.
func (l *Limiter) wakeFirst() {
	if w := l.first(); w != nil {
		select {
		case w.awake <- struct{}{}:
		default:
		}
	}
}

func (l *Limiter) noSlot(cause error) *Error {
	return &Error{Action: l.action, Kind: Unavailable, Message: "not sent: no call was free in time", Err: cause}
}

// merge moves the counts and the waiters of this limiter to another one of the same
// account and action.
func (l *Limiter) merge(into *Limiter) {
	l.merged = into
	into.out += l.out
	into.cooling = append(into.cooling, l.cooling...)
	slices.SortFunc(into.cooling, time.Time.Compare)
	if l.throttledAt.After(into.throttledAt) {
		into.share, into.throttledAt = l.share, l.throttledAt
	}
	for _, line := range l.lines {
		for _, w := range line.waiting {
			into.enqueue(w)
		}
	}
	l.lines = nil
	into.wakeFirst()
	l.tellChanged()
}

// idle says whether the limiter has no slots in use and no waiters, so that a new limiter
// would not differ from it.
func (l *Limiter) idle(now time.Time) bool {
	n, _ := l.free(now, 0)
	return n == l.limit && len(l.lines) == 0
}

// tellChanged calls the functions that Free registered, once each.
func (l *Limiter) tellChanged() {
	for line, changed := range l.changed {
		delete(l.changed, line)
		go changed()
	}
}
