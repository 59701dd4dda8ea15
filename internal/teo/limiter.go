package teo

import (
	"cmp"
	"context"
	"net/http/httptrace"
	"net/textproto"
	"slices"
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
type Limiter struct {
	action  string
	limit   int
	observe func(action string, wait time.Duration)

	mu          sync.Mutex
	waiting     []*waiter   // by turn, then in the order they came
	out         int         // slots that are with callers
	cooling     []time.Time // when the others are free again, in order
	share       int         // slots in use since throttledAt
	throttledAt time.Time
}

// newLimiter assumes that the last second was fully used, perhaps by the process
// before this one. Its slots are free one soon after the other, not all at once: as
// each is free again a second after its answer, calls stay that much apart while there
// is always something to call, and do not wait for each other on their way.
func newLimiter(action string, limit int) *Limiter {
	l := &Limiter{action: action, limit: limit, observe: func(string, time.Duration) {}, share: limit}
	free := time.Now().Add(window)
	for range limit {
		l.cooling = append(l.cooling, free)
		free = free.Add(window / 8 / time.Duration(limit))
	}
	return l
}

// Slot is the permission for one call now. Whoever has it calls Done or Cancel;
// of both, and of several calls, the first counts.
type Slot struct {
	limiter  *Limiter
	answered time.Time // when the answer began to come
	returned bool
}

// waiter is one who waits for a slot. The first is woken when something changes.
type waiter struct {
	turn  int64
	awake chan struct{}
}

// Free is how many slots are free now or will be within lookahead, and how long it
// takes until it is one more; 0 means that only the answer to a call can tell.
// Those who Wait have none of them yet.
func (l *Limiter) Free(lookahead time.Duration) (n int, more time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.free(time.Now(), lookahead)
}

func (l *Limiter) free(now time.Time, lookahead time.Duration) (n int, more time.Duration) {
	for len(l.cooling) > 0 && !l.cooling[0].After(now) {
		l.cooling = l.cooling[1:]
	}
	later := l.cooling // those that are not free within lookahead
	for len(later) > 0 && !later[0].After(now.Add(lookahead)) {
		later = later[1:]
	}
	n = l.current(now) - l.out - len(later)
	next := max(0, -n) // as many replace those that are out of use
	if next < len(later) {
		more = later[next].Sub(now) - lookahead
	}
	return max(0, n), more
}

// current is how many slots are in use: share, and since the last throttled
// answer 1, 3, 7, … more, by quiet periods.
func (l *Limiter) current(now time.Time) int {
	share := l.share
	step := 1
	for since := now.Sub(l.throttledAt); since >= quiet && share < l.limit; since -= quiet {
		share += step
		step *= 2
	}
	return min(share, l.limit)
}

// Wait gives the next free slot when its time has come, of those who wait to the one
// with the lowest turn, and of equals to the one who came first. If ctx ends first, or
// its deadline is before a slot can be free, the error is of kind Unavailable.
func (l *Limiter) Wait(ctx context.Context, turn int64) (*Slot, error) {
	if err := ctx.Err(); err != nil {
		return nil, l.noSlot(err)
	}
	start := time.Now()
	defer func() { l.observe(l.action, time.Since(start)) }()
	w := &waiter{turn, make(chan struct{}, 1)}
	l.mu.Lock()
	defer l.mu.Unlock()
	after, _ := slices.BinarySearchFunc(l.waiting, turn, func(o *waiter, turn int64) int { return cmp.Or(cmp.Compare(o.turn, turn), -1) })
	l.waiting = slices.Insert(l.waiting, after, w)
	defer l.wakeFirst()
	defer func() { l.waiting = slices.DeleteFunc(l.waiting, func(o *waiter) bool { return o == w }) }()
	deadline, limited := ctx.Deadline()
	for {
		var due <-chan time.Time
		if l.waiting[0] == w {
			now := time.Now()
			n, wait := l.free(now, 0)
			switch {
			case n > 0:
				l.out++
				return &Slot{limiter: l}, nil
			case wait > 0 && limited && deadline.Before(now.Add(wait)):
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
			return nil, l.noSlot(err)
		}
	}
}

// wakeFirst has the first of those who wait look again.
func (l *Limiter) wakeFirst() {
	if len(l.waiting) > 0 {
		select {
		case l.waiting[0].awake <- struct{}{}:
		default:
		}
	}
}

func (l *Limiter) noSlot(cause error) *Error {
	return &Error{Action: l.action, Kind: Unavailable, Message: "not sent: no call was free in time", Err: cause}
}

// For returns a context for the slot's call, by which the slot knows when the answer
// began to come: by then EdgeOne has counted the call. On a busy machine it may take
// milliseconds until the answer is read, and Done called.
func (s *Slot) For(ctx context.Context) context.Context {
	tell := func(at time.Time) {
		s.limiter.mu.Lock()
		defer s.limiter.mu.Unlock()
		s.answered = at
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotFirstResponseByte: func() { tell(time.Now()) },
		Got1xxResponse:       func(int, textproto.MIMEHeader) error { tell(time.Time{}); return nil }, // a proxy's word
	})
}

// Done says that the call was answered or failed, just now unless For knows better, and
// whether the answer was that there were too many calls. The slot is free a second later.
func (s *Slot) Done(throttled bool) {
	s.giveBack(func(l *Limiter) {
		now := time.Now()
		at := now
		if !s.answered.IsZero() {
			at = s.answered
		}
		free := at.Add(window)
		after, _ := slices.BinarySearchFunc(l.cooling, free, time.Time.Compare)
		l.cooling = slices.Insert(l.cooling, after, free)
		if throttled {
			l.share, l.throttledAt = max(1, l.current(now)-1), now
		}
	})
}

// Cancel says that the slot was not used.
func (s *Slot) Cancel() { s.giveBack(func(*Limiter) {}) }

func (s *Slot) giveBack(how func(*Limiter)) {
	l := s.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.returned {
		return
	}
	s.returned = true
	l.out--
	how(l)
	l.wakeFirst()
}
