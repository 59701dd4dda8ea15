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
	"github.com/prefetch-operator/teo-prefetch-operator/internal/schedule"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// zone is what EdgeOne reports on: a zone, read with an account's credentials.
type zone struct {
	account
	ID string
}

// Poller looks into EdgeOne's history of a zone for all that is open there: for the
// outcomes of jobs (outcomes.go), and for calls whose answer was lost (lost_calls.go).
// These are two controllers with a queue each, over the same open work.
type Poller struct {
	*operator
	waker[zone]
	lostCalls waker[zone] // of the settler
	jobs      *Jobs

	mu     sync.Mutex
	zones  map[zone]*openWork
	places map[client.ObjectKey]zone
	proven map[zone]time.Time // when a look into the zone succeeded last

	unproven   chan struct{} // the looks into other zones that are made at once
	longLists  chan struct{} // those that are read for outcomes that looks have found
	claimLists chan struct{} // and for lost calls
}

// unprovenLooks is how many of the looks that are made at once are into zones of which
// nothing was ever read. Anybody can invent zones, and a look into one costs a call.
const unprovenLooks = 4

func newPoller(op *operator, jobs *Jobs) *Poller {
	p := &Poller{
		operator: op, jobs: jobs, zones: map[zone]*openWork{}, places: map[client.ObjectKey]zone{},
		proven: map[zone]time.Time{}, unproven: make(chan struct{}, unprovenLooks), longLists: make(chan struct{}, loads),
		claimLists: make(chan struct{}, loads),
	}
	op.versions.subscribe(p.onChange)
	return p
}

// openWork is what a zone is looked at for.
type openWork struct {
	tasks     map[client.ObjectKey]*v1alpha1.PrefetchTask
	wants     map[client.ObjectKey]*wanted
	looks     map[string]jobLook // by the ID of a job
	firstLook time.Time          // at jobs; later than at once, so that a restart does not look everywhere at once
	outcomes  looks
	claims    looks
}

// looks is what the looks of one kind into a zone have met.
type looks struct {
	at        time.Time // of the last one
	timed     bool      // it knew EdgeOne's time
	notBefore time.Time // of the next one, whatever event comes
	failures  int       // in a row
	refused   time.Time // since when only a person can make them work; zero if the last one did
}

// openIn says in which zone the task has something to look for: jobs that have
// not ended, or a claim. Without its targets nothing can be made of what is seen,
// and of a task that is being deleted nobody will read it.
func openIn(task *v1alpha1.PrefetchTask) (zone, bool) {
	if !task.DeletionTimestamp.IsZero() || schedule.IsUnresolved(task) && !schedule.IsNewRun(task) {
		return zone{}, false
	}
	if claim := task.Status.Submission; claim != nil {
		// With the keys that the task has now: those of the call may be gone.
		return zone{accountOf(task), claim.ZoneID}, schedule.HasClaim(task)
	}
	if schedule.IsRetryDue(task) {
		return zone{accountOf(task), task.Spec.ZoneID}, !schedule.IsElided(task)
	}
	if over(task) && !schedule.IsUnseen(task) || schedule.IsNewRun(task) {
		return zone{}, false
	}
	return zone{accountOf(task), task.Spec.ZoneID}, slices.ContainsFunc(task.Status.Jobs, underWay)
}

// isBeyond says whether EdgeOne's history shows none of the task's jobs any more.
func isBeyond(task *v1alpha1.PrefetchTask, retention time.Duration, now time.Time) bool {
	return !slices.ContainsFunc(task.Status.Jobs, func(job v1alpha1.Job) bool { return now.Sub(job.SubmitTime.Time) <= retention })
}

// underWay says whether outcomes of a job are missing.
func underWay(job v1alpha1.Job) bool {
	positions, _ := schedule.ParsePositions(job.Targets)
	return int(job.Succeeded+job.Failed) < len(positions)
}

