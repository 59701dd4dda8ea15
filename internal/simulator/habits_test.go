package simulator

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestTheTotalCountMayBeCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := Demo()
		config.MaxTotalCount = 1000
		s := New(config)
		defer s.Close()
		c := inMemory(t, s)
		c.create(paths(1500)...)
		first := c.window(time.Now(), time.Now(), nil)
		second := c.window(time.Now(), time.Now(), params{"Offset": 1000})
		third := c.window(time.Now(), time.Now(), params{"Offset": 1500})
		expect(t, "TotalCount", first.TotalCount, 1000)
		expect(t, "on the first page", len(first.Tasks), 1000)
		expect(t, "on the page behind it", len(second.Tasks), 500)
		expect(t, "on the last", len(third.Tasks), 0)
	})
}

func TestJobIDsMayBeRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := Demo()
		config.RejectedJobIDs = "^odd"
		s := New(config)
		defer s.Close()
		c := inMemory(t, s)
		s.AddJob(Job{ID: "odd-1", ZoneID: exampleZone, URLs: example("a")})
		expect(t, "by its ID", c.job("odd-1").code, "InvalidParameter.ParameterError")
		expect(t, "in a window", c.window(time.Now(), time.Now(), nil).TotalCount, 1)
		expect(t, "another one", c.job("even").code, "")
	})
}

func TestWindowsIntoTheFutureMayBeRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := Demo()
		config.NoFutureWindows = true
		s := New(config)
		defer s.Close()
		c := inMemory(t, s)
		expect(t, "until now", c.window(time.Now(), time.Now(), nil).code, "")
		expect(t, "until soon", c.window(time.Now(), time.Now().Add(time.Second), nil).code, "InvalidParameter.ParameterError")
	})
}

func TestClocksInsideEdgeOneMayDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := Demo()
		config.DateSkew, config.CreateTimeSkew = 3*time.Second, 2*time.Second
		s := New(config)
		defer s.Close()
		time.Sleep(time.Minute)
		c, seen := inMemory(t, s), map[time.Duration]bool{}
		for i := range 60 {
			r := c.create(paths(i + 1)[i])
			date, _ := http.ParseTime(r.header.Get("Date"))
			expect(t, "the Date header is ahead", date.Sub(time.Now().UTC().Truncate(time.Second)), 3*time.Second)
			created, _ := time.Parse(time.RFC3339, c.job(r.JobID).Tasks[0].CreateTime)
			seen[created.Sub(time.Now().Truncate(time.Second))] = true
			time.Sleep(time.Second)
		}
		for off := range seen {
			if off.Abs() > 2*time.Second {
				t.Errorf("a CreateTime is off by %s", off)
			}
		}
		if !seen[-2*time.Second] || !seen[time.Second] { // the fraction is cut off
			t.Errorf("CreateTimes are off by %v, want anything within 2 s", seen)
		}
	})
}

func TestAKeyMayBeRefusedAMode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := Demo()
		config.Keys[0].Modes = []string{"default"}
		config.Zones[1].EdgeMode = true
		s := New(config)
		defer s.Close()
		c := inMemory(t, s)
		expect(t, "the other mode", c.create("a").code, "")
		r := c.call("CreatePrefetchTask", params{"ZoneId": config.Zones[1].ID, "Targets": example("a"), "Mode": "edge"})
		expect(t, "mode edge", r.code, "UnauthorizedOperation.NoPermission")
	})
}

func TestAPlanMayHaveNoDailyQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := Demo()
		config.Zones[1].Daily = -1
		s := New(config)
		defer s.Close()
		c := inMemory(t, s)
		r := c.call("DescribeContentQuota", params{"ZoneId": exampleZone})
		expect(t, "the quota", r.PrefetchQuota[0], quota{"prefetch_url", 2000, 0, 0})
		expect(t, "a call", c.create("a").code, "LimitExceeded.DailyQuota")
	})
}

