package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// asking makes the task ask for a retry.
func asking(value string) taskstate.Transition {
	return func(task *v1alpha1.PrefetchTask) {
		metav1.SetMetaDataAnnotation(&task.ObjectMeta, v1alpha1.RetryAnnotation, value)
	}
}

// submitted hands positions over in a job.
func submitted(positions, job string) taskstate.Transition {
	return func(task *v1alpha1.PrefetchTask) {
		claiming(positions)(task)
		taskstate.RecordJob(job, nil, t0)(task)
	}
}

// ended is how EdgeOne lists a job of these targets.
func ended(job string, succeeded, failed taskstate.Positions) taskstate.JobRecords {
	all := listed(job, "success", succeeded...)
	for id, entries := range listed(job, "failed", failed...) {
		if all[id] == nil {
			all[id] = entries
		}
		maps.Copy(all[id], entries)
	}
	return all
}

func TestARetryOpensWhatFailedAndNothingElse(t *testing.T) {
	following := func(l taskstate.JobRecords) taskstate.Transition { return follow(l, time.Hour, t0, t0) }
	late := follow(listed("j", "success", 0), time.Hour, t0, t0.Add(2*time.Hour))
	all, first, rest := taskstate.AllPositions(300), taskstate.AllPositions(100), taskstate.AllPositions(300).Minus(taskstate.AllPositions(100))
	for _, c := range []struct {
		name    string
		targets int
		changes []taskstate.Transition
		again   taskstate.JobRecords // what EdgeOne lists when the retry is asked for
		open    string
		counts  string // total, submitted, succeeded, failed
	}{
		{"refused", 3, []taskstate.Transition{claiming("0-2"), taskstate.RecordJob("j", map[string]string{"https://h/1": "no"}, t0), following(listed("j", "success", 0, 2))}, nil, "1", "3 2 2 0"},
		{"refused as a whole", 2, []taskstate.Transition{taskstate.RefuseTargets(taskstate.AllPositions(2), "no", t0)}, nil, "0-1", "2 0 0 0"},
		{"a whole job", 3, []taskstate.Transition{submitted("0", "i"), submitted("1-2", "j"), following(listed("i", "success", 0)), following(listed("j", "failed", 1, 2))}, nil, "1-2", "3 1 1 0"},
		{"part of a job", 3, []taskstate.Transition{submitted("0-2", "j"), following(ended("j", []int{0, 2}, []int{1}))}, nil, "1", "3 2 2 0"},
		{"without an outcome", 2, []taskstate.Transition{submitted("0-1", "j"), late}, nil, "1", "2 1 1 0"},
		{"everything succeeded", 2, []taskstate.Transition{submitted("0-1", "j"), following(listed("j", "success", 0, 1))}, nil, "", "2 2 2 0"},
		{"where outcomes cannot be read", 2, []taskstate.Transition{claiming("0-1"), taskstate.RecordJob("j", map[string]string{"https://h/1": "no"}, t0), taskstate.EndNotFollowed("no", t0)}, nil, "1", "2 1 0 0"},
		{"retried before", 3, []taskstate.Transition{submitted("0-2", "j"), following(ended("j", []int{0}, []int{1, 2})), asking("0"), reopen(nil, t0),
			submitted("1-2", "k"), following(ended("k", []int{1}, []int{2}))}, nil, "2", "3 2 2 0"},
		{"more than the status names", 300, []taskstate.Transition{submitted("0-299", "j"), following(ended("j", first, rest))}, ended("j", first, rest), "100-299", "300 100 100 0"},
		{"some of them have succeeded since", 300, []taskstate.Transition{submitted("0-299", "j"), following(ended("j", first, rest))}, ended("j", first.Union([]int{100}), rest.Minus([]int{100})), "101-299", "300 101 101 0"},
		{"forgotten by EdgeOne", 300, []taskstate.Transition{submitted("0-299", "j"), following(ended("j", first, rest))}, taskstate.JobRecords{}, "", "300 300 100 200"},
		{"half forgotten by EdgeOne", 300, []taskstate.Transition{submitted("0-299", "j"), following(ended("j", first, rest))}, ended("j", first[:50], rest), "", "300 300 100 200"},
		{"named or whole, without a look", 300, []taskstate.Transition{submitted("0", "i"), submitted("1-299", "j"), following(listed("i", "success", 0)), following(listed("j", "failed", all[1:]...))}, nil, "1-299", "300 1 1 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			task := taskOf(c.targets)
			for _, change := range c.changes {
				change(task)
			}
			jobs := len(task.Status.Jobs)
			asking("1")(task)
			if !taskstate.IsRetryDue(task) {
				t.Fatalf("no retry is due: %s", summary(task))
			}
			reopen(c.again, t0)(task)
			if taskstate.IsRetryDue(task) || task.Status.LastHandledRetry != "1" {
				t.Error("the status does not say that the retry is handled")
			}
			if got := taskstate.OpenPositions(task).String(); got != c.open || taskstate.IsRunOver(task) != (c.open == "") || task.Status.CompletionTime.IsZero() != (c.open != "") {
				t.Errorf("open: %q, want %q; completed %v", got, c.open, task.Status.CompletionTime)
			}
			s := task.Status
			if got := fmt.Sprint(*s.Targets.Total, *s.Targets.Submitted, *s.Targets.Succeeded, *s.Targets.Failed); got != c.counts {
				t.Errorf("counts are %s, want %s", got, c.counts)
			}
			if len(s.Jobs) != jobs {
				t.Errorf("%d jobs of %d are left", len(s.Jobs), jobs)
			}
			if c.open == "" {
				return
			}
			submitted(c.open, "last")(task)
			following(listed("last", "success", taskstate.AllPositions(c.targets)...))(task)
			if want := c.targets; c.name != "where outcomes cannot be read" && (!strings.Contains(summary(task), "Finished=Succeeded") || int(*task.Status.Targets.Succeeded) != want) {
				t.Errorf("in the end: %s, %d of %d", summary(task), *task.Status.Targets.Succeeded, want)
			}
		})
	}
}

