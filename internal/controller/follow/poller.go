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

// ZoneKey identifies what one pass reads: the history of a zone, with an account's
// credentials.
type ZoneKey struct {
	taskstate.AccountKey
	ID string
}

// Poller reads EdgeOne's history of each zone with open work: outcomes of jobs
// (outcomes.go), and calls whose answer was lost (lost_calls.go). Two controllers with
// separate queues share this open work.
type Poller struct {
	Config
	kube.DelayedQueue[ZoneKey]
	LostCalls kube.DelayedQueue[ZoneKey] // the queue of the lost-call reconciler

	// mu guards zones, places and proven, and all zone states.
	mu     sync.Mutex
	zones  map[ZoneKey]*zoneState
	places map[client.ObjectKey]ZoneKey // the zone that holds each task
	proven map[ZoneKey]time.Time        // time of the last successful read of the zone

	unproven   chan struct{} // slots for concurrent passes over unproven zones
	longLists  chan struct{} // slots for long lists that are read to write outcomes
	claimLists chan struct{} // slots for long lists that are read to settle lost calls
}

// maxLongLists is how many long lists are in memory at once to write outcomes. The same
// number applies to lost calls.
const maxLongLists = 4

// NewPoller returns a Poller that follows all tasks of the store.
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

// onChange updates the open work of a zone with a task's newest version, and schedules the
// passes that this version needs. The store has no newest version of a task that needs no
// further work.
func (p *Poller) onChange(before, after *v1alpha1.PrefetchTask) {
	changed := before
	if after != nil {
		if p.Kind == v1alpha1.JobPrefetch { // the Pollers share the recorded jobs
			p.Jobs.ObserveTask(after)
		}
		changed = after
	}
	key := client.ObjectKeyFromObject(changed)
	p.mu.Lock()
	defer p.mu.Unlock()
	task := p.Tasks.NewestVersion(key)
	z, open := ZoneKey{}, false
	if task != nil {
		z, open = p.openZone(task)
		if taskstate.IsUnseen(task) && !taskstate.IsRetryDue(task) && taskstate.IsPastRetention(task, p.HistoryRetention, p.EdgeOne.ServerTime()) {
			open = false // no read can show the outcomes any more
		}
	}
	// A task has open work in one zone at a time.
	if before, ok := p.places[key]; ok && (!open || before != z) {
		p.removeTask(key)
	}
	if !open {
		return
	}
	work := p.zones[z]
	if work == nil {
		work = &zoneState{
			config: &p.Config, tasks: map[client.ObjectKey]*v1alpha1.PrefetchTask{}, wants: map[client.ObjectKey]*wantedOutcomes{}, looks: map[string]jobReadState{},
			firstLook: time.Now().Add(time.Duration(rand.Int64N(int64(p.PollInterval)))),
		}
		p.zones[z] = work
	}
	work.tasks[key], p.places[key] = task, z
	p.enqueueTask(z, work, task)
}

// removeTask drops a task from the open work. It drops the zone along with its last task.
// The caller holds p.mu.
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

// enqueueTask schedules the passes that the task needs. No pass starts before the zone's
// notBefore. A retry that needs no read is due at once. The caller holds p.mu.
func (p *Poller) enqueueTask(z ZoneKey, work *zoneState, task *v1alpha1.PrefetchTask) {
	if p.claimOf(task) != nil {
		p.LostCalls.EnqueueAfter(z, max(0, time.Until(latestTime(p.claimDueAt(work, task), work.claims.notBefore))))
	}
	w := work.wantedOutcomes(client.ObjectKeyFromObject(task), task)
	if taskstate.IsRetryDue(task) && len(w.jobs) == 0 {
		p.EnqueueAfter(z, 0)
	}
	if w.needsHistory {
		p.EnqueueAfter(z, max(0, time.Until(latestTime(work.starts.notBefore, p.startAt(task), w.noStartBefore))))
	}
	var due time.Time
	for _, job := range w.jobs {
		due = earlierTime(due, p.jobDueAt(work, w, job))
	}
	if !due.IsZero() {
		p.EnqueueAfter(z, max(0, time.Until(latestTime(due, work.outcomes.notBefore))))
	}
}

// latestTime returns the latest of times. A zero time is the earliest of all.
func latestTime(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

// requeueAt returns a result that requeues at a time. Zero means no requeue.
func requeueAt(due time.Time) reconcile.Result {
	if due.IsZero() {
		return reconcile.Result{}
	}
	return reconcile.Result{RequeueAfter: max(time.Until(due), 10*time.Millisecond)}
}

// isCallInFlight reports whether this process is making the task's call. The submitter
// records the result of that call, so the Poller leaves the task alone.
func (p *Poller) isCallInFlight(task *v1alpha1.PrefetchTask) bool {
	return task.Status.Submission != nil && p.IsInFlight(task.Status.Submission.ClaimID)
}

// earlierTime returns the earlier of a and b. A zero a means that there is no time yet.
func earlierTime(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// writeStatus applies a transition to a task's status and reports the events that follow
// from it. It returns the written task, or nil if it could not write.
func (p *Poller) writeStatus(ctx context.Context, task *v1alpha1.PrefetchTask, c taskstate.Transition) (written *v1alpha1.PrefetchTask) {
	store := p.Writer
	if task.Status.Submission == nil { // no call depends on this write
		store = store.WithLowPriority()
	}
	after, err := store.WriteStatus(ctx, task, c)
	p.Events.ReportRefusedWrite(task, after, err)
	if kube.IsRefused(err) {
		return nil
	}
	if err != nil {
		_, _ = p.Writer.ReadTask(ctx, task) // the task changed or was deleted; the next pass tries again
		return nil
	}
	p.Events.ReportChange(task, after)
	if kube.IsRetried(task, after) && !taskstate.IsRunOver(after) {
		p.Runs.CountEvent(after)
	}
	return after
}

// UnsettledAges returns the age of the oldest call of unknown outcome by zone ID. The age
// counts by EdgeOne's time. It is 0 if the zone has no such call. Calls that this process
// is still making do not count.
func (p *Poller) UnsettledAges() map[string]time.Duration {
	now := p.EdgeOne.ServerTime()
	p.mu.Lock()
	defer p.mu.Unlock()
	ages := map[string]time.Duration{}
	for z, work := range p.zones {
		oldest := ages[z.ID]
		for _, task := range work.tasks {
			if claim := p.claimOf(task); claim != nil && !claim.SignedAt.IsZero() && !p.isCallInFlight(task) {
				oldest = max(oldest, now.Sub(claim.SignedAt.Time))
			}
		}
		ages[z.ID] = oldest
	}
	return ages
}
