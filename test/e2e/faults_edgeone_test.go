package e2e

import (
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

// EdgeOne's response to a call is spoiled in various ways, with and without execution of
// the call. The manager cannot distinguish the two cases.
func TestACallWhoseAnswerIsLostIsLookedUpNotRepeated(t *testing.T) {
	t.Parallel()
	answers := []struct {
		name   string
		effect simulator.Effect
		tasks  int
	}{
		{"closed connection", simulator.Effect{Answer: simulator.ConnectionClosed}, few},
		{"reset connection", simulator.Effect{Answer: simulator.ConnectionReset}, hundreds},
		{"time-out", simulator.Effect{Answer: simulator.ConnectionClosed, AnswerDelay: 4 * time.Second}, hundreds},
		{"502 with HTML", simulator.Effect{Answer: simulator.BadGateway}, hundreds},
		{"truncated body", simulator.Effect{Answer: simulator.TruncatedBody}, few},
		{"empty body", simulator.Effect{Answer: simulator.EmptyBody}, few},
		{"empty object", simulator.Effect{Answer: simulator.EmptyObject}, few},
		{"null", simulator.Effect{Answer: simulator.NullBody}, few},
		{"InternalError", simulator.Effect{Code: "InternalError"}, few},
		{"InternalError.ProxyServer", simulator.Effect{Code: "InternalError.ProxyServer"}, hundreds},
		{"an error code that nobody knows", simulator.Effect{Code: "FailedOperation.Whatever"}, few},
	}
	for _, tt := range answers {
		for name, executed := range map[string]bool{"executed": true, "not executed": false} {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				c := config()
				c.SignatureValidity = 10 * time.Second
				if tt.tasks == hundreds {
					c = patient()
				}
				w := newWorld(t, c)
				effect := tt.effect
				effect.Executed = executed
				w.edgeOne.AddFault(simulator.Fault{Match: theCall, Effect: effect})
				w.many(tt.tasks)
				w.manager()
				w.eventually("the answer is spoiled", func() bool { return w.creates() > 0 })
				w.strikes(1)
				w.judge()
				want := 0
				if !executed {
					want = len(w.targets(0))
				}
				if lost := count(w.list(), lostCalls); lost != want {
					t.Errorf("%d tasks count a lost call that was not executed, want %d", lost, want)
				}
			})
		}
	}
	// EdgeOne sends these only after it has executed the call.
	for _, answer := range []simulator.Answer{simulator.NoRequestID, simulator.NoJobID} {
		t.Run(string(answer), func(t *testing.T) {
			w := newWorld(t, patient())
			w.edgeOne.AddFault(simulator.Fault{Match: theCall, Effect: simulator.Effect{Answer: answer}})
			w.many(few)
			w.manager()
			w.eventually("the answer is spoiled", func() bool { return w.creates() > 0 })
			w.strikes(1)
			w.judge()
		})
	}
}

// The network delays a request for longer than the manager waits for the response.
// Whatever the manager reads in EdgeOne's history in the meantime, it must not send the
// URLs again while the delayed request can still be executed.
func TestARequestThatIsDeliveredLateIsNotRepeated(t *testing.T) {
	t.Parallel()
	looks := func(w *world) int { return w.edgeOne.Stats().Calls("DescribePrefetchTasks") }
	t.Run("before the signature expires it is executed, and found", func(t *testing.T) {
		c := config()
		c.SignatureValidity = 5 * time.Minute // nothing waits for it
		w := newWorld(t, c)
		held := w.edgeOne.Hold(theCall)
		w.many(hundreds)
		w.manager()
		<-held.Arrived()
		w.eventually("the manager looks for the call", func() bool { return looks(w) >= 3 })
		held.Release()
		w.strikes(1)
		w.judge()
	})
	t.Run("after that EdgeOne refuses it, and the URLs are sent again", func(t *testing.T) {
		w := newWorld(t, patient())
		held := w.edgeOne.Hold(theCall)
		w.many(hundreds)
		w.manager()
		<-held.Arrived()
		w.strikes(1)
		w.judge()
		held.Release()
		w.eventually("the late request is refused", func() bool {
			return w.edgeOne.Stats().Outcomes["AuthFailure.SignatureExpire"] == 1
		})
		w.judge()
		calls := w.edgeOne.Calls()
		late := calls[slices.IndexFunc(calls, func(c simulator.Call) bool { return c.Outcome == "AuthFailure.SignatureExpire" })]
		for _, execution := range w.edgeOne.Ledger() {
			early := execution.Time.Before(late.SignedAt.Add(w.validity))
			if early && slices.ContainsFunc(execution.Accepted, func(u string) bool { return slices.Contains(late.URLs, u) }) {
				t.Errorf("job %s was made at %s, when the request signed at %s could still be executed", execution.JobID, execution.Time, late.SignedAt)
			}
		}
	})
}

