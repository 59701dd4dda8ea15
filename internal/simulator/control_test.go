package simulator

import (
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestControl(t *testing.T) {
	s := New(Demo())
	defer s.Close()
	url := s.Start()
	ctx, control, c := t.Context(), Control{URL: url}, overHTTP(t, url)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	expect(t, "a call", c.create("a").code, "")
	ledger, err := control.Ledger(ctx)
	must(err)
	expect(t, "executed", ledger.Executed("https://www.example.com/a"), 1)
	expect(t, "by", ledger[0].UserAgent, "Go-http-client/1.1")

	id, err := control.AddFault(ctx, Fault{Matcher{Action: "CreatePrefetchTask"}, Effect{Code: "InternalError", AnswerDelay: time.Millisecond}})
	must(err)
	expect(t, "with a fault", c.create("b").code, "InternalError")
	must(control.RemoveFault(ctx, id))
	expect(t, "without it", c.create("b").code, "")

	id, err = control.AddFault(ctx, Fault{Matcher{Count: 1}, Effect{Hold: atRequest}})
	must(err)
	answered := make(chan reply)
	go func() { answered <- c.create("held") }()
	must(control.RemoveFault(ctx, id)) // the call may be held already, or not yet
	expect(t, "a released call", (<-answered).code, "")
	_, err = control.AddFault(ctx, Fault{Effect: Effect{Code: "InternalError"}})
	must(err)
	must(control.ClearFaults(ctx))
	expect(t, "all faults cleared", c.create("c").code, "")

	must(control.SetAvailable(ctx, exampleZone, 0))
	expect(t, "without quota", c.create("d").code, "LimitExceeded.DailyQuota")
	must(control.ResetQuota(ctx))
	expect(t, "with quota again", c.create("d").code, "")

	must(control.SetKey(ctx, Key{SecretID: "AKIDnew", SecretKey: "new", Account: "demo"}))
	other := c
	other.secretID, other.key = "AKIDnew", "new"
	expect(t, "a new key", other.create("e").code, "")
	must(control.RemoveKey(ctx, "AKIDnew"))
	expect(t, "a removed key", other.create("e").code, "AuthFailure.SecretIdNotFound")

	must(control.SetZone(ctx, Zone{ID: exampleZone, Account: "demo", Domains: []string{"www.example.com"}, Batch: 1}))
	expect(t, "a smaller batch", c.create("f", "g").code, "LimitExceeded.BatchQuota")
	must(control.SetRules(ctx, Rule{URL: "h", Refuse: "no"}))
	expect(t, "a refusal", c.create("h").FailedList[0].Reason, "no")

	stats, err := control.Stats(ctx)
	must(err)
	calls, err := control.Calls(ctx)
	must(err)
	expect(t, "statistics", reflect.DeepEqual(stats, s.Stats()), true)
	expect(t, "calls", len(calls), stats.Calls(""))
}

func TestControlOfPurgesAndTheCache(t *testing.T) {
	s := New(Demo())
	defer s.Close()
	url := s.Start()
	ctx, control, c := t.Context(), Control{URL: url}, overHTTP(t, url)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	visit := func(v Visit) string {
		t.Helper()
		seen, err := control.Visit(ctx, v)
		must(err)
		return see(seen)
	}
	finish := func(status string) {
		t.Helper()
		n, err := control.FinishPurges(ctx, "/a", status, "", "")
		must(err)
		expect(t, "finished as "+status, n, 1)
	}

	must(control.Warm(ctx, urls("a")))
	published, err := control.Publish(ctx, Publication{Selection: Selection{Prefix: example("")[0]}, Tags: []string{"t"}})
	must(err)
	expect(t, "an old copy", visit(Visit{URLs: example("a")}), "HIT 1")
	must(control.Expire(ctx, urls("a")))
	expect(t, "expired", visit(Visit{URLs: example("a"), Peek: true}), "MISS 2")
	expect(t, "expired", visit(Visit{URLs: example("a"), NoFill: true}), "MISS 2")
	must(control.Warm(ctx, Selection{All: true}))
	expect(t, "warm again", visit(Visit{URLs: example("a")}), "HIT 2")

	must(control.SetRules(ctx, Rule{Action: createPurge, Status: Never}, Rule{Status: Never}))
	c.purge("purge_url", example("a")...)
	c.purge("purge_cache_tag", "t")
	finish("failed")
	expect(t, "a purge that failed", visit(Visit{URLs: example("a")}), "HIT 2")
	c.purge("purge_url", example("a")...)
	finish("success")
	c.create("a")
	n, err := control.Finish(ctx, "/a", "success", "", "")
	must(err)
	expect(t, "prefetched", n, 1)
	expect(t, "purged and prefetched", visit(Visit{URLs: example("a")}), "HIT 2")

	must(control.SetQuota(ctx, exampleZone, "purge_url", 0))
	expect(t, "without quota", c.purge("purge_url", example("a")...).code, "LimitExceeded.DailyQuota")
	expect(t, "another quota", c.create("a").code, "")
	must(control.AddJob(ctx, Job{ID: "theirs", ZoneID: exampleZone, Type: "purge_all", Method: "delete", URLs: []string{exampleZone}}))
	expect(t, "the purge of another program", c.jobOf(createPurge, "theirs").Tasks[0].Method, "delete")

	journal, err := control.Journal(ctx)
	must(err)
	expect(t, "the journal", events(journal, "a"), events(s.Journal(), "a"))
	expect(t, "visits that saw old content", len(journal.SeenOlder(time.Time{}, published)), 1)
	expect(t, "URLs that were cold", len(journal.Cold()), 1)
	ledger, err := control.Ledger(ctx)
	must(err)
	expect(t, "purges", ledger.Purged(example("a")[0])+ledger.Purged("t"), 3)
}

func TestControlRefusesNonsense(t *testing.T) {
	s := New(Demo())
	defer s.Close()
	url := s.Start()
	for _, tt := range []struct{ path, body, says string }{
		{"faults", `{"effect":{"answer":"bang"}}`, `the answer "bang" is not one of`},
		{"faults", `{"effect":{"delay":"soon"}}`, `delay is "soon", not a duration such as 2s or 5m`},
		{"faults", `{"effects":{}}`, `unknown field "effects"`},
		{"faults", `{"effect":{"delay":"2s"}} {}`, `there is something after the end`},
		{"quota", `{"zoneID":"zone-x"}`, `there is no zone "zone-x"`},
		{"quota", `{"zoneID":"zone-2x9examplea","type":"purge"}`, `there is no quota of the type "purge"`},
		{"rules", `[{"action":"DescribePurgeTasks"}]`, `the action of a rule is "DescribePurgeTasks"`},
		{"finish", `{"url":"a"}`, `a status is needed`},
		{"publish", `{"tags":["a"]}`, `exactly one of urls, prefix and all is needed`},
		{"warm", `{"urls":["a"],"all":true}`, `exactly one of urls, prefix and all is needed`},
		{"expire", `{}`, `exactly one of urls, prefix and all is needed`},
		{"visits", `{"url":"a"}`, `unknown field "url"`},
		{"jobs", `{"zoneID":"zone-2x9examplea","type":"purge","urls":["a"]}`, `the type of a job is "purge"`},
		{"keys", `{"secretID":"x"}`, `the key "x" needs`},
		{"zones", `{}`, `a zone needs an id`},
	} {
		t.Run(tt.path+" "+tt.body, func(t *testing.T) {
			resp, err := http.Post(url+"/_simulator/"+tt.path, "application/json", strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			text, _ := io.ReadAll(resp.Body)
			expect(t, "status", resp.StatusCode, http.StatusBadRequest)
			if !strings.Contains(string(text), tt.says) {
				t.Errorf("it says %q, not %q", text, tt.says)
			}
		})
	}
}

func TestTheAPIAloneHasNoControl(t *testing.T) {
	s := New(Demo())
	defer s.Close()
	resp, err := (&http.Client{Transport: s.RoundTripper()}).Get("http://teo/_simulator/ledger")
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "status", resp.StatusCode, http.StatusNotFound)
}

func TestReadConfig(t *testing.T) {
	c, err := ReadConfig(strings.NewReader(`{"jobDuration":"3s","rules":[{"url":"x","duration":"1m"}],"rateWindow":"bucket"}`))
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "a duration", c.JobDuration, 3*time.Second)
	expect(t, "a nested duration", c.Rules[0].Duration, time.Minute)
	for _, tt := range []struct{ text, says string }{
		{`{"jobDuration":"3"}`, "jobDuration is"},
		{`{"zonez":[]}`, `unknown field "zonez"`},
		{`{"zones":[{"id":"*","account":"a"}]}`, "needs an id"},
		{`{"zones":[{"id":"a","account":"a"},{"id":"a","account":"a"}]}`, "twice"},
		{`{"keys":[{"secretID":"a"}]}`, "needs a secretID"},
		{`{"quotaResetAt":"noon"}`, "not a time of day"},
		{`{"zones":[{"id":"a","account":"a","purge":{"url":{}}}]}`, `limits for "url"`},
		{`{"rules":[{"action":"purge"}]}`, `the action of a rule is "purge"`},
		{`{"rateWindow":"open"}`, "rateWindow is"},
	} {
		if _, err := ReadConfig(strings.NewReader(tt.text)); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got %v, want %s", tt.text, err, tt.says)
		}
	}
}
