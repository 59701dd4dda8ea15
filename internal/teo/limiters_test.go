package teo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func keys(id, key string) Credentials { return Credentials{SecretID: id, SecretKey: key} }

// accepting answers read-only calls like an EdgeOne that knows only these keys.
func accepting(t *testing.T, known ...Credentials) roundTrip {
	return func(req *http.Request) (*http.Response, error) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		seconds, err := strconv.ParseInt(req.Header.Get("X-TC-Timestamp"), 10, 64)
		if err != nil {
			t.Error(err)
		}
		headers := []SignedHeader{{"content-type", contentType}, {"host", req.Host}, {"x-tc-action", req.Header.Get("X-TC-Action")}}
		for _, creds := range known {
			if req.Header.Get("Authorization") == Authorization(creds, service, headers, body, time.Unix(seconds, 0)) {
				return answer(req, 200, `{"Response":{"TotalCount":0,"RequestId":"r"}}`)
			}
		}
		return answer(req, 200, `{"Response":{"Error":{"Code":"AuthFailure.SignatureFailure","Message":"m"},"RequestId":"r"}}`)
	}
}

func TestALimiterIsSharedByKeysAndAction(t *testing.T) {
	c := clientOf(t, Options{QPS: 7})
	l := c.Limiter(keys("a", "1"), "X")
	if l != c.Limiter(keys("a", "1"), "X") || l != c.Limiter(Credentials{SecretID: "a", SecretKey: "1", Token: "t"}, "X") ||
		l == c.Limiter(keys("b", "1"), "X") || l == c.Limiter(keys("a", "1"), "Y") || l == c.Limiter(keys("a", "2"), "X") || l.limit != 7 {
		t.Error("limiters are mixed up")
	}
}

func TestAnAccountsLimitersBeginTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clientOf(t, Options{})
		c.Limiter(testCreds, ActionCreatePrefetchTask)
		time.Sleep(2 * window)
		if n, _ := c.Limiter(testCreds, ActionDescribePrefetchTasks).Free("", 0, nil); n != 20 {
			t.Errorf("%d slots of another action are free", n)
		}
	})
}

// Hundreds of Secrets contain the SecretId of another account, with wrong keys.
func TestWhoNamesAnothersSecretIdDoesNotSlowItDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		owner := keys("AKIDofsomebody", "therightkey")
		c := clientOf(t, Options{Transport: accepting(t, owner)})
		look := func(creds Credentials) (time.Duration, error) {
			start := time.Now()
			_, err := c.FirstRecords(t.Context(), creds, ListRequest{ZoneID: "zone-1"})
			return time.Since(start), err
		}
		if _, err := look(owner); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * window)
		var wg sync.WaitGroup
		for i := range 800 {
			wg.Go(func() {
				if _, err := look(keys(owner.SecretID, fmt.Sprint("wrongkey-", i))); !DeniedAccount(err) {
					t.Errorf("a wrong key: %v", err)
				}
			})
		}
		synctest.Wait()
		if took, err := look(owner); err != nil || took > 0 {
			t.Errorf("the owner's look took %v, %v", took, err)
		}
		wg.Wait()
	})
}

func TestWhatProvesKeys(t *testing.T) {
	for code, want := range map[string]bool{
		"AuthFailure.SignatureFailure": false, "AuthFailure.SecretIdNotFound": false, "AuthFailure.UnauthorizedOperation": false,
		"RequestLimitExceeded": false, "InternalError": false, "IpInBlacklist": false, "SomethingNew": false, codeRequestSize: false,
		"UnauthorizedOperation.CamUnauthorized": true, "LimitExceeded.DailyQuota": true, "InvalidParameter.Target": true,
		"ResourceNotFound.ZoneNotFound": true,
	} {
		if got := provesKeys(refusal(ActionCreatePrefetchTask, code, "m", "r", 200)); got != want {
			t.Errorf("%s proves keys: %v", code, got)
		}
	}
	if !provesKeys(nil) || provesKeys(noAnswer(ActionCreatePrefetchTask, unsent, errors.New("x"), redactor{})) {
		t.Error("a success proves keys, and no answer does not")
	}
}

