package simulator

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestDailyQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := Demo()
		config.QuotaResetAt = "16:00"
		s := New(config)
		defer s.Close()
		c := inMemory(t, s)
		small := func(names ...string) string {
			in := params{"ZoneId": "zone-3smallquota0", "Targets": []string{}}
			for _, n := range names {
				in["Targets"] = append(in["Targets"].([]string), "http://small.example.net/"+n)
			}
			return c.call("CreatePrefetchTask", in).code
		}
		expect(t, "within the quota", small("1", "2"), "")
		expect(t, "beyond it", small("3", "4"), "LimitExceeded.DailyQuota")
		expect(t, "a refused call costs nothing", c.quota("zone-3smallquota0"), 1)
		expect(t, "the rest", small("3"), "")
		time.Sleep(16*time.Hour - time.Second)
		expect(t, "before the reset", small("4"), "LimitExceeded.DailyQuota")
		time.Sleep(time.Second)
		expect(t, "after the reset, as described", c.quota("zone-3smallquota0"), 3)
		expect(t, "after the reset", small("4", "5", "6"), "")
		s.ResetQuota()
		expect(t, "after a reset by hand", small("7"), "")
		s.SetAvailable("zone-3smallquota0", 0)
		expect(t, "set to nothing", small("8"), "LimitExceeded.DailyQuota")
		expect(t, "left", s.Available("zone-3smallquota0"), 0)
		time.Sleep(24 * time.Hour)
		expect(t, "the next day", small("8"), "")
	})
}

func TestEdgeQuotaIsCountedOnItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Demo())
		defer s.Close()
		c := inMemory(t, s)
		in := params{"ZoneId": exampleZone, "Mode": "edge", "Targets": example(paths(1000)...)}
		expect(t, "a thousand", c.call("CreatePrefetchTask", in).code, "")
		in["Targets"] = example("a")
		expect(t, "one more", c.call("CreatePrefetchTask", in).code, "LimitExceeded.DailyQuota")
		expect(t, "the other quota", c.quota(exampleZone), 10000)
		expect(t, "default mode", c.create("a").code, "")
	})
}

func TestMediaSegmentsUseQuotaUpSilently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Demo())
		defer s.Close()
		s.SetZone(Zone{ID: exampleZone, Account: "demo", Domains: []string{"www.example.com"}, Daily: 10, MediaSegments: true})
		s.SetRules(Rule{URL: ".m3u8", Segments: 4})
		c := inMemory(t, s)
		in := params{"ZoneId": exampleZone, "Targets": example("a.m3u8"), "PrefetchMediaSegments": "on"}
		for _, left := range []int{5, 0} {
			expect(t, "code", c.call("CreatePrefetchTask", in).code, "")
			expect(t, "left", c.quota(exampleZone), left)
		}
		expect(t, "then", c.call("CreatePrefetchTask", in).code, "LimitExceeded.DailyQuota")
		s.SetAvailable(exampleZone, 3)
		expect(t, "segments beyond the quota", c.call("CreatePrefetchTask", in).code, "")
		expect(t, "left", c.quota(exampleZone), 0)
	})
}

func TestAPlanWithoutPrefetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Demo())
		defer s.Close()
		s.SetZone(Zone{ID: exampleZone, Account: "demo", Domains: []string{"www.example.com"}, Batch: -1, NullQuota: true})
		c := inMemory(t, s)
		expect(t, "a single URL", c.create("a").code, "LimitExceeded.BatchQuota")
		r := c.call("DescribeContentQuota", params{"ZoneId": exampleZone})
		expect(t, "a null quota", strings.Contains(r.body, `"PrefetchQuota":null`), true)
	})
}
