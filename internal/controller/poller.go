package controller

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
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

// Poller looks into EdgeOne's history of a zone for all that is open there.
type Poller struct {
	*operator
	waker[zone]
	jobs *Jobs

	mu     sync.Mutex
	zones  map[zone]*openWork
	places map[client.ObjectKey]zone
}

func newPoller(op *operator, jobs *Jobs) *Poller {
	return &Poller{operator: op, jobs: jobs, zones: map[zone]*openWork{}, places: map[client.ObjectKey]zone{}}
}

// openWork is what a zone is looked at for.
type openWork struct {
	tasks     map[client.ObjectKey]*v1alpha1.PrefetchTask
	firstLook time.Time // at jobs; later than at once, so that a restart does not look everywhere at once
	lastLook  time.Time
	timed     bool      // a look was made that knew EdgeOne's time
	refused   time.Time // since when only a person can make looking work
}

const (
	// settleInterval is how often a call whose answer was lost is looked up.
	settleInterval = 1500 * time.Millisecond
	// patience is how long a look-up goes on before the task's status says so.
	patience = 10 * time.Second
)

// openIn says in which zone the task has something to look for: jobs that have
// not ended, or a claim. Without its targets nothing can be made of what is seen.
func openIn(task *v1alpha1.PrefetchTask) (zone, bool) {
	if schedule.Unresolved(task) && !schedule.NewRun(task) {
		return zone{}, false
	}
	if claim := task.Status.Submission; claim != nil {
		// With the keys that the task has now: those of the call may be gone.
		return zone{accountOf(task), claim.ZoneID}, schedule.Claimed(task)
	}
	if schedule.RetryDue(task) {
		return zone{accountOf(task), task.Spec.ZoneID}, true
	}
	if over(task) || schedule.NewRun(task) {
		return zone{}, false
	}
	return zone{accountOf(task), task.Spec.ZoneID}, slices.ContainsFunc(task.Status.Jobs, underWay)
}

// underWay says whether outcomes of a job are missing.
func underWay(job v1alpha1.Job) bool {
	positions, _ := schedule.ParsePositions(job.Targets)
	return int(job.Succeeded+job.Failed) < len(positions)
}

// knows says whether something of the task is open.
func (p *Poller) knows(task client.ObjectKey) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, known := p.places[task]
	return known
}

// observe feeds a task to the open work of its zone.
func (p *Poller) observe(task *v1alpha1.PrefetchTask) []zone {
	p.jobs.see(task)
	task = p.lists.resolve(task)
	p.mu.Lock()
	defer p.mu.Unlock()
	key := client.ObjectKeyFromObject(task)
	z, open := openIn(task)
	if before, ok := p.places[key]; ok {
		if known := p.zones[before].tasks[key]; schedule.Newest(task, known) != task && known != task {
			return nil
		}
		if !open || before != z {
			p.leave(key)
		}
	}
	if !open || !task.DeletionTimestamp.IsZero() {
		return nil
	}
	work := p.zones[z]
	if work == nil {
		work = &openWork{
			tasks:     map[client.ObjectKey]*v1alpha1.PrefetchTask{},
			firstLook: time.Now().Add(time.Duration(rand.Int64N(int64(p.PollInterval)))),
		}
		p.zones[z] = work
	}
	work.tasks[key], p.places[key] = task, z
	p.wake(z, max(0, time.Until(p.due(work, task))))
	return nil
}

func (p *Poller) remove(task *v1alpha1.PrefetchTask) []zone {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := client.ObjectKeyFromObject(task)
	if z, ok := p.places[key]; ok && p.zones[z].tasks[key].UID == task.UID { // and not one that was made since
		p.leave(key)
	}
	return nil
}

func (p *Poller) leave(key client.ObjectKey) {
	z, ok := p.places[key]
	if !ok {
		return
	}
	delete(p.places, key)
	delete(p.zones[z].tasks, key)
	if len(p.zones[z].tasks) == 0 {
		delete(p.zones, z)
	}
}

