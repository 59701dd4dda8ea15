package follow

import (
	"context"
	"maps"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
)

func followConfigOf(u *controllertest.Unit) Config {
	return Config{
		Tasks: u.Tasks, Writer: u.Writer, Events: u.Events, EdgeOne: u.EdgeOne, Credentials: u.Credentials, Jobs: NewRecordedJobs(),
		Runs: u.Runs, IsInFlight: func(string) bool { return false },
		PollInterval: u.PollInterval, JobDeadline: u.JobDeadline, RecheckInterval: u.RecheckInterval, SignatureValidity: u.SignatureValidity,
		SettleMargin: u.SettleMargin, HistoryRetention: u.HistoryRetention, CallTimeout: u.CallTimeout,
	}
}

// pollerOf returns a Poller with these tasks.
func pollerOf(u *controllertest.Unit, tasks ...*v1alpha1.PrefetchTask) *Poller {
	p := NewPoller(followConfigOf(u))
	for _, task := range tasks {
		p.Tasks.ObserveTask(task)
	}
	return p
}

// lookUntil makes a pass for lost calls and a pass for outcomes every second until end.
func lookUntil(u *controllertest.Unit, p *Poller, zoneID string, end time.Time) {
	u.T.Helper()
	for ; time.Now().Before(end); time.Sleep(time.Second) {
		for _, r := range []reconcile.TypedReconciler[ZoneKey]{lostCallReconciler{p}, p} {
			if _, err := r.Reconcile(context.Background(), ZoneKey{ID: zoneID}); err != nil {
				u.T.Fatal(err)
			}
		}
	}
}

// open returns the tasks of a zone that the Poller follows. due is always zero.
func (p *Poller) open(z ZoneKey) (tasks []*v1alpha1.PrefetchTask, due time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if work := p.zones[z]; work != nil {
		tasks = slices.Collect(maps.Values(work.tasks))
	}
	return tasks, due
}
