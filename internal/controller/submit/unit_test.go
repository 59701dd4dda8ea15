package submit

import (
	"context"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/follow"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

func submitConfigOf(u *controllertest.Unit) Config {
	return Config{
		Tasks: u.Tasks, Writer: u.Writer, Events: u.Events, EdgeOne: u.EdgeOne, Credentials: u.Credentials, Lists: u.Lists,
		Calls: &InFlightCalls{}, Runs: u.Runs, Critical: u.Critical,
		Batch: u.Batch, TasksPerCall: u.TasksPerCall, QPS: u.QPS, QuotaInterval: u.QuotaInterval, RecheckInterval: u.RecheckInterval,
		SignatureValidity: u.SignatureValidity, SettleMargin: u.SettleMargin, WriteTimeout: u.WriteTimeout, CallTimeout: u.CallTimeout,
	}
}

// submitterOf returns the Submitter and the account queue of the operator's own account. The
// queue contains these tasks and knows the quota of their zone.
func submitterOf(u *controllertest.Unit, tasks ...*v1alpha1.PrefetchTask) (*Submitter, *accountQueue) {
	s := NewSubmitter(submitConfigOf(u))
	for _, task := range tasks {
		s.Tasks.ObserveTask(task)
	}
	l := s.queueFor(taskstate.AccountKey{})
	return s, l
}

// planNext returns the next call of the queue.
func planNext(u *controllertest.Unit, l *accountQueue) *queue.Call {
	u.T.Helper()
	decision := l.queue.PlanNext(time.Now())
	if decision.ReadQuota != "" {
		l.queue.SetQuota(decision.ReadQuota, 0, -1, time.Now())
		decision = l.queue.PlanNext(time.Now())
	}
	if decision.Call == nil {
		u.T.Fatalf("no call is planned: %+v", decision)
	}
	return decision.Call
}

// pollerOf returns a Poller with these tasks. No call is in flight.
func pollerOf(u *controllertest.Unit, tasks ...*v1alpha1.PrefetchTask) *follow.Poller {
	p := follow.NewPoller(follow.Config{
		Tasks: u.Tasks, Writer: u.Writer, Events: u.Events, EdgeOne: u.EdgeOne, Credentials: u.Credentials, Jobs: follow.NewRecordedJobs(),
		Runs: u.Runs, IsInFlight: func(string) bool { return false },
		PollInterval: u.PollInterval, JobDeadline: u.JobDeadline, RecheckInterval: u.RecheckInterval, SignatureValidity: u.SignatureValidity,
		SettleMargin: u.SettleMargin, HistoryRetention: u.HistoryRetention, CallTimeout: u.CallTimeout,
	})
	for _, task := range tasks {
		p.Tasks.ObserveTask(task)
	}
	return p
}

// lookUntil makes the Poller read the zone every second until end.
func lookUntil(u *controllertest.Unit, p *follow.Poller, zoneID string, end time.Time) {
	u.T.Helper()
	for ; time.Now().Before(end); time.Sleep(time.Second) {
		for _, r := range []reconcile.TypedReconciler[follow.ZoneKey]{follow.NewLostCallReconciler(p), p} {
			if _, err := r.Reconcile(context.Background(), follow.ZoneKey{ID: zoneID}); err != nil {
				u.T.Fatal(err)
			}
		}
	}
}