// due is when the zone is to be looked at for the task. Jobs are looked at less
// often the older they are: a prefetch takes seconds to half an hour.
func (p *Poller) due(work *openWork, task *v1alpha1.PrefetchTask) time.Time {
	if p.underWay(task) {
		return time.Now().Add(settleInterval)
	}
	if claim := task.Status.Submission; claim != nil {
		if work.timed && p.edgeOne.ServerTime().Sub(p.complete(claim)) > time.Minute {
			return work.lastLook.Add(p.RecheckInterval) // a person has to make it settle
		}
		return work.lastLook.Add(settleInterval)
	}
	if schedule.RetryDue(task) {
		return work.lastLook.Add(p.PollInterval)
	}
	age := p.edgeOne.ServerTime().Sub(task.Status.Jobs[len(task.Status.Jobs)-1].SubmitTime.Time)
	again := work.lastLook.Add(min(max(age/4, p.PollInterval), 12*p.PollInterval))
	return latest(time.Now().Add(p.PollInterval-age), again, work.firstLook)
}

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

// Reconcile looks at a zone once, if that is due, and copies what it sees to the
// tasks.
func (p *Poller) Reconcile(ctx context.Context, z zone) (reconcile.Result, error) {
	tasks, due := p.open(z)
	if len(tasks) == 0 || time.Until(due) > 0 {
		return when(due), nil
	}
	creds, err := p.credentials.get(ctx, z.account)
	if err != nil {
		return p.refused(ctx, z, tasks, err), nil
	}
	seen := p.plan(tasks)
	seen.account = creds.Hash()
	// Calls come first: they are few and their tasks wait. Those past the fence
	// come before the others, whose windows may change under our eyes for long.
	for _, look := range []func(context.Context, teo.Credentials, zone, *look) (looked bool, err error){
		p.lookForFenced, p.lookForUnfenced, p.lookForJobs,
	} {
		looked, err := look(ctx, creds, z, seen)
		if err != nil {
			p.looked(z, seen, err)
			return p.refused(ctx, z, tasks, err), nil
		}
		if looked {
			tasks, _ = p.open(z)
			some := tasks
			if !seen.jobsRead { // to write all would keep the claimed ones waiting
				some = slices.DeleteFunc(slices.Clone(tasks), func(task *v1alpha1.PrefetchTask) bool { return task.Status.Submission == nil })
			}
			forEach(len(some), func(i int) { p.update(ctx, some[i], seen) })
			p.countSettled(z, seen)
		}
	}
	p.looked(z, seen, nil)
	_, due = p.open(z)
	return when(due), nil
}

// when comes back at a time; zero is never.
func when(due time.Time) reconcile.Result {
	if due.IsZero() {
		return reconcile.Result{}
	}
	return reconcile.Result{RequeueAfter: max(time.Until(due), 10*time.Millisecond)}
}

// open returns what a look could tell something about, and when the first of the
// zone's tasks is due; zero if the zone has none.
func (p *Poller) open(z zone) (tasks []*v1alpha1.PrefetchTask, due time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	work := p.zones[z]
	if work == nil {
		return nil, time.Time{}
	}
	for _, task := range work.tasks {
		due = earlier(due, p.due(work, task))
		if !p.underWay(task) {
			tasks = append(tasks, task)
		}
	}
	return tasks, due
}

// underWay says whether this process is making the task's call, and will record
// it itself.
func (p *Poller) underWay(task *v1alpha1.PrefetchTask) bool {
	return task.Status.Submission != nil && p.calls.has(task.Status.Submission.ClaimID)
}

// look is one look at a zone: what is asked for, and what was seen.
type look struct {
	timed   bool // EdgeOne's time was known before it
	claims  map[string]*v1alpha1.Submission
	fenced  map[string]bool // claims that were past the fence before the look
	jobs    []string
	since   time.Time          // of the oldest of them
	tasks   map[types.UID]bool // whose jobs those are, and whether they ask for a retry
	retries bool               // some do
	listing listing
	// jobsRead says that the listing has all of the jobs, and not only what was
	// made in the windows of the claims.
	jobsRead bool
	account  string // hash of the SecretId that looks

	mu      sync.Mutex
	settled map[string]bool // claims that tasks were rid of, and whether something was found
}

