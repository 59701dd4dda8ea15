package simulator

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestCreatePrefetchTaskRefusesACallAsAWhole(t *testing.T) {
	long := example(paths(2001)...)
	for _, tt := range []struct {
		name string
		in   any
		code string
	}{
		{"a body that is no JSON", `{"ZoneId":`, "InvalidParameter"},
		{"two JSON values", `{} {}`, "InvalidParameter"},
		{"a list as the body", `[]`, "InvalidParameter"},
		{"an undefined parameter", params{"ZoneId": exampleZone, "Targets": example("a"), "Area": "global"}, "UnknownParameter"},
		{"a parameter in another case", params{"zoneId": exampleZone, "Targets": example("a")}, "UnknownParameter"},
		{"an undefined field in a header", params{"ZoneId": exampleZone, "Targets": example("a"), "Headers": []params{{"Name": "a", "Value": "b", "Kind": "c"}}}, "UnknownParameter"},
		{"no ZoneId", params{"Targets": example("a")}, "MissingParameter"},
		{"no Targets", params{"ZoneId": exampleZone}, "MissingParameter"},
		{"empty Targets", params{"ZoneId": exampleZone, "Targets": []string{}}, "MissingParameter"},
		{"a header without a value", params{"ZoneId": exampleZone, "Targets": example("a"), "Headers": []params{{"Name": "a"}}}, "MissingParameter"},
		{"Targets of a wrong type", params{"ZoneId": exampleZone, "Targets": "https://www.example.com/a"}, "InvalidParameter.ParameterError"},
		{"a number among the Targets", params{"ZoneId": exampleZone, "Targets": []any{1}}, "InvalidParameter.ParameterError"},
		{"EncodeUrl as a text", params{"ZoneId": exampleZone, "Targets": example("a"), "EncodeUrl": "true"}, "InvalidParameter.ParameterError"},
		{"an invented mode", params{"ZoneId": exampleZone, "Targets": example("a"), "Mode": "Edge"}, "InvalidParameter.ParameterError"},
		{"edge mode where it is not enabled", params{"ZoneId": "zone-ajj243dwrew", "Targets": []string{"http://www.qq.com/"}, "Mode": "edge"}, "InvalidParameter.ParameterError"},
		{"media segments where they are not enabled", params{"ZoneId": exampleZone, "Targets": example("a.m3u8"), "PrefetchMediaSegments": "on"}, "InvalidParameter.ParameterError"},
		{"media segments of a wrong value", params{"ZoneId": exampleZone, "Targets": example("a.m3u8"), "PrefetchMediaSegments": "Prefetch"}, "InvalidParameter.ParameterError"},
		{"an unknown zone", params{"ZoneId": "zone-nowhere", "Targets": example("a")}, "InvalidParameter.ZoneNotFound"},
		{"a target without a scheme", params{"ZoneId": exampleZone, "Targets": []string{"www.example.com/a"}}, "InvalidParameter.Target"},
		{"an ftp target", params{"ZoneId": exampleZone, "Targets": []string{"ftp://www.example.com/a"}}, "InvalidParameter.Target"},
		{"a target with a wildcard", params{"ZoneId": exampleZone, "Targets": append(example("a"), "https://www.example.com/*")}, "InvalidParameter.Target"},
		{"a target with a space", params{"ZoneId": exampleZone, "Targets": example("a b")}, "InvalidParameter.Target"},
		{"a host of another zone", params{"ZoneId": exampleZone, "Targets": append(example("a"), "http://www.qq.com/")}, "InvalidParameter.DomainNotFound"},
		{"the parent of a wildcard domain", params{"ZoneId": exampleZone, "Targets": []string{"https://example.com/"}}, "InvalidParameter.DomainNotFound"},
		{"a host that only ends alike", params{"ZoneId": exampleZone, "Targets": []string{"https://badexample.com/"}}, "InvalidParameter.DomainNotFound"},
		{"more than a batch", params{"ZoneId": exampleZone, "Targets": long}, "LimitExceeded.BatchQuota"},
		{"more than the day's quota", params{"ZoneId": "zone-3smallquota0", "Targets": []string{
			"http://small.example.net/1", "http://small.example.net/2", "http://small.example.net/3", "http://small.example.net/4",
		}}, "LimitExceeded.DailyQuota"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Demo())
				defer s.Close()
				c := inMemory(t, s)
				r := c.call("CreatePrefetchTask", tt.in)
				expect(t, "code of "+r.body, r.code, tt.code)
				expect(t, "executed calls", len(s.Ledger()), 0)
				expect(t, "quota of the zone", c.quota(exampleZone), 10000)
				expect(t, "quota of the small zone", c.quota("zone-3smallquota0"), 3)
			})
		})
	}
}

func TestATargetGoesThroughItsStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := Demo()
		config.Rules = append(config.Rules,
			Rule{URL: "/slow/", Duration: time.Hour},
			Rule{URL: "/stuck/", Status: Never},
			Rule{URL: "/new/", Status: "rejuvenated"},
		)
		s := New(config)
		defer s.Close()
		c := inMemory(t, s)
		r := c.create("good", "broken/", "missing/", "slow/", "stuck/", "new/")
		states := func() string {
			var out []string
			for _, task := range c.job(r.JobID).Tasks {
				out = append(out, strings.TrimSpace(task.Status+" "+task.FailType))
			}
			return strings.Join(out, ", ")
		}
		expect(t, "at once", states(), "processing, processing, processing, processing, processing, processing")
		time.Sleep(2*time.Second - time.Nanosecond)
		expect(t, "just before", states(), "processing, processing, processing, processing, processing, processing")
		time.Sleep(time.Nanosecond)
		expect(t, "after 2 s", states(), "success, failed originPullFailed, invalid, processing, processing, rejuvenated")
		time.Sleep(time.Hour)
		expect(t, "after an hour", states(), "success, failed originPullFailed, invalid, success, processing, rejuvenated")
		expect(t, "finished by hand", s.Finish("stuck", "timeout", "", ""), 1)
		expect(t, "at last", states(), "success, failed originPullFailed, invalid, success, timeout, rejuvenated")

		done := c.job(r.JobID).Tasks[1]
		expect(t, "CreateTime", done.CreateTime, "2000-01-01T00:00:00Z")
		expect(t, "UpdateTime", done.UpdateTime, "2000-01-01T00:00:02Z")
		expect(t, "Type", done.Type, "prefetch_url")
		expect(t, "FailMessage", done.FailMessage, "The origin did not answer.")
	})
}

func TestFailedList(t *testing.T) {
	for _, noJobID := range []bool{false, true} {
		t.Run(fmt.Sprintf("JobId left empty if all are refused: %v", noJobID), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config := Demo()
				config.NoJobIDWhenAllRefused = noJobID
				s := New(config)
				defer s.Close()
				c := inMemory(t, s)

				some := c.create("a", "refused/1", "b", "refused/2")
				expect(t, "refused", fmt.Sprint(some.FailedList), "[{The resource is not allowed to be prefetched. [https://www.example.com/refused/1 https://www.example.com/refused/2]}]")
				expect(t, "listed", c.job(some.JobID).TotalCount, 2)
				expect(t, "quota", c.quota(exampleZone), 9998)

				all := c.create("refused/1")
				expect(t, "JobId is empty", all.JobID == "", noJobID)
				expect(t, "refused", len(all.FailedList), 1)
				expect(t, "executed", s.Executed("https://www.example.com/refused/1"), 0)
				expect(t, "in the ledger", s.Ledger()[1].Refused[0], "https://www.example.com/refused/1")
				expect(t, "quota", c.quota(exampleZone), 9998)
			})
		})
	}
}

func TestTheSameTargetTwiceCostsTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Demo())
		defer s.Close()
		c := inMemory(t, s)
		c.create("a", "a", "b")
		expect(t, "quota", c.quota(exampleZone), 9997)
		expect(t, "executed", s.Executed("https://www.example.com/a"), 2)
		expect(t, "duplicates", fmt.Sprint(s.Duplicates()), "map["+exampleZone+" default https://www.example.com/a:2]")
	})
}

func TestOtherModeOrHeadersAreNoDuplicate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Demo())
		defer s.Close()
		c := inMemory(t, s)
		in := params{"ZoneId": exampleZone, "Targets": example("a")}
		headers := func(pairs ...string) []params {
			var out []params
			for pair := range slices.Chunk(pairs, 2) {
				out = append(out, params{"Name": pair[0], "Value": pair[1]})
			}
			return out
		}
		c.call("CreatePrefetchTask", in)
		in["Mode"] = "edge"
		c.call("CreatePrefetchTask", in)
		in["Headers"] = headers("A", "1", "B", "2")
		c.call("CreatePrefetchTask", in)
		expect(t, "executed", s.Executed("https://www.example.com/a"), 3)
		expect(t, "duplicates", len(s.Duplicates()), 0)
		in["Headers"] = headers("b", "2", "a", "1")
		c.call("CreatePrefetchTask", in)
		expect(t, "duplicates by another order of headers", len(s.Duplicates()), 1)
		byURL := s.Ledger().DuplicatesBy(func(_ Execution, url string) string { return url })
		expect(t, "by URL alone", byURL["https://www.example.com/a"], 4)
	})
}

func TestZoneWildcard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := Demo()
		s := New(config)
		defer s.Close()
		c := inMemory(t, s)
		mixed := params{"ZoneId": "*", "Targets": []string{"http://www.qq.com/a", "https://cdn.example.com/b"}}
		r := c.call("CreatePrefetchTask", mixed)
		expect(t, "code", r.code, "")
		expect(t, "quota of the one zone", c.quota("zone-ajj243dwrew"), 9999)
		expect(t, "quota of the other zone", c.quota(exampleZone), 9999)
		expect(t, "listed in a zone", c.job(r.JobID).TotalCount, 1)
		expect(t, "a host of another account", c.call("CreatePrefetchTask", params{
			"ZoneId": "*", "Targets": []string{"https://shop.example.org/"},
		}).code, "InvalidParameter.DomainNotFound")
		lookup := params{"ZoneId": "*", "Filters": []params{{"Name": "job-id", "Values": []string{r.JobID}}}}
		expect(t, "looking up", c.call("DescribePrefetchTasks", lookup).code, "InvalidParameter.ParameterError")
		expect(t, "a quota", c.call("DescribeContentQuota", params{"ZoneId": "*"}).code, "InvalidParameter.ParameterError")
		s.SetKey(Key{SecretID: "AKIDdemo", SecretKey: "demo-secret-key", Account: "demo", Zones: []string{"zone-ajj243dwrew", exampleZone}})
		expect(t, "without permission for all zones", c.call("CreatePrefetchTask", mixed).code, "UnauthorizedOperation.NoPermission")

		config.WildcardLookups = true
		s = New(config)
		defer s.Close()
		c = inMemory(t, s)
		lookup["Filters"] = []params{{"Name": "job-id", "Values": []string{c.call("CreatePrefetchTask", mixed).JobID}}}
		expect(t, "looking up where it is accepted", c.call("DescribePrefetchTasks", lookup).TotalCount, 2)
	})
}

