package controller

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

const validity, margin = 5 * time.Minute, 30 * time.Second

// settling is a unit whose tasks are claimed now, and its Poller.
func settling(t *testing.T, edgeOne http.RoundTripper, tasks ...*v1alpha1.PrefetchTask) (*unit, *Poller) {
	t.Helper()
	u := newUnit(t, edgeOne, nil, tasks...)
	var live []*v1alpha1.PrefetchTask
	for _, task := range tasks {
		live = append(live, u.get(task.Name))
	}
	return u, u.poller(live...)
}

// learnTime makes a call whose answer tells EdgeOne's time.
func (u *unit) learnTime() {
	u.t.Helper()
	if _, err := u.edgeOne.DescribeContentQuota(context.Background(), unitCreds, unitZone); err != nil {
		u.t.Fatal(err)
	}
}

func TestACallThatIsNotListedIsReleasedAfterFenceAndMarginOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(nil)
		defer edgeOne.Close()
		signedAt := time.Now()
		u, p := settling(t, edgeOne.RoundTripper(), claimedAt(unitTask("a", 1), signedAt))
		u.lookUntil(p, unitZone, signedAt.Add(validity+margin))
		if task := u.get("a"); task.Status.Submission == nil {
			t.Error("released before the history is complete")
		}
		u.lookUntil(p, unitZone, signedAt.Add(validity+margin+10*time.Second))
		if task := u.get("a"); task.Status.Submission != nil || task.Status.LostCalls != 1 {
			t.Errorf("not released: %+v", task.Status)
		}
	})
}

// slowly keeps what asks for jobs for some time on its way to the server.
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
		edgeOne := unitEdgeOne(func(c *simulator.Config) { c.JobDuration = time.Hour })
		defer edgeOne.Close()
		other := unitTask("other", 1)
		other.Spec.Targets[0] = "https://h/other"
		taskstate.RecordJob(execute(t, edgeOne, "https://h/other"), nil, time.Now())(claimedAt(other, time.Now()))
		signedAt := time.Now()
		complete := signedAt.Truncate(time.Second).Add(validity + margin)
		u, p := settling(t, slowly{edgeOne.RoundTripper(), func() time.Duration {
			if until := time.Until(complete); until > 0 && until < 5*time.Second {
				return 8 * time.Second // the claim's window was read before, and this ends after
			}
			return 0
		}}, claimedAt(unitTask("a", 1), signedAt), other)
		go func() { // Accepted at the fence, executed at last, after the look
			time.Sleep(time.Until(complete.Add(-time.Second)))
			execute(t, edgeOne, "https://h/0")
		}()
		u.lookUntil(p, unitZone, complete.Add(20*time.Second))
		if task := u.get("a"); task.Status.LostCalls != 0 || len(task.Status.Jobs) != 1 {
			t.Errorf("executed, and the status is %+v", task.Status)
		}
	})
}

func TestALookThatIsRefusedSettlesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(func(c *simulator.Config) { c.Keys[0].Actions = []string{"CreatePrefetchTask"} })
		defer edgeOne.Close()
		signedAt := time.Now()
		u, p := settling(t, edgeOne.RoundTripper(), claimedAt(unitTask("a", 1), signedAt))
		u.lookUntil(p, unitZone, signedAt.Add(validity+margin+5*time.Minute))
		task := u.get("a")
		if task.Status.Submission == nil || taskstate.ReadyReason(task) != v1alpha1.ReasonOutcomeUnknown || !meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionStalled) {
			t.Errorf("the status is %+v", task.Status)
		}
	})
}

func TestOnlyJobsOfTheClaimsOwnTimeAreItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(nil)
		defer edgeOne.Close()
		early := claimedAt(unitTask("early", 2), time.Now())
		time.Sleep(time.Second)
		execute(t, edgeOne, "https://h/0", "https://h/1")
		time.Sleep(20 * time.Second)
		late := claimedAt(unitTask("late", 1), time.Now())
		time.Sleep(validity + margin + 10*time.Second) // both are past the fence, and looked for in one window
		u, p := settling(t, edgeOne.RoundTripper(), early, late)
		u.learnTime()
		u.lookUntil(p, unitZone, time.Now().Add(time.Minute))
		if task := u.get("early"); len(task.Status.Jobs) != 1 {
			t.Errorf("the job is not adopted: %+v", task.Status)
		}
		if task := u.get("late"); len(task.Status.Jobs) != 0 || task.Status.LostCalls != 1 {
			t.Errorf("a job from before the claim is adopted: %+v", task.Status)
		}
	})
}

