package teo

import (
	"context"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"time"
)

// Slot is the permission for one call now. Whoever has it calls Done or Cancel;
// of both, and of several calls, the first counts.
type Slot struct {
	limiter  *Limiter
	answered time.Time // when the answer began to come
	returned bool
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
			l.share, l.throttledAt = max(1, l.inUse(now)-1), now
		}
	})
}

// Cancel says that the slot was not used.
func (s *Slot) Cancel() { s.giveBack(func(*Limiter) {}) }

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
