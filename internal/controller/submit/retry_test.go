package submit

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

func TestARetryDoesNotTakeTheJobThatFailedForItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		edgeOne.SetRules(simulator.Rule{URL: "https://h/0"}, simulator.Rule{Status: "failed"})
		submitted := controllertest.ClaimedAt(controllertest.NewTask("a", 3), time.Now())
		taskstate.RecordJob(controllertest.Execute(t, edgeOne, taskstate.DistinctTargets(submitted)...), nil, time.Now())(submitted)
		u := controllertest.NewUnit(t, edgeOne.RoundTripper(), nil, submitted)
		u.LearnTime()
		p := pollerOf(u, u.ReadTask("a"))
		lookUntil(u, p, controllertest.Zone, time.Now().Add(20*time.Second))
		edgeOne.SetRules()
		failed := u.ReadTask("a").Status.Jobs[0].ID
		// EdgeOne reports times in seconds: the job can seem to belong to the claim.
		task := u.ReadTask("a")
		task.Status.Jobs[0].SubmitTime = metav1.NewTime(time.Now().Truncate(time.Second))
		if err := u.Writer.Status().Update(context.Background(), task); err != nil {
			t.Fatal(err)
		}
		asking := u.ReadTask("a")
		controllertest.Asking("1")(asking)
		if err := u.Writer.Update(t.Context(), asking); err != nil {
			t.Fatal(err)
		}
		p.Tasks.ObserveTask(u.ReadTask("a"))
		lookUntil(u, p, controllertest.Zone, time.Now().Add(10*time.Second))
		edgeOne.AddFault(simulator.Fault{Match: simulator.Matcher{Action: "CreatePrefetchTask"}, Effect: simulator.Effect{Answer: "close"}})
		s, l := submitterOf(u, u.ReadTask("a"))
		call := planNext(u, l)
		s.startCall(context.Background(), l, controllertest.Creds, call)
		synctest.Wait()
		if claim := u.ReadTask("a").Status.Submission; claim == nil || len(claim.EarlierJobs) != 1 || claim.EarlierJobs[0] != failed {
			t.Errorf("the claim is %+v", claim)
		}
	})
}
