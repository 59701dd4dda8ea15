package controller

import (
	"testing"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// Other programs use half of the account's rate limit, always or from time to time. Every task
// needs a separate call.
func TestTheShareThatARivalLeavesIsUsedWithFewThrottledCalls(t *testing.T) {
	for name, c := range map[string]struct {
		seconds int
		present func(second int) bool
	}{
		"that stays":          {70, func(int) bool { return true }},
		"that comes and goes": {130, func(second int) bool { return second < 40 || second >= 100 }},
	} {
		t.Run(name, func(t *testing.T) {
			inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
				const warmUp = 10
				free, all := 0, 0
				for second := range c.seconds {
					left := 20
					if c.present(second) {
						left = 10
					}
					if all += left; second >= warmUp {
						free += left
					}
				}
				w.createMany("n", all, ownLane)
				began := time.Now()
				w.edgeOne.SetRival("a", 10)
				w.start()
				for second := range c.seconds {
					w.edgeOne.SetRival("a", map[bool]int{true: 10}[c.present(second)])
					time.Sleep(time.Second)
				}
				used, throttled := 0, 0
				for _, call := range w.submissions() {
					switch at := call.Time.Sub(began); {
					case at < warmUp*time.Second || at >= time.Duration(c.seconds)*time.Second:
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
