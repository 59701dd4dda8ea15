package submit

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// seen is an EdgeOne that handles each call with a function.
type seen func(req *http.Request, targets []string) (body string, err error)

func (f seen) RoundTrip(req *http.Request) (*http.Response, error) {
	raw, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	var in struct{ Targets []string }
	if err := json.Unmarshal(raw, &in); err != nil {
		return nil, err
	}
	body, err := f(req, in.Targets)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
}

const acceptance = `{"Response":{"JobId":"job-1","FailedList":[],"RequestId":"r-1"}}`

func TestACallIsClaimedBeforeItIsSentAndSignedWithTheClaimsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var u *controllertest.Unit
		calls := 0
		edgeOne := seen(func(req *http.Request, targets []string) (string, error) {
			calls++
			for _, name := range []string{"a", "b"} {
				claim := u.ReadTask(name).Status.Submission
				if claim == nil || strconv.FormatInt(claim.SignedAt.Unix(), 10) != req.Header.Get("X-TC-Timestamp") {
					t.Errorf("signed at %s, and %s carries %+v", req.Header.Get("X-TC-Timestamp"), name, claim)
				}
			}
			return acceptance, nil
		})
		slow := func(write func() error) error {
			time.Sleep(2 * time.Second)
			return write()
		}
		u = controllertest.NewUnit(t, edgeOne, slow, controllertest.NewTask("a", 2), controllertest.NewTask("b", 1))
		s, l := submitterOf(u, u.ReadTask("a"), u.ReadTask("b"))
		call := planNext(u, l)
		s.newAttempt(l, controllertest.Creds, call, "mine").run(context.Background())
		if calls != 1 {
			t.Errorf("%d calls", calls)
		}
		for _, name := range []string{"a", "b"} {
			if task := u.ReadTask(name); task.Status.Submission != nil || len(task.Status.Jobs) != 1 {
				t.Errorf("%s is not recorded: %+v", name, task.Status)
			}
		}
	})
}

// EdgeOne has counted a call before the first byte of its answer arrives, however long the rest
// of the answer takes. Only a real transport reports this moment.
func TestACallsSlotIsFreeASecondAfterTheAnswerBeganToCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const reading = 600 * time.Millisecond
		transport := &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
			here, edgeOne := net.Pipe()
			go func() {
				req, err := http.ReadRequest(bufio.NewReader(edgeOne))
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, req.Body)
				_, _ = fmt.Fprintf(edgeOne, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(acceptance))
				time.Sleep(reading)
				_, _ = io.WriteString(edgeOne, acceptance)
			}()
			return here, nil
		}}
		defer transport.CloseIdleConnections()
		u := controllertest.NewUnit(t, transport, nil, controllertest.NewTask("a", 1))
		s, l := submitterOf(u, u.ReadTask("a"))
		call := planNext(u, l)
		limiter := u.EdgeOne.Limiter(controllertest.Creds, teo.ActionCreatePrefetchTask)
		time.Sleep(5 * time.Second) // all slots are free
		before, _ := limiter.Free("", 0, nil)
		s.newAttempt(l, controllertest.Creds, call, "mine").run(t.Context())
		if task := u.ReadTask("a"); len(task.Status.Jobs) != 1 {
			t.Fatalf("not recorded: %+v", task.Status)
		}
		if now, again := limiter.Free("", 0, nil); now != before-1 || again != time.Second-reading {
			t.Errorf("%d of %d slots are free, and the call's in %s; want that in %s", now, before, again, time.Second-reading)
		}
	})
}

func TestACallOutlivesThePassThatStartedIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := seen(func(req *http.Request, _ []string) (string, error) {
			time.Sleep(time.Second)
			return acceptance, req.Context().Err()
		})
		u := controllertest.NewUnit(t, edgeOne, nil, controllertest.NewTask("a", 1))
		s, l := submitterOf(u, u.ReadTask("a"))
		call := planNext(u, l)
		pass, end := context.WithCancel(t.Context())
		if !s.startCall(pass, l, controllertest.Creds, call) {
			t.Error("no call is made")
		}
		end()
		s.Calls.Wait()
		if task := u.ReadTask("a"); len(task.Status.Jobs) != 1 {
			t.Errorf("not recorded: %+v", task.Status)
		}
	})
}

func TestNoMoreIsPlannedThanCanBeClaimedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tasks []*v1alpha1.PrefetchTask
		for i := range 5 * claimsAhead {
			task := ownURL("default", strconv.Itoa(i))
			task.Spec.Headers[0].Value = strconv.Itoa(i % 5)
			tasks = append(tasks, task)
		}
		goOn := make(chan struct{})
		held := func(write func() error) error {
			<-goOn
			return write()
		}
		u := controllertest.NewUnit(t, seen(func(*http.Request, []string) (string, error) { return acceptance, nil }), held, tasks...)
		s, l := submitterOf(u, tasks...)
		l.queue.SetQuota(controllertest.Zone, 0, -1, time.Now())
		runPass(u, s, time.Now().Add(2*time.Second))
		if n := len(s.Calls.claims); n != 1 {
			t.Errorf("%d calls are planned while none can be claimed, want 1 of 5 lanes", n)
		}
		close(goOn)
		runPass(u, s, time.Now().Add(2*time.Second))
		s.Calls.Wait()
		for _, task := range tasks {
			if len(u.ReadTask(task.Name).Status.Jobs) != 1 {
				t.Errorf("%s is not submitted", task.Name)
			}
		}
	})
}

