package follow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/credentials"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/metrics"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// handedOver returns a new task whose targets EdgeOne has executed in jobs of perJob targets
// each.
func handedOver(t *testing.T, edgeOne *simulator.Simulator, name string, targets, perJob int) *v1alpha1.PrefetchTask {
	t.Helper()
	task := controllertest.NewTask(name, targets)
	for i := range task.Spec.Targets {
		task.Spec.Targets[i] = v1alpha1.Target(fmt.Sprintf("https://h/%s/%d", name, i))
	}
	urls := taskstate.DistinctTargets(task)
	for from := 0; from < targets; from += perJob {
		to := min(from+perJob, targets)
		taskstate.ClaimTargets(v1alpha1.Submission{
			ClaimID: fmt.Sprintf("claim of %s %d", name, from), ZoneID: controllertest.Zone, AccountHash: controllertest.Creds.Hash(), SignedAt: metav1.NewTime(edgeOne.Now().Truncate(time.Second)),
			Positions: taskstate.AllPositions(to)[from:].String(), Semantics: taskstate.HashSemantics(task),
		}, time.Now())(task)
		taskstate.RecordJob(controllertest.Execute(t, edgeOne, urls[from:to]...), nil, time.Now())(task)
	}
	return task
}

// badWay is a transport to EdgeOne with faults.
type badWay struct {
	http.RoundTripper
	delay  time.Duration                   // delay of each answer
	lose   func() error                    // if it returns an error, the request is not sent
	refuse func(body string) (code string) // if it returns an error code, the request is not sent
}

func (p *badWay) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	time.Sleep(p.delay)
	if p.lose != nil {
		if err := p.lose(); err != nil {
			return nil, err
		}
	}
	if p.refuse != nil {
		if code := p.refuse(string(body)); code != "" {
			answer := `{"Response":{"RequestId":"request-1","Error":{"Code":"` + code + `","Message":"not here"}}}`
			return &http.Response{StatusCode: 200, Header: http.Header{"Date": {time.Now().UTC().Format(http.TimeFormat)}}, Request: req, Body: io.NopCloser(strings.NewReader(answer))}, nil
		}
	}
	req = req.Clone(req.Context())
	req.Body = io.NopCloser(strings.NewReader(string(body)))
	return p.RoundTripper.RoundTrip(req)
}

const noPermission = "UnauthorizedOperation.CamUnauthorized"

// foreignTraffic submits URLs at an interval, as another program would, until stop is called.
func foreignTraffic(t *testing.T, edgeOne *simulator.Simulator, every time.Duration) (stop func()) {
	t.Helper()
	stopped, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stopped:
				return
			case <-time.After(every):
				controllertest.Execute(t, edgeOne, fmt.Sprintf("https://h/foreign/%d", i))
			}
		}
	}()
	return func() { close(stopped); <-done }
}

func TestALookThatFailsAfterTheDeadlineEndsNothing(t *testing.T) {
	for name, fails := range map[string]*badWay{
		"for a moment": {lose: func() func() error {
			n := 0
			return func() error {
				if n++; n == 1 {
					return errors.New("dial tcp: lookup: i/o timeout")
				}
				return nil
			}
		}()},
		"for an hour": {lose: func() func() error {
			begin := time.Time{}
			return func() error {
				if begin.IsZero() {
					begin = time.Now()
				}
				if time.Since(begin) < time.Hour {
					return errors.New("dial tcp: lookup: i/o timeout")
				}
				return nil
			}
		}()},
		"with an answer of EdgeOne's": {refuse: func() func(string) string {
			n := 0
			return func(string) string {
				if n++; n <= 3 {
					return "InternalError"
				}
				return ""
			}
		}()},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				edgeOne := controllertest.NewEdgeOne(nil)
				defer edgeOne.Close()
				task := handedOver(t, edgeOne, "a", 3, 3)
				time.Sleep(25 * time.Hour) // no process leads; the deadline is 24 hours
				fails.RoundTripper = edgeOne.RoundTripper()
				u, p := settling(t, fails, task)
				lookUntil(u, p, controllertest.Zone, time.Now().Add(2*time.Hour))
				if now := u.ReadTask("a"); taskstate.ReadyReason(now) != v1alpha1.ReasonSucceeded {
					t.Errorf("EdgeOne lists all as success, and the task is %s", controllertest.Summary(now))
				}
			})
		})
	}
}