// Two keys of one SecretId that EdgeOne accepts belong to one account, which EdgeOne
// meters as one.
func TestAcceptedKeysOfOneSecretIdShareALimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, young := keys("AKIDofsomebody", "theoldkey"), keys("AKIDofsomebody", "theyoungkey")
		c := clientOf(t, Options{Transport: accepting(t, old, young)})
		first, second := c.Limiter(old, ActionCreatePrefetchTask), c.Limiter(young, ActionCreatePrefetchTask)
		if first == second {
			t.Fatal("keys that nobody has accepted share a limiter")
		}
		time.Sleep(2 * window)
		var slots []*Slot
		for _, l := range []*Limiter{first, second} {
			slots = append(slots, take(t, l, 15)...)
		}
		var waited time.Duration
		var wg sync.WaitGroup
		take(t, second, 5)
		wg.Go(func() {
			start := time.Now()
			if _, err := second.Wait(t.Context(), Turn{}); err != nil {
				t.Error(err)
			}
			waited = time.Since(start)
		})
		synctest.Wait()
		for _, creds := range []Credentials{old, young} {
			if _, err := c.FirstRecords(t.Context(), creds, ListRequest{ZoneID: "zone-1"}); err != nil {
				t.Fatal(err)
			}
		}
		if c.Limiter(old, ActionCreatePrefetchTask) != c.Limiter(young, ActionCreatePrefetchTask) ||
			c.Limiter(old, ActionDescribePrefetchTasks) != c.Limiter(young, ActionDescribePrefetchTasks) {
			t.Fatal("accepted keys do not share a limiter")
		}
		// The two limiters of 20 slots have given out 35 slots, and now they are one. 16 slots
		// must return before the waiter gets one.
		for i, slot := range slots {
			noSlot(t, first, 0, 0)
			if i == 15 {
				break
			}
			slot.Cancel()
		}
		slots[15].Done(false)
		noSlot(t, second, 0, window)
		time.Sleep(window / 2)
		slots[16].Cancel() // free at once, so the waiter gets it before slots[15] is free
		wg.Wait()
		if waited != window/2 {
			t.Errorf("who waited at the one that was merged got a slot after %v", waited)
		}
		noSlot(t, first, 0, window/2)
	})
}

func TestALimiterThatNobodyUsesIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clientOf(t, Options{Transport: accepting(t, testCreds)})
		if _, err := c.FirstRecords(t.Context(), testCreds, ListRequest{ZoneID: "zone-1"}); err != nil {
			t.Fatal(err)
		}
		busy := keys("AKIDbusy", "itskeyitskey")
		time.Sleep(2 * window)
		c.Limiter(busy, ActionCreatePrefetchTask)
		time.Sleep(2 * window)
		held := take(t, c.Limiter(busy, ActionCreatePrefetchTask), 1)[0]
		old := c.Limiter(testCreds, ActionDescribePrefetchTasks)
		time.Sleep(forgetAfter + time.Minute)
		c.Limiter(keys("AKIDanother", "itskeyitskey"), ActionCreatePrefetchTask)
		if len(c.limiters.pairs) != 2 || len(c.limiters.proved) != 0 {
			t.Errorf("%d keys are kept, %d of them accepted", len(c.limiters.pairs), len(c.limiters.proved))
		}
		again := c.Limiter(testCreds, ActionDescribePrefetchTasks)
		if again == old {
			t.Error("it was not forgotten")
		}
		noSlot(t, again, 0, window) // another process may have used the last second
		if n, _ := c.Limiter(busy, ActionCreatePrefetchTask).Free("", 0, nil); n != 19 {
			t.Errorf("%d slots are free of the one whose call is under way", n)
		}
		held.Cancel()
	})
}

func TestKeysThatNobodyAcceptsTakeABoundedMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clientOf(t, Options{Transport: accepting(t, testCreds)})
		if _, err := c.FirstRecords(t.Context(), testCreds, ListRequest{ZoneID: "zone-1"}); err != nil {
			t.Fatal(err)
		}
		kept := c.Limiter(testCreds, ActionDescribePrefetchTasks)
		heap := func() uint64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		before := heap()
		for i := range 100_000 {
			c.Limiter(keys(fmt.Sprint("AKIDtemporary", i), "k"), ActionCreatePrefetchTask)
			time.Sleep(5 * time.Millisecond)
		}
		if n := len(c.limiters.pairs); n > 2*maxUnproved {
			t.Errorf("%d keys are kept", n)
		}
		if grown := int64(heap()) - int64(before); grown > 8<<20 {
			t.Errorf("they take %d KiB", grown>>10)
		}
		if c.Limiter(testCreds, ActionDescribePrefetchTasks) != kept {
			t.Error("an accepted key was forgotten for those that are not")
		}
	})
}

// served starts a waiter for each turn, in this order, and returns the order in which
// they got a slot.
func served(t *testing.T, l *Limiter, turns ...Turn) []string {
	var order []string
	var wg sync.WaitGroup
	for _, turn := range turns {
		wg.Go(func() {
			slot, err := l.Wait(context.Background(), turn)
			if err != nil {
				t.Error(err)
				return
			}
			order = append(order, fmt.Sprint(turn.Line, turn.Number)) // with one slot, no lock is needed
			slot.Done(false)
		})
		synctest.Wait()
	}
	wg.Wait()
	return order
}