func TestDescribePrefetchTasksRefuses(t *testing.T) {
	filter := func(name string, values ...string) []params { return []params{{"Name": name, "Values": values}} }
	window := params{"ZoneId": exampleZone, "StartTime": "2000-01-01T00:00:00Z", "EndTime": "2000-01-01T01:00:00Z"}
	with := func(name string, value any) params {
		out := params{name: value}
		for n, v := range window {
			if n != name {
				out[n] = v
			}
		}
		return out
	}
	for _, tt := range []struct {
		name string
		in   params
		code string
	}{
		{"nothing of a window", window, ""},
		{"neither a window nor a job", params{"ZoneId": exampleZone}, "MissingParameter"},
		{"half a window", params{"ZoneId": exampleZone, "StartTime": "2000-01-01T00:00:00Z"}, "MissingParameter"},
		{"half a window with a job", params{"ZoneId": exampleZone, "EndTime": "2000-01-01T00:00:00Z", "Filters": filter("job-id", "x")}, "MissingParameter"},
		{"no ZoneId", params{"Filters": filter("job-id", "x")}, "MissingParameter"},
		{"a time in another form", with("StartTime", "2000-01-01 00:00:00"), "InvalidParameter.ParameterError"},
		{"an end before the start", with("EndTime", "1999-12-31T00:00:00Z"), "InvalidParameter.ParameterError"},
		{"a window that is too long", with("StartTime", "1999-12-24T00:00:00Z"), "InvalidParameter.ParameterError"},
		{"a limit over 1000", with("Limit", 1001), "InvalidParameter.ParameterError"},
		{"a negative offset", with("Offset", -1), "InvalidParameter.ParameterError"},
		{"a fraction as the offset", with("Offset", 1.5), "InvalidParameter.ParameterError"},
		{"an unknown filter", with("Filters", filter("job", "x")), "InvalidParameter.ParameterError"},
		{"two values of job-id", with("Filters", filter("job-id", "x", "y")), "InvalidParameter.ParameterError"},
		{"two values of target", with("Filters", filter("target", "x", "y")), "InvalidParameter.ParameterError"},
		{"21 domains", with("Filters", filter("domains", paths(21)...)), "InvalidParameter.ParameterError"},
		{"no value", with("Filters", filter("domains", []string{}...)), "InvalidParameter.ParameterError"},
		{"a fuzzy filter", with("Filters", []params{{"Name": "target", "Values": []string{"x"}, "Fuzzy": true}}), "InvalidParameter.ParameterError"},
		{"an undefined field in a filter", with("Filters", []params{{"Name": "target", "Values": []string{"x"}, "Kind": 1}}), "UnknownParameter"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config := Demo()
				config.MaxWindow = 7 * 24 * time.Hour
				s := New(config)
				defer s.Close()
				r := inMemory(t, s).call("DescribePrefetchTasks", tt.in)
				expect(t, "code of "+r.body, r.code, tt.code)
			})
		})
	}
}

func TestDescribePrefetchTasksFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Demo())
		defer s.Close()
		c := inMemory(t, s)
		urls := func(in params) string {
			in["ZoneId"] = exampleZone
			r := c.call("DescribePrefetchTasks", in)
			if r.code != "" {
				t.Fatal(r.body)
			}
			var out []string
			for _, task := range r.Tasks {
				out = append(out, task.Target[strings.LastIndex(task.Target, "/")+1:])
			}
			return fmt.Sprintf("%s of %d", strings.Join(out, " "), r.TotalCount)
		}
		filter := func(name string, values ...string) params { return params{"Name": name, "Values": values} }

		c.create("a1", "broken/a2") // at 00:00:00
		time.Sleep(1500 * time.Millisecond)
		second := c.create("b1", "b2") // listed as of 00:00:01
		time.Sleep(1500 * time.Millisecond)
		c.call("CreatePrefetchTask", params{"ZoneId": exampleZone, "Targets": []string{"http://img.example.com/c1"}}) // at 00:00:03
		c.call("CreatePrefetchTask", params{"ZoneId": "zone-ajj243dwrew", "Targets": []string{"http://www.qq.com/d1"}})

		in := func(start, end string, filters ...params) params {
			return params{"StartTime": "2000-01-01T00:00:" + start + "Z", "EndTime": "2000-01-01T00:00:" + end + "Z", "Filters": filters}
		}
		expect(t, "newest first", urls(in("00", "59")), "c1 b1 b2 a1 a2 of 5")
		expect(t, "both ends belong to it", urls(in("00", "01")), "b1 b2 a1 a2 of 4")
		expect(t, "the start is strict", urls(in("01.5", "03")), "c1 of 1")
		expect(t, "an empty window", urls(in("02", "02")), " of 0")
		expect(t, "another time zone", urls(params{"StartTime": "2000-01-01T08:00:03+08:00", "EndTime": "2000-01-01T08:00:03+08:00"}), "c1 of 1")
		expect(t, "a job without a window", urls(params{"Filters": []params{filter("job-id", second.JobID)}}), "b1 b2 of 2")
		expect(t, "a job outside of the window", urls(in("02", "03", filter("job-id", second.JobID))), " of 0")
		expect(t, "an unknown job", urls(params{"Filters": []params{filter("job-id", "x")}}), " of 0")
		expect(t, "a target", urls(in("00", "59", filter("target", "https://www.example.com/b2"))), "b2 of 1")
		expect(t, "one of two domains", urls(in("00", "59", filter("domains", "img.example.com", "x.example.com"))), "c1 of 1")
		expect(t, "one of two states", urls(in("00", "59", filter("statuses", "success", "failed"))), "a1 a2 of 2")
		expect(t, "a domain and a state", urls(in("00", "59", filter("domains", "www.example.com"), filter("statuses", "processing"))), "b1 b2 of 2")

		page := in("00", "59")
		page["Offset"], page["Limit"] = 1, 2
		expect(t, "a page", urls(page), "b1 b2 of 5")
		page["Offset"] = 5
		expect(t, "a page beyond the end", urls(page), " of 5")
	})
}

func TestLookUpsAnswerTwentyUnlessAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Demo())
		defer s.Close()
		c := inMemory(t, s)
		id := c.create(paths(2000)...).JobID
		r := c.call("DescribePrefetchTasks", params{"ZoneId": exampleZone, "Filters": []params{{"Name": "job-id", "Values": []string{id}}}})
		expect(t, "records", len(r.Tasks), 20)
		expect(t, "in all", r.TotalCount, 2000)
		expect(t, "records of the largest page", len(c.job(id).Tasks), 1000)
	})
}

func TestRecordsAppearLater(t *testing.T) {
	forBothActions(t, func(t *testing.T, action string) {
		synctest.Test(t, func(t *testing.T) {
			config := Demo()
			config.ListingDelay, config.ListingStep = 3*time.Second, time.Second
			config.Rules = []Rule{{Action: action, URL: "late", ListingDelay: time.Minute}}
			s := New(config)
			defer s.Close()
			c := inMemory(t, s)
			id := c.hand(t.Context(), action, "a", "b", "late").JobID
			for i, want := range []int{0, 0, 0, 1, 2, 2} {
				expect(t, fmt.Sprintf("listed after %d s", i), c.jobOf(action, id).TotalCount, want)
				time.Sleep(time.Second)
			}
			time.Sleep(time.Minute)
			expect(t, "listed in the end", c.jobOf(action, id).TotalCount, 3)
		})
	})
}

func TestEdgeOnesClockIsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := Demo()
		config.ClockOffset = -90 * time.Second
		s := New(config)
		defer s.Close()
		c := inMemory(t, s)
		time.Sleep(time.Hour)
		r := c.create("a")
		expect(t, "Date", r.header.Get("Date"), "Sat, 01 Jan 2000 00:58:30 GMT")
		expect(t, "CreateTime", c.job(r.JobID).Tasks[0].CreateTime, "2000-01-01T00:58:30Z")
		expect(t, "time in the ledger", s.Ledger()[0].Time.UTC().Format(time.TimeOnly), "00:58:30")
		expect(t, "time of signature", s.Ledger()[0].SignedAt.UTC().Format(time.TimeOnly), "01:00:00")
		expect(t, "its Now", time.Until(s.Now()), -90*time.Second)
	})
}