func TestOutcomesAreReadInABusyZone(t *testing.T) {
	for _, every := range []time.Duration{time.Second, 300 * time.Millisecond, 100 * time.Millisecond} {
		t.Run(every.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				edgeOne := controllertest.NewEdgeOne(func(c *simulator.Config) { c.Zones[0].Daily = 1_000_000 })
				defer edgeOne.Close()
				task := handedOver(t, edgeOne, "a", 4000, 200)
				check := func(body string) string {
					var window struct{ EndTime time.Time }
					if err := json.Unmarshal([]byte(body), &window); err == nil && window.EndTime.After(edgeOne.Now()) {
						t.Errorf("a window ends at %v, in the future", window.EndTime)
					}
					return ""
				}
				u, p := settling(t, &badWay{RoundTripper: edgeOne.RoundTripper(), delay: 100 * time.Millisecond, refuse: check}, task)
				begin := time.Now()
				defer foreignTraffic(t, edgeOne, every)()
				for !taskstate.IsRunOver(u.ReadTask("a")) && time.Since(begin) < time.Hour {
					lookUntil(u, p, controllertest.Zone, time.Now().Add(time.Second))
				}
				if took := time.Since(begin); took > time.Minute {
					t.Errorf("all 4,000 had succeeded, and that was read after %v: %s", took, controllertest.Summary(u.ReadTask("a")))
				}
			})
		})
	}
}

func TestAWindowThatDoesNotHoldStillConcernsOnlyItsLostCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(func(c *simulator.Config) { c.Zones[0].Daily = 1_000_000 })
		defer edgeOne.Close()
		done := handedOver(t, edgeOne, "done", 1, 1)
		lost := controllertest.ClaimedAt(controllertest.NewTask("lost", 1), time.Now())
		var bulk []string
		for i := range 1500 {
			bulk = append(bulk, fmt.Sprintf("https://h/bulk/%d", i))
		}
		controllertest.Execute(t, edgeOne, bulk...)
		u, p := settling(t, &badWay{RoundTripper: edgeOne.RoundTripper(), delay: 100 * time.Millisecond}, lost, done)
		begin := time.Now()
		defer foreignTraffic(t, edgeOne, 37*time.Millisecond)()
		for !taskstate.IsRunOver(u.ReadTask("done")) && time.Since(begin) < 20*time.Minute {
			lookUntil(u, p, controllertest.Zone, time.Now().Add(time.Second))
		}
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("its job succeeded at once, and that was read after %v", took)
		}
	})
}

func TestAJobThatCannotBeReadConcernsOnlyItsTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(func(c *simulator.Config) { c.JobDuration = 10 * time.Minute; c.MaxWindow = time.Minute })
		defer edgeOne.Close()
		good, lost := handedOver(t, edgeOne, "good", 1, 1), controllertest.ClaimedAt(controllertest.NewTask("lost", 1), time.Now())
		bad := controllertest.ClaimedAt(controllertest.NewTask("bad", 1), time.Now())
		taskstate.RecordJob("job-that-edgeone-rejects", nil, time.Now())(bad)
		controllertest.Execute(t, edgeOne, taskstate.DistinctTargets(lost)...)
		refuse := func(body string) string {
			if strings.Contains(body, "job-that-edgeone-rejects") {
				return "InvalidParameter"
			}
			return ""
		}
		u, p := settling(t, &badWay{RoundTripper: edgeOne.RoundTripper(), refuse: refuse}, good, bad, lost)
		lookUntil(u, p, controllertest.Zone, time.Now().Add(20*time.Minute))
		if task := u.ReadTask("good"); taskstate.ReadyReason(task) != v1alpha1.ReasonSucceeded {
			t.Errorf("good is %s", controllertest.Summary(task))
		}
		if task := u.ReadTask("lost"); taskstate.ReadyReason(task) != v1alpha1.ReasonSucceeded {
			t.Errorf("lost is %s", controllertest.Summary(task))
		}
		if task := u.ReadTask("bad"); controllertest.Summary(task) != "-Finished=NotFollowed -Ready=NotFollowed Stalled=NotFollowed Submitted=Submitted" ||
			!strings.Contains(task.Status.Conditions[0].Message, "InvalidParameter: not here") {
			t.Errorf("bad is %s, %s", controllertest.Summary(task), task.Status.Conditions[0].Message)
		}
	})
}

