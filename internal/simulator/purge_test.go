package simulator

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// purge purges targets of the example zone.
func (c caller) purge(purgeType string, targets ...string) reply {
	return c.call(createPurge, params{"ZoneId": exampleZone, "Type": purgeType, "Targets": targets})
}

// purges looks up purges of the example zone.
func (c caller) purges(filters ...params) reply {
	return c.call("DescribePurgeTasks", params{
		"ZoneId": exampleZone, "Limit": 1000, "Filters": filters, "StartTime": "1999-12-31T00:00:00Z", "EndTime": "2000-01-03T00:00:00Z",
	})
}

// purgeQuota returns what is left of a daily quota of the example zone.
func (c caller) purgeQuota(purgeType string) int {
	r := c.call("DescribeContentQuota", params{"ZoneId": exampleZone})
	i := slices.IndexFunc(r.PurgeQuota, func(q quota) bool { return q.Type == purgeType })
	if i < 0 {
		c.t.Fatalf("DescribeContentQuota says %s", r.body)
	}
	return r.PurgeQuota[i].DailyAvailable
}

func TestCreatePurgeTaskRefusesACallAsAWhole(t *testing.T) {
	with := func(purgeType string, more params) params {
		out := params{"ZoneId": exampleZone, "Type": purgeType}
		for name, value := range more {
			out[name] = value
		}
		return out
	}
	targets := func(purgeType string, targets ...string) params { return with(purgeType, params{"Targets": targets}) }
	for _, tt := range []struct {
		name string
		in   params
		code string
	}{
		{"an undefined parameter", with("purge_url", params{"Targets": example("a"), "Mode": "default"}), "UnknownParameter"},
		{"an undefined field of CacheTag", with("purge_cache_tag", params{"Targets": []string{"t"}, "CacheTag": params{"Hosts": []string{}}}), "UnknownParameter"},
		{"a list as CacheTag", with("purge_cache_tag", params{"Targets": []string{"t"}, "CacheTag": []params{}}), "InvalidParameter.ParameterError"},
		{"no ZoneId", params{"Type": "purge_url", "Targets": example("a")}, "MissingParameter"},
		{"no Type", params{"ZoneId": exampleZone, "Targets": example("a")}, "MissingParameter"},
		{"no Targets", with("purge_url", nil), "MissingParameter"},
		{"an invented type", targets("purge_everything", "a"), "InvalidParameter.ParameterError"},
		{"an invented method", with("purge_prefix", params{"Targets": example(""), "Method": "Delete"}), "InvalidParameter.ParameterError"},
		{"a URL without a scheme", targets("purge_url", "www.example.com/a"), "InvalidParameter.Target"},
		{"a URL with a wildcard", targets("purge_url", "https://www.example.com/*"), "InvalidParameter.Target"},
		{"a prefix without a scheme", targets("purge_prefix", "www.example.com/a/"), "InvalidParameter.Target"},
		{"a host with a scheme", targets("purge_host", "https://www.example.com"), "InvalidParameter.Target"},
		{"a host with a path", targets("purge_host", "www.example.com/"), "InvalidParameter.Target"},
		{"a host with a port", targets("purge_host", "www.example.com:443"), "InvalidParameter.Target"},
		{"a host with a wildcard", targets("purge_host", "*.example.com"), "InvalidParameter.Target"},
		{"an empty tag", targets("purge_cache_tag", ""), "InvalidParameter.Target"},
		{"a URL of another zone", targets("purge_url", "http://www.qq.com/"), "InvalidParameter.DomainNotFound"},
		{"a host of another zone", targets("purge_host", "www.qq.com"), "InvalidParameter.DomainNotFound"},
		{"tags of a domain of another zone", with("purge_cache_tag", params{"Targets": []string{"t"}, "CacheTag": params{"Domains": []string{"www.qq.com"}}}), "InvalidParameter.DomainNotFound"},
		{"everything of all zones", params{"ZoneId": "*", "Type": "purge_all"}, "InvalidParameter.ParameterError"},
		{"tags of all zones", params{"ZoneId": "*", "Type": "purge_cache_tag", "Targets": []string{"t"}}, "MissingParameter"},
		{"an unknown zone", params{"ZoneId": "zone-nowhere", "Type": "purge_url", "Targets": example("a")}, "InvalidParameter.ZoneNotFound"},
		{"more URLs than a batch", targets("purge_url", example(paths(2001)...)...), "LimitExceeded.BatchQuota"},
		{"more prefixes than a batch", targets("purge_prefix", example(paths(201)...)...), "LimitExceeded.BatchQuota"},
		{"more tags than a batch", targets("purge_cache_tag", paths(101)...), "LimitExceeded.BatchQuota"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Demo())
				defer s.Close()
				c := inMemory(t, s)
				r := c.call(createPurge, tt.in)
				expect(t, "code of "+r.body, r.code, tt.code)
				expect(t, "executed calls", len(s.Ledger()), 0)
				for _, q := range c.call("DescribeContentQuota", params{"ZoneId": exampleZone}).PurgeQuota {
					expect(t, "left of "+q.Type, q.DailyAvailable, q.Daily)
				}
			})
		})
	}
}

