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
	// quiet is the time without throttled answers after which the limiter uses one more
	// slot. After further such periods it uses two more, four more and so on. A limiter
	// that was cut to half of a limit of 20 uses all 20 slots again after four periods.
	quiet = 4 * time.Second
)

// Limiter keeps the calls of one account and action below EdgeOne's limit. It has one
// slot for each call that EdgeOne allows per second. A used slot is free again one second
// after the answer arrived. EdgeOne therefore never counts more of this client's calls in
// a second than there are slots, however long a request takes and however EdgeOne counts
// (by fixed windows, sliding windows or a bucket).
//
// EdgeOne may also count calls from other programs of the same account. A throttled
// answer shows that there was one call too many, so each one takes a slot out of use. The
// slots return while no further answers are throttled. One slot always stays in use.
//
// Several users can share a limiter without knowing of each other. Each user has its own
// wait queue, and the limiter serves the wait queues in turn.
type Limiter struct {
	action  string
	limit   int
	observe func(action string, wait time.Duration)

	// mu guards the fields below. All limiters of a client share it, because limiters
	// merge. The caller of an unexported method holds it.
	mu          *sync.Mutex
	merged      *Limiter    // the limiter that took over this one's slots and waiters, if any
	lines       []*line     // wait queues with waiters; the first is served next
	out         int         // slots that callers hold
	cooling     []time.Time // when the other slots are free again, in order
	share       int         // slots in use since throttledAt
	throttledAt time.Time
	changed     map[string]func() // by wait queue; see Free
}

// newLimiter returns a limiter of an action. It assumes that the second before since was
// fully used, perhaps by the previous process. Its slots become free shortly one after
// the other, and not all at once. Each slot is free again a second after its answer, so
// the calls keep this distance while there is always something to call, and they do not
// wait for each other on the network.
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

// NewLimiter returns a limiter for a part of the calls of an action. The calls also need a
// slot of the client's limiter. It assumes that the last second was fully used.
func NewLimiter(action string, limit int) *Limiter {
	return newLimiter(&sync.Mutex{}, action, limit, time.Now())
}

// Turn is the position of a waiter. Line names its wait queue. The limiter serves the
// wait queues in turn, one slot each, whatever the numbers. Within a wait queue, the
// lowest Number goes first; of equal numbers, the first to arrive. The zero value names a
// wait queue like any other.
type Turn struct {
	Line   string
	Number int64
}

// line is the wait queue of one name, ordered by number and then by arrival.
type line struct {
	name    string
	waiting []*waiter
}

// waiter is a caller that waits for a slot. A message on awake makes it check for a slot
// again. The limiter notifies only the first waiter.
type waiter struct {
	turn  Turn
	awake chan struct{}
}

// Free returns how many slots the wait queue can expect, and the time until there is one
// more. It counts slots that are free now or will be within lookahead. If other wait
// queues have waiters, they share the slots, with at least one slot for each wait queue.
//
// The duration is 0 if it depends on the answer to a call. In this case, if changed is
// not nil, the limiter calls it once, in its own goroutine, when such an answer arrives
// to any caller. A later function for the same wait queue replaces it.
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

// free returns how many slots are free within lookahead, and the time until there is one
// more: 0 if that depends on an answer.
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

// take returns a slot if one is free. Otherwise it returns how long it takes until one is
// free: 0 if that depends on an answer, negative if the deadline of ctx is earlier.
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

// dequeue removes a waiter. A wait queue that got a slot goes behind the others.
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

// first returns the waiter that gets the next slot, or nil if there are no waiters.
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

// noSlot returns the error of a caller that got no slot.
func (l *Limiter) noSlot(cause error) *Error {
	return &Error{Action: l.action, Kind: Unavailable, Message: "not sent: no call was free in time", Err: cause}
}

// merge moves the slots and the waiters of this limiter to another limiter of the same
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

// idle says whether the limiter has no slots in use and no waiters. Such a limiter can be
// replaced by a new one.
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
