package simulator

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestSpoiledAnswers(t *testing.T) {
	isErr := func(target error) func(reply) bool {
		return func(r reply) bool { return errors.Is(r.err, target) }
	}
	body := func(status int, text string) func(reply) bool {
		return func(r reply) bool { return r.err == nil && r.status == status && r.body == text }
	}
	code := func(want string) func(reply) bool {
		return func(r reply) bool { return r.status == http.StatusOK && r.code == want && r.RequestID != "" }
	}
	for _, tt := range []struct {
		name     string
		effect   Effect
		looks    func(reply) bool
		executed int
		outcome  string
	}{
		{"a connection closed before the execution", Effect{Answer: ConnectionClosed}, isErr(io.EOF), 0, "close"},
		{"an answer lost after it", Effect{Answer: ConnectionClosed, Executed: true}, isErr(io.EOF), 1, "close"},
		{"a reset before", Effect{Answer: ConnectionReset}, isErr(syscall.ECONNRESET), 0, "reset"},
		{"a reset after", Effect{Answer: ConnectionReset, Executed: true}, isErr(syscall.ECONNRESET), 1, "reset"},
		{"a truncated answer", Effect{Answer: TruncatedBody, Executed: true}, isErr(io.ErrUnexpectedEOF), 1, "truncated"},
		{"a bad gateway", Effect{Answer: BadGateway}, func(r reply) bool {
			return r.status == 502 && r.header.Get("Content-Type") == "text/html"
		}, 0, "bad-gateway"},
		{"a bad gateway that worked", Effect{Answer: BadGateway, Executed: true}, func(r reply) bool { return r.status == 502 }, 1, "bad-gateway"},
		{"an empty body", Effect{Answer: EmptyBody, Executed: true}, body(200, ""), 1, "empty"},
		{"an empty object", Effect{Answer: EmptyObject, Executed: true}, body(200, "{}"), 1, "{}"},
		{"null", Effect{Answer: NullBody}, body(200, "null"), 0, "null"},
		{"a redirect", Effect{Answer: Redirect}, func(r reply) bool {
			return r.status == 302 && r.header.Get("Location") == "/elsewhere"
		}, 0, "redirect"},
		{"a redirect that keeps the body", Effect{Answer: Redirect, Status: 307, Location: "/there"}, func(r reply) bool {
			return r.status == 307 && r.header.Get("Location") == "/there"
		}, 0, "redirect"},
		{"no RequestId", Effect{Answer: NoRequestID}, func(r reply) bool { return r.RequestID == "" && r.JobID != "" }, 1, "no-request-id"},
		{"no JobId", Effect{Answer: NoJobID}, func(r reply) bool { return r.RequestID != "" && r.JobID == "" && r.code == "" }, 1, "no-job-id"},
		{"an error", Effect{Code: "InternalError.BackendError"}, code("InternalError.BackendError"), 0, "InternalError.BackendError"},
		{"an error that worked", Effect{Code: "InternalError", Message: "x", Executed: true}, code("InternalError"), 1, "InternalError"},
		{"throttling", Effect{Code: "RequestLimitExceeded"}, code("RequestLimitExceeded"), 0, "RequestLimitExceeded"},
		{"any status and body", Effect{Status: 429, Body: "slow down"}, body(429, "slow down"), 0, "429"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check := func(t *testing.T, s *Simulator, c caller, action string) {
				c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
				s.AddFault(Fault{Matcher{Action: action, Count: 1}, tt.effect})
				if r := c.hand(t.Context(), action, "a"); !tt.looks(r) {
					t.Errorf("got %d %q, %v", r.status, r.body, r.err)
				}
				expect(t, "executed", executed(s, action, "a"), tt.executed)
				expect(t, "the next call", c.hand(t.Context(), action, "b").code, "")
				expect(t, "outcome", s.Calls()[0].Outcome, tt.outcome)
				expect(t, "executed by the log", s.Calls()[0].Executed, tt.executed == 1)
			}
			forBothActions(t, func(t *testing.T, action string) {
				t.Run("in memory", func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						s := New(Demo())
						defer s.Close()
						check(t, s, inMemory(t, s), action)
					})
				})
				t.Run("over HTTP", func(t *testing.T) {
					s := New(Demo())
					defer s.Close()
					check(t, s, overHTTP(t, s.Start()), action)
				})
			})
		})
	}
}

