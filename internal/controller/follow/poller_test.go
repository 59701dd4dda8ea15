package follow

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// settling returns a unit with these tasks, and its Poller.
func settling(t *testing.T, edgeOne http.RoundTripper, tasks ...*v1alpha1.PrefetchTask) (*controllertest.Unit, *Poller) {
	t.Helper()
	u := controllertest.NewUnit(t, edgeOne, nil, tasks...)
	var live []*v1alpha1.PrefetchTask
	for _, task := range tasks {
		live = append(live, u.ReadTask(task.Name))
	}
	return u, pollerOf(u, live...)
}

func TestACallThatIsNotListedIsReleasedAfterFenceAndMarginOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		signedAt := time.Now()
		u, p := settling(t, edgeOne.RoundTripper(), controllertest.ClaimedAt(controllertest.NewTask("a", 1), signedAt))
		lookUntil(u, p, controllertest.Zone, signedAt.Add(controllertest.Validity+controllertest.Margin))
		if task := u.ReadTask("a"); task.Status.Submission == nil {
			t.Error("released before the history is complete")
		}
		lookUntil(u, p, controllertest.Zone, signedAt.Add(controllertest.Validity+controllertest.Margin+10*time.Second))
		if task := u.ReadTask("a"); task.Status.Submission != nil || task.Status.LostCalls != 1 {
			t.Errorf("not released: %+v", task.Status)
		}
	})
}

// slowly delays requests for jobs on their way to EdgeOne.
type slowly struct {
	http.RoundTripper
	by func() time.Duration
}

func (s slowly) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	if bytes.Contains(body, []byte("job-id")) {
		time.Sleep(s.by())
	}
	req = req.Clone(req.Context())
	req.Body = io.NopCloser(bytes.NewReader(body))
	return s.RoundTripper.RoundTrip(req)
}

func TestALookThatBeganBeforeTheHistoryWasCompleteReleasesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(func(c *simulator.Config) { c.JobDuration = time.Hour })
		defer edgeOne.Close()
		other := controllertest.NewTask("other", 1)
		other.Spec.Targets[0] = "https://h/other"
		taskstate.RecordJob(controllertest.Execute(t, edgeOne, "https://h/other"), nil, time.Now())(controllertest.ClaimedAt(other, time.Now()))
		signedAt := time.Now()
		complete := signedAt.Truncate(time.Second).Add(controllertest.Validity + controllertest.Margin)
		u, p := settling(t, slowly{edgeOne.RoundTripper(), func() time.Duration {
			if until := time.Until(complete); until > 0 && until < 5*time.Second {
				return 8 * time.Second // the claim's window is read before complete; this read ends after it
			}
			return 0
		}}, controllertest.ClaimedAt(controllertest.NewTask("a", 1), signedAt), other)
		go func() { // accepted at the fence, executed just before complete, after the read of the window
			time.Sleep(time.Until(complete.Add(-time.Second)))
			controllertest.Execute(t, edgeOne, "https://h/0")
		}()
		lookUntil(u, p, controllertest.Zone, complete.Add(20*time.Second))
		if task := u.ReadTask("a"); task.Status.LostCalls != 0 || len(task.Status.Jobs) != 1 {
			t.Errorf("executed, and the status is %+v", task.Status)
		}
	})
}

func TestALookThatIsRefusedSettlesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(func(c *simulator.Config) { c.Keys[0].Actions = []string{"CreatePrefetchTask"} })
		defer edgeOne.Close()
		signedAt := time.Now()
		u, p := settling(t, edgeOne.RoundTripper(), controllertest.ClaimedAt(controllertest.NewTask("a", 1), signedAt))
		lookUntil(u, p, controllertest.Zone, signedAt.Add(controllertest.Validity+controllertest.Margin+5*time.Minute))
		task := u.ReadTask("a")
		if task.Status.Submission == nil || taskstate.ReadyReason(task) != v1alpha1.ReasonOutcomeUnknown || !meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionStalled) {
			t.Errorf("the status is %+v", task.Status)
		}
	})
}

