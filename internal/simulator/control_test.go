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
	must(control.RemoveFault(ctx, id)) // before or after the call is held
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
		{`{"rateWindow":"open"}`, "rateWindow is"},
	} {
		if _, err := ReadConfig(strings.NewReader(tt.text)); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got %v, want %s", tt.text, err, tt.says)
		}
	}
}