// EdgeOne rejects the ID of a job, but shows the job in the window of its creation.
func TestAJobThatIsNotShownByItsIDIsReadByItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(func(c *simulator.Config) { c.RejectedJobIDs = "." })
		task := handedOver(t, edgeOne, "a", 3, 3)
		u := controllertest.NewUnit(t, edgeOne.RoundTripper(), nil, task)
		lookUntil(u, pollerOf(u, u.ReadTask("a")), controllertest.Zone, time.Now().Add(time.Minute))
		if now := u.ReadTask("a"); taskstate.ReadyReason(now) != v1alpha1.ReasonSucceeded || now.Status.Jobs[0].Succeeded != 3 {
			t.Errorf("the task is %s with %+v", taskstate.ReadyReason(now), now.Status.Jobs)
		}
	})
}

func TestWhileOutcomesMayNotBeReadTheTaskSaysSo(t *testing.T) {
	const unread = "-Finished=PermissionDenied -Ready=PermissionDenied Stalled=PermissionDenied Submitted=Submitted"
	const ended = "Finished=NotFollowed ?Ready=NotFollowed Stalled=NotFollowed Submitted=Submitted"
	const failed = "Finished=Failed -Ready=Failed Stalled=Failed Submitted=Submitted"
	for _, c := range []struct {
		name        string
		refused     time.Duration
		then, later string // conditions at the end of the refusal, and an hour later
	}{
		{"for a moment", 20 * time.Second, "-Finished=Submitted -Ready=Submitted Submitted=Submitted", failed},
		{"for two minutes", 2 * time.Minute, unread, failed},
		{"for less than the deadline", 23 * time.Hour, unread, failed},
		{"for longer than the deadline", 26 * time.Hour, ended, failed},
		{"until EdgeOne has forgotten them", 73 * time.Hour, ended, ended},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				edgeOne := controllertest.NewEdgeOne(func(c *simulator.Config) {
					c.Rules = []simulator.Rule{{Status: "failed", FailType: "originPullFailed"}}
				})
				defer edgeOne.Close()
				task := handedOver(t, edgeOne, "a", 1, 1)
				begin, writes := time.Now(), 0
				refuse := func(string) string {
					if time.Since(begin) < c.refused {
						return noPermission
					}
					return ""
				}
				u := controllertest.NewUnit(t, &badWay{RoundTripper: edgeOne.RoundTripper(), refuse: refuse}, func(write func() error) error { writes++; return write() }, task)
				p := pollerOf(u, u.ReadTask("a"))
				lookUntil(u, p, controllertest.Zone, begin.Add(c.refused))
				if got := controllertest.Summary(u.ReadTask("a")); got != c.then {
					t.Errorf("meanwhile it is %s, want %s", got, c.then)
				}
				if writes > 3 {
					t.Errorf("%d writes to say so", writes)
				}
				lookUntil(u, p, controllertest.Zone, time.Now().Add(time.Hour))
				if got := controllertest.Summary(u.ReadTask("a")); got != c.later {
					t.Errorf("later it is %s, want %s", got, c.later)
				}
				if tasks, _ := p.open(ZoneKey{ID: controllertest.Zone}); len(tasks) > 0 {
					t.Error("it is still looked at")
				}
			})
		})
	}
}

