package follow

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// retrying returns a unit with a task of which EdgeOne failed all targets but the first.
func retrying(t *testing.T, edgeOne *simulator.Simulator, targets int) (*controllertest.Unit, *Poller) {
	t.Helper()
	edgeOne.SetRules(simulator.Rule{URL: "https://h/0"}, simulator.Rule{Status: "failed"})
	task := controllertest.ClaimedAt(controllertest.NewTask("a", targets), time.Now())
	taskstate.RecordJob(controllertest.Execute(t, edgeOne, taskstate.DistinctTargets(task)...), nil, time.Now())(task)
	u := controllertest.NewUnit(t, edgeOne.RoundTripper(), nil, task)
	u.LearnTime()
	p := pollerOf(u, u.ReadTask("a"))
	lookUntil(u, p, controllertest.Zone, time.Now().Add(20*time.Second))
	if task := u.ReadTask("a"); !taskstate.IsRunOver(task) || int(*task.Status.Targets.Failed) != targets-1 {
		t.Fatalf("the status is %+v", task.Status)
	}
	edgeOne.SetRules()
	return u, p
}

// askForRetry makes the task request a retry.
func askForRetry(u *controllertest.Unit, p *Poller, value string) {
	u.T.Helper()
	task := u.ReadTask("a")
	controllertest.Asking(value)(task)
	if err := u.Writer.Update(context.Background(), task); err != nil {
		u.T.Fatal(err)
	}
	p.Tasks.ObserveTask(u.ReadTask("a"))
}

func TestWhatFailedBeyondTheNamesInTheStatusIsReadFromEdgeOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		u, p := retrying(t, edgeOne, 300)
		askForRetry(u, p, "1")
		lookUntil(u, p, controllertest.Zone, time.Now().Add(20*time.Second))
		if task := u.ReadTask("a"); taskstate.OpenPositions(task).String() != "1-299" || task.Status.LastHandledRetry != "1" {
			t.Errorf("open: %s of %+v", taskstate.OpenPositions(task), task.Status)
		}
	})
}

func TestARetryWaitsWhereWhatFailedCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		u, p := retrying(t, edgeOne, 300)
		key := simulator.Key{SecretID: controllertest.Creds.SecretID, SecretKey: controllertest.Creds.SecretKey, Account: "a", Actions: []string{"CreatePrefetchTask"}}
		edgeOne.SetKey(key)
		askForRetry(u, p, "1")
		lookUntil(u, p, controllertest.Zone, time.Now().Add(3*time.Minute))
		task := u.ReadTask("a")
		if !taskstate.IsRetryDue(task) || len(taskstate.OpenPositions(task)) > 0 || !strings.Contains(task.Status.Conditions[0].Message, "cannot be read") ||
			!taskstate.IsStalledFor(task, v1alpha1.ReasonPermissionDenied) {
			t.Errorf("the status is %+v", task.Status)
		}
		key.Actions = nil
		edgeOne.SetKey(key)
		lookUntil(u, p, controllertest.Zone, time.Now().Add(3*time.Minute))
		if task := u.ReadTask("a"); taskstate.OpenPositions(task).String() != "1-299" {
			t.Errorf("open: %s of %+v", taskstate.OpenPositions(task), task.Status)
		}
	})
}

// A pass that started for other tasks does not show the failed targets of this task.
func TestARetryThatIsAskedForDuringALookWaitsForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		u, p := retrying(t, edgeOne, 300)
		other := controllertest.ClaimedAt(controllertest.NewTask("b", 1), time.Now())
		taskstate.RecordJob(controllertest.Execute(t, edgeOne, taskstate.DistinctTargets(other)...), nil, time.Now())(other)
		looks := 0
		client, err := teo.NewClient(teo.Options{Transport: controllertest.RoundTripFunc(func(req *http.Request) (*http.Response, error) {
			if looks++; looks == 1 {
				askForRetry(u, p, "1")
			}
			return edgeOne.RoundTripper().RoundTrip(req)
		})})
		if err = errors.Join(err, u.Writer.Create(t.Context(), other)); err != nil {
			t.Fatal(err)
		}
		p.EdgeOne = client
		p.Tasks.ObserveTask(u.ReadTask("b"))
		lookUntil(u, p, controllertest.Zone, time.Now().Add(time.Minute))
		if task := u.ReadTask("a"); !taskstate.IsRunOver(u.ReadTask("b")) || taskstate.OpenPositions(task).String() != "1-299" {
			t.Errorf("after %d looks %q is open: %+v", looks, taskstate.OpenPositions(task), task.Status)
		}
	})
}

func TestARetryWaitsWhereEdgeOneDoesNotTakeTheQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		u, p := retrying(t, edgeOne, 300)
		edgeOne.AddFault(simulator.Fault{
			Match:  simulator.Matcher{Action: "DescribePrefetchTasks"},
			Effect: simulator.Effect{Code: "InvalidParameter", Message: "No tasks can be listed here."},
		})
		askForRetry(u, p, "1")
		lookUntil(u, p, controllertest.Zone, time.Now().Add(2*time.Minute))
		task := u.ReadTask("a")
		if message := task.Status.Conditions[0].Message; len(taskstate.OpenPositions(task)) > 0 ||
			!strings.Contains(message, "No tasks can be listed here") || !strings.Contains(message, "spec.revision") {
			t.Errorf("the status is %+v", task.Status)
		}
		edgeOne.ClearFaults()
		lookUntil(u, p, controllertest.Zone, time.Now().Add(2*time.Minute))
		if task := u.ReadTask("a"); taskstate.OpenPositions(task).String() != "1-299" {
			t.Errorf("open: %s of %+v", taskstate.OpenPositions(task), task.Status)
		}
	})
}
