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
	// window is what EdgeOne counts calls in.
	window = time.Second
	// quiet is how long no call may be throttled before one more is tried, and
	// then two more, four more and so on: after four such periods half a limit
	// of 20 has become the whole again.
	quiet = 4 * time.Second
)

// Limiter keeps the calls of one account and action below EdgeOne's limit. It
// has as many slots as there may be calls in a second; a slot that was used is
// free again one second after the answer came. So however long a request is
// under way, and however EdgeOne counts (by fixed or sliding windows or a
// bucket), it never sees more calls of ours in a second than there are slots.
//
// What it may still see is other programs of the same account. Every throttled
// answer takes a slot out of use, as it says that there was one call too many;
// while no more of them come the slots return. One slot always stays.
//
// Several users may share a limiter without knowing of each other. Each waits
// in a line of its own, and the lines are served in turn.
type Limiter struct {
	action  string
	limit   int
	observe func(action string, wait time.Duration)

	mu          *sync.Mutex // all limiters of a client have the same, because they merge
	merged      *Limiter    // what took this one's slots and waiters over, if any did
	lines       []*line     // with somebody who waits; the first is served next
	out         int         // slots that are with callers
	cooling     []time.Time // when the others are free again, in order
	share       int         // slots in use since throttledAt
	throttledAt time.Time
	changed     map[string]func() // by line; see Free
}

// newLimiter assumes that the second before since was fully used, perhaps by the
// process before this one. Its slots are free one soon after the other, not all at
// once: as each is free again a second after its answer, calls stay that much apart
// while there is always something to call, and do not wait for each other on their way.
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

// Turn is a place among those who wait for a slot. Lines are served in turn, each
// with one slot, whatever their numbers; within a line the lowest number is first,
// and of equal ones the one who came first. The zero value is a line like any other.
type Turn struct {
	Line   string
	Number int64
}

// line is those who wait under one name, by number and then in the order they came.
type line struct {
	name    string
	waiting []*waiter
}

// waiter is one who waits for a slot. The first is woken when something changes.
type waiter struct {
	turn  Turn
	awake chan struct{}
}

// Free is how many slots the line may count on that are free now or will be within
// lookahead, and how long it takes until it is one more. Slots for which other lines
// wait are shared with them, one for each line at least.
//
// How long is 0 if only the answer to a call can tell. Then changed, unless nil, is
// called once when such an answer has come, whoever made the call, in a goroutine of
// its own. A later one of the same line replaces it.
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

// current is the limiter that counts what this one did, once it has been merged.
func (l *Limiter) current() *Limiter {
	for l.merged != nil {
		l = l.merged
	}
	return l
}

// portion is how many of n slots a line gets if it wants all of them.
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

func (l *Limiter) free(now time.Time, lookahead time.Duration) (n int, more time.Duration) {
	for len(l.cooling) > 0 && !l.cooling[0].After(now) {
		l.cooling = l.cooling[1:]
	}
	later := l.cooling // those that are not free within lookahead
	for len(later) > 0 && !later[0].After(now.Add(lookahead)) {
		later = later[1:]
	}
	n = l.inUse(now) - l.out - len(later)
	next := max(0, -n) // as many replace those that are out of use
	if next < len(later) {
		more = later[next].Sub(now) - lookahead
	}
	return max(0, n), more
}

// inUse is how many slots are in use: share, and since the last throttled
// answer 1, 3, 7, … more, by quiet periods.
func (l *Limiter) inUse(now time.Time) int {
	share := l.share
	step := 1
	for since := now.Sub(l.throttledAt); since >= quiet && share < l.limit; since -= quiet {
		share += step
		step *= 2
	}
	return min(share, l.limit)
}

// Wait gives the next free slot when its time has come, to one of those who wait by
// their turns. If ctx ends first, or its deadline is before a slot can be free, the
// error is of kind Unavailable.
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

// take returns a slot if one is free, or else how long it takes until one is: 0 if
// only an answer can tell, less if ctx ends before.
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

// enqueue adds a waiter to its line. A line that begins to wait comes after those
// that do already.
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

// dequeue removes a waiter. A line that was served goes behind the others.
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

// first is the one who gets the next slot, nil if nobody waits.
func (l *Limiter) first() *waiter {
	if len(l.lines) == 0 {
		return nil
	}
	return l.lines[0].waiting[0]
}

// wakeFirst has the first of those who wait look again.
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

// merge makes another limiter of the same account and action count what this one has
// counted, and serve those who wait here.
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

// idle says whether nobody has anything of the limiter, and it would be no other if it
// were new.
func (l *Limiter) idle(now time.Time) bool {
	n, _ := l.free(now, 0)
	return n == l.limit && len(l.lines) == 0
}

func (l *Limiter) tellChanged() {
	for line, changed := range l.changed {
		delete(l.changed, line)
		go changed()
	}
}
