package follow

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/targetlist"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// The Poller follows a handed-over task without its list. It reads the list only when there is
// news.
func TestTheListOfATaskIsReadOnlyWhenItsOutcomesAreNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(func(c *simulator.Config) { c.JobDuration = 10 * time.Minute })
		task := handedOver(t, edgeOne, "a", 50, 50)
		u := controllertest.NewUnit(t, edgeOne.RoundTripper(), nil, task)
		reads := &countingReader{Reader: u.Writer.Client}
		u.Writer = kube.NewStatusWriter(u.Writer.Client, reads, u.Tasks, u.WriteTimeout, nil)
		p := pollerOf(u, taskstate.ElideTargets(u.ReadTask("a")))
		lookUntil(u, p, controllertest.Zone, time.Now().Add(9*time.Minute))
		if reads.n > 2 {
			t.Errorf("the list was read %d times while nothing had ended", reads.n)
		}
		lookUntil(u, p, controllertest.Zone, time.Now().Add(5*time.Minute))
		if now := u.ReadTask("a"); taskstate.ReadyReason(now) != v1alpha1.ReasonSucceeded || reads.n > 6 {
			t.Errorf("the task is %s after %d reads", taskstate.ReadyReason(now), reads.n)
		}
	})
}

type countingReader struct {
	client.Reader
	n int
}

func (r *countingReader) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	r.n++

	return r.Reader.Get(ctx, key, obj, opts...)
}

// A lost call has a pass every 1.5 seconds. Not every pass reads the target list, which can have
// 1.5 MB.
func TestTheListOfATaskIsNotReadAtEachLookForItsCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		task := controllertest.NewTask("a", 0)
		task.Spec.Targets = controllertest.LongTargets("a", 2*taskstate.MaxCachedTargets>>10)
		controllertest.ClaimedAt(task, time.Now())
		u := controllertest.NewUnit(t, edgeOne.RoundTripper(), nil, task)
		targetlist.NewLoader(u.ListConfig(u.Writer, make(chan struct{})))
		reads := &countingReader{Reader: u.Writer.Client}
		u.Writer = kube.NewStatusWriter(u.Writer.Client, reads, u.Tasks, u.WriteTimeout, nil)
		p := pollerOf(u, taskstate.ElideTargets(u.ReadTask("a")))
		controllertest.Execute(t, edgeOne, "https://h/somebody-elses")
		lookUntil(u, p, controllertest.Zone, time.Now().Add(5*time.Minute))
		if reads.n > 5 {
			t.Errorf("the list was read %d times in 5 minutes in which nothing was to be seen", reads.n)
		}
		lookUntil(u, p, controllertest.Zone, time.Now().Add(time.Minute))
		if now := u.ReadTask("a"); now.Status.Submission != nil || now.Status.LostCalls != 1 {
			t.Errorf("the claim is not settled: %+v", now.Status)
		}
	})
}

// Writing the outcomes of long lists does not delay the settling of other tasks' lost calls.
func TestOutcomesOfLongListsDoNotKeepLostCallsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := controllertest.NewEdgeOne(nil)
		lost := controllertest.ClaimedAt(controllertest.NewTask("lost", 50), time.Now())
		u := controllertest.NewUnit(t, edgeOne.RoundTripper(), nil, lost)
		p := pollerOf(u, taskstate.ElideTargets(u.ReadTask("lost")))
		controllertest.Execute(t, edgeOne, taskstate.DistinctTargets(lost)...)
		for range maxLongLists { // occupy all slots, as slow writes of outcomes do
			_, done := p.borrowList(t.Context(), taskstate.ElideTargets(lost))
			go func() { time.Sleep(time.Minute); done() }()
		}
		started := time.Now()
		lookUntil(u, p, controllertest.Zone, time.Now().Add(10*time.Second))
		if u.ReadTask("lost").Status.Submission != nil || time.Since(started) > 30*time.Second {
			t.Errorf("the lost call is settled after %s: %v", time.Since(started), u.ReadTask("lost").Status.Submission == nil)
		}
		time.Sleep(2 * time.Minute)
	})
}