func TestUnreadStep(t *testing.T) {
	const recheck, deadline = 30 * time.Second, 24 * time.Hour
	for _, c := range []struct {
		name string
		is   unreadState
		want unreadStep
	}{
		{"refused just now", unreadState{isHandedOver: true}, sayNothing},
		{"refused for less than two intervals", unreadState{isHandedOver: true, refused: 2*recheck - 1}, sayNothing},
		{"refused for two intervals", unreadState{isHandedOver: true, refused: 2 * recheck}, sayUnread},
		{"refused for two intervals, and not all is handed over", unreadState{refused: 2 * recheck}, sayNothing},
		{"said before, and refused again after a restart", unreadState{isHandedOver: true, said: time.Hour}, sayUnread},
		{"refused for days, and said just now", unreadState{isHandedOver: true, refused: 3 * deadline, said: 1}, sayUnread},
		{"said for longer than jobs may take", unreadState{isHandedOver: true, refused: deadline, said: deadline + 1}, endUnread},
		{"said for longer, and not all is handed over", unreadState{said: deadline + 1}, sayNothing},
		{"over", unreadState{isHandedOver: true, isOver: true, refused: deadline, said: deadline + 1}, sayNothing},
		{"over, and EdgeOne has forgotten it", unreadState{isHandedOver: true, isOver: true, isBeyond: true}, forgetUnread},
		{"under way, and EdgeOne has forgotten it", unreadState{isHandedOver: true, isBeyond: true, refused: recheck}, sayNothing},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.is.nextStep(recheck, deadline); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func TestADayWithoutASecretFailsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		part, all := handedOver(t, edgeOne, "part", 2, 2), handedOver(t, edgeOne, "all", 2, 2)
		part.Spec.Targets = append(part.Spec.Targets, "https://h/more")
		part.Status.Run = taskstate.RunHash(part)
		u, p := settling(t, edgeOne.RoundTripper(), part, all)
		isMissing := true
		u.Credentials.Own = func() (teo.Credentials, error) {
			if isMissing {
				return teo.Credentials{}, credentials.ErrNoOwnCredentials
			}
			return controllertest.Creds, nil
		}
		lookUntil(u, p, controllertest.Zone, time.Now().Add(25*time.Hour))
		isMissing = false
		lookUntil(u, p, controllertest.Zone, time.Now().Add(15*time.Minute))
		for _, name := range []string{"part", "all"} {
			if counts := u.ReadTask(name).Status.Targets; *counts.Failed != 0 || *counts.Succeeded != 2 {
				t.Errorf("%s: %d failed, %d succeeded: %s", name, *counts.Failed, *counts.Succeeded, controllertest.Summary(u.ReadTask(name)))
			}
		}
	})
}

func TestARetryOfWhatHadNoOutcomeLooksFirst(t *testing.T) {
	for _, c := range []struct {
		name       string
		targets    int
		open, ends string // open positions after the retry; conditions at the end
	}{{"a whole job", 3, "", "Finished=Succeeded Ready=Succeeded Submitted=Submitted"}, {"more than the status names", 300, "", "Finished=Succeeded Ready=Succeeded Submitted=Submitted"}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				edgeOne := controllertest.NewEdgeOne(func(c *simulator.Config) { c.Rules = []simulator.Rule{{Status: simulator.Never}} })
				defer edgeOne.Close()
				u, p := settling(t, edgeOne.RoundTripper(), handedOver(t, edgeOne, "a", c.targets, c.targets))
				u.LearnTime()
				time.Sleep(25 * time.Hour)
				lookUntil(u, p, controllertest.Zone, time.Now().Add(2*time.Minute))
				if task := u.ReadTask("a"); taskstate.ReadyReason(task) != v1alpha1.ReasonFailed {
					t.Fatalf("after the deadline it is %s", controllertest.Summary(task))
				}
				edgeOne.Finish("https://h/", teo.StatusSuccess, "", "")
				for i := range c.targets {
					edgeOne.Finish(fmt.Sprintf("https://h/a/%d", i), teo.StatusSuccess, "", "")
				}
				askForRetry(u, p, "1")
				lookUntil(u, p, controllertest.Zone, time.Now().Add(time.Minute))
				if task := u.ReadTask("a"); taskstate.OpenPositions(task).String() != c.open || controllertest.Summary(task) != c.ends || len(task.Status.FailedTargets) > 0 {
					t.Errorf("EdgeOne lists all as success; %q is open, and it is %s", taskstate.OpenPositions(task), controllertest.Summary(task))
				}
			})
		})
	}
}

