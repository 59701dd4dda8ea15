package teo

import (
	"context"
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
	action string
	limit  int

	// turn is held by the first in the queue of Wait. Waiting senders of a
	// channel are served in order.
	turn chan struct{}
	// returned tells the holder of turn that a slot came back.
	returned chan struct{}

	mu          sync.Mutex
	out         int         // slots that are with callers
	cooling     []time.Time // when the others are free again, in order
	share       int         // slots in use since throttledAt
	throttledAt time.Time
}

// newLimiter assumes that the last second was fully used, perhaps by the
// process before this one.
func newLimiter(action string, limit int) *Limiter {
	l := &Limiter{action: action, limit: limit, share: limit,
		turn: make(chan struct{}, 1), returned: make(chan struct{}, 1)}
	free := time.Now().Add(window)
	for range limit {
		l.cooling = append(l.cooling, free)
	}
	return l
}

// Slot is the permission for one call, from a certain moment on. Whoever has
// it calls Done or Cancel; of both, and of several calls, the first counts.
type Slot struct {
	limiter  *Limiter
	at       time.Time
	returned bool
}

// Reserve gives a slot that is free now or within lookahead; call its Wait
// before sending. Without one it returns nil and how long it takes until
// asking again makes sense; 0 means that only the answer to a call can tell.
func (l *Limiter) Reserve(lookahead time.Duration) (*Slot, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	at, ok := l.nextFree(now)
	switch wait := at.Sub(now); {
	case !ok:
		return nil, 0
	case wait > lookahead:
		return nil, wait - lookahead
	}
	l.out++
	return &Slot{limiter: l, at: at}, 0
}

// nextFree is the first moment at which fewer slots than may be used are out
// or cooling, if that will come without another answer.
func (l *Limiter) nextFree(now time.Time) (time.Time, bool) {
	for len(l.cooling) > 0 && !l.cooling[0].After(now) {
		l.cooling = l.cooling[1:]
	}
	mayCool := l.current(now) - 1 - l.out
	switch {
	case mayCool < 0:
		return time.Time{}, false
	case len(l.cooling) <= mayCool:
		return now, true
	}
	return l.cooling[len(l.cooling)-1-mayCool], true
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

// Wait gives the next free slot when its time has come, to those who wait in
// the order they came. If ctx ends first, or its deadline is before a slot can
// be free, the error is of kind Unavailable.
func (l *Limiter) Wait(ctx context.Context) (*Slot, error) {
	slot, err := l.queue(ctx)
	if err != nil {
		return nil, err
	}
	if err := slot.Wait(ctx); err != nil {
		return nil, err
	}
	return slot, nil
}

// queue reserves the next slot, however far away, so that the next in the
// queue can do the same while this one waits for its time.
func (l *Limiter) queue(ctx context.Context) (*Slot, error) {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return nil, l.noSlot(ctx.Err())
	}
	for {
		lookahead := window // no slot takes longer to cool
		if deadline, ok := ctx.Deadline(); ok {
			lookahead = min(lookahead, time.Until(deadline))
		}
		slot, wait := l.Reserve(lookahead)
		switch {
		case slot != nil:
			return slot, nil
		case wait > 0:
			return nil, l.noSlot(context.DeadlineExceeded)
		}
		select {
		case <-l.returned:
		case <-ctx.Done():
			return nil, l.noSlot(ctx.Err())
		}
	}
}

func (l *Limiter) noSlot(cause error) *Error {
	return &Error{Action: l.action, Kind: Unavailable, Message: "not sent: no call was free in time", Err: cause}
}

// Wait returns when the slot's time has come. If ctx ends first it gives the
// slot back and returns an error of kind Unavailable.
func (s *Slot) Wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		s.Cancel()
		return s.limiter.noSlot(err)
	}
	timer := time.NewTimer(time.Until(s.at))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		s.Cancel()
		return s.limiter.noSlot(ctx.Err())
	}
}

// Done says that the call was answered, or failed, just now, and whether the
// answer was that there were too many calls. The slot is free a second later.
func (s *Slot) Done(throttled bool) {
	s.giveBack(func(l *Limiter) {
		now := time.Now()
		l.cooling = append(l.cooling, now.Add(window))
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
	select {
	case l.returned <- struct{}{}:
	default:
	}
}