func TestARedirectThatIsFollowedIsSeen(t *testing.T) {
	s := New(Demo())
	defer s.Close()
	s.AddFault(Fault{Matcher{Action: "CreatePrefetchTask", Count: 1}, Effect{Answer: Redirect, Status: http.StatusTemporaryRedirect}})
	r := overHTTP(t, s.Start()).create("a")
	expect(t, "status", r.status, http.StatusNotFound)
	expect(t, "outcome of the second call", s.Calls()[1].Outcome, "404")
	expect(t, "executed", len(s.Ledger()), 0)
}

func TestFaultsBefallTheCallsTheyMatch(t *testing.T) {
	for _, tt := range []struct {
		name  string
		match Matcher
		want  string // for ten calls: x if the fault affects the call
	}{
		{"every call", Matcher{}, "xxxxxxxxxx"},
		{"calls of an action", Matcher{Action: "DescribePrefetchTasks"}, ".........."},
		{"calls of a key", Matcher{SecretID: "AKIDdemo"}, "xxxxxxxxxx"},
		{"calls of another zone", Matcher{ZoneID: "zone-ajj243dwrew"}, ".........."},
		{"calls with a URL", Matcher{URL: "/5"}, ".....x...."},
		{"the third", Matcher{Nth: 3}, "..x......."},
		{"each third", Matcher{Every: 3}, "..x..x..x."},
		{"the first two", Matcher{Count: 2}, "xx........"},
		{"two of each third", Matcher{Every: 3, Count: 2}, "..x..x...."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Demo())
				defer s.Close()
				s.AddFault(Fault{tt.match, Effect{Code: "InternalError"}})
				c := inMemory(t, s)
				expect(t, "befallen", befallen(c, 10), tt.want)
			})
		})
	}
	t.Run("a share of the calls, the same each time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var seen []string
			for range 2 {
				config := Demo()
				config.Rate = -1
				s := New(config)
				s.AddFault(Fault{Matcher{Probability: 0.5, Seed: 7}, Effect{Code: "InternalError"}})
				seen = append(seen, befallen(inMemory(t, s), 100))
				s.Close()
			}
			expect(t, "the second time", seen[1], seen[0])
			hits := 0
			for _, r := range seen[0] {
				if r == 'x' {
					hits++
				}
			}
			if hits < 30 || hits > 70 {
				t.Errorf("%d of 100 calls were befallen with a probability of 0.5", hits)
			}
		})
	})
}

func befallen(c caller, calls int) string {
	out := ""
	for i := range calls {
		if c.create(string(rune('0'+i))).code == "" {
			out += "."
		} else {
			out += "x"
		}
	}
	return out
}

func TestDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Demo())
		defer s.Close()
		c := inMemory(t, s)
		began := time.Now()
		s.AddFault(Fault{Matcher{Count: 1}, Effect{Delay: time.Second}})
		s.AddFault(Fault{Matcher{Count: 1}, Effect{ServerDelay: 2 * time.Second, AnswerDelay: 4 * time.Second}})
		expect(t, "code", c.create("a").code, "")
		expect(t, "answered after", time.Since(began), 7*time.Second)
		expect(t, "seen after", s.Calls()[0].Time.Sub(began), time.Second)
		expect(t, "executed after", s.Ledger()[0].Time.Sub(began), 3*time.Second)
	})
}