// ownURL returns a task with its own lane and its own URL.
func ownURL(namespace, name string) *v1alpha1.PrefetchTask {
	task := controllertest.NewTask(name, 1)
	task.Namespace = namespace
	task.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "X-Lane", Value: name}}
	task.Spec.Targets[0] += v1alpha1.Target("/" + name)
	return task
}

// runPass reconciles the operator's own account until end, as the workqueue would.
func runPass(u *controllertest.Unit, s *Submitter, end time.Time) {
	u.T.Helper()
	for ; time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if _, err := s.Reconcile(context.Background(), taskstate.AccountKey{}); err != nil {
			u.T.Fatal(err)
		}
	}
}

func TestWhatIsClaimedAheadLetsAnotherNamespaceGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tasks []*v1alpha1.PrefetchTask
		for i := range 100 {
			tasks = append(tasks, ownURL("greedy", strconv.Itoa(i)))
		}
		single := ownURL("modest", "single")
		var mu sync.Mutex
		var order []string
		edgeOne := seen(func(_ *http.Request, targets []string) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, targets[0])
			return acceptance, nil
		})
		u := controllertest.NewUnit(t, edgeOne, nil, append(tasks, single)...)
		s, l := submitterOf(u, tasks...)
		l.queue.SetQuota(controllertest.Zone, 0, -1, time.Now())
		// The first 20 calls are sent within a short time, so their slots become free
		// within a short time, too. The next 20 calls are claimed before that.
		start := time.Now()
		runPass(u, s, start.Add(1990*time.Millisecond))
		synctest.Wait()
		if len(order) != 20 || len(l.unsent) != 20 {
			t.Fatalf("%d calls are sent and %d claimed, want 20 and 20", len(order), len(l.unsent))
		}
		s.Tasks.ObserveTask(single)
		runPass(u, s, start.Add(2500*time.Millisecond))
		s.Calls.Wait()
		at := slices.IndexFunc(order, func(u string) bool { return strings.HasSuffix(u, "/single") })
		if at < 20 || at > 30 { // calls that get slots at the same moment arrive in any order
			t.Errorf("the single task went after %d calls, want hardly any of the 20 that were claimed before", at)
		}
		if len(order) != 41 && len(order) != 40 {
			t.Errorf("%d calls are sent, want 40 and then those that were claimed", len(order))
		}
	})
}

func TestWhatIsClaimedIsNotSentOnceItsAccountIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tasks []*v1alpha1.PrefetchTask
		for i := range 40 {
			tasks = append(tasks, ownURL("default", strconv.Itoa(i)))
		}
		var sent atomic.Int32
		edgeOne := seen(func(*http.Request, []string) (string, error) {
			if sent.Add(1) == 20 {
				time.Sleep(850 * time.Millisecond) // meanwhile, the next calls are claimed and wait for slots
				return `{"Response":{"Error":{"Code":"AuthFailure.SecretIdNotFound","Message":"no such key"},"RequestId":"r"}}`, nil
			}
			return acceptance, nil
		})
		u := controllertest.NewUnit(t, edgeOne, nil, tasks...)
		s, l := submitterOf(u, tasks...)
		l.queue.SetQuota(controllertest.Zone, 0, -1, time.Now())
		runPass(u, s, time.Now().Add(10*time.Second))
		s.Calls.Wait()
		if n := sent.Load(); n != 20 {
			t.Errorf("%d calls were made, want none after the key was refused", n)
		}
		for _, task := range tasks {
			if status := u.ReadTask(task.Name).Status; len(status.Jobs) == 0 && status.Submission != nil {
				t.Errorf("%s still carries a claim", task.Name)
			}
		}
	})
}

func TestAClaimNamesTheRecentJobsOfTheRunBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		task := controllertest.ClaimedAt(controllertest.NewTask("a", 1), time.Now())
		taskstate.RecordJob("earlier", nil, time.Now())(task)
		task.Spec.Revision = "2"
		var u *controllertest.Unit
		edgeOne := seen(func(*http.Request, []string) (string, error) {
			if claim := u.ReadTask("a").Status.Submission; !slices.Equal(claim.EarlierJobs, []string{"earlier"}) {
				t.Errorf("the claim is %+v", claim)
			}
			return acceptance, nil
		})
		u = controllertest.NewUnit(t, edgeOne, nil, task)
		s, l := submitterOf(u, u.ReadTask("a"))
		call := planNext(u, l)
		s.newAttempt(l, controllertest.Creds, call, "mine").run(context.Background())
		if jobs := u.ReadTask("a").Status.Jobs; len(jobs) != 1 || jobs[0].ID != "job-1" {
			t.Errorf("the jobs are %+v", jobs)
		}
	})
}

