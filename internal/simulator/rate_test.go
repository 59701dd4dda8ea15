package simulator

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestRate(t *testing.T) {
	// A step is a number of calls at once, and then a pause.
	type step struct {
		calls, admitted int
		pause           time.Duration
	}
	for _, tt := range []struct {
		name   string
		window RateWindow
		rival  int
		offset time.Duration // time of the first call within its second
		steps  []step
	}{
		{"a sliding window allows 20 in any second", SlidingWindow, 0, 0, []step{
			{10, 10, 900 * time.Millisecond}, {20, 10, 99 * time.Millisecond}, {1, 0, time.Millisecond}, {11, 10, 0},
		}},
		{"a fixed window begins with the second", FixedWindow, 0, 900 * time.Millisecond, []step{
			{21, 20, 100 * time.Millisecond}, {21, 20, 999 * time.Millisecond}, {1, 0, time.Millisecond}, {1, 1, 0},
		}},
		{"a token bucket refills evenly", TokenBucket, 0, 0, []step{
			{21, 20, 50 * time.Millisecond}, {2, 1, 100 * time.Millisecond}, {3, 2, time.Hour}, {21, 20, 0},
		}},
		{"a rival leaves less", SlidingWindow, 15, 0, []step{{6, 5, time.Second}, {6, 5, 0}}},
		{"a rival can leave nothing", SlidingWindow, 20, 0, []step{{1, 0, time.Hour}, {1, 0, 0}}},
		{"a rival takes from a bucket", TokenBucket, 15, 0, []step{{6, 5, 200 * time.Millisecond}, {2, 1, 0}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config := Demo()
				config.RateWindow = tt.window
				s := New(config)
				defer s.Close()
				s.SetRival("demo", tt.rival)
				c := inMemory(t, s)
				time.Sleep(tt.offset)
				for i, step := range tt.steps {
					admitted := 0
					for range step.calls {
						switch r := c.create("a"); r.code {
						case "":
							admitted++
						case "RequestLimitExceeded":
						default:
							t.Fatal(r.body)
						}
					}
					expect(t, "admitted in step "+string(rune('1'+i)), admitted, step.admitted)
					time.Sleep(step.pause)
				}
				expect(t, "executed", s.Executed("https://www.example.com/a"), s.Stats().Calls("")-s.Stats().Throttled(""))
			})
		})
	}
}

func TestRateIsMeteredByAccountAndAction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Demo())
		defer s.Close()
		s.SetKey(Key{SecretID: "AKIDsecond", SecretKey: "second", Account: "demo"})
		first := inMemory(t, s)
		second, tenant := first, first
		second.secretID, second.key = "AKIDsecond", "second"
		tenant.secretID, tenant.key = "AKIDtenant", "tenant-secret-key"
		for range 20 {
			expect(t, "a call within the rate", first.create("a").code, "")
		}
		expect(t, "another key of the account", second.create("a").code, "RequestLimitExceeded")
		expect(t, "another action", first.job("x").code, "")
		expect(t, "another account", tenant.call("CreatePrefetchTask", params{
			"ZoneId": "zone-4tenant00000", "Targets": []string{"https://shop.example.org/"},
		}).code, "")

		stats := s.Stats()
		expect(t, "calls", stats.Calls("CreatePrefetchTask"), 22)
		expect(t, "peak", stats.Peak("CreatePrefetchTask"), 21)
		expect(t, "peak of the other action", stats.Peak("DescribePrefetchTasks"), 1)
		expect(t, "throttled", stats.Throttled("CreatePrefetchTask"), 1)
		expect(t, "outcomes", stats.Outcomes["RequestLimitExceeded"], 1)
		expect(t, "duplicates", stats.Duplicates, 19)
	})
}

func TestPeakIsOfAnySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Demo())
		defer s.Close()
		c := inMemory(t, s)
		for range 30 { // one every 100 ms: ten per second
			c.create("a")
			time.Sleep(100 * time.Millisecond)
		}
		expect(t, "peak", s.Stats().Peak(""), 10)
	})
}