// plan decides what to look for. Whether a claim is past its fence is decided
// here, before the look: looked at first, a call could still execute afterwards.
// Where EdgeOne may have forgotten the call, no look shows that it was not
// executed, and the claim is never past the fence.
func (p *Poller) plan(tasks []*v1alpha1.PrefetchTask) *look {
	l := &look{
		timed: p.edgeOne.ServerTimeKnown(), claims: map[string]*v1alpha1.Submission{}, fenced: map[string]bool{}, listing: listing{},
		tasks: map[types.UID]bool{}, settled: map[string]bool{},
	}
	serverNow := p.edgeOne.ServerTime()
	jobs := map[string]bool{}
	for _, task := range tasks {
		if claim := task.Status.Submission; claim != nil {
			l.claims[claim.ClaimID] = claim
			l.fenced[claim.ClaimID] = l.timed && serverNow.After(p.complete(claim)) && !p.forgotten(claim, serverNow)
		}
		if schedule.NewRun(task) {
			continue
		}
		retry := schedule.RetryDue(task)
		l.tasks[task.UID], l.retries = retry, l.retries || retry
		for i, job := range task.Status.Jobs {
			unclear := underWay(job)
			if retry {
				_, known := failures(task, &task.Status.Jobs[i], nil)
				unclear = !known
			}
			if unclear && !jobs[job.ID] {
				jobs[job.ID] = true
				l.jobs = append(l.jobs, job.ID)
				if l.since.IsZero() || job.SubmitTime.Time.Before(l.since) {
					l.since = job.SubmitTime.Time
				}
			}
		}
	}
	return l
}

// fence is when EdgeOne refuses a request signed for the claim.
func (p *Poller) fence(claim *v1alpha1.Submission) time.Time {
	return claim.SignedAt.Add(p.SignatureValidity)
}

// complete is when EdgeOne's history shows all that was signed for the claim.
func (p *Poller) complete(claim *v1alpha1.Submission) time.Time {
	return p.fence(claim).Add(p.SettleMargin)
}

// expired says whether the claim's call cannot be executed any more.
func (p *Poller) expired(claim *v1alpha1.Submission) bool {
	return p.edgeOne.ServerTimeKnown() && p.edgeOne.ServerTime().After(p.complete(claim))
}

// forgotten says whether the claim is so old that EdgeOne's history may no
// longer show its call.
func (p *Poller) forgotten(claim *v1alpha1.Submission, serverNow time.Time) bool {
	return serverNow.Sub(claim.SignedAt.Time) > p.HistoryRetention
}

// lookForClaims reads the windows in which calls of unknown outcome can have been
// executed: one look-up for each call, fewer where windows overlap. Those past
// the fence are fixed in the past and no longer change; the others may grow while
// they are read.
func (p *Poller) lookForClaims(ctx context.Context, creds teo.Credentials, z zone, l *look, fenced bool) (looked bool, err error) {
	var windows []teo.DescribePrefetchTasksRequest
	for id, claim := range l.claims {
		if l.fenced[id] != fenced {
			continue
		}
		looked = true
		if fenced || !p.forgotten(claim, p.edgeOne.ServerTime()) { // EdgeOne may refuse a window that far back
			windows = append(windows, teo.DescribePrefetchTasksRequest{ZoneID: z.ID, StartTime: claim.SignedAt.Time, EndTime: p.complete(claim)})
		}
	}
	for _, window := range merge(windows) {
		if err := p.list(ctx, creds, l, window); err != nil {
			return false, err
		}
	}
	return looked, nil
}

func (p *Poller) lookForFenced(ctx context.Context, creds teo.Credentials, z zone, l *look) (looked bool, err error) {
	return p.lookForClaims(ctx, creds, z, l, true)
}

func (p *Poller) lookForUnfenced(ctx context.Context, creds teo.Credentials, z zone, l *look) (looked bool, err error) {
	return p.lookForClaims(ctx, creds, z, l, false)
}

// merge joins windows that overlap.
func merge(windows []teo.DescribePrefetchTasksRequest) (merged []teo.DescribePrefetchTasksRequest) {
	slices.SortFunc(windows, func(a, b teo.DescribePrefetchTasksRequest) int { return a.StartTime.Compare(b.StartTime) })
	for _, w := range windows {
		if last := len(merged) - 1; last >= 0 && !w.StartTime.After(merged[last].EndTime) {
			merged[last].EndTime = latest(merged[last].EndTime, w.EndTime)
		} else {
			merged = append(merged, w)
		}
	}
	return merged
}