func TestARetryIsAskedForByANewValueOfARunThatIsOver(t *testing.T) {
	failed := func() *v1alpha1.PrefetchTask {
		task := taskOf(2)
		taskstate.RefuseTargets(taskstate.AllPositions(2), "no", t0)(task)
		return task
	}
	for _, c := range []struct {
		name   string
		change taskstate.Transition
		due    bool
	}{
		{"no annotation", func(*v1alpha1.PrefetchTask) {}, false},
		{"a value", asking("1"), true},
		{"a long value", asking(strings.Repeat("long", 1000)), true},
		{"a value that was handled", func(task *v1alpha1.PrefetchTask) { asking("1")(task); task.Status.LastHandledRetry = "1" }, false},
		{"the annotation is removed", func(task *v1alpha1.PrefetchTask) { task.Status.LastHandledRetry = "1" }, false},
		{"the run is under way", func(task *v1alpha1.PrefetchTask) { asking("1")(task); reopen(nil, t0)(task); asking("2")(task) }, false},
		{"another run is asked for", func(task *v1alpha1.PrefetchTask) { asking("1")(task); task.Spec.Revision = "2" }, false},
		{"another run has begun, and failed", func(task *v1alpha1.PrefetchTask) {
			asking("1")(task)
			task.Spec.Revision = "2"
			taskstate.RefuseTargets(taskstate.AllPositions(2), "no", t0)(task)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			task := failed()
			c.change(task)
			if taskstate.IsRetryDue(task) != c.due {
				t.Errorf("due: %v, want %v", !c.due, c.due)
			}
			if reopen(nil, t0)(task); taskstate.IsRetryDue(task) {
				t.Error("it is due again when it is handled")
			}
		})
	}
}

