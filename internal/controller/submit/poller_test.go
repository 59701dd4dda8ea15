package submit

import (
	"errors"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// lostWhen is a transport to EdgeOne that loses the answers to calls while *lose is true. The
// clock of its gateway is ahead of EdgeOne's clock.
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
				edgeOne := controllertest.NewEdgeOne(nil)
				defer edgeOne.Close()
				lose := true
				u := controllertest.NewUnit(t, lostWhen{edgeOne.RoundTripper(), &lose, ahead}, nil, controllertest.NewTask("a", 1))
				time.Sleep(1550 * time.Millisecond)
				u.LearnTime()
				p := pollerOf(u)
				s, l := submitterOf(u, u.ReadTask("a"))
				l.queue.SetQuota(controllertest.Zone, 0, -1, time.Now())
				time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(1600 * time.Millisecond)))
				call := planNext(u, l)
				l.queue.ReserveURLs("claim", controllertest.Zone, call.URLs, time.Now())
				s.newAttempt(l, controllertest.Creds, call, "claim").run(t.Context())
				lose = false
				s.Tasks.ObserveTask(u.ReadTask("a"))
				lookUntil(u, p, controllertest.Zone, time.Now().Add(7*time.Minute))
				if task := u.ReadTask("a"); task.Status.LostCalls > 0 || len(task.Status.Jobs) != 1 {
					t.Errorf("executed once, and taken for not executed: %+v", task.Status)
				}
			})
		})
	}
}

func TestACallThatIsAnsweredBeforeAClaimIsNotTheClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		defer edgeOne.Close()
		first, second := controllertest.NewTask("first", 1), controllertest.NewTask("second", 1) // with the same URL
		u := controllertest.NewUnit(t, edgeOne.RoundTripper(), nil, first, second)
		u.LearnTime()
		s, l := submitterOf(u, u.ReadTask("first"))
		s.startCall(t.Context(), l, controllertest.Creds, planNext(u, l))
		synctest.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		job := u.ReadTask("first").Status.Jobs[0].ID
		s.Tasks.ObserveTask(u.ReadTask("second"))
		edgeOne.AddFault(simulator.Fault{Match: simulator.Matcher{Action: teo.ActionCreatePrefetchTask}, Effect: simulator.Effect{Answer: "close"}})
		s.startCall(t.Context(), l, controllertest.Creds, planNext(u, l))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if claim := u.ReadTask("second").Status.Submission; claim == nil || !slices.Contains(claim.EarlierJobs, job) {
			t.Errorf("the claim does not say that %s was there before: %+v", job, claim)
		}
	})
}