func TestWindowsThatOverlapAreReadToTheirEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(nil)
		defer edgeOne.Close()
		first := claimedAt(unitTask("first", 1), time.Now())
		time.Sleep(4 * time.Minute)
		second := unitTask("second", 1)
		second.Spec.Targets[0] = "https://h/second"
		claimedAt(second, time.Now())
		time.Sleep(validity - time.Second) // just before its fence
		execute(t, edgeOne, "https://h/second")
		u, p := settling(t, edgeOne.RoundTripper(), first, second)
		time.Sleep(margin + 10*time.Second) // both are past the fence at the first look
		u.lookUntil(p, unitZone, time.Now().Add(time.Minute))
		if task := u.get("first"); task.Status.LostCalls != 1 {
			t.Errorf("the first was not executed, and is %+v", task.Status)
		}
		if task := u.get("second"); len(task.Status.Jobs) != 1 {
			t.Errorf("the second was executed, and is %+v", task.Status)
		}
	})
}

func TestAJobOfTheRunBeforeIsNotTheNewRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(nil)
		defer edgeOne.Close()
		job := execute(t, edgeOne, "https://h/0")
		signedAt := time.Now() // in the same second
		task := claimedAt(unitTask("a", 1), signedAt)
		task.Status.Submission.EarlierJobs = []string{job}
		u, p := settling(t, edgeOne.RoundTripper(), task)
		u.lookUntil(p, unitZone, signedAt.Add(validity+margin+10*time.Second))
		if task := u.get("a"); len(task.Status.Jobs) != 0 || task.Status.LostCalls != 1 {
			t.Errorf("the old run's job is adopted: %+v", task.Status)
		}
	})
}

func TestAnotherAccountsHistorySaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(func(c *simulator.Config) { c.WildcardLookups = true })
		defer edgeOne.Close()
		signedAt := time.Now()
		task := unitTask("a", 1)
		task.Spec.ZoneID = "*"
		claimedAt(task, signedAt).Status.Submission.AccountHash = "another"
		u, p := settling(t, edgeOne.RoundTripper(), task)
		u.lookUntil(p, "*", signedAt.Add(validity+margin+time.Minute))
		if task := u.get("a"); task.Status.Submission == nil || !meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionStalled) {
			t.Errorf("the status is %+v", task.Status)
		}
	})
}

func TestACallThatEdgeOneHasForgottenIsNotReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(nil)
		defer edgeOne.Close()
		u, p := settling(t, edgeOne.RoundTripper(), claimedAt(unitTask("a", 1), time.Now().Add(-73*time.Hour)))
		u.lookUntil(p, unitZone, time.Now().Add(5*time.Minute))
		if task := u.get("a"); task.Status.Submission == nil || !meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionStalled) {
			t.Errorf("the status is %+v", task.Status)
		}
	})
}

func TestACallIsNotForgottenBetweenTheDecisionAndTheLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(nil)
		defer edgeOne.Close()
		u, p := settling(t, edgeOne.RoundTripper(), claimedAt(unitTask("a", 1), time.Now()))
		execute(t, edgeOne, "https://h/0")
		time.Sleep(p.HistoryRetention - time.Minute)
		u.learnTime()
		seen := p.planClaimsRead([]*v1alpha1.PrefetchTask{u.get("a")})
		time.Sleep(2 * time.Minute)
		if err := p.readClaimWindows(t.Context(), unitCreds, zoneKey{ID: unitZone}, seen, true); err != nil {
			t.Fatal(err)
		}
		p.settleTask(t.Context(), u.get("a"), seen)
		if task := u.get("a"); task.Status.LostCalls > 0 {
			t.Errorf("executed, and released without a look: %+v", task.Status)
		}
	})
}

func TestACallIsLookedForIfTheEditThatCameAfterItIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(nil)
		defer edgeOne.Close()
		task := claimedAt(unitTask("a", 1), time.Now())
		task.Status.Submission.Expired = true
		if taskstate.IsWaiting(task) {
			t.Error("its targets would be submitted again")
		}
		u, p := settling(t, edgeOne.RoundTripper(), task)
		execute(t, edgeOne, "https://h/0")
		u.lookUntil(p, unitZone, time.Now().Add(20*time.Second))
		if task := u.get("a"); len(task.Status.Jobs) != 1 {
			t.Errorf("not found: %+v", task.Status)
		}
	})
}

func TestALocalClockThatRunsAheadReleasesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(func(c *simulator.Config) { c.ClockOffset = -4 * time.Minute })
		defer edgeOne.Close()
		task := claimedAt(unitTask("a", 1), edgeOne.Now())
		time.Sleep(2 * time.Minute) // by our clock its call is past the fence
		u, p := settling(t, edgeOne.RoundTripper(), task)
		u.lookUntil(p, unitZone, time.Now().Add(time.Minute))
		if task := u.get("a"); task.Status.Submission == nil {
			t.Errorf("released minutes too early: %+v", task.Status)
		}
	})
}

func TestACallThatThisProcessMakesIsLeftToIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(nil)
		defer edgeOne.Close()
		u, p := settling(t, edgeOne.RoundTripper(), claimedAt(unitTask("a", 1), time.Now()))
		execute(t, edgeOne, "https://h/0")
		u.calls.startCall("claim of a")
		u.lookUntil(p, unitZone, time.Now().Add(20*time.Second))
		if !kube.IsClaimedBy(u.get("a"), "claim of a") {
			t.Error("settled while the answer may come")
		}
		u.calls.endCall("claim of a")
		u.lookUntil(p, unitZone, time.Now().Add(20*time.Second))
		if task := u.get("a"); len(task.Status.Jobs) != 1 {
			t.Errorf("not settled: %+v", task.Status)
		}
	})
}

func TestTheClaimOfAnEarlierRunExpiresAndIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(nil)
		defer edgeOne.Close()
		signedAt := time.Now()
		task := claimedAt(unitTask("a", 1), signedAt)
		task.Spec.Mode = v1alpha1.ModeEdge
		u, p := settling(t, edgeOne.RoundTripper(), task)
		execute(t, edgeOne, "https://h/0")
		u.lookUntil(p, unitZone, signedAt.Add(validity+margin))
		if claim := u.get("a").Status.Submission; claim == nil || claim.Expired {
			t.Errorf("before its call is certain not to come: %+v", claim)
		}
		u.lookUntil(p, unitZone, signedAt.Add(validity+margin+10*time.Second))
		if claim := u.get("a").Status.Submission; claim == nil || !claim.Expired {
			t.Errorf("after: %+v", claim)
		}
	})
}

func TestWhatIsKnownOfADeletedTaskDoesNotHideTheOneThatTookItsName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUnit(t, unitEdgeOne(nil).RoundTripper(), nil)
		recorded := func(uid, version string) *v1alpha1.PrefetchTask {
			task := claimedAt(unitTask("a", 1), time.Now())
			taskstate.RecordJob("job of "+uid, nil, time.Now())(task)
			task.UID, task.ResourceVersion = types.UID(uid), version
			return task
		}
		first, second := recorded("first", "9"), recorded("second", "11")
		for _, order := range [][]*v1alpha1.PrefetchTask{{first, second}, {second, first}} {
			p := u.poller(order...)
			if tasks, _ := p.open(zoneKey{ID: unitZone}); len(tasks) != 1 || tasks[0] != second {
				t.Errorf("%s and then %s: it follows %+v", order[0].UID, order[1].UID, tasks)
			}
			p.versions.RemoveTask(first)
			if tasks, _ := p.open(zoneKey{ID: unitZone}); len(tasks) != 1 {
				t.Error("that the first is gone makes the second go")
			}
			p.versions.RemoveTask(second)
			if tasks, _ := p.open(zoneKey{ID: unitZone}); len(tasks) != 0 {
				t.Error("it follows one that is gone")
			}
		}
	})
}

// Nobody asked EdgeOne about its jobs yet.
func TestATaskThatIsFirstSeenDuringALookIsNotTakenForLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(nil)
		defer edgeOne.Close()
		var tasks []*v1alpha1.PrefetchTask
		for _, name := range []string{"a", "b"} {
			task := claimedAt(unitTask(name, 1), time.Now())
			taskstate.RecordJob(execute(t, edgeOne, taskstate.DistinctTargets(task)...), nil, time.Now())(task)
			tasks = append(tasks, task)
			time.Sleep(25 * time.Hour) // the deadline is 24
		}
		var u *unit
		var p *Poller
		looks := 0
		u = newUnit(t, roundTrip(func(req *http.Request) (*http.Response, error) {
			if looks++; looks == 2 { // the first tells the time
				p.versions.ObserveTask(u.get("a"))
			}
			return edgeOne.RoundTripper().RoundTrip(req)
		}), nil, tasks...)
		u.learnTime()
		p = u.poller(u.get("b"))
		u.lookUntil(p, unitZone, time.Now().Add(2*time.Minute))
		for _, task := range tasks {
			if task := u.get(task.Name); !meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionReady) {
				t.Errorf("%s after %d calls: %s", task.Name, looks, summary(task))
			}
		}
	})
}

