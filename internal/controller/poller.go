package controller

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/backoff"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// zoneKey is what EdgeOne reports on: a zone, read with an account's credentials.
type zoneKey struct {
	taskstate.AccountKey
	ID string
}

// Poller looks into EdgeOne's history of a zone for all that is open there: for the
// outcomes of jobs (outcomes.go), and for calls whose answer was lost (lost_calls.go).
// These are two controllers with a queue each, over the same open work.
type Poller struct {
	*sharedState
	kube.DelayedQueue[zoneKey]
	lostCalls kube.DelayedQueue[zoneKey] // of the settler
	jobs      *RecordedJobs

	mu     sync.Mutex
	zones  map[zoneKey]*zoneState
	places map[client.ObjectKey]zoneKey
	proven map[zoneKey]time.Time // when a look into the zone succeeded last

	unproven   chan struct{} // the looks into other zones that are made at once
	longLists  chan struct{} // those that are read for outcomes that looks have found
	claimLists chan struct{} // and for lost calls
}

// maxUnprovenReads is how many of the looks that are made at once are into zones of which
// nothing was ever read. Anybody can invent zones, and a look into one costs a call.
const maxUnprovenReads = 4

// maxLongLists is how many long lists are in memory at once to write outcomes, and as many to
// look for lost calls.
const maxLongLists = 4

func newPoller(op *sharedState, jobs *RecordedJobs) *Poller {
	p := &Poller{
		sharedState: op, jobs: jobs, zones: map[zoneKey]*zoneState{}, places: map[client.ObjectKey]zoneKey{},
		proven: map[zoneKey]time.Time{}, unproven: make(chan struct{}, maxUnprovenReads), longLists: make(chan struct{}, maxLongLists),
		claimLists: make(chan struct{}, maxLongLists),
	}
	op.versions.Subscribe(p.onChange)
	return p
}

// zoneState is what a zone is looked at for.
type zoneState struct {
	tasks     map[client.ObjectKey]*v1alpha1.PrefetchTask
	wants     map[client.ObjectKey]*wantedOutcomes
	looks     map[string]jobReadState // by the ID of a job
	firstLook time.Time               // at jobs; later than at once, so that a restart does not look everywhere at once
	outcomes  readStreak
	claims    readStreak
}

// readStreak is what the looks of one kind into a zone have met.
type readStreak struct {
	at        time.Time // of the last one
	timed     bool      // it knew EdgeOne's time
	notBefore time.Time // of the next one, whatever event comes
	failures  int       // in a row
	refused   time.Time // since when only a person can make them work; zero if the last one did
}

// openZone says in which zone the task has something to look for: jobs that have
// not ended, or a claim. Without its targets nothing can be made of what is seen,
// and of a task that is being deleted nobody will read it.
func openZone(task *v1alpha1.PrefetchTask) (zoneKey, bool) {
	if !task.DeletionTimestamp.IsZero() || taskstate.IsUnresolved(task) && !taskstate.IsNewRun(task) {
		return zoneKey{}, false
	}
	if claim := task.Status.Submission; claim != nil {
		// With the keys that the task has now: those of the call may be gone.
		return zoneKey{taskstate.AccountKeyOf(task), claim.ZoneID}, taskstate.HasClaim(task)
	}
	if taskstate.IsRetryDue(task) {
		return zoneKey{taskstate.AccountKeyOf(task), task.Spec.ZoneID}, !taskstate.IsElided(task)
	}
	if taskstate.IsRunOver(task) && !taskstate.IsUnseen(task) || taskstate.IsNewRun(task) {
		return zoneKey{}, false
	}
	return zoneKey{taskstate.AccountKeyOf(task), task.Spec.ZoneID}, slices.ContainsFunc(task.Status.Jobs, taskstate.IsJobOpen)
}