// retrying is a unit of a task of which all but the first target failed in EdgeOne.
func retrying(t *testing.T, edgeOne *simulator.Simulator, targets int) (*unit, *Poller) {
	t.Helper()
	edgeOne.SetRules(simulator.Rule{URL: "https://h/0"}, simulator.Rule{Status: "failed"})
	task := claimedAt(unitTask("a", targets), time.Now())
	taskstate.RecordJob(execute(t, edgeOne, taskstate.DistinctTargets(task)...), nil, time.Now())(task)
	u := newUnit(t, edgeOne.RoundTripper(), nil, task)
	u.learnTime()
	p := u.poller(u.get("a"))
	u.lookUntil(p, unitZone, time.Now().Add(20*time.Second))
	if task := u.get("a"); !taskstate.IsRunOver(task) || int(*task.Status.Targets.Failed) != targets-1 {
		t.Fatalf("the status is %+v", task.Status)
	}
	edgeOne.SetRules()
	return u, p
}

// ask has the task ask for a retry.
func (u *unit) ask(p *Poller, value string) {
	u.t.Helper()
	task := u.get("a")
	asking(value)(task)
	if err := u.store.Update(context.Background(), task); err != nil {
		u.t.Fatal(err)
	}
	p.versions.ObserveTask(u.get("a"))
}

func TestWhatFailedBeyondTheNamesInTheStatusIsReadFromEdgeOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(nil)
		defer edgeOne.Close()
		u, p := retrying(t, edgeOne, 300)
		u.ask(p, "1")
		u.lookUntil(p, unitZone, time.Now().Add(20*time.Second))
		if task := u.get("a"); taskstate.OpenPositions(task).String() != "1-299" || task.Status.LastHandledRetry != "1" {
			t.Errorf("open: %s of %+v", taskstate.OpenPositions(task), task.Status)
		}
	})
}

func TestARetryWaitsWhereWhatFailedCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(nil)
		defer edgeOne.Close()
		u, p := retrying(t, edgeOne, 300)
		key := simulator.Key{SecretID: unitCreds.SecretID, SecretKey: unitCreds.SecretKey, Account: "a", Actions: []string{"CreatePrefetchTask"}}
		edgeOne.SetKey(key)
		u.ask(p, "1")
		u.lookUntil(p, unitZone, time.Now().Add(3*time.Minute))
		task := u.get("a")
		if !taskstate.IsRetryDue(task) || len(taskstate.OpenPositions(task)) > 0 || !strings.Contains(task.Status.Conditions[0].Message, "cannot be read") {
			t.Errorf("the status is %+v", task.Status)
		}
		key.Actions = nil
		edgeOne.SetKey(key)
		u.lookUntil(p, unitZone, time.Now().Add(3*time.Minute))
		if task := u.get("a"); taskstate.OpenPositions(task).String() != "1-299" {
			t.Errorf("open: %s of %+v", taskstate.OpenPositions(task), task.Status)
		}
	})
}

// A look that was begun for other tasks does not tell what failed of this one.
func TestARetryThatIsAskedForDuringALookWaitsForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(nil)
		defer edgeOne.Close()
		u, p := retrying(t, edgeOne, 300)
		other := claimedAt(unitTask("b", 1), time.Now())
		taskstate.RecordJob(execute(t, edgeOne, taskstate.DistinctTargets(other)...), nil, time.Now())(other)
		looks := 0
		client, err := teo.NewClient(teo.Options{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
			if looks++; looks == 1 {
				u.ask(p, "1")
			}
			return edgeOne.RoundTripper().RoundTrip(req)
		})})
		if err = errors.Join(err, u.store.Create(t.Context(), other)); err != nil {
			t.Fatal(err)
		}
		u.edgeOne = client
		p.versions.ObserveTask(u.get("b"))
		u.lookUntil(p, unitZone, time.Now().Add(time.Minute))
		if task := u.get("a"); !taskstate.IsRunOver(u.get("b")) || taskstate.OpenPositions(task).String() != "1-299" {
			t.Errorf("after %d looks %q is open: %+v", looks, taskstate.OpenPositions(task), task.Status)
		}
	})
}