func TestOnlyJobsOfTheClaimsOwnTimeAreItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		early := controllertest.ClaimedAt(controllertest.NewTask("early", 2), time.Now())
		time.Sleep(time.Second)
		controllertest.Execute(t, edgeOne, "https://h/0", "https://h/1")
		time.Sleep(20 * time.Second)
		late := controllertest.ClaimedAt(controllertest.NewTask("late", 1), time.Now())
		time.Sleep(controllertest.Validity + controllertest.Margin + 10*time.Second) // both are past the fence, and one window covers both
		u, p := settling(t, edgeOne.RoundTripper(), early, late)
		u.LearnTime()
		lookUntil(u, p, controllertest.Zone, time.Now().Add(time.Minute))
		if task := u.ReadTask("early"); len(task.Status.Jobs) != 1 {
			t.Errorf("the job is not adopted: %+v", task.Status)
		}
		if task := u.ReadTask("late"); len(task.Status.Jobs) != 0 || task.Status.LostCalls != 1 {
			t.Errorf("a job from before the claim is adopted: %+v", task.Status)
		}
	})
}

func TestWindowsThatOverlapAreReadToTheirEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		first := controllertest.ClaimedAt(controllertest.NewTask("first", 1), time.Now())
		time.Sleep(4 * time.Minute)
		second := controllertest.NewTask("second", 1)
		second.Spec.Targets[0] = "https://h/second"
		controllertest.ClaimedAt(second, time.Now())
		time.Sleep(controllertest.Validity - time.Second) // just before the second call's fence
		controllertest.Execute(t, edgeOne, "https://h/second")
		u, p := settling(t, edgeOne.RoundTripper(), first, second)
		time.Sleep(controllertest.Margin + 10*time.Second) // both are past the fence at the first pass
		lookUntil(u, p, controllertest.Zone, time.Now().Add(time.Minute))
		if task := u.ReadTask("first"); task.Status.LostCalls != 1 {
			t.Errorf("the first was not executed, and is %+v", task.Status)
		}
		if task := u.ReadTask("second"); len(task.Status.Jobs) != 1 {
			t.Errorf("the second was executed, and is %+v", task.Status)
		}
	})
}

func TestAJobOfTheRunBeforeIsNotTheNewRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		job := controllertest.Execute(t, edgeOne, "https://h/0")
		signedAt := time.Now() // in the same second as the job
		task := controllertest.ClaimedAt(controllertest.NewTask("a", 1), signedAt)
		task.Status.Submission.EarlierJobs = []string{job}
		u, p := settling(t, edgeOne.RoundTripper(), task)
		lookUntil(u, p, controllertest.Zone, signedAt.Add(controllertest.Validity+controllertest.Margin+10*time.Second))
		if task := u.ReadTask("a"); len(task.Status.Jobs) != 0 || task.Status.LostCalls != 1 {
			t.Errorf("the old run's job is adopted: %+v", task.Status)
		}
	})
}

func TestAnotherAccountsHistorySaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(func(c *simulator.Config) { c.WildcardLookups = true })
		defer edgeOne.Close()
		signedAt := time.Now()
		task := controllertest.NewTask("a", 1)
		task.Spec.ZoneID = "*"
		controllertest.ClaimedAt(task, signedAt).Status.Submission.AccountHash = "another"
		u, p := settling(t, edgeOne.RoundTripper(), task)
		lookUntil(u, p, "*", signedAt.Add(controllertest.Validity+controllertest.Margin+time.Minute))
		if task := u.ReadTask("a"); task.Status.Submission == nil || !meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionStalled) {
			t.Errorf("the status is %+v", task.Status)
		}
	})
}

func TestACallThatEdgeOneHasForgottenIsNotReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		u, p := settling(t, edgeOne.RoundTripper(), controllertest.ClaimedAt(controllertest.NewTask("a", 1), time.Now().Add(-73*time.Hour)))
		lookUntil(u, p, controllertest.Zone, time.Now().Add(5*time.Minute))
		if task := u.ReadTask("a"); task.Status.Submission == nil || !meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionStalled) {
			t.Errorf("the status is %+v", task.Status)
		}
	})
}

