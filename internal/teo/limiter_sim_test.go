package teo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// meter is a way in which a server counts calls against a limit per second.
type meter interface{ admit(now time.Time) bool }

// sliding admits a call if it counted fewer than limit calls in the second before. If
// harsh is set, it also counts the calls that it refuses.
type sliding struct {
	limit int
	harsh bool
	seen  []time.Time
}

func (m *sliding) admit(now time.Time) bool {
	for len(m.seen) > 0 && !m.seen[0].After(now.Add(-time.Second)) {
		m.seen = m.seen[1:]
	}
	ok := len(m.seen) < m.limit
	if ok || m.harsh {
		m.seen = append(m.seen, now)
	}
	return ok
}

// fixed counts the calls in each second of the wall clock.
type fixed struct {
	limit, count int
	second       int64
}

func (m *fixed) admit(now time.Time) bool {
	if now.Unix() != m.second {
		m.second, m.count = now.Unix(), 0
	}
	m.count++
	return m.count <= m.limit
}

// bucket holds at most limit tokens, and gains limit tokens per second.
type bucket struct {
	limit  float64
	tokens float64
	last   time.Time
}

func (m *bucket) admit(now time.Time) bool {
	if !m.last.IsZero() {
		m.tokens = min(m.limit, m.tokens+now.Sub(m.last).Seconds()*m.limit)
	}
	m.last = now
	if m.tokens < 1-1e-9 {
		return false
	}
	m.tokens--
	return true
}

var meters = map[string]func() meter{
	"a sliding window":                      func() meter { return &sliding{limit: 20} },
	"a sliding window that counts refusals": func() meter { return &sliding{limit: 20, harsh: true} },
	"a fixed window":                        func() meter { return &fixed{limit: 20} },
	"a token bucket":                        func() meter { return &bucket{limit: 20, tokens: 20} },
}

// server is a meter behind a network with latency, in the time of a synctest bubble.
type server struct {
	mu    sync.Mutex
	meter meter
	rtt   time.Duration
	rand  *rand.Rand
}

// call makes a call, which takes between half and one and a half round trip times.
func (s *server) call() (ok bool) {
	leg := func() time.Duration {
		s.mu.Lock()
		defer s.mu.Unlock()
		return time.Duration((0.5 + s.rand.Float64()) * float64(s.rtt) / 2)
	}
	time.Sleep(leg())
	ok = s.admit()
	time.Sleep(leg())
	return ok
}

func (s *server) admit() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.meter.admit(time.Now())
}

// usage counts the answers to our calls by the second in which they arrived.
type usage struct{ ok, throttled []int }

func (u usage) sum(from, to int) (ok, throttled int) {
	for i := from; i < to; i++ {
		ok += u.ok[i]
		throttled += u.throttled[i]
	}
	return ok, throttled
}

// run keeps a limiter busy for a number of seconds.
func run(s *server, seconds int) usage {
	l := testLimiter(20)
	u := usage{ok: make([]int, seconds), throttled: make([]int, seconds)}
	start := time.Now()
	ctx, cancel := context.WithDeadline(context.Background(), start.Add(time.Duration(seconds)*time.Second))
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			for {
				slot, err := l.Wait(ctx, Turn{})
				if err != nil {
					return
				}
				ok := s.call()
				slot.Done(!ok)
				if at := int(time.Since(start) / time.Second); at < seconds {
					mu.Lock()
					if ok {
						u.ok[at]++
					} else {
						u.throttled[at]++
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return u
}

func newServer(m meter, rtt time.Duration, seed uint64) *server {
	return &server{meter: m, rtt: rtt, rand: rand.New(rand.NewPCG(seed, 1))}
}

func TestAloneTheLimitIsUsedAndNeverExceeded(t *testing.T) {
	for _, tt := range []struct {
		rtt  time.Duration
		used float64
	}{
		{time.Millisecond, 0.998},
		{15 * time.Millisecond, 0.98},
		{60 * time.Millisecond, 0.94},
		{400 * time.Millisecond, 0.70},
	} {
		for name, meter := range meters {
			t.Run(fmt.Sprintf("%s, %v away", name, tt.rtt), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ok, throttled := run(newServer(meter(), tt.rtt, 1), 63).sum(2, 62)
					if used := float64(ok) / (60 * 20); used < tt.used || throttled > 0 {
						t.Errorf("used %.1f %% of the limit, %d calls throttled", 100*used, throttled)
					}
				})
			})
		}
	}
}