func TestALostCallIsSettledWhileOutcomesAreWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		var tasks []*v1alpha1.PrefetchTask
		var urls []string
		for i := range 400 {
			task := controllertest.NewTask(fmt.Sprint("t", i), 1)
			task.Spec.Targets[0] = v1alpha1.Target(fmt.Sprintf("https://h/t/%d", i))
			urls = append(urls, string(task.Spec.Targets[0]))
			tasks = append(tasks, controllertest.ClaimedAt(task, time.Now()))
		}
		job := controllertest.Execute(t, edgeOne, urls...)
		for _, task := range tasks {
			taskstate.RecordJob(job, nil, time.Now())(task)
		}
		time.Sleep(10 * time.Second)
		lost := controllertest.ClaimedAt(controllertest.NewTask("lost", 1), time.Now())
		u := controllertest.NewUnit(t, edgeOne.RoundTripper(), func(write func() error) error { time.Sleep(500 * time.Millisecond); return write() }, append(tasks, lost)...)
		p := pollerOf(u)
		for _, task := range tasks {
			p.Tasks.ObserveTask(u.ReadTask(task.Name))
		}
		end := time.Now().Add(5 * time.Minute)
		done := make(chan struct{})
		for _, reconcile := range []func(context.Context, ZoneKey) (bool, error){
			func(ctx context.Context, z ZoneKey) (bool, error) {
				r, err := p.Reconcile(ctx, z)
				return r.RequeueAfter > 0, err
			},
			func(ctx context.Context, z ZoneKey) (bool, error) {
				r, err := (lostCallReconciler{p}).Reconcile(ctx, z)
				return r.RequeueAfter > 0, err
			},
		} {
			go func() { // the two controllers also run concurrently
				defer func() { done <- struct{}{} }()
				for ; time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
					if _, err := reconcile(context.Background(), ZoneKey{ID: controllertest.Zone}); err != nil {
						t.Error(err)
					}
				}
			}()
		}
		time.Sleep(11 * time.Second)
		begin := time.Now()
		controllertest.Execute(t, edgeOne, taskstate.DistinctTargets(lost)...) // the answer is lost
		p.Tasks.ObserveTask(u.ReadTask("lost"))
		for u.ReadTask("lost").Status.Submission != nil && time.Since(begin) < 5*time.Minute {
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(begin); took > 4*time.Second {
			t.Errorf("listed at once, and adopted after %v", took)
		}
		<-done
		<-done
		for _, task := range tasks {
			if !taskstate.IsRunOver(u.ReadTask(task.Name)) {
				t.Fatalf("%s is %s", task.Name, controllertest.Summary(u.ReadTask(task.Name)))
			}
		}
	})
}

func TestATaskThatIsBeingDeletedIsNotLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		task := handedOver(t, edgeOne, "a", 1, 1)
		task.Finalizers = []string{"example.com/f"}
		u, p := settling(t, edgeOne.RoundTripper(), task)
		if err := u.Writer.Delete(t.Context(), u.ReadTask("a")); err != nil {
			t.Fatal(err)
		}
		p.Tasks.ObserveTask(u.ReadTask("a"))
		lookUntil(u, p, controllertest.Zone, time.Now().Add(time.Minute))
		if tasks, _ := p.open(ZoneKey{ID: controllertest.Zone}); len(tasks) > 0 || len(edgeOne.Calls()) > 1 {
			t.Errorf("%d tasks are followed, after %d calls", len(tasks), len(edgeOne.Calls()))
		}
	})
}