func TestARetryWaitsWhereEdgeOneDoesNotTakeTheQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(nil)
		defer edgeOne.Close()
		u, p := retrying(t, edgeOne, 300)
		edgeOne.AddFault(simulator.Fault{
			Match:  simulator.Matcher{Action: "DescribePrefetchTasks"},
			Effect: simulator.Effect{Code: "InvalidParameter", Message: "No tasks can be listed here."},
		})
		u.ask(p, "1")
		u.lookUntil(p, unitZone, time.Now().Add(2*time.Minute))
		task := u.get("a")
		if message := task.Status.Conditions[0].Message; len(taskstate.OpenPositions(task)) > 0 ||
			!strings.Contains(message, "No tasks can be listed here") || !strings.Contains(message, "spec.revision") {
			t.Errorf("the status is %+v", task.Status)
		}
		edgeOne.ClearFaults()
		u.lookUntil(p, unitZone, time.Now().Add(2*time.Minute))
		if task := u.get("a"); taskstate.OpenPositions(task).String() != "1-299" {
			t.Errorf("open: %s of %+v", taskstate.OpenPositions(task), task.Status)
		}
	})
}

// Half of 10,000 targets fail again and again, and no two of them are neighbours.
func TestAStatusGrowsByRetriesOnlyAsFarAsThereIsRoom(t *testing.T) {
	task := taskOf(taskstate.MaxTargets)
	var failing, fine taskstate.Positions
	for i := range taskstate.MaxTargets {
		if i%2 == 0 {
			failing = append(failing, i)
		} else {
			fine = append(fine, i)
		}
	}
	submitted("0-9999", "j0")(task)
	answer := ended("j0", fine, failing)
	follow(answer, time.Hour, t0, t0)(task)
	retries := 0
	for ; taskstate.IsRunOver(task); retries++ {
		asking(fmt.Sprint(retries))(task)
		if reopen(answer, t0)(task); taskstate.IsRunOver(task) {
			break
		}
		job := fmt.Sprint("j", retries+1)
		submitted(failing.String(), job)(task)
		answer[job] = ended(job, nil, failing)[job]
		follow(answer, time.Hour, t0, t0)(task)
		if retries > 100 {
			t.Fatal("a retry is never refused")
		}
	}
	size, err := json.Marshal(task.Status)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d retries fill %d KiB", retries, len(size)>>10)
	if retries < 3 || len(size) > 400<<10 || taskstate.IsRetryDue(task) || !strings.Contains(task.Status.Conditions[0].Message, "no room") {
		t.Errorf("after %d retries the status has %d bytes and says %q", retries, len(size), task.Status.Conditions[0].Message)
	}
}

// What a retry clears needs no room.
func TestAFirstRetryHasRoomHoweverLongTheNamesOfWhatFailed(t *testing.T) {
	for name, fails := range map[string]taskstate.Transition{
		"refused": taskstate.RefuseTargets(taskstate.AllPositions(100), strings.Repeat("no ", 300), t0),
		"failed": func(task *v1alpha1.PrefetchTask) {
			submitted("0-99", "j")(task)
			entries := taskstate.JobRecords{"j": {}}
			for _, u := range taskstate.DistinctTargets(task) {
				entries["j"][target.Identity(u)] = teo.PrefetchTask{JobID: "j", Target: u, Status: "failed", FailMessage: strings.Repeat("no ", 300)}
			}
			follow(entries, time.Hour, t0, t0)(task)
		},
	} {
		t.Run(name, func(t *testing.T) {
			task := taskOf(100)
			for i := range task.Spec.Targets {
				task.Spec.Targets[i] = v1alpha1.Target(fmt.Sprintf("https://h/%03d", i) + strings.Repeat("页", 900))
			}
			fails(task)
			if size := taskstate.JSONSize(task.Status); !taskstate.IsRunOver(task) || size <= taskstate.MaxStatus {
				t.Fatalf("%s in %d bytes", summary(task), size)
			}
			asking("1")(task)
			if reopen(nil, t0)(task); len(taskstate.OpenPositions(task)) != 100 {
				t.Errorf("%d targets are open: %s", len(taskstate.OpenPositions(task)), task.Status.Conditions[0].Message)
			}
		})
	}
}