func TestATaskWithoutAnAcknowledgedClaimIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []string
		edgeOne := seen(func(_ *http.Request, targets []string) (string, error) {
			sent = append(sent, targets...)
			return acceptance, nil
		})
		a, b := controllertest.NewTask("a", 1), controllertest.NewTask("b", 2)
		u := controllertest.NewUnit(t, edgeOne, nil, a, b)
		s, l := submitterOf(u, u.ReadTask("a"), u.ReadTask("b"))
		call := planNext(u, l)
		if _, err := u.Writer.WriteStatus(t.Context(), u.ReadTask("b"), taskstate.RefuseTargets(v1alpha1.JobPrefetch, taskstate.AllPositions(1), "meanwhile", controllertest.T0)); err != nil {
			t.Fatal(err)
		}
		s.newAttempt(l, controllertest.Creds, call, "mine").run(context.Background())
		if !slices.Equal(sent, []string{"https://h/0"}) {
			t.Errorf("sent %v", sent)
		}
		if len(u.ReadTask("a").Status.Jobs) != 1 || len(u.ReadTask("b").Status.Jobs) != 0 {
			t.Errorf("recorded: %+v and %+v", u.ReadTask("a").Status, u.ReadTask("b").Status)
		}
	})
}

func TestACallOfUnknownOutcomeKeepsItsClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := controllertest.NewUnit(t, seen(func(*http.Request, []string) (string, error) { return "", io.EOF }), nil, controllertest.NewTask("a", 1))
		p := pollerOf(u)
		s, l := submitterOf(u, u.ReadTask("a"))
		call := planNext(u, l)
		s.newAttempt(l, controllertest.Creds, call, "mine").run(context.Background())
		if task := u.ReadTask("a"); !kube.IsClaimedBy(task, "mine") {
			t.Errorf("the claim is gone: %+v", task.Status)
		}
		if zones := p.UnsettledAges(); len(zones) != 1 {
			t.Error("nobody looks for the call before an event of the claim comes, which may be late")
		}
	})
}

func TestOneBadURLDoesNotFailTheOthersOfItsCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := seen(func(*http.Request, []string) (string, error) {
			return `{"Response":{"Error":{"Code":"InvalidParameter.Target","Message":"bad"},"RequestId":"r"}}`, nil
		})
		u := controllertest.NewUnit(t, edgeOne, nil, controllertest.NewTask("a", 2))
		s, l := submitterOf(u, u.ReadTask("a"))
		call := planNext(u, l)
		s.newAttempt(l, controllertest.Creds, call, "mine").run(context.Background())
		if task := u.ReadTask("a"); task.Status.RefusedPositions != "" || task.Status.Submission != nil {
			t.Errorf("one of two was bad, and the status is %+v", task.Status)
		}
	})
}

func TestNoCallIsPlannedBeforeEdgeOneHasToldItsTime(t *testing.T) {
	refused := func(code string) string {
		return `{"Response":{"Error":{"Code":"` + code + `","Message":"no"},"RequestId":"r"}}`
	}
	for name, answer := range map[string]string{ // no answer has a Date header
		"quota":     `{"Response":{"PrefetchQuota":[{"Type":"prefetch_url","Batch":10,"Daily":10,"DailyAvailable":10}],"RequestId":"r"}}`,
		"denied":    refused("UnauthorizedOperation.CamUnauthorized"),
		"rejected":  refused("InvalidParameter"),
		"throttled": refused("RequestLimitExceeded"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := controllertest.NewUnit(t, seen(func(*http.Request, []string) (string, error) { return answer, nil }), nil, controllertest.NewTask("a", 1))
				s, l := submitterOf(u, u.ReadTask("a"))
				if decision := l.queue.PlanNext(time.Now()); decision.ReadQuota != controllertest.Zone {
					t.Fatalf("%+v", decision)
				}
				s.readQuota(l, controllertest.Creds, controllertest.Zone)
				if decision := l.queue.PlanNext(time.Now()); decision.Call != nil || decision.Wait == 0 {
					t.Errorf("a call is planned, or nothing is waited for: %+v", decision)
				}
			})
		})
	}
}

func TestTheProcessWaitsForItsCallsAndStartsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := &InFlightCalls{}
		ctx, stop := context.WithCancel(t.Context())
		critical, cancel := context.WithCancel(context.Background())
		calls.Start("mine")
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = ShutdownGate{Calls: calls, Grace: 25 * time.Second, Cancel: cancel}.Start(ctx)
		}()
		stop()
		synctest.Wait()
		if critical.Err() != nil {
			t.Error("the call in flight was cut off")
		}
		if calls.Start("another") {
			t.Error("a call starts while the process is stopping")
		}
		calls.End("mine")
		<-done
		if critical.Err() == nil {
			t.Error("what is left is not ended")
		}
	})
}