// lostWhen is a way to EdgeOne that loses the answers of calls, and whose gateway has a
// clock that is ahead of EdgeOne's.
type lostWhen struct {
	http.RoundTripper
	lose  *bool
	ahead time.Duration
}

func (l lostWhen) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(req)
	if err == nil {
		resp.Header.Set("Date", time.Now().Add(l.ahead).UTC().Format(http.TimeFormat))
	}
	if *l.lose && req.Header.Get("X-TC-Action") == teo.ActionCreatePrefetchTask {
		return nil, errors.New("connection reset")
	}
	return resp, err
}

func TestACallIsFoundWhereClocksOfEdgeOneDiffer(t *testing.T) {
	for _, ahead := range []time.Duration{-2 * time.Second, 0, 500 * time.Millisecond, 2 * time.Second} {
		t.Run(ahead.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				edgeOne := unitEdgeOne(nil)
				defer edgeOne.Close()
				lose := true
				u := newUnit(t, lostWhen{edgeOne.RoundTripper(), &lose, ahead}, nil, unitTask("a", 1))
				time.Sleep(1550 * time.Millisecond)
				u.learnTime()
				p := u.poller()
				s, l := u.submitter(u.get("a"))
				l.queue.SetQuota(unitZone, 0, -1, time.Now())
				time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(1600 * time.Millisecond)))
				call := u.planned(l)
				l.queue.ReserveURLs("claim", unitZone, call.URLs, time.Now())
				s.makeCall(t.Context(), l, unitCreds, call, "claim")
				lose = false
				s.versions.ObserveTask(u.get("a"))
				u.lookUntil(p, unitZone, time.Now().Add(7*time.Minute))
				if task := u.get("a"); task.Status.LostCalls > 0 || len(task.Status.Jobs) != 1 {
					t.Errorf("executed once, and taken for not executed: %+v", task.Status)
				}
			})
		})
	}
}

func TestAJobThatWasMadeBeforeAClaimIsNotItsOwnIfItIsKnown(t *testing.T) {
	for name, known := range map[string]bool{"recorded by another claim": true, "of nobody knows whom": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				edgeOne := unitEdgeOne(nil)
				defer edgeOne.Close()
				other := claimedAt(unitTask("other", 1), time.Now())
				job := execute(t, edgeOne, taskstate.DistinctTargets(other)...)
				time.Sleep(2 * time.Second)
				signedAt := time.Now()
				u, p := settling(t, edgeOne.RoundTripper(), claimedAt(unitTask("a", 1), signedAt))
				if known {
					taskstate.RecordJob(job, nil, time.Now())(other)
					p.jobs.ObserveTask(other)
				}
				u.lookUntil(p, unitZone, signedAt.Add(validity+margin+10*time.Second))
				if task := u.get("a"); len(task.Status.Jobs) == 0 != known || task.Status.LostCalls == 1 != known {
					t.Errorf("its jobs are %+v, %d calls were lost", task.Status.Jobs, task.Status.LostCalls)
				}
			})
		})
	}
}

func TestACallThatIsAnsweredBeforeAClaimIsNotTheClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(nil)
		defer edgeOne.Close()
		first, second := unitTask("first", 1), unitTask("second", 1) // of the same URL
		u := newUnit(t, edgeOne.RoundTripper(), nil, first, second)
		u.learnTime()
		s, l := u.submitter(u.get("first"))
		s.startCall(t.Context(), l, unitCreds, u.planned(l))
		synctest.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		job := u.get("first").Status.Jobs[0].ID
		s.versions.ObserveTask(u.get("second"))
		edgeOne.AddFault(simulator.Fault{Match: simulator.Matcher{Action: teo.ActionCreatePrefetchTask}, Effect: simulator.Effect{Answer: "close"}})
		s.startCall(t.Context(), l, unitCreds, u.planned(l))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if claim := u.get("second").Status.Submission; claim == nil || !slices.Contains(claim.EarlierJobs, job) {
			t.Errorf("the claim does not say that %s was there before: %+v", job, claim)
		}
	})
}