func TestACallIsNotForgottenBetweenTheDecisionAndTheLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		u, p := settling(t, edgeOne.RoundTripper(), controllertest.ClaimedAt(controllertest.NewTask("a", 1), time.Now()))
		controllertest.Execute(t, edgeOne, "https://h/0")
		time.Sleep(p.HistoryRetention - time.Minute)
		u.LearnTime()
		seen := p.planClaimsRead([]*v1alpha1.PrefetchTask{u.ReadTask("a")})
		time.Sleep(2 * time.Minute)
		if err := p.readClaimWindows(t.Context(), controllertest.Creds, ZoneKey{ID: controllertest.Zone}, seen, true); err != nil {
			t.Fatal(err)
		}
		p.settleTask(t.Context(), u.ReadTask("a"), seen)
		if task := u.ReadTask("a"); task.Status.LostCalls > 0 {
			t.Errorf("executed, and released without a look: %+v", task.Status)
		}
	})
}

func TestACallIsLookedForIfTheEditThatCameAfterItIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		task := controllertest.ClaimedAt(controllertest.NewTask("a", 1), time.Now())
		task.Status.Submission.Expired = true
		if taskstate.IsWaiting(task, v1alpha1.JobPrefetch) {
			t.Error("its targets would be submitted again")
		}
		u, p := settling(t, edgeOne.RoundTripper(), task)
		controllertest.Execute(t, edgeOne, "https://h/0")
		lookUntil(u, p, controllertest.Zone, time.Now().Add(20*time.Second))
		if task := u.ReadTask("a"); len(task.Status.Jobs) != 1 {
			t.Errorf("not found: %+v", task.Status)
		}
	})
}

func TestALocalClockThatRunsAheadReleasesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(func(c *simulator.Config) { c.ClockOffset = -4 * time.Minute })
		defer edgeOne.Close()
		task := controllertest.ClaimedAt(controllertest.NewTask("a", 1), edgeOne.Now())
		time.Sleep(2 * time.Minute) // by the local clock, the call is past the fence
		u, p := settling(t, edgeOne.RoundTripper(), task)
		lookUntil(u, p, controllertest.Zone, time.Now().Add(time.Minute))
		if task := u.ReadTask("a"); task.Status.Submission == nil {
			t.Errorf("released minutes too early: %+v", task.Status)
		}
	})
}

func TestACallThatThisProcessMakesIsLeftToIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		u, p := settling(t, edgeOne.RoundTripper(), controllertest.ClaimedAt(controllertest.NewTask("a", 1), time.Now()))
		controllertest.Execute(t, edgeOne, "https://h/0")
		isInFlight := true
		p.IsInFlight = func(claimID string) bool { return isInFlight && claimID == "claim of a" }
		lookUntil(u, p, controllertest.Zone, time.Now().Add(20*time.Second))
		if !kube.IsClaimedBy(u.ReadTask("a"), "claim of a") {
			t.Error("settled while the answer may come")
		}
		isInFlight = false
		lookUntil(u, p, controllertest.Zone, time.Now().Add(20*time.Second))
		if task := u.ReadTask("a"); len(task.Status.Jobs) != 1 {
			t.Errorf("not settled: %+v", task.Status)
		}
	})
}

func TestTheClaimOfAnEarlierRunExpiresAndIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		signedAt := time.Now()
		task := controllertest.ClaimedAt(controllertest.NewTask("a", 1), signedAt)
		task.Spec.Mode = v1alpha1.ModeEdge
		u, p := settling(t, edgeOne.RoundTripper(), task)
		controllertest.Execute(t, edgeOne, "https://h/0")
		lookUntil(u, p, controllertest.Zone, signedAt.Add(controllertest.Validity+controllertest.Margin))
		if claim := u.ReadTask("a").Status.Submission; claim == nil || claim.Expired {
			t.Errorf("before its call is certain not to come: %+v", claim)
		}
		lookUntil(u, p, controllertest.Zone, signedAt.Add(controllertest.Validity+controllertest.Margin+10*time.Second))
		if claim := u.ReadTask("a").Status.Submission; claim == nil || !claim.Expired {
			t.Errorf("after: %+v", claim)
		}
	})
}