// rivals are other clients that use half of the limit until stop is closed, each in a
// different pattern.
var rivals = map[string]func(s *server, r *rand.Rand, stop <-chan struct{}){
	"evenly": func(s *server, _ *rand.Rand, stop <-chan struct{}) {
		for sleep(100*time.Millisecond, stop) {
			s.admit()
		}
	},
	"at random": func(s *server, r *rand.Rand, stop <-chan struct{}) {
		for sleep(time.Duration(r.ExpFloat64()*float64(100*time.Millisecond)), stop) {
			s.admit()
		}
	},
	"in bursts": func(s *server, _ *rand.Rand, stop <-chan struct{}) {
		for sleep(1010*time.Millisecond, stop) {
			for range 10 {
				s.admit()
			}
		}
	},
}

func sleep(d time.Duration, stop <-chan struct{}) bool {
	select {
	case <-time.After(d):
		return true
	case <-stop:
		return false
	}
}

func TestARivalThatTakesHalfIsLeftItsHalf(t *testing.T) {
	// The strict demands are for rivals that call at regular times. A rival that calls at
	// random leaves sometimes less than half of the limit and sometimes more. A server
	// that counts the calls it refuses punishes each probe more than once.
	type demand struct{ used, throttled float64 }
	demands := map[string]demand{
		"evenly": {0.95, 0.035}, "in bursts": {0.95, 0.035}, "at random": {0.90, 0.055},
		"harsh": {0.80, 0.065}, "harsh at random": {0.40, 0.10},
	}
	rtts := []time.Duration{time.Millisecond, 15 * time.Millisecond, 60 * time.Millisecond}
	for serverName, meter := range meters {
		for rivalName, rival := range rivals {
			name := serverName + ", rival calls " + rivalName
			t.Run(name, func(t *testing.T) {
				const runs = 12
				var used, throttled float64
				for seed := range uint64(runs) {
					synctest.Test(t, func(t *testing.T) {
						s := newServer(meter(), rtts[seed%3], seed)
						stop := make(chan struct{})
						go rival(s, rand.New(rand.NewPCG(seed, 4)), stop)
						go func() {
							time.Sleep(70 * time.Second)
							close(stop)
						}()
						u := run(s, 111)
						ok, refused := u.sum(5, 65)
						used += min(1, float64(ok)/(60*10)) / runs
						throttled += float64(refused) / float64(ok+refused) / runs
						if ok, _ := u.sum(90, 110); ok < 20*18 {
							t.Errorf("not back at the limit 20 s after the rival left: %v", u.ok[70:])
						}
					})
				}
				t.Logf("used %.1f %% of what the rival left, %.1f %% of the calls were throttled", 100*used, 100*throttled)
				want := demands[rivalName]
				if _, harsh := meter().(*sliding); harsh && meter().(*sliding).harsh {
					want = demands["harsh"]
					if rivalName == "at random" {
						want = demands["harsh at random"]
					}
				}
				if used < want.used || throttled > want.throttled {
					t.Errorf("used %.1f %% of what the rival left, %.1f %% of the calls were throttled; want at least %.1f %% and at most %.1f %%",
						100*used, 100*throttled, 100*want.used, 100*want.throttled)
				}
			})
		}
	}
}

// closed admits no calls until a given time.
type closed struct {
	meter
	until time.Time
}

func (m *closed) admit(now time.Time) bool { return now.After(m.until) && m.meter.admit(now) }

func TestAStormOfThrottledAnswersLeavesOneSlotAndPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &closed{&sliding{limit: 20}, time.Now().Add(60 * time.Second)}
		u := run(newServer(m, 15*time.Millisecond, 1), 100)
		if ok, throttled := u.sum(5, 60); ok != 0 || throttled < 50 || throttled > 70 {
			t.Errorf("%d calls came through and %d were throttled in 55 s; want about one a second", ok, throttled)
		}
		if ok, throttled := u.sum(85, 95); ok < 19*10 || throttled > 0 {
			t.Errorf("25 s after the storm %d calls in 10 s, %d throttled", ok, throttled)
		}
	})
}
