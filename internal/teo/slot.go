package teo

import (
	"context"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"time"
)

// Slot is the permission for one call now. Its holder calls Done or Cancel; only the
// first of these calls counts.
type Slot struct {
	limiter  *Limiter
	answered time.Time // when the answer began to arrive
	returned bool      // Done or Cancel was called
}

// For returns a context for the slot's call. With it, the slot records when the answer
// began to arrive: by then, EdgeOne has counted the call. On a busy machine, it may take
// milliseconds until the caller has read the answer and calls Done.
func (s *Slot) For(ctx context.Context) context.Context {
	tell := func(at time.Time) {
		s.limiter.mu.Lock()
		defer s.limiter.mu.Unlock()
		s.answered = at
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotFirstResponseByte: func() { tell(time.Now()) },
		Got1xxResponse:       func(int, textproto.MIMEHeader) error { tell(time.Time{}); return nil }, // an interim (1xx) answer of a proxy does not count
	})
}

// Done reports that the call was answered or failed, and whether EdgeOne throttled it.
// The slot is free one second after the answer began to arrive, or one second from now if
// the slot did not record an answer.
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
			l.share, l.throttledAt = max(1, l.inUse(now)-1), now
		}
	})
}

// Cancel reports that the slot was not used.
func (s *Slot) Cancel() { s.giveBack(func(*Limiter) {}) }

// giveBack returns the slot to the current limiter, once, and notifies the waiters. how
// updates the limiter; l.mu is held while it runs.
func (s *Slot) giveBack(how func(*Limiter)) {
	s.limiter.mu.Lock()
	defer s.limiter.mu.Unlock()
	if s.returned {
		return
	}
	s.returned = true
	l := s.limiter.current()
	l.out--
	how(l)
	l.wakeFirst()
	l.tellChanged()
}
