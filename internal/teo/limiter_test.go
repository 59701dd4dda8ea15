package teo

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// warm returns a limiter whose slots are all free.
func warm(limit int) *Limiter {
	l := newLimiter("test", limit)
	time.Sleep(window)
	return l
}

func take(t *testing.T, l *Limiter, n int) []*Slot {
	t.Helper()
	var slots []*Slot
	for range n {
		slot, wait := l.Reserve(0)
		if slot == nil {
			t.Fatalf("no slot, ask again in %v", wait)
		}
		slots = append(slots, slot)
	}
	return slots
}

func noSlot(t *testing.T, l *Limiter, lookahead, want time.Duration) {
	t.Helper()
	if slot, wait := l.Reserve(lookahead); slot != nil || wait != want {
		t.Fatalf("slot %v, ask again in %v; want none, %v", slot, wait, want)
	}
}

func TestANewLimiterAssumesThatTheLastSecondWasUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter("test", 2)
		noSlot(t, l, 100*time.Millisecond, 900*time.Millisecond)
		time.Sleep(900 * time.Millisecond)
		slot, _ := l.Reserve(100 * time.Millisecond)
		if slot == nil {
			t.Fatal("no slot within the lookahead")
		}
		start := time.Now()
		if err := slot.Wait(t.Context()); err != nil || time.Since(start) != 100*time.Millisecond {
			t.Errorf("waited %v, %v; want 100ms", time.Since(start), err)
		}
	})
}

func TestASlotIsFreeASecondAfterTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := warm(2)
		slots := take(t, l, 2)
		noSlot(t, l, time.Hour, 0) // only an answer can tell
		time.Sleep(3 * time.Second)
		slots[0].Done(false)
		time.Sleep(300 * time.Millisecond)
		slots[1].Done(false)
		noSlot(t, l, 0, 700*time.Millisecond)
		time.Sleep(700 * time.Millisecond)
		take(t, l, 1)
		noSlot(t, l, 0, 300*time.Millisecond)
	})
}

func TestACancelledSlotIsFreeAtOnceAndNeverTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := warm(1)
		slot := take(t, l, 1)[0]
		slot.Cancel()
		slot.Cancel()
		slot.Done(true)
		slot = take(t, l, 1)[0]
		noSlot(t, l, time.Hour, 0)
		slot.Done(false)
		slot.Cancel()
		noSlot(t, l, 0, time.Second)
		// One that was reserved ahead of its time is not free before it.
		ahead, _ := l.Reserve(time.Second)
		ahead.Cancel()
		noSlot(t, l, 0, time.Second)
	})
}

func TestThrottlingTakesSlotsAwayOneByOneAndQuietReturnsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := warm(20)
		for _, slot := range take(t, l, 20)[:12] {
			slot.Done(true)
		}
		for _, want := range []int{8, 9, 11, 15, 20, 20} {
			if got := l.current(time.Now()); got != want {
				t.Errorf("%d slots in use after %v of quiet, want %d", got, time.Since(l.throttledAt), want)
			}
			time.Sleep(quiet)
		}
	})
}

func TestWaitersAreServedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter("test", 2)
		var mu sync.Mutex
		var order []int
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				slot, err := l.Wait(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				time.Sleep(time.Duration(1+i%2) * time.Millisecond)
				slot.Done(false)
			})
			synctest.Wait() // until it stands in the queue
		}
		wg.Wait()
		for i := range order {
			if order[i]/2 != i/2 { // two slots at a time
				t.Fatalf("served in order %v", order)
			}
		}
	})
}

func TestAWaiterThatCannotBeServedInTimeIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter("test", 1)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err := l.Wait(ctx)
		if KindOf(err) != Unavailable || !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 0 {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

func TestAWaiterWhoseContextEndsGivesUpItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := warm(1)
		held := take(t, l, 1)[0]
		ctx, cancel := context.WithCancel(t.Context())
		var first, second error
		var wg sync.WaitGroup
		wg.Go(func() { _, first = l.Wait(ctx) })
		synctest.Wait()
		wg.Go(func() { _, second = l.Wait(t.Context()) })
		synctest.Wait()
		cancel()
		synctest.Wait()
		held.Done(false)
		wg.Wait()
		if KindOf(first) != Unavailable || !errors.Is(first, context.Canceled) || second != nil {
			t.Errorf("first: %v, second: %v", first, second)
		}
	})
}

func TestASlotWhoseWaitIsCutShortIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter("test", 1)
		slot, _ := l.Reserve(window)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := slot.Wait(ctx); KindOf(err) != Unavailable {
			t.Errorf("got %v", err)
		}
		time.Sleep(window)
		take(t, l, 1)
	})
}

func BenchmarkLimiter(b *testing.B) {
	l := newLimiter("test", 20)
	l.cooling = nil
	for b.Loop() {
		slot, _ := l.Reserve(0)
		slot.Cancel()
	}
}

func BenchmarkLimiterBusy(b *testing.B) {
	l := newLimiter("test", 1000)
	for b.Loop() {
		slot, wait := l.Reserve(0)
		if slot == nil && wait == 0 {
			b.Fatal("no slot is out, so time alone frees one")
		}
		if slot != nil {
			slot.Done(false)
		}
	}
}