func TestADelayedRequestMayComeTooLate(t *testing.T) {
	forBothActions(t, func(t *testing.T, action string) {
		synctest.Test(t, func(t *testing.T) {
			config := Demo()
			config.SignatureValidity = 2 * time.Second
			s := New(config)
			defer s.Close()
			s.AddFault(Fault{Matcher{Count: 1}, Effect{Delay: 2 * time.Second}})
			c := inMemory(t, s)
			expect(t, "at the end of the validity", c.hand(t.Context(), action, "a").code, "")
			s.AddFault(Fault{Matcher{Count: 1}, Effect{Delay: 3 * time.Second}})
			expect(t, "delayed on its way", c.hand(t.Context(), action, "a").code, "AuthFailure.SignatureExpire")
			s.AddFault(Fault{Matcher{Count: 1}, Effect{ServerDelay: 3 * time.Second}})
			expect(t, "delayed after the check", c.hand(t.Context(), action, "a").code, "")
			expect(t, "executed", executed(s, action, "a"), 2)
		})
	})
}

// Each hold is released after its caller gave up. The call continues from the point at
// which it was held.
func TestHolds(t *testing.T) {
	for _, tt := range []struct {
		name           string
		hold           func(*Simulator, Matcher) *Held
		seen           int // calls that have arrived at the time of the hold
		before         int // executions at the time of the hold
		dropped, after int // executions after a drop or a release
	}{
		{"a request", (*Simulator).Hold, 0, 0, 0, 1},
		{"an execution", (*Simulator).HoldExecution, 1, 0, 0, 1},
		{"an answer", (*Simulator).HoldAnswer, 1, 1, 1, 1},
	} {
		check := func(t *testing.T, s *Simulator, c caller, action string, drop bool) {
			held := tt.hold(s, Matcher{URL: "/a"})
			ctx, giveUp := context.WithCancel(t.Context())
			var caller sync.WaitGroup
			caller.Go(func() {
				if r := c.hand(ctx, action, "a"); !errors.Is(r.err, context.Canceled) {
					t.Errorf("the caller got %d %q, %v", r.status, r.body, r.err)
				}
			})
			<-held.Arrived()
			expect(t, "waiting", held.Waiting(), 1)
			expect(t, "another call", c.hand(t.Context(), action, "b").code, "")
			giveUp()
			caller.Wait()
			expect(t, "seen", s.Stats().Calls(""), 1+tt.seen)
			expect(t, "executed while held", executed(s, action, "a"), tt.before)
			want := tt.after
			if drop {
				want = tt.dropped
				held.Drop()
			} else {
				held.Release()
			}
			for len(s.Calls()) < 2 { // the released call finishes in the background
				time.Sleep(time.Millisecond)
			}
			expect(t, "executed in the end", executed(s, action, "a"), want)
			expect(t, "a later call", c.hand(t.Context(), action, "a").code, "")
		}
		for _, drop := range []bool{false, true} {
			name := tt.name + " is released"
			if drop {
				name = tt.name + " is dropped"
			}
			forBothActions(t, func(t *testing.T, action string) {
				t.Run(name+" in memory", func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						s := New(Demo())
						defer s.Close()
						check(t, s, inMemory(t, s), action, drop)
					})
				})
				t.Run(name+" over HTTP", func(t *testing.T) {
					s := New(Demo())
					defer s.Close()
					check(t, s, overHTTP(t, s.Start()), action, drop)
				})
			})
		}
	}
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // fails if a goroutine is left
		s := New(Demo())
		c := inMemory(t, s)
		held := s.Hold(Matcher{})
		var caller sync.WaitGroup
		caller.Go(func() {
			if r := c.create("a"); !errors.Is(r.err, io.EOF) {
				t.Errorf("the held caller got %v", r.err)
			}
		})
		<-held.Arrived()
		s.Close()
		caller.Wait()
		expect(t, "executed", len(s.Ledger()), 0)
		if r := c.create("a"); !errors.Is(r.err, syscall.ECONNREFUSED) {
			t.Errorf("a call after Close got %v", r.err)
		}
		s.Close() // a second call has no effect
	})
}

func TestInvalidFaults(t *testing.T) {
	for _, f := range []Fault{{}, {Effect: Effect{Answer: "bang"}}, {Effect: Effect{Hold: "tight"}}} {
		if f.Validate() == nil {
			t.Errorf("%+v is accepted", f)
		}
	}
}