// The memory of one pass is bounded, whatever is open in a zone and whatever other programs
// submit there.
func TestALookReadsABoundedPartOfTheHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(func(c *simulator.Config) { c.Zones[0].Daily = 1_000_000; c.Zones[0].Batch = 5000 })
		defer edgeOne.Close()
		tasks := []*v1alpha1.PrefetchTask{}
		for i := range 20 {
			tasks = append(tasks, handedOver(t, edgeOne, fmt.Sprint("t", i), 5000, 250))
			time.Sleep(time.Minute)
		}
		u, p := settling(t, edgeOne.RoundTripper(), tasks...)
		u.LearnTime()
		looks, most := 0, 0
		for begin := time.Now(); time.Since(begin) < 2*time.Minute; time.Sleep(time.Second) {
			jobs, due := p.dueJobs(ZoneKey{ID: controllertest.Zone})
			if len(jobs) == 0 || time.Until(due) > 0 {
				continue
			}
			seen := taskstate.NewHistoryRead(p.EdgeOne.ServerTime())
			reader := jobReader{Poller: p, ctx: t.Context(), creds: controllertest.Creds, zoneID: controllertest.Zone, HistoryRead: seen}
			if err := reader.readJobs(jobs); err != nil {
				t.Fatal(err)
			}
			most, looks = max(most, seen.Records), looks+1
			for _, task := range p.recordJobsRead(ZoneKey{ID: controllertest.Zone}, jobs, seen, nil) {
				p.writeOutcomes(t.Context(), task, ZoneKey{ID: controllertest.Zone}, seen)
			}
		}
		if most > maxRecords+5000 || looks < 5 {
			t.Errorf("%d looks read at most %d records of 100,000", looks, most)
		}
		for _, task := range tasks {
			if task := u.ReadTask(task.Name); taskstate.ReadyReason(task) != v1alpha1.ReasonSucceeded {
				t.Errorf("%s is %s", task.Name, controllertest.Summary(task))
			}
		}
	})
}

func TestZonesOfWhichNothingWasEverReadYieldToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		u := controllertest.NewUnit(t, edgeOne.RoundTripper(), nil)
		p := pollerOf(u)
		invented := ZoneKey{ID: "zone-invented"}
		for range maxUnprovenReads {
			if leave, _ := p.acquireRead(invented); leave == nil {
				t.Fatal("a look into an invented zone has to wait although none is under way")
			}
		}
		if leave, wait := p.acquireRead(invented); leave != nil || wait <= 0 {
			t.Error("looks into invented zones take all workers")
		}
		p.Tasks.ObserveTask(handedOver(t, edgeOne, "a", 1, 1))
		if leave, _ := p.acquireRead(ZoneKey{ID: controllertest.Zone}); leave == nil {
			t.Error("a zone to which something was submitted has to wait for them")
		}
		var waits []time.Duration
		state, err := &readStreak{}, &teo.Error{Kind: teo.Denied, Code: "InvalidParameter.ZoneNotFound"}
		for range 6 {
			p.recordReadResult(invented, state, err)
			waits = append(waits, time.Until(state.notBefore))
		}
		if fmt.Sprint(waits) != "[30s 1m0s 2m0s 4m0s 8m0s 10m0s]" {
			t.Errorf("looks that are refused come after %v", waits)
		}
		state = &readStreak{}
		for range 3 {
			p.recordReadResult(ZoneKey{ID: controllertest.Zone}, state, err)
		}
		if wait := time.Until(state.notBefore); wait != p.RecheckInterval {
			t.Errorf("a zone to which something was submitted is looked at after %v", wait)
		}
	})
}

func TestTheCacheKeepsARunThatNobodyCouldReadWhileItMayBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		jobs := NewRecordedJobs()
		jobs.setRetention(72 * time.Hour)
		keep := kube.CacheOptions(jobs).DefaultTransform
		task := handedOver(t, edgeOne, "a", 1, 1)
		task.Generation, task.Status.ObservedGeneration = 1, 1
		taskstate.EndNotFollowed("no", time.Now())(task)
		isWhole := func() bool {
			kept, err := keep(task.DeepCopy())
			if err != nil {
				t.Fatal(err)
			}
			_, whole := kept.(*v1alpha1.PrefetchTask)
			return whole
		}
		if time.Sleep(71 * time.Hour); !isWhole() {
			t.Error("slimmed while EdgeOne may tell the outcome")
		}
		if time.Sleep(2 * time.Hour); isWhole() {
			t.Error("kept when nobody will know any more")
		}
	})
}