// onChange has the zone of a task look at its newest version.
func (p *Poller) onChange(before, after *v1alpha1.PrefetchTask) {
	changed := before
	if after != nil {
		p.jobs.see(after)
		changed = after
	}
	key := client.ObjectKeyFromObject(changed)
	p.mu.Lock()
	defer p.mu.Unlock()
	task := p.versions.newest(key)
	z, open := zone{}, false
	if task != nil {
		z, open = openIn(task)
		if schedule.IsUnseen(task) && !schedule.IsRetryDue(task) && isBeyond(task, p.HistoryRetention, p.edgeOne.ServerTime()) {
			open = false // nobody will know any more
		}
	}
	if before, ok := p.places[key]; ok && (!open || before != z) {
		p.leave(key)
	}
	if !open {
		return
	}
	work := p.zones[z]
	if work == nil {
		work = &openWork{
			tasks: map[client.ObjectKey]*v1alpha1.PrefetchTask{}, wants: map[client.ObjectKey]*wanted{}, looks: map[string]jobLook{},
			firstLook: time.Now().Add(time.Duration(rand.Int64N(int64(p.PollInterval)))),
		}
		p.zones[z] = work
	}
	work.tasks[key], p.places[key] = task, z
	p.wakeFor(z, work, task)
}

func (p *Poller) leave(key client.ObjectKey) {
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

// wakeFor makes the looks due that the task needs.
func (p *Poller) wakeFor(z zone, work *openWork, task *v1alpha1.PrefetchTask) {
	if task.Status.Submission != nil {
		p.lostCalls.wake(z, max(0, time.Until(latest(p.claimDue(work, task), work.claims.notBefore))))
	}
	w := work.wantedOf(client.ObjectKeyFromObject(task), task)
	if schedule.IsRetryDue(task) && len(w.jobs) == 0 {
		p.wake(z, 0)
	}
	var due time.Time
	for _, job := range w.jobs {
		due = earlier(due, p.jobDue(work, w, job))
	}
	if !due.IsZero() {
		p.wake(z, max(0, time.Until(latest(due, work.outcomes.notBefore))))
	}
}

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

// when comes back at a time; zero is never.
func when(due time.Time) reconcile.Result {
	if due.IsZero() {
		return reconcile.Result{}
	}
	return reconcile.Result{RequeueAfter: max(time.Until(due), 10*time.Millisecond)}
}

// underWay says whether this process is making the task's call, and will record
// it itself.
func (p *Poller) underWay(task *v1alpha1.PrefetchTask) bool {
	return task.Status.Submission != nil && p.calls.has(task.Status.Submission.ClaimID)
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// noteResult decides when a zone may be looked at again after a look, and remembers
// whether looks are refused. Looks into a zone of which nothing was ever read get
// rarer each time that they are refused.
func (p *Poller) noteResult(z zone, l *looks, err error) {
	now := time.Now()
	l.at = now
	if err == nil {
		l.failures, l.refused, l.notBefore = 0, time.Time{}, time.Time{}
		p.proven[z] = now
		return
	}
	pause := max(pauseAfter(err, 1, p.RecheckInterval).Duration, settleInterval)
	if _, isRefused := whyUnread(err, p.RecheckInterval); isRefused {
		l.refused = earlier(l.refused, now)
		pause = max(pause, p.RecheckInterval)
	}
	if !p.isProven(z) {
		pause = min(pause<<min(l.failures, 10), max(pause, rareLooks*p.RecheckInterval))
	}
	l.failures++
	l.notBefore = now.Add(pause)
}

// isProven says whether something of the zone was ever read, or submitted to it.
func (p *Poller) isProven(z zone) bool {
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

// enter lets a look into a zone begin. Only a few go on at once into zones of which
// nothing is proven, so that the others have workers and calls left: leave is nil if
// the look has to wait.
func (p *Poller) enter(z zone) (leave func(), wait time.Duration) {
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

// provenMemory is how long it is remembered that a zone could be read.
const provenMemory = time.Hour

func (p *Poller) forgetZones() {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.proven, func(z zone, at time.Time) bool { return p.zones[z] == nil && time.Since(at) > provenMemory })
}

// refusesLooking says whether EdgeOne does not let this key look into the zone. A
// key that is refused for everything, or missing, says nothing about that.
func refusesLooking(err error) bool {
	kind := teo.KindOf(err)
	return kind == teo.Denied && !teo.DeniedAccount(err) || kind == teo.Rejected
}

// write changes a task's status. It returns what it wrote, nil if it could not.
func (p *Poller) write(ctx context.Context, task *v1alpha1.PrefetchTask, c change) (written *v1alpha1.PrefetchTask) {
	store := p.store
	if task.Status.Submission == nil { // nobody waits for it but those who look
		store = store.giveWay()
	}
	after, err := store.write(ctx, task, c)
	p.reportRefused(task, after, err)
	if isRefused(err) {
		return nil
	}
	if err != nil {
		_, _ = p.store.read(ctx, task) // it has changed, or is gone; the next look knows
		return nil
	}
	p.finished(task, after)
	p.retried(task, after)
	return after
}