// lookForJobs reads the jobs that have not ended, with as few calls as it takes.
func (p *Poller) lookForJobs(ctx context.Context, creds teo.Credentials, z zone, l *look) (looked bool, err error) {
	l.jobsRead = true
	if len(l.jobs) > 1 {
		// One window holds all jobs, and perhaps those of others; it is read if
		// it is shorter than the jobs one by one.
		now := p.edgeOne.ServerTime().Add(time.Minute) // what is created while we look shall be seen too
		window := teo.DescribePrefetchTasksRequest{ZoneID: z.ID, StartTime: l.since, EndTime: now}
		page, err := p.edgeOne.FirstPrefetchTasks(ctx, creds, window)
		switch {
		case teo.KindOf(err) == teo.Rejected: // it is longer than EdgeOne allows
		case err != nil:
			return false, err
		case len(page.Tasks) == page.TotalCount:
			l.listing.add(page.Tasks)
			return true, nil
		case len(page.Tasks) > 0 && page.TotalCount/len(page.Tasks) < len(l.jobs):
			return true, p.list(ctx, creds, l, window)
		}
	}
	for _, id := range l.jobs {
		if err := p.list(ctx, creds, l, teo.DescribePrefetchTasksRequest{ZoneID: z.ID, JobID: id}); err != nil {
			return false, err
		}
	}
	return len(l.jobs) > 0 || l.retries, nil
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

func (p *Poller) list(ctx context.Context, creds teo.Credentials, l *look, req teo.DescribePrefetchTasksRequest) error {
	tasks, err := p.edgeOne.DescribePrefetchTasks(ctx, creds, req)
	l.listing.add(tasks)
	return err
}

// looked notes a look and whether it succeeded.
func (p *Poller) looked(z zone, l *look, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	work := p.zones[z]
	if work == nil {
		return
	}
	work.lastLook = time.Now()
	work.timed = l.timed
	if err == nil {
		work.refused = time.Time{}
	}
}

// refusesLooking says whether EdgeOne does not let this key look into the zone. A
// key that is refused for everything, or missing, says nothing about that.
func refusesLooking(err error) bool {
	kind := teo.KindOf(err)
	return kind == teo.Denied && !teo.DeniedAccount(err) || kind == teo.Rejected
}

// update copies what a look saw to a task.
func (p *Poller) update(ctx context.Context, task *v1alpha1.PrefetchTask, l *look) {
	now, serverNow := time.Now(), p.edgeOne.ServerTime()
	retry, planned := l.tasks[task.UID] // what is missing of one that came since, or is asked for since, the next look tells
	changes := []change{}
	if claim := task.Status.Submission; claim != nil && l.claims[claim.ClaimID] != nil {
		if c := p.settleClaim(task, claim, l); c != nil {
			changes = append(changes, c)
		}
	}
	if !schedule.NewRun(task) && len(task.Status.Jobs) > 0 {
		deadline := p.JobDeadline
		if !l.jobsRead || !planned {
			deadline = math.MaxInt64
		}
		changes = append(changes, follow(l.listing, deadline, now, serverNow))
	}
	if schedule.RetryDue(task) && l.jobsRead && retry {
		changes = append(changes, reopen(l.listing, now))
	}
	after := p.write(ctx, task, func(task *v1alpha1.PrefetchTask) {
		for _, c := range changes {
			c(task)
		}
	})
	if claim := task.Status.Submission; claim != nil && after != nil && after.Status.Submission == nil {
		found := len(after.Status.Jobs) > len(task.Status.Jobs)
		log.FromContext(ctx).Info("Settled a call whose answer was lost", "task", client.ObjectKeyFromObject(task), "claim", claim.ClaimID, "found", found)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.settled[claim.ClaimID] = l.settled[claim.ClaimID] || found
	}
}

// countSettled counts the calls that no task waits to hear of any more.
func (p *Poller) countSettled(z zone, l *look) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.settled) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if work := p.zones[z]; work != nil {
		for _, task := range work.tasks {
			if claim := task.Status.Submission; claim != nil {
				delete(l.settled, claim.ClaimID)
			}
		}
	}
	for _, found := range l.settled {
		outcome := outcomeNotExecuted
		if found {
			outcome = outcomeFound
		}
		settledCalls.WithLabelValues(outcome).Inc()
	}
	clear(l.settled)
}