func TestWhatIsKnownOfADeletedTaskDoesNotHideTheOneThatTookItsName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := controllertest.NewUnit(t, controllertest.NewEdgeOne(nil).RoundTripper(), nil)
		recorded := func(uid, version string) *v1alpha1.PrefetchTask {
			task := controllertest.ClaimedAt(controllertest.NewTask("a", 1), time.Now())
			taskstate.RecordJob("job of "+uid, nil, time.Now())(task)
			task.UID, task.ResourceVersion = types.UID(uid), version
			return task
		}
		first, second := recorded("first", "9"), recorded("second", "11")
		for _, order := range [][]*v1alpha1.PrefetchTask{{first, second}, {second, first}} {
			p := pollerOf(u, order...)
			if tasks, _ := p.open(ZoneKey{ID: controllertest.Zone}); len(tasks) != 1 || tasks[0] != second {
				t.Errorf("%s and then %s: it follows %+v", order[0].UID, order[1].UID, tasks)
			}
			p.Tasks.RemoveTask(first)
			if tasks, _ := p.open(ZoneKey{ID: controllertest.Zone}); len(tasks) != 1 {
				t.Error("that the first is gone makes the second go")
			}
			p.Tasks.RemoveTask(second)
			if tasks, _ := p.open(ZoneKey{ID: controllertest.Zone}); len(tasks) != 0 {
				t.Error("it follows one that is gone")
			}
		}
	})
}

// A pass that started before the task was observed did not read the task's jobs.
func TestATaskThatIsFirstSeenDuringALookIsNotTakenForLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		var tasks []*v1alpha1.PrefetchTask
		for _, name := range []string{"a", "b"} {
			task := controllertest.ClaimedAt(controllertest.NewTask(name, 1), time.Now())
			taskstate.RecordJob(controllertest.Execute(t, edgeOne, taskstate.DistinctTargets(task)...), nil, time.Now())(task)
			tasks = append(tasks, task)
			time.Sleep(25 * time.Hour) // the deadline is 24 hours
		}
		var u *controllertest.Unit
		var p *Poller
		looks := 0
		u = controllertest.NewUnit(t, controllertest.RoundTripFunc(func(req *http.Request) (*http.Response, error) {
			if looks++; looks == 2 { // the first request only learns EdgeOne's time
				p.Tasks.ObserveTask(u.ReadTask("a"))
			}
			return edgeOne.RoundTripper().RoundTrip(req)
		}), nil, tasks...)
		u.LearnTime()
		p = pollerOf(u, u.ReadTask("b"))
		lookUntil(u, p, controllertest.Zone, time.Now().Add(2*time.Minute))
		for _, task := range tasks {
			if task := u.ReadTask(task.Name); !meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionReady) {
				t.Errorf("%s after %d calls: %s", task.Name, looks, controllertest.Summary(task))
			}
		}
	})
}

func TestAJobThatWasMadeBeforeAClaimIsNotItsOwnIfItIsKnown(t *testing.T) {
	for name, known := range map[string]bool{"recorded by another claim": true, "of nobody knows whom": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				edgeOne := controllertest.NewEdgeOne(nil)
				defer edgeOne.Close()
				other := controllertest.ClaimedAt(controllertest.NewTask("other", 1), time.Now())
				job := controllertest.Execute(t, edgeOne, taskstate.DistinctTargets(other)...)
				time.Sleep(2 * time.Second)
				signedAt := time.Now()
				u, p := settling(t, edgeOne.RoundTripper(), controllertest.ClaimedAt(controllertest.NewTask("a", 1), signedAt))
				if known {
					taskstate.RecordJob(job, nil, time.Now())(other)
					p.Jobs.ObserveTask(other)
				}
				lookUntil(u, p, controllertest.Zone, signedAt.Add(controllertest.Validity+controllertest.Margin+10*time.Second))
				if task := u.ReadTask("a"); len(task.Status.Jobs) == 0 != known || task.Status.LostCalls == 1 != known {
					t.Errorf("its jobs are %+v, %d calls were lost", task.Status.Jobs, task.Status.LostCalls)
				}
			})
		})
	}
}