func TestLinesAreServedInTurn(t *testing.T) {
	for _, tt := range []struct {
		name  string
		turns []Turn
		want  []string
	}{
		{"whatever their own numbers", []Turn{{"a", 1_000_001}, {"a", 1_000_002}, {"b", 1}, {"b", 2}, {"b", 3}},
			[]string{"a1000001", "b1", "a1000002", "b2", "b3"}},
		{"each by the lowest number", []Turn{{"a", 3}, {"a", 1}, {"b", 9}, {"a", 2}, {"b", 8}}, []string{"a1", "b8", "a2", "b9", "a3"}},
		{"one that begins to wait after those that do", []Turn{{"a", 1}, {"b", 1}, {"c", 0}, {"a", 2}}, []string{"a1", "b1", "c0", "a2"}},
		{"the one without a name as well", []Turn{{"a", 1}, {"a", 2}, {}}, []string{"a1", "0", "a2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if got := served(t, testLimiter(1), tt.turns...); !slices.Equal(got, tt.want) {
					t.Errorf("served %v, want %v", got, tt.want)
				}
			})
		})
	}
}

// 2,000 reads wait in one wait queue; they take 100 s.
func TestALookUpWaitsForOneOfEachOtherLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clientOf(t, Options{Transport: answering(200, `{"Response":{"TotalCount":0,"RequestId":"r"}}`)})
		look := func(ctx context.Context) {
			if _, err := c.FirstRecords(ctx, testCreds, ListRequest{ZoneID: "zone-1"}); err != nil {
				t.Error(err)
			}
		}
		var wg sync.WaitGroup
		for range 2000 {
			wg.Go(func() { look(InLine(t.Context(), "busy")) })
		}
		synctest.Wait()
		time.Sleep(5 * window)
		start := time.Now()
		look(InLine(t.Context(), "quiet"))
		if took := time.Since(start); took > window {
			t.Errorf("it took %v", took)
		}
		wg.Wait()
	})
}

func TestAWaiterThatGivesUpLeavesItsLineWhereItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := testLimiter(1)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(window/2, cancel)
		go func() { _, _ = l.Wait(ctx, Turn{"a", 1}) }()
		synctest.Wait()
		if got := served(t, l, Turn{"b", 1}, Turn{"a", 2}, Turn{"b", 2}); !slices.Equal(got, []string{"a2", "b1", "b2"}) {
			t.Errorf("served %v", got)
		}
		if len(l.lines) != 0 {
			t.Errorf("%d lines of nobody", len(l.lines))
		}
	})
}

func TestFreeSlotsAreSharedWithTheLinesThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := testLimiter(20)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wait := func(line string, n int) {
			for range n {
				wg.Go(func() { _, _ = l.Wait(ctx, Turn{Line: line}) })
			}
			synctest.Wait()
		}
		for _, step := range []struct {
			line string
			n    int
			want int // of 20 slots, for the wait queue "me"
		}{{"me", 9, 20}, {"a", 3, 17}, {"b", 100, 8}, {"c", 1, 8}, {"d", 100, 5}} {
			wait(step.line, step.n)
			if n, _ := l.Free("me", 2*window, nil); n != step.want {
				t.Errorf("%d slots with %d of %q, want %d", n, step.n, step.line, step.want)
			}
		}
		for i := range 30 {
			wait(fmt.Sprint("one of many ", i), 1)
		}
		if n, _ := l.Free("me", 2*window, nil); n != 1 {
			t.Errorf("%d slots, want one: it has its turn as well", n)
		}
		cancel()
		wg.Wait()
	})
}

func TestWhoPlansByFreeIsToldOfAnyAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := warm(2)
		var mu sync.Mutex
		told := map[string]int{}
		tell := func(line string) func() {
			return func() {
				mu.Lock()
				defer mu.Unlock()
				told[line]++
			}
		}
		subscribe := func(line string, want time.Duration) {
			t.Helper()
			if n, more := l.Free(line, 0, tell(line)); n != 0 || more != want {
				t.Fatalf("%d slots, one more in %v", n, more)
			}
		}
		slots := take(t, l, 2)
		for _, line := range []string{"a", "b", "b"} {
			subscribe(line, 0)
		}
		slots[0].Done(false)
		synctest.Wait()
		slots[1].Done(false)
		synctest.Wait()
		if told["a"] != 1 || told["b"] != 1 {
			t.Errorf("told %v; want each line once", told)
		}
		subscribe("a", window) // the time is known, so the function is not registered
		time.Sleep(window)
		slot := take(t, l, 1)[0]
		slot.Cancel()
		synctest.Wait()
		if told["a"] != 1 || len(l.changed) != 0 {
			t.Errorf("told %v", told)
		}
		if n, more := l.Free("a", 0, tell("a")); n != 2 || more != 0 || len(l.changed) != 0 {
			t.Errorf("%d slots, one more in %v, %d are to be told of an answer that does not come", n, more, len(l.changed))
		}
	})
}