func TestARetryOfWhatSucceededSaysNothingOfRoom(t *testing.T) {
	const n = 3000
	task := taskOf(n)
	submitted(taskstate.AllPositions(n).String(), "j")(task)
	job := task.Status.Jobs[0]
	task.Status.Jobs = nil
	for i := range n { // as where EdgeOne takes a single URL a call
		job.ID, job.Targets, job.Succeeded = fmt.Sprint("j", i), fmt.Sprint(i), 1
		task.Status.Jobs = append(task.Status.Jobs, job)
	}
	taskstate.UpdateSummary(task, t0)
	before := summary(task)
	asking("1")(task)
	if reopen(nil, t0)(task); taskstate.IsRetryDue(task) || summary(task) != before || !strings.HasPrefix(task.Status.Conditions[0].Message, "All 3000 targets") {
		t.Errorf("after a retry it says %s, %q; before: %s", summary(task), task.Status.Conditions[0].Message, before)
	}
}

func TestARetryDoesNotTakeTheJobThatFailedForItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(nil)
		defer edgeOne.Close()
		u, p := retrying(t, edgeOne, 3)
		failed := u.get("a").Status.Jobs[0].ID
		// EdgeOne tells times to the second: the job may seem to be of the claim's.
		task := u.get("a")
		task.Status.Jobs[0].SubmitTime = metav1.NewTime(time.Now().Truncate(time.Second))
		if err := u.store.Status().Update(context.Background(), task); err != nil {
			t.Fatal(err)
		}
		u.ask(p, "1")
		u.lookUntil(p, unitZone, time.Now().Add(10*time.Second))
		edgeOne.AddFault(simulator.Fault{Match: simulator.Matcher{Action: "CreatePrefetchTask"}, Effect: simulator.Effect{Answer: "close"}})
		s, l := u.submitter(u.get("a"))
		call := u.planned(l)
		s.startCall(context.Background(), l, unitCreds, call)
		synctest.Wait()
		if claim := u.get("a").Status.Submission; claim == nil || len(claim.EarlierJobs) != 1 || claim.EarlierJobs[0] != failed {
			t.Errorf("the claim is %+v", claim)
		}
	})
}

func TestTheCacheKeepsATaskThatAsksForARetryUntilItIsHandled(t *testing.T) {
	task := taskOf(2)
	taskstate.RefuseTargets(taskstate.AllPositions(2), "no", t0)(task)
	asking("1")(task)
	if _, whole := kube.PruneFinishedTask(task.DeepCopy()).(*v1alpha1.PrefetchTask); !whole {
		t.Error("slimmed before")
	}
	task.Status.LastHandledRetry = "1"
	kept := kube.PruneFinishedTask(task.DeepCopy())
	if _, whole := kept.(*v1alpha1.PrefetchTask); whole || len(kept.GetAnnotations()) > 0 {
		t.Errorf("kept afterwards: %+v", kept)
	}
}

func TestAStatusEditedByHandReopensNothingThatDidNotFail(t *testing.T) {
	for _, retried := range []string{"0-1", "1-2", "2", "1,0", "all", "0-99999999999999999999"} {
		task := taskOf(2)
		submitted("0-1", "j")(task)
		follow(ended("j", []int{0}, []int{1}), time.Hour, t0, t0)(task)
		task.Status.Jobs[0].Retried = retried
		if open := taskstate.OpenPositions(task); len(open) > 0 {
			t.Errorf("with %q retried, %v are open", retried, open)
		}
	}
}
