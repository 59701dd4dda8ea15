package follow

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// ZoneKey is what EdgeOne reports on: a zone, read with an account's credentials.
type ZoneKey struct {
	taskstate.AccountKey
	ID string
}

// Poller looks into EdgeOne's history of a zone for all that is open there: for the
// outcomes of jobs (outcomes.go), and for calls whose answer was lost (lost_calls.go).
// These are two controllers with a queue each, over the same open work.
type Poller struct {
	Config
	kube.DelayedQueue[ZoneKey]
	LostCalls kube.DelayedQueue[ZoneKey] // of the settler

	mu     sync.Mutex
	zones  map[ZoneKey]*zoneState
	places map[client.ObjectKey]ZoneKey
	proven map[ZoneKey]time.Time // when a look into the zone succeeded last

	unproven   chan struct{} // the looks into other zones that are made at once
	longLists  chan struct{} // those that are read for outcomes that looks have found
	claimLists chan struct{} // and for lost calls
}

// maxLongLists is how many long lists are in memory at once to write outcomes, and as many to
// look for lost calls.
const maxLongLists = 4

// NewPoller returns a Poller of all tasks that the store knows.
func NewPoller(config Config) *Poller {
	config.Jobs.setRetention(config.HistoryRetention)
	p := &Poller{
		Config: config, zones: map[ZoneKey]*zoneState{}, places: map[client.ObjectKey]ZoneKey{},
		proven: map[ZoneKey]time.Time{}, unproven: make(chan struct{}, maxUnprovenReads), longLists: make(chan struct{}, maxLongLists),
		claimLists: make(chan struct{}, maxLongLists),
	}
	config.Tasks.Subscribe(p.onChange)
	return p
}

// onChange has the zone of a task look at its newest version.
func (p *Poller) onChange(before, after *v1alpha1.PrefetchTask) {
	changed := before
	if after != nil {
		p.Jobs.ObserveTask(after)
		changed = after
	}
	key := client.ObjectKeyFromObject(changed)
	p.mu.Lock()
	defer p.mu.Unlock()
	task := p.Tasks.NewestVersion(key)
	z, open := ZoneKey{}, false
	if task != nil {
		z, open = openZone(task)
		if taskstate.IsUnseen(task) && !taskstate.IsRetryDue(task) && taskstate.IsPastRetention(task, p.HistoryRetention, p.EdgeOne.ServerTime()) {
			open = false // AcceptedFromNobody will know any more
		}
	}
	if before, ok := p.places[key]; ok && (!open || before != z) {
		p.removeTask(key)
	}
	if !open {
		return
	}
	work := p.zones[z]
	if work == nil {
		work = &zoneState{
			tasks: map[client.ObjectKey]*v1alpha1.PrefetchTask{}, wants: map[client.ObjectKey]*wantedOutcomes{}, looks: map[string]jobReadState{},
			firstLook: time.Now().Add(time.Duration(rand.Int64N(int64(p.PollInterval)))),
		}
		p.zones[z] = work
	}
	work.tasks[key], p.places[key] = task, z
	p.enqueueTask(z, work, task)
}

func (p *Poller) removeTask(key client.ObjectKey) {
	z, ok := p.places[key]
	if !ok {
		return
	}
	delete(p.places, key)
	delete(p.zones[z].tasks, key)
	delete(p.zones[z].wants, key)
	if len(p.zones[z].tasks) == 0 {
		delete(p.zones, z)
	}
}

// enqueueTask makes the looks due that the task needs.
func (p *Poller) enqueueTask(z ZoneKey, work *zoneState, task *v1alpha1.PrefetchTask) {
	if task.Status.Submission != nil {
		p.LostCalls.EnqueueAfter(z, max(0, time.Until(latestTime(p.claimDueAt(work, task), work.claims.notBefore))))
	}
	w := work.wantedOutcomes(client.ObjectKeyFromObject(task), task)
	if taskstate.IsRetryDue(task) && len(w.jobs) == 0 {
		p.EnqueueAfter(z, 0)
	}
	var due time.Time
	for _, job := range w.jobs {
		due = earlierTime(due, p.jobDueAt(work, w, job))
	}
	if !due.IsZero() {
		p.EnqueueAfter(z, max(0, time.Until(latestTime(due, work.outcomes.notBefore))))
	}
}

func latestTime(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

// requeueAt comes back at a time; zero is never.
func requeueAt(due time.Time) reconcile.Result {
	if due.IsZero() {
		return reconcile.Result{}
	}
	return reconcile.Result{RequeueAfter: max(time.Until(due), 10*time.Millisecond)}
}

// isCallInFlight says whether this process is making the task's call, and will record
// it itself.
func (p *Poller) isCallInFlight(task *v1alpha1.PrefetchTask) bool {
	return task.Status.Submission != nil && p.IsInFlight(task.Status.Submission.ClaimID)
}

func earlierTime(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// WriteStatus changes a task's status. It returns what it wrote, nil if it could not.
func (p *Poller) writeStatus(ctx context.Context, task *v1alpha1.PrefetchTask, c taskstate.Transition) (written *v1alpha1.PrefetchTask) {
	store := p.Writer
	if task.Status.Submission == nil { // AcceptedFromNobody waits for it but those who look
		store = store.WithLowPriority()
	}
	after, err := store.WriteStatus(ctx, task, c)
	p.Events.ReportRefusedWrite(task, after, err)
	if kube.IsRefused(err) {
		return nil
	}
	if err != nil {
		_, _ = p.Writer.ReadTask(ctx, task) // it has changed, or is gone; the next look knows
		return nil
	}
	p.Events.ReportFinished(task, after)
	p.Events.ReportRetried(task, after)
	if kube.IsRetried(task, after) && !taskstate.IsRunOver(after) {
		p.Runs.CountRun(after)
	}
	return after
}