// onChange has the zone of a task look at its newest version.
func (p *Poller) onChange(before, after *v1alpha1.PrefetchTask) {
	changed := before
	if after != nil {
		p.jobs.ObserveTask(after)
		changed = after
	}
	key := client.ObjectKeyFromObject(changed)
	p.mu.Lock()
	defer p.mu.Unlock()
	task := p.versions.NewestVersion(key)
	z, open := zoneKey{}, false
	if task != nil {
		z, open = openZone(task)
		if taskstate.IsUnseen(task) && !taskstate.IsRetryDue(task) && taskstate.IsPastRetention(task, p.HistoryRetention, p.edgeOne.ServerTime()) {
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
func (p *Poller) enqueueTask(z zoneKey, work *zoneState, task *v1alpha1.PrefetchTask) {
	if task.Status.Submission != nil {
		p.lostCalls.EnqueueAfter(z, max(0, time.Until(latestTime(p.claimDueAt(work, task), work.claims.notBefore))))
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
	return task.Status.Submission != nil && p.calls.isInFlight(task.Status.Submission.ClaimID)
}

func earlierTime(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// recordReadResult decides when a zone may be looked at again after a look, and remembers
// whether looks are refused. Looks into a zone of which nothing was ever read get
// rarer each time that they are refused.
func (p *Poller) recordReadResult(z zoneKey, l *readStreak, err error) {
	now := time.Now()
	l.at = now
	if err == nil {
		l.failures, l.refused, l.notBefore = 0, time.Time{}, time.Time{}
		p.proven[z] = now
		return
	}
	pause := max(backoff.PlanWait(err, 1, p.RecheckInterval).Duration, settleInterval)
	if _, isRefused := unreadCause(err, p.RecheckInterval); isRefused {
		l.refused = earlierTime(l.refused, now)
		pause = max(pause, p.RecheckInterval)
	}
	if !p.isProven(z) {
		pause = min(pause<<min(l.failures, 10), max(pause, rareReads*p.RecheckInterval))
	}
	l.failures++
	l.notBefore = now.Add(pause)
}

// isProven says whether something of the zone was ever read, or submitted to it.
func (p *Poller) isProven(z zoneKey) bool {
	if _, ok := p.proven[z]; ok {
		return true
	}
	work := p.zones[z]
	if work == nil {
		return false
	}
	for _, task := range work.tasks {
		if len(task.Status.Jobs) > 0 {
			return true
		}
	}
	return false
}

// acquireRead lets a look into a zone begin. Only a few go on at once into zones of which
// nothing is proven, so that the others have workers and calls left: leave is nil if
// the look has to wait.
func (p *Poller) acquireRead(z zoneKey) (leave func(), wait time.Duration) {
	p.mu.Lock()
	isProven := p.isProven(z)
	p.mu.Unlock()
	if isProven {
		return func() {}, 0
	}
	select {
	case p.unproven <- struct{}{}:
		return func() { <-p.unproven }, 0
	default:
		return nil, time.Second + rand.N(time.Second)
	}
}

// provenRetention is how long it is remembered that a zone could be read.
const provenRetention = time.Hour

func (p *Poller) forgetZones() {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.proven, func(z zoneKey, at time.Time) bool { return p.zones[z] == nil && time.Since(at) > provenRetention })
}

// isReadRefused says whether EdgeOne does not let this key look into the zone. A
// key that is refused for everything, or missing, says nothing about that.
func isReadRefused(err error) bool {
	kind := teo.KindOf(err)
	return kind == teo.Denied && !teo.DeniedAccount(err) || kind == teo.Rejected
}

// WriteStatus changes a task's status. It returns what it wrote, nil if it could not.
func (p *Poller) writeStatus(ctx context.Context, task *v1alpha1.PrefetchTask, c taskstate.Transition) (written *v1alpha1.PrefetchTask) {
	store := p.store
	if task.Status.Submission == nil { // AcceptedFromNobody waits for it but those who look
		store = store.WithLowPriority()
	}
	after, err := store.WriteStatus(ctx, task, c)
	p.ReportRefusedWrite(task, after, err)
	if kube.IsRefused(err) {
		return nil
	}
	if err != nil {
		_, _ = p.store.ReadTask(ctx, task) // it has changed, or is gone; the next look knows
		return nil
	}
	p.ReportFinished(task, after)
	p.ReportRetried(task, after)
	if kube.IsRetried(task, after) && !taskstate.IsRunOver(after) {
		p.runs.CountRun(after)
	}
	return after
}