func TestAURLMaySpoilTheCallsThatHoldIt(t *testing.T) {
	for _, executed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := New(Demo())
			defer s.Close()
			s.SetRules(Rule{URL: "badcfg", Code: "InternalError.DomainConfig", Message: "of {secretID}", Executed: executed})
			c := inMemory(t, s)
			r := c.create("a", "badcfg", "b")
			expect(t, "code", r.code, "InternalError.DomainConfig")
			expect(t, "the message echoes", strings.Contains(r.body, "of AKIDdemo"), true)
			expect(t, "executed", s.Executed(example("a")[0]) == 1, executed)
			expect(t, "executed by the log", s.Calls()[0].Executed, executed)
			expect(t, "a call without it", c.create("c").code, "")
		})
	}
}

func TestAPathMayNotTakeLongBodies(t *testing.T) {
	for _, tt := range []struct {
		name   string
		fault  Fault
		looks  func(reply) bool
		echoes string
	}{
		{"a connection that is closed", Fault{Effect: Effect{CutBody: 300}}, func(r reply) bool {
			return r.err != nil // the text depends on what the client was doing
		}, "reset"},
		{"a proxy that says so", Fault{Matcher{BodyOver: 300}, Effect{Status: 413, StatusText: "Too Big For {secretID}", Body: "<html>{token}</html>"}}, func(r reply) bool {
			return r.status == 413 && r.body == "<html></html>"
		}, "413"},
	} {
		check := func(t *testing.T, s *Simulator, c caller) {
			s.AddFault(tt.fault)
			expect(t, "a short body", c.create("a").code, "")
			if r := c.create(paths(5_000)...); !tt.looks(r) {
				t.Errorf("a long body gets %d %q, %v", r.status, r.body, r.err)
			}
			expect(t, "outcome", s.Calls()[1].Outcome, tt.echoes)
			expect(t, "executed", len(s.Ledger()), 1)
		}
		t.Run(tt.name+" in memory", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Demo())
				defer s.Close()
				check(t, s, inMemory(t, s))
			})
		})
		t.Run(tt.name+" over HTTP", func(t *testing.T) {
			s := New(Demo())
			defer s.Close()
			check(t, s, overHTTP(t, s.Start()))
		})
	}
	if (Fault{Matcher{URL: "a"}, Effect{CutBody: 1}}).Validate() == nil {
		t.Error("a fault that cuts the body off may match what is in it")
	}
}

func TestAnswersMayEchoCredentials(t *testing.T) {
	check := func(t *testing.T, s *Simulator, c caller) {
		c.token = "the-token"
		s.SetKey(Key{SecretID: "AKIDdemo", SecretKey: "demo-secret-key", Token: "the-token", Account: "demo"})
		s.SetRules(Rule{URL: "refused", Refuse: "no: {token}"}, Rule{Status: "failed", FailMessage: "from {authorization}"})
		r := c.create("a", "refused")
		expect(t, "FailedList", r.FailedList[0].Reason, "no: the-token")
		message := c.job(r.JobID).Tasks[0].FailMessage
		expect(t, "FailMessage", strings.HasPrefix(message, "from TC3-HMAC-SHA256 Credential=AKIDdemo/"), true)

		s.AddFault(Fault{Effect: Effect{Status: 407, StatusText: "Denied for {signature}{proxyAuthorization}"}})
		c.tamper = func(r *http.Request) { r.Header.Set("Proxy-Authorization", "Basic cA==") }
		_, signature, _ := strings.Cut(message, "Signature=")
		status := c.create("a").line
		expect(t, "the status line", strings.HasPrefix(status, "407 Denied for ") && strings.HasSuffix(status, "Basic cA==") && len(status) > len(signature), true)
	}
	config := Demo()
	config.JobDuration = -1
	t.Run("in memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := New(config)
			defer s.Close()
			check(t, s, inMemory(t, s))
		})
	})
	t.Run("over HTTP", func(t *testing.T) {
		s := New(config)
		defer s.Close()
		check(t, s, overHTTP(t, s.Start()))
	})
}

func TestAnAnswerMayHaveAnyNumberOfElements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Demo())
		defer s.Close()
		s.AddFault(Fault{Effect: Effect{Elements: 20_000}})
		c := inMemory(t, s)
		expect(t, "tasks", len(c.job("none").Tasks), 20_000)
		expect(t, "quotas", len(c.call("DescribeContentQuota", params{"ZoneId": exampleZone}).PrefetchQuota), 20_000)
		r := c.create("a")
		expect(t, "failed", len(r.FailedList), 20_000)
		expect(t, "executed", len(s.Ledger()), 1)
	})
}