// EdgeOne lists a job after the manager's first look-up, or URL by URL. Before the margin
// is over, an empty or partial look-up proves nothing.
func TestAJobThatIsListedLateIsFound(t *testing.T) {
	t.Parallel()
	t.Run("seconds after its execution", func(t *testing.T) {
		c := patient()
		c.ListingDelay = 6 * time.Second
		w := newWorld(t, c)
		w.edgeOne.AddFault(simulator.Fault{Match: theCall, Effect: simulator.Effect{Answer: simulator.ConnectionReset, Executed: true}})
		w.many(hundreds)
		w.manager()
		w.eventually("the answer is lost", func() bool { return w.creates() > 0 })
		w.strikes(1)
		w.judge()
	})
	t.Run("after the signature has expired", func(t *testing.T) {
		c := config()
		c.SignatureValidity = 8 * time.Second
		c.ListingDelay = 10 * time.Second
		w := newWorld(t, c)
		w.edgeOne.AddFault(simulator.Fault{Match: theCall, Effect: simulator.Effect{Answer: simulator.ConnectionReset, Executed: true}})
		w.many(few)
		w.manager("--settle-margin=12s")
		w.eventually("the answer is lost", func() bool { return w.creates() > 0 })
		w.strikes(1)
		w.judge()
	})
	t.Run("URL by URL", func(t *testing.T) {
		c := patient()
		c.ListingStep = 20 * time.Millisecond
		w := newWorld(t, c)
		w.edgeOne.AddFault(simulator.Fault{Match: theCall, Effect: simulator.Effect{Answer: simulator.ConnectionReset, Executed: true}})
		w.many(hundreds)
		w.create(w.task("long", w.urls(200)...))
		w.manager()
		w.eventually("the answer is lost", func() bool { return w.creates() > 0 })
		w.strikes(1)
		w.judge()
	})
}

func TestThrottlingSlowsDownAndLosesNothing(t *testing.T) {
	t.Parallel()
	t.Run("for some calls", func(t *testing.T) {
		w := newWorld(t, config())
		w.edgeOne.AddFault(simulator.Fault{
			Match:  simulator.Matcher{Action: "CreatePrefetchTask", Count: 5},
			Effect: simulator.Effect{Code: "RequestLimitExceeded", Message: "too many"},
		})
		w.create(w.task("a", good+"a"), w.task("b", good+"b"))
		w.manager()
		w.judge()
		if n := w.creates(); n > 8 {
			t.Errorf("%d calls, hammering", n)
		}
	})
	t.Run("for most calls of every kind", func(t *testing.T) {
		w := newWorld(t, patient())
		storm := w.edgeOne.AddFault(simulator.Fault{
			Match:  simulator.Matcher{Probability: 0.8, Seed: 1},
			Effect: simulator.Effect{Code: "RequestLimitExceeded", Message: "too many"},
		})
		w.many(hundreds)
		w.manager()
		w.eventually("many calls are throttled", func() bool { return w.edgeOne.Stats().Outcomes["RequestLimitExceeded"] >= 12 })
		w.edgeOne.RemoveFault(storm)
		w.strikes(w.edgeOne.Stats().Outcomes["RequestLimitExceeded"])
		w.judge()
		if n := count(w.list(), lostCalls); n > 0 {
			t.Errorf("%d tasks were settled for a call that was not lost", n)
		}
	})
	t.Run("by other programs of the account", func(t *testing.T) {
		c := patient()
		c.Rivals = map[string]int{"demo": 18}
		w := newWorld(t, c)
		w.many(hundreds, inLanes(30))
		w.manager()
		w.judge()
	})
}

// A call that did not leave this machine is sent again without waiting for its signature
// to expire, which would take longer than the test.
func TestACallThatWasNotSentIsSentAgainAtOnce(t *testing.T) {
	c := config()
	c.SignatureValidity = 10 * time.Minute
	w := newWorld(t, c)
	port, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	w.url = "http://" + port.Addr().String()
	w.must(port.Close())
	w.many(hundreds)
	p := w.manager()
	w.eventually("the manager cannot reach EdgeOne", func() bool { return strings.Contains(p.Output(), "not sent: connection refused") })
	port, err = net.Listen("tcp", port.Addr().String())
	w.must(err)
	server := &http.Server{Handler: w.edgeOne, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(port) }()
	t.Cleanup(func() { _ = server.Close() })
	w.strikes(1)
	w.judge()
	if n := count(w.list(), lostCalls); n > 0 {
		t.Errorf("%d tasks count a lost call", n)
	}
}
