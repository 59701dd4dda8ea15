package teo

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// testLimiter returns a limiter that starts now.
func testLimiter(limit int) *Limiter { return newLimiter(&sync.Mutex{}, "test", limit, time.Now()) }

// warm returns a limiter whose slots are all free.
func warm(limit int) *Limiter {
	l := testLimiter(limit)
	time.Sleep(2 * window)
	return l
}

func take(t *testing.T, l *Limiter, n int) []*Slot {
	t.Helper()
	var slots []*Slot
	for range n {
		start := time.Now()
		slot, err := l.Wait(t.Context(), Turn{})
		if err != nil || time.Since(start) > 0 {
			t.Fatalf("no slot at once: %v", err)
		}
		slots = append(slots, slot)
	}
	return slots
}

func free(t *testing.T, l *Limiter, lookahead time.Duration, want int, wantMore time.Duration) {
	t.Helper()
	if n, more := l.Free("", lookahead, nil); n != want || more != wantMore {
		t.Fatalf("%d slots within %v, one more in %v; want %d, %v", n, lookahead, more, want, wantMore)
	}
}

func noSlot(t *testing.T, l *Limiter, lookahead, wantMore time.Duration) {
	t.Helper()
	free(t, l, lookahead, 0, wantMore)
}

func TestANewLimiterAssumesThatTheLastSecondWasUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := testLimiter(2)
		noSlot(t, l, 100*time.Millisecond, 900*time.Millisecond)
		time.Sleep(900 * time.Millisecond)
		free(t, l, 100*time.Millisecond, 1, 62500*time.Microsecond)
		start := time.Now()
		if _, err := l.Wait(t.Context(), Turn{}); err != nil || time.Since(start) != 100*time.Millisecond {
			t.Errorf("waited %v, %v; want 100ms", time.Since(start), err)
		}
	})
}

func TestFreeCountsWhatIsOutAndOutOfUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := warm(4)
		slots := take(t, l, 4)
		for _, slot := range slots[:3] { // free after 700, 800 and 900 ms; the fourth is not returned
			slot.Done(false)
			time.Sleep(100 * time.Millisecond)
		}
		free(t, l, 700*time.Millisecond, 1, 100*time.Millisecond)
		free(t, l, time.Second, 3, 0)
		slots[3].Done(true) // three slots are in use now: the first to return replaces the one out of use
		noSlot(t, l, 0, 800*time.Millisecond)
		free(t, l, 800*time.Millisecond, 1, 100*time.Millisecond)
	})
}

func TestASlotIsFreeASecondAfterTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := warm(2)
		slots := take(t, l, 2)
		noSlot(t, l, time.Hour, 0) // the time depends on an answer
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
	})
}

func TestThrottlingTakesSlotsAwayOneByOneAndQuietReturnsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := warm(20)
		for _, slot := range take(t, l, 20)[:12] {
			slot.Done(true)
		}
		for _, want := range []int{8, 9, 11, 15, 20, 20} {
			if got := l.inUse(time.Now()); got != want {
				t.Errorf("%d slots in use after %v of quiet, want %d", got, time.Since(l.throttledAt), want)
			}
			time.Sleep(quiet)
		}
	})
}

func TestWaitersAreServedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := testLimiter(2)
		var mu sync.Mutex
		var order []int
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				slot, err := l.Wait(context.Background(), Turn{})
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
			synctest.Wait() // until it is in the queue
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
		l := testLimiter(1)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err := l.Wait(ctx, Turn{})
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
		wg.Go(func() { _, first = l.Wait(ctx, Turn{}) })
		synctest.Wait()
		wg.Go(func() { _, second = l.Wait(t.Context(), Turn{}) })
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

func TestTheLowestTurnIsServedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := testLimiter(1)
		var order []int64
		var wg sync.WaitGroup
		for _, turn := range []int64{3, 5, 1, 4, 1} {
			wg.Go(func() {
				slot, err := l.Wait(context.Background(), Turn{Number: turn})
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, turn) // with one slot, no lock is needed
				slot.Done(false)
			})
			synctest.Wait()
		}
		time.Sleep(window + window/2)
		wg.Go(func() {
			slot, err := l.Wait(context.Background(), Turn{Number: 2}) // overtakes waiters with a higher number
			if err != nil {
				t.Error(err)
				return
			}
			order = append(order, 2)
			slot.Done(false)
		})
		wg.Wait()
		if !slices.Equal(order, []int64{1, 1, 2, 3, 4, 5}) {
			t.Errorf("served in the order %v", order)
		}
	})
}

func BenchmarkLimiter(b *testing.B) {
	l := testLimiter(20)
	l.cooling = nil
	for b.Loop() {
		slot, err := l.Wait(b.Context(), Turn{})
		if err != nil {
			b.Fatal(err)
		}
		slot.Cancel()
	}
}

func BenchmarkLimiterBusy(b *testing.B) {
	l := testLimiter(1000)
	for b.Loop() {
		if n, _ := l.Free("", window, nil); n != 1000 {
			b.Fatal("a slot is out")
		}
	}
}

func TestASlotIsFreeASecondAfterTheAnswerBeganToCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := warm(2)
		slots := take(t, l, 2)
		trace := httptrace.ContextClientTrace(slots[0].For(t.Context()))
		slots[1].Done(false)
		time.Sleep(100 * time.Millisecond)
		trace.GotFirstResponseByte()
		time.Sleep(200 * time.Millisecond) // while the answer is read
		slots[0].Done(false)
		noSlot(t, l, 0, 700*time.Millisecond)
		time.Sleep(700 * time.Millisecond)
		first := take(t, l, 1)[0] // the slot of the other call, which was answered earlier
		noSlot(t, l, 0, 100*time.Millisecond)
		first.Cancel()
	})
}

func TestAnInterimAnswerIsNotTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := warm(1)
		slot := take(t, l, 1)[0]
		trace := httptrace.ContextClientTrace(slot.For(t.Context()))
		trace.GotFirstResponseByte()
		if err := trace.Got1xxResponse(103, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
		slot.Done(false)
		noSlot(t, l, 0, time.Second)
	})
}

func TestALookUpsSlotIsFreeASecondAfterTheAnswerBeganToCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const reading = 600 * time.Millisecond
		c := clientOf(t, Options{QPS: 1, Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
			if trace := httptrace.ContextClientTrace(req.Context()); trace != nil {
				trace.GotFirstResponseByte()
			}
			time.Sleep(reading)
			return answer(req, http.StatusOK, `{"Response":{"TotalCount":0,"Tasks":[],"RequestId":"r-1"}}`)
		})})
		if _, err := c.FirstRecords(t.Context(), testCreds, ListRequest{ZoneID: "zone-1"}); err != nil {
			t.Fatal(err)
		}
		noSlot(t, c.Limiter(testCreds, ActionDescribePrefetchTasks), 0, time.Second-reading)
	})
}
