package submit

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// If a proxy refuses large requests, only the targets that cannot be sent wait.
func TestAProxyThatTakesNoLargeRequestsHoldsNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		const limit = 2000
		large, small := controllertest.NewTask("large", 100), controllertest.NewTask("small", 1)
		for i := range large.Spec.Targets {
			large.Spec.Targets[i] += v1alpha1.Target("/" + strings.Repeat("x", 70))
		}
		large.Spec.Targets[50] += v1alpha1.Target(strings.Repeat("y", 1900))
		small.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "x", Value: "1"}}
		small.Spec.Targets[0] += "/small"
		cutOff := 0
		u := controllertest.NewUnit(t, controllertest.RoundTripFunc(func(req *http.Request) (*http.Response, error) {
			if req.ContentLength > limit {
				cutOff++
				_, _ = io.ReadFull(req.Body, make([]byte, limit))
				return nil, errors.New("write: connection reset by peer")
			}
			return edgeOne.RoundTripper().RoundTrip(req)
		}), nil, large, small)
		s, l := submitterOf(u, u.ReadTask("large"), u.ReadTask("small"))
		l.queue.SetQuota(controllertest.Zone, 0, -1, time.Now())
		u.LearnTime()
		runPass(u, s, time.Now().Add(5*time.Second))
		if len(u.ReadTask("small").Status.Jobs) != 1 {
			t.Error("the small task waits for the large one")
		}
		runPass(u, s, time.Now().Add(20*time.Minute))
		s.Calls.Wait()
		task := u.ReadTask("large")
		if n := int(*task.Status.Targets.Submitted); n != 99 {
			t.Errorf("%d of the 99 URLs that can be sent are submitted", n)
		}
		if taskstate.ReadyReason(task) != v1alpha1.ReasonUnavailable {
			t.Errorf("the task whose URL cannot be sent is %s", taskstate.ReadyReason(task))
		}
		if cutOff > 60 {
			t.Errorf("%d calls were cut off in 20 minutes", cutOff)
		}
	})
}

func TestAPlanWithoutADailyQuotaNeedsAPerson(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(func(c *simulator.Config) { c.Zones[0].Daily = -1 })
		defer edgeOne.Close()
		u := controllertest.NewUnit(t, edgeOne.RoundTripper(), nil, controllertest.NewTask("a", 1))
		s, l := submitterOf(u, u.ReadTask("a"))
		if decision := l.queue.PlanNext(time.Now()); decision.ReadQuota != controllertest.Zone {
			t.Fatalf("%+v", decision)
		}
		s.readQuota(l, controllertest.Creds, controllertest.Zone)
		runPass(u, s, time.Now().Add(time.Second))
		synctest.Wait()
		task := u.ReadTask("a")
		if got := controllertest.ConditionOf(task, v1alpha1.ConditionStalled); got != "True/"+v1alpha1.ReasonBatchQuota {
			t.Errorf("the task says %+v", task.Status.Conditions)
		}
	})
}