func TestARunThatWasEndedByAnEarlierVersionAsNotFollowedStaysAsItIs(t *testing.T) {
	task := controllertest.TaskOf(1)
	controllertest.Submitted("0", "j")(task)
	for _, condition := range []string{v1alpha1.ConditionReady, v1alpha1.ConditionFinished} {
		taskstate.SetCondition(task, condition, metav1.ConditionTrue, v1alpha1.ReasonNotFollowed, "as it was")
	}
	before := task.DeepCopy()
	if _, open := (&Poller{}).openZone(task); open {
		t.Error("it is looked at")
	}
	controllertest.FollowJobs(controllertest.Listed("j", "failed", 0), time.Hour, controllertest.T0, controllertest.T0)(task)
	if controllertest.Summary(task) != controllertest.Summary(before) || !meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionReady) {
		t.Errorf("it became %s", controllertest.Summary(task))
	}
	if _, whole := client.Object(kube.PruneFinishedTask(task)).(*v1alpha1.PrefetchTask); whole {
		t.Error("the cache keeps all of it")
	}
}

// The status does not name the failed targets of all jobs, and one pass cannot read all jobs.
func TestARetryWaitsUntilAllOfItsJobsAreRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(func(c *simulator.Config) {
			c.Rules, c.MaxWindow = []simulator.Rule{{Status: simulator.Never}}, time.Second
		})
		defer edgeOne.Close()
		const targets, perJob = 3000, 20
		u, p := settling(t, edgeOne.RoundTripper(), handedOver(t, edgeOne, "a", targets, perJob))
		u.LearnTime()
		time.Sleep(25 * time.Hour)
		lookUntil(u, p, controllertest.Zone, time.Now().Add(2*time.Minute))
		if task := u.ReadTask("a"); taskstate.ReadyReason(task) != v1alpha1.ReasonFailed || targets/perJob <= maxCallsForJobs {
			t.Fatalf("after the deadline it is %s", controllertest.Summary(task))
		}
		for i := range targets {
			edgeOne.Finish(fmt.Sprintf("https://h/a/%d", i), teo.StatusSuccess, "", "")
		}
		askForRetry(u, p, "1")
		lookUntil(u, p, controllertest.Zone, time.Now().Add(2*time.Minute))
		if task := u.ReadTask("a"); taskstate.ReadyReason(task) != v1alpha1.ReasonSucceeded {
			t.Errorf("EdgeOne lists all as success; %q is open, and it is %s", taskstate.OpenPositions(task), controllertest.Summary(task))
		}
	})
}

// said collects the reasons of Events.
type said struct {
	controllertest.NoEvents
	reasons *[]string
}

func (s said) Eventf(_, _ runtime.Object, eventType, reason, _, _ string, _ ...any) {
	*s.reasons = append(*s.reasons, eventType+" "+reason)
}

func TestAnOutcomeThatIsReadLaterIsReportedAsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		var reasons []string
		isRefused := true
		refuse := func(string) string {
			if isRefused {
				return noPermission
			}
			return ""
		}
		u, p := settling(t, &badWay{RoundTripper: edgeOne.RoundTripper(), refuse: refuse}, handedOver(t, edgeOne, "a", 1, 1))
		p.Events = kube.NewEventReporter(said{reasons: &reasons}, metrics.ObserveRun)
		lookUntil(u, p, controllertest.Zone, time.Now().Add(25*time.Hour))
		isRefused = false
		lookUntil(u, p, controllertest.Zone, time.Now().Add(time.Hour))
		if fmt.Sprint(reasons) != "[Warning PermissionDenied Warning NotFollowed Normal Succeeded]" {
			t.Errorf("reported: %v", reasons)
		}
	})
}
