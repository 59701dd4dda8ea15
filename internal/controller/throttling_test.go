package controller

import (
	"testing"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// Other programs take half of the account's calls, always or now and then. Every
// task needs a call of its own.
func TestTheShareThatARivalLeavesIsUsedWithFewThrottledCalls(t *testing.T) {
	for name, present := range map[string]func(second int) bool{
		"that stays":          func(int) bool { return true },
		"that comes and goes": func(second int) bool { return second/60%2 == 0 },
	} {
		for _, window := range []simulator.RateWindow{simulator.SlidingWindow, simulator.FixedWindow, simulator.TokenBucket} {
			t.Run(name+", "+string(window)+" window", func(t *testing.T) {
				inCalm(t, simulator.Config{RateWindow: window}, func(t *testing.T, w *calm) {
					const warmUp, seconds = 10, 120
					free := 0
					for second := range seconds {
						if second >= warmUp && present(second) {
							free += 10
						} else if second >= warmUp {
							free += 20
						}
					}
					w.createMany("n", 20*seconds, ownLane)
					began := time.Now()
					w.edgeOne.SetRival("a", 10)
					w.start()
					for second := range seconds {
						w.edgeOne.SetRival("a", map[bool]int{true: 10}[present(second)])
						time.Sleep(time.Second)
					}
					used, throttled := 0, 0
					for _, call := range w.submissions() {
						switch at := call.Time.Sub(began); {
						case at < warmUp*time.Second || at >= seconds*time.Second:
						case call.Outcome == "OK":
							used++
						case call.Outcome == "RequestLimitExceeded":
							throttled++
						}
					}
					usedShare, throttledShare := float64(used)/float64(free), float64(throttled)/float64(used+throttled)
					t.Logf("%.1f %% of the free share used, %.1f %% of the calls throttled", 100*usedShare, 100*throttledShare)
					if usedShare < 0.9 || throttledShare > 0.05 {
						t.Errorf("want at least 90 %% of the share used and at most 5 %% throttled")
					}
				})
			})
		}
	}
}

func TestTheOperatorsShareOfTheCallsCanBeCapped(t *testing.T) {
	inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
		w.options.QPS = 5
		w.createMany("n", 150, ownLane)
		began := time.Now()
		w.start()
		w.awaitAll(time.Minute)
		took := time.Since(began)
		stats := w.edgeOne.Stats()
		if peak := stats.Peak(teo.ActionCreatePrefetchTask); peak != 5 {
			t.Errorf("%d calls in the busiest second, want 5", peak)
		}
		if n := stats.Throttled(""); n > 0 {
			t.Errorf("%d calls were throttled", n)
		}
		if took > 40*time.Second {
			t.Errorf("150 calls took %s at 5 a second", took)
		}
	})
}