// settleClaim decides about a claimed task; nil is to wait.
func (p *Poller) settleClaim(task *v1alpha1.PrefetchTask, claim *v1alpha1.Submission, l *look) change {
	fenced, serverNow := l.fenced[claim.ClaimID], p.edgeOne.ServerTime()
	if schedule.NewRun(task) {
		// The spec no longer says which URLs the claim was for, and the new run
		// only has to wait until that call cannot happen any more. The claim
		// stays: if the spec is changed back, what became of the call counts.
		if p.expired(claim) {
			return expire
		}
		return nil
	}
	if claim.ZoneID == "*" && claim.AccountHash != l.account {
		return unknown(unanswered(claim)+", and the key that made it was replaced by one that may belong to another account, "+
			"whose history says nothing about that call. Restore the key, or set spec.revision to a new value to submit everything again", true)
	}
	history := l.listing.window(claim.SignedAt.Time, p.complete(claim))
	for _, id := range claim.EarlierJobs {
		delete(history, id)
	}
	result, jobs := settle(claim, schedule.Targets(task), history, fenced, func(jobID string) string { return p.jobs.owner(jobID, claim.ClaimID) })
	switch {
	case result != undecided:
		return adopt(jobs, time.Now())
	case p.forgotten(claim, serverNow):
		return unknown(unanswered(claim)+" so long ago that its history may no longer show the call. "+
			"Nothing is submitted again by itself; set spec.revision to a new value to submit everything again", true)
	case serverNow.Sub(claim.SignedAt.Time) > patience:
		return unknown(fmt.Sprintf("%s; checking its history until %s for whether the call was executed",
			unanswered(claim), p.complete(claim).UTC().Format(time.RFC3339)), false)
	}
	return nil
}

// write changes a task's status and the Poller's own view of it. It returns what it
// wrote, nil if it could not.
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
		after, err = p.store.read(ctx, task) // it has changed; look again next time
		if err != nil {
			return nil
		}
	} else {
		written = after
		p.finished(task, after)
		p.retried(task, after)
	}
	if after == nil {
		p.remove(task)
	} else if after != task {
		p.observe(after)
	}
	return written
}

// refused tells tasks that EdgeOne cannot be asked about them, and returns when to
// look again. Runs whose targets are all handed over do not wait for ever.
func (p *Poller) refused(ctx context.Context, z zone, tasks []*v1alpha1.PrefetchTask, err error) reconcile.Result {
	pause := pauseAfter(err, 1, p.RecheckInterval)
	lasting := p.lasting(z, pause.Person || refusesLooking(err))
	message := upperFirst(err.Error())
	if answer := (*teo.Error)(nil); errors.As(err, &answer) {
		message = teo.Message(err)
	}
	giveUp := refusesLooking(err) && (teo.KindOf(err) == teo.Rejected || lasting)
	forEach(len(tasks), func(i int) {
		task := tasks[i]
		switch claim := task.Status.Submission; {
		case claim != nil && schedule.NewRun(task):
			if p.expired(claim) {
				p.write(ctx, task, expire)
			}
		case claim != nil && p.edgeOne.ServerTime().After(p.complete(claim)):
			p.write(ctx, task, unknown(unanswered(claim)+", and its history cannot be read: "+message+
				". Let the key call teo:DescribePrefetchTasks, or set spec.revision to a new value to submit everything again", lasting))
		case schedule.RetryDue(task):
			p.refuseRetry(ctx, task, message, teo.KindOf(err) == teo.Rejected, lasting)
		case claim == nil && giveUp:
			p.write(ctx, task, notFollowed(message, time.Now()))
		case claim == nil && lasting && len(schedule.Open(task)) == 0:
			p.write(ctx, task, blind(pause.Why))
		case claim == nil && p.late(task):
			p.write(ctx, task, follow(listing{}, p.JobDeadline, time.Now(), p.edgeOne.ServerTime()))
		}
	})
	log.FromContext(ctx).V(1).Info("Could not look", "error", err.Error())
	return reconcile.Result{RequeueAfter: max(pause.Duration, settleInterval)}
}

// lasting says whether looking at a zone has needed a person for so long that
// tasks should say so.
func (p *Poller) lasting(z zone, person bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	work := p.zones[z]
	switch {
	case work == nil:
		return false
	case !person:
		work.refused = time.Time{}
		return false
	case work.refused.IsZero():
		work.refused = time.Now()
	}
	return time.Since(work.refused) >= 2*p.RecheckInterval
}

// late says whether the task has waited for outcomes longer than the deadline.
func (p *Poller) late(task *v1alpha1.PrefetchTask) bool {
	return slices.ContainsFunc(task.Status.Jobs, func(job v1alpha1.Job) bool {
		return p.edgeOne.ServerTime().Sub(job.SubmitTime.Time) > p.JobDeadline
	})
}