func TestPurgesOfEachType(t *testing.T) {
	for _, tt := range []struct {
		in             params
		target, method string
	}{
		{params{"Type": "purge_url", "Targets": example("a")}, "https://www.example.com/a", "delete"},
		{params{"Type": "purge_url", "Targets": example("a"), "Method": "invalidate"}, "https://www.example.com/a", "delete"},
		{params{"Type": "purge_prefix", "Targets": example("a/")}, "https://www.example.com/a/", "invalidate"},
		{params{"Type": "purge_prefix", "Targets": example("a/"), "Method": "delete"}, "https://www.example.com/a/", "delete"},
		{params{"Type": "purge_host", "Targets": []string{"img.example.com"}}, "img.example.com", "invalidate"},
		{params{"Type": "purge_cache_tag", "Targets": []string{"t"}}, "t", "delete"},
		{params{"Type": "purge_cache_tag", "Targets": []string{"t"}, "CacheTag": params{"Domains": []string{"img.example.com"}}}, "t", "delete"},
		{params{"Type": "purge_all", "Method": "delete"}, exampleZone, "delete"},
	} {
		t.Run(fmt.Sprint(tt.in), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config := Demo()
				config.PurgeDuration = time.Minute
				s := New(config)
				defer s.Close()
				c := inMemory(t, s)
				purgeType := tt.in["Type"].(string)
				before := c.purgeQuota(purgeType)
				tt.in["ZoneId"] = exampleZone
				r := c.call(createPurge, tt.in)
				expect(t, "code of "+r.body, r.code, "")
				expect(t, "quota", c.purgeQuota(purgeType), before-1)
				expect(t, "quota of prefetches", c.quota(exampleZone), 10000)

				time.Sleep(time.Minute - time.Nanosecond)
				row := c.purges().Tasks[0]
				expect(t, "before its end", row.Status, "processing")
				time.Sleep(time.Nanosecond)
				row = c.purges().Tasks[0]
				expect(t, "its row", row, task{JobId: r.JobID, Target: tt.target, Type: purgeType, Method: tt.method, Status: "success",
					CreateTime: "2000-01-01T00:00:00Z", UpdateTime: "2000-01-01T00:01:00Z"})
				expect(t, "among the prefetches", c.job(r.JobID).TotalCount, 0)

				e := s.Ledger().Purges()[0]
				expect(t, "in the ledger", fmt.Sprint(e.Action, e.Type, e.Method, e.Accepted, e.JobID == r.JobID, e.IsPurge()),
					fmt.Sprint(createPurge, purgeType, tt.method, []string{tt.target}, true, true))
				expect(t, "counted as prefetches", s.Ledger().Targets()+s.Stats().Jobs, 0)
				expect(t, "counted as purges", s.Stats().PurgeTargets+s.Stats().PurgeJobs, 2)
			})
		})
	}
}

func TestZoneStarPurgesURLsOfSeveralZones(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Demo())
		defer s.Close()
		c := inMemory(t, s)
		urls := append(example("a", "b"), "http://www.qq.com/c")
		expect(t, "code", c.call(createPurge, params{"ZoneId": "*", "Type": "purge_url", "Targets": urls}).code, "")
		expect(t, "left for one zone", s.Quota(exampleZone, "purge_url"), 9998)
		expect(t, "left for the other", s.Quota("zone-ajj243dwrew", "purge_url"), 9999)
		expect(t, "a key of one zone", c.purgeAs(s, Key{Zones: []string{exampleZone}}, "*").code, "UnauthorizedOperation.NoPermission")
	})
}

// purgeAs purges a URL with another key of the account.
func (c caller) purgeAs(s *Simulator, k Key, zone string) reply {
	k.SecretID, k.SecretKey, k.Account = "AKIDother", "other", "demo"
	s.SetKey(k)
	c.secretID, c.key = k.SecretID, k.SecretKey
	return c.call(createPurge, params{"ZoneId": zone, "Type": "purge_url", "Targets": example("a")})
}

func TestPurgesHavePermissionsOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Demo())
		defer s.Close()
		c := inMemory(t, s)
		expect(t, "only prefetches", c.purgeAs(s, Key{Actions: []string{createPrefetch, "DescribePurgeTasks"}}, exampleZone).code, "UnauthorizedOperation.CamUnauthorized")
		expect(t, "purges", c.purgeAs(s, Key{Actions: []string{createPurge}}, exampleZone).code, "")
		c.secretID, c.key = "AKIDother", "other"
		expect(t, "look at purges", c.purges().code, "UnauthorizedOperation.CamUnauthorized")
	})
}

func TestPurgesHaveARateOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Demo())
		defer s.Close()
		c := inMemory(t, s)
		for range 20 {
			expect(t, "a prefetch", c.create("a").code, "")
			expect(t, "a purge", c.purge("purge_url", example("a")...).code, "")
			expect(t, "a look-up", c.purges().code, "")
		}
		expect(t, "one purge more", c.purge("purge_url", example("a")...).code, "RequestLimitExceeded")
		expect(t, "one look-up more", c.purges().code, "RequestLimitExceeded")
	})
}

func TestQuotasOfPurges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := Demo()
		config.Zones[1].Purge = map[string]Limits{
			"purge_url": {Batch: 3, Daily: 4}, "purge_host": {NotAllowed: true}, "purge_prefix": {Batch: -1}, "purge_cache_tag": {Unlisted: true},
		}
		config.QuotaResetAt = "16:00"
		s := New(config)
		defer s.Close()
		c := inMemory(t, s)
		expect(t, "in one call", c.purge("purge_url", example("a", "b", "c", "d")...).code, "LimitExceeded.BatchQuota")
		expect(t, "three", c.purge("purge_url", example("a", "b", "c")...).code, "")
		expect(t, "two more", c.purge("purge_url", example("a", "b")...).code, "LimitExceeded.DailyQuota")
		expect(t, "left", c.purgeQuota("purge_url"), 1)
		expect(t, "a type that the plan lacks", c.purge("purge_host", "www.example.com").code, "LimitExceeded.PackNotAllow")
		expect(t, "a type without a batch", c.purge("purge_prefix", example("")...).code, "LimitExceeded.BatchQuota")

		r := c.call("DescribeContentQuota", params{"ZoneId": exampleZone})
		expect(t, "all quotas", fmt.Sprint(r.PurgeQuota, r.PrefetchQuota),
			"[{purge_url 3 4 1} {purge_prefix 0 1000 1000} {purge_host 0 0 0} {purge_all 1 100 100}] [{prefetch_url 2000 10000 10000}]")
		config.Zones[1].Purge = map[string]Limits{}
		for _, purgeType := range purgeTypes {
			config.Zones[1].Purge[purgeType] = Limits{Batch: 3, Daily: 4, Unlisted: true}
		}
		s.SetZone(config.Zones[1])
		body := c.call("DescribeContentQuota", params{"ZoneId": exampleZone}).body
		expect(t, "a null quota", strings.Contains(body, `"PurgeQuota":null`) && strings.Contains(body, `"DailyAvailable":10000`), true)
		s.SetQuota(exampleZone, "purge_url", 0)
		expect(t, "used up by somebody else", c.purge("purge_url", example("a")...).code, "LimitExceeded.DailyQuota")
		expect(t, "prefetches", c.create("a").code, "")
		time.Sleep(16 * time.Hour)
		expect(t, "after the reset", c.purge("purge_url", example("a", "b", "c")...).code, "")
	})
}

func TestCacheTagsMayNeedDomains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := Demo()
		config.RequireCacheTag = true
		s := New(config)
		defer s.Close()
		c := inMemory(t, s)
		expect(t, "without", c.purge("purge_cache_tag", "t").code, "MissingParameter")
		in := params{"ZoneId": exampleZone, "Type": "purge_cache_tag", "Targets": []string{"t"}, "CacheTag": params{"Domains": []string{"www.example.com"}}}
		expect(t, "with", c.call(createPurge, in).code, "")
	})
}

func TestDescribePurgeTasksFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Demo())
		defer s.Close()
		c := inMemory(t, s)
		s.SetRules(Rule{Action: createPurge, URL: "a2", Status: "failed", FailType: "taskFailed"})
		first := c.purge("purge_url", example("a1", "a2")...)
		time.Sleep(time.Hour)
		c.purge("purge_prefix", "http://img.example.com/b/")
		c.purge("purge_host", "img.example.com")
		c.call(createPurge, params{"ZoneId": exampleZone, "Type": "purge_cache_tag", "Targets": []string{"t1"}, "CacheTag": params{"Domains": []string{"www.example.com"}}})
		c.create("a1") // no purge

		list := func(filters ...params) string {
			r := c.purges(filters...)
			if r.code != "" {
				return r.code
			}
			var out []string
			for _, task := range r.Tasks {
				out = append(out, strings.TrimPrefix(task.Target, "https://www.example.com/"))
			}
			return fmt.Sprintf("%s of %d", strings.Join(out, " "), r.TotalCount)
		}
		filter := func(name string, values ...string) params { return params{"Name": name, "Values": values} }
		fuzzy := func(name, value string) params { return params{"Name": name, "Values": []string{value}, "Fuzzy": true} }
		expect(t, "all", list(), "t1 img.example.com http://img.example.com/b/ a1 a2 of 5")
		expect(t, "a job", list(filter("job-id", first.JobID)), "a1 a2 of 2")
		expect(t, "a target", list(filter("target", "https://www.example.com/a1")), "a1 of 1")
		expect(t, "a part of a target", list(filter("target", "img.example")), " of 0")
		expect(t, "a part of a target, fuzzy", list(fuzzy("target", "img.example")), "img.example.com http://img.example.com/b/ of 2")
		expect(t, "a fuzzy status", list(fuzzy("statuses", "succ")), "InvalidParameter.ParameterError")
		expect(t, "a domain", list(filter("domains", "www.example.com")), "t1 a1 a2 of 3")
		expect(t, "a status", list(filter("statuses", "failed", "timeout")), "a2 of 1")
		expect(t, "a status of prefetches", list(filter("statuses", "invalid")), "InvalidParameter.ParameterError")
		expect(t, "a type", list(filter("type", "purge_host")), "img.example.com of 1")
		expect(t, "two types", list(filter("type", "purge_host", "purge_url")), "InvalidParameter.ParameterError")
		expect(t, "an invented type", list(filter("type", "prefetch_url")), "InvalidParameter.ParameterError")

		page := c.call("DescribePurgeTasks", params{"ZoneId": exampleZone, "Limit": 1, "Offset": 1, "Filters": []params{filter("job-id", first.JobID)}})
		expect(t, "a page", fmt.Sprintf("%d of %d: %s", len(page.Tasks), page.TotalCount, page.Tasks[0].Target), "1 of 2: https://www.example.com/a2")
		prefetches := c.call("DescribePrefetchTasks", params{"ZoneId": exampleZone, "Filters": []params{filter("job-id", "x"), filter("type", "purge_url")}})
		expect(t, "the type of a prefetch", prefetches.code, "InvalidParameter.ParameterError")
	})
}

func TestRulesAndFaultsSelectByAction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Demo())
		defer s.Close()
		c := inMemory(t, s)
		url := example("a")[0]
		s.SetRules(Rule{Action: createPurge, URL: "/a", Refuse: "no"}, Rule{URL: "/a", Status: "failed"})
		expect(t, "a refused purge", fmt.Sprint(c.purge("purge_url", url, url+"b", example("c")[0]).FailedList), "[{no ["+url+" "+url+"b]}]")
		expect(t, "a prefetch", len(c.create("a").FailedList), 0)
		s.SetRules(Rule{Action: createPurge, URL: "/a", Code: "InternalError.ProxyServer", Executed: true})
		expect(t, "a purge of unknown outcome", c.purge("purge_url", url).code, "InternalError.ProxyServer")
		expect(t, "executed", s.Purged(url), 1)

		s.AddFault(Fault{Matcher{Action: createPurge, Type: "purge_url", URL: "/a", Count: 1}, Effect{Answer: ConnectionClosed, Executed: true}})
		expect(t, "a purge of another type", c.purge("purge_prefix", example("a/")...).err, nil)
		expect(t, "a lost answer", c.purge("purge_url", url).err == nil, false)
		expect(t, "executed", s.Purged(url), 2)
		s.AddFault(Fault{Matcher{Action: createPurge, Count: 1}, Effect{ServerDelay: 4 * time.Minute}})
		began := s.Now()
		c.purge("purge_url", url)
		purges := s.Ledger().Purges()
		expect(t, "executed late", purges[len(purges)-1].Time.Sub(began), 4*time.Minute)
	})
}

func TestPurgesOfOtherPrograms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Demo())
		defer s.Close()
		c := inMemory(t, s)
		s.AddJob(Job{ID: "theirs", ZoneID: exampleZone, Type: "purge_host", Method: "delete", URLs: []string{"img.example.com"}, Created: time.Now().Add(-time.Hour)})
		expect(t, "listed", fmt.Sprint(c.purges().Tasks),
			"[{theirs img.example.com purge_host delete success 1999-12-31T23:00:00Z 1999-12-31T23:00:02Z  }]")
		expect(t, "executed", len(s.Ledger()), 0)
		for _, bad := range []Job{{Type: "purge"}, {Method: "delete"}, {Type: "purge_url", Method: "erase"}} {
			bad.ZoneID, bad.URLs = exampleZone, example("a")
			if s.validateJob(bad) == nil {
				t.Errorf("%+v is accepted", bad)
			}
		}
	})
}
