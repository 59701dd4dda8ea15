package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/schedule"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// settler looks for calls whose answer was lost. It has a queue and workers of its own:
// however long outcomes take to be read and written, and whatever keeps them from being
// read, lost calls are looked for on their interval, and the other way round.
type settler struct{ *Poller }

const (
	// settleInterval is how often a call whose answer was lost is looked up.
	settleInterval = 1500 * time.Millisecond
	// patience is how long a look-up goes on before the task's status says so.
	patience = 10 * time.Second
	// overdue is how long after its fence and margin a call is looked up that often.
	// Then a person has to make it settle.
	overdue = time.Minute
)

// claimsOf returns the tasks of a zone whose calls are to be looked for, and when the
// first of them is due; zero if there are none.
func (p *Poller) claimsOf(work *openWork) (tasks []*v1alpha1.PrefetchTask, due time.Time) {
	for _, task := range work.tasks {
		if task.Status.Submission == nil {
			continue
		}
		due = earlier(due, p.claimDue(work, task))
		if !p.underWay(task) {
			tasks = append(tasks, task)
		}
	}
	if !due.IsZero() {
		due = latest(due, work.claims.notBefore)
	}
	return tasks, due
}

// claimDue is when the call of a task is to be looked for.
func (p *Poller) claimDue(work *openWork, task *v1alpha1.PrefetchTask) time.Time {
	switch {
	case p.underWay(task): // this process still makes it
		return time.Now().Add(settleInterval)
	case work.claims.timed && p.edgeOne.ServerTime().Sub(p.complete(task.Status.Submission)) > overdue:
		return work.claims.at.Add(p.RecheckInterval)
	}
	return work.claims.at.Add(settleInterval)
}

// Reconcile looks once for the calls of a zone whose answers were lost, if that is due,
// and settles those of which it tells the outcome.
func (s settler) Reconcile(ctx context.Context, z zone) (reconcile.Result, error) {
	tasks, due := s.claimsIn(z)
	if len(tasks) == 0 || time.Until(due) > 0 {
		return when(due), nil
	}
	leave, wait := s.enter(z)
	if leave == nil {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	defer leave()
	seen := s.plan(tasks)
	creds, err := s.credentials.get(ctx, z.account)
	if err == nil {
		seen.account = creds.Hash()
		// Those past the fence come first: their windows are fixed.
		for _, isFenced := range []bool{true, false} {
			if err = s.lookForClaims(ctx, creds, z, seen, isFenced); err != nil {
				break
			}
			s.settleAll(ctx, z, seen, isFenced)
		}
	}
	if err == nil {
		err = seen.rejection()
	}
	s.noteClaimsLook(z, seen, err)
	if err != nil {
		s.sayUnsettled(ctx, tasks, z, err)
		log.FromContext(ctx).V(1).Info("Could not look for a lost call", "error", err.Error())
	}
	_, due = s.claimsIn(z)
	return when(due), nil
}

func (s settler) claimsIn(z zone) (tasks []*v1alpha1.PrefetchTask, due time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if work := s.zones[z]; work != nil {
		return s.claimsOf(work)
	}
	return nil, time.Time{}
}

// look is one look for the lost calls of a zone: what is asked for, and what was seen.
type look struct {
	*reading
	timed   bool // EdgeOne's time was known before it
	claims  map[string]*v1alpha1.Submission
	fenced  map[string]bool  // claims that were past the fence before the look
	unread  map[string]error // claims whose window cannot be read
	wanted  map[string]bool  // the URLs that the claims may have; nil if they are not known
	account string           // hash of the SecretId that looks

	mu      sync.Mutex
	settled map[string]bool // claims that tasks were rid of, and whether something was found
}

// rejection is why EdgeOne rejects all windows that were asked for; nil if it does not.
func (l *look) rejection() (rejection error) {
	for id := range l.claims {
		if rejection = l.unread[id]; teo.KindOf(rejection) != teo.Rejected {
			return nil
		}
	}
	return rejection
}

// plan decides what to look for. Whether a claim is past its fence is decided
// here, before the look: looked at first, a call could still execute afterwards.
// Where EdgeOne may have forgotten the call, no look shows that it was not
// executed, and the claim is never past the fence.
func (p *Poller) plan(tasks []*v1alpha1.PrefetchTask) *look {
	serverNow := p.edgeOne.ServerTime()
	l := &look{
		reading: newReading(serverNow), timed: p.edgeOne.ServerTimeKnown(), claims: map[string]*v1alpha1.Submission{},
		fenced: map[string]bool{}, unread: map[string]error{}, settled: map[string]bool{},
	}
	for _, task := range tasks {
		claim := task.Status.Submission
		l.claims[claim.ClaimID] = claim
		l.fenced[claim.ClaimID] = l.timed && serverNow.After(p.complete(claim)) && !p.forgotten(claim, serverNow)
	}
	l.wanted = wantedURLs(tasks)
	return l
}

// wantedURLs are the URLs of which the claims of tasks may have some; nil if the list of
// one is not in memory.
func wantedURLs(tasks []*v1alpha1.PrefetchTask) map[string]bool {
	wanted := map[string]bool{}
	for _, task := range tasks {
		if schedule.IsNewRun(task) {
			continue // whatever became of its call
		}
		if lacksTargets(task) {
			return nil
		}
		targets := schedule.DistinctTargets(task)
		for _, i := range schedule.CoveredPositions(task.Status.Submission.Targets, len(targets)) {
			wanted[target.Identity(targets[i])] = true
		}
	}
	return wanted
}

// add keeps of what was read what may concern the claims.
func (l *look) add(tasks []teo.PrefetchTask) {
	l.addWanted(tasks, func(identity string) bool { return l.wanted == nil || l.wanted[identity] })
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

// claimsWindow is the time in which calls of some claims can have been executed.
type claimsWindow struct {
	start, end time.Time
	claims     []string
}

// lookForClaims reads the windows in which calls of unknown outcome can have been
// executed: one look-up for each call, fewer where windows overlap. Those past
// the fence are fixed in the past and no longer change; the others are read as far as
// they have passed. A window that EdgeOne does not let us read concerns its claims only.
func (p *Poller) lookForClaims(ctx context.Context, creds teo.Credentials, z zone, l *look, fenced bool) error {
	var windows []claimsWindow
	for id, claim := range l.claims {
		if l.fenced[id] != fenced {
			continue
		}
		if fenced || !p.forgotten(claim, l.at) { // EdgeOne may refuse a window that far back
			windows = append(windows, claimsWindow{claim.SignedAt.Add(-clockSkew), p.complete(claim), []string{id}})
		}
	}
	for _, window := range merge(windows) {
		var err error
		if fenced {
			err = p.readWindow(ctx, creds, z.ID, window.start, window.end, l.add)
		} else {
			err = p.readRecentWindow(ctx, creds, z.ID, window.start, l.add)
		}
		switch {
		case err == nil:
		case concernsOnly(err):
			for _, id := range window.claims {
				l.unread[id] = err
			}
		default:
			return err
		}
	}
	return nil
}

// merge joins windows that overlap.
func merge(windows []claimsWindow) (merged []claimsWindow) {
	slices.SortFunc(windows, func(a, b claimsWindow) int { return a.start.Compare(b.start) })
	for _, w := range windows {
		if last := len(merged) - 1; last >= 0 && !w.start.After(merged[last].end) {
			merged[last].end = latest(merged[last].end, w.end)
			merged[last].claims = append(merged[last].claims, w.claims...)
		} else {
			merged = append(merged, w)
		}
	}
	return merged
}

// settleAll writes what the look has found out about the calls that are past the
// fence, or about the others.
func (s settler) settleAll(ctx context.Context, z zone, l *look, isFenced bool) {
	tasks, _ := s.claimsIn(z)
	tasks = slices.DeleteFunc(tasks, func(task *v1alpha1.PrefetchTask) bool {
		claim := task.Status.Submission
		return l.claims[claim.ClaimID] == nil || l.fenced[claim.ClaimID] != isFenced
	})
	forEach(len(tasks), func(i int) { s.settle(ctx, tasks[i], l) })
	s.countSettled(z, l)
}

// settle writes what became of the call of a task, if the look tells.
func (p *Poller) settle(ctx context.Context, task *v1alpha1.PrefetchTask, l *look) {
	claim := task.Status.Submission
	listed, shown := task, p.shownOfClaim(task, l)
	if shown != "" {
		if schedule.IsElided(task) && p.settlerShown(task, "") == shown {
			shown = "" // its list has told nothing then
		} else {
			var done func()
			listed, done = p.borrow(ctx, task, p.claimLists)
			defer done()
			if listed == nil {
				return // the next look knows
			}
		}
	}
	c := p.settleClaim(listed, claim, l)
	if c == nil {
		p.settlerShown(task, shown)
		return
	}
	after := p.write(ctx, listed, func(task *v1alpha1.PrefetchTask) {
		c(task)
		if !schedule.IsNewRun(task) { // of what was found the listing may tell more
			followJobs(l.reading, p.limits(), time.Now(), false)(task)
		}
	})
	if after != nil && after.Status.Submission != nil {
		p.settlerShown(task, shown)
	}
	if after != nil && after.Status.Submission == nil {
		found := len(after.Status.Jobs) > len(task.Status.Jobs)
		log.FromContext(ctx).Info("Settled a call whose answer was lost", "task", client.ObjectKeyFromObject(task), "claim", claim.ClaimID, "found", found)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.settled[claim.ClaimID] = l.settled[claim.ClaimID] || found
	}
}

// shownOfClaim is what a look shows of the time of a task's call, as far as only the URLs
// of the task tell what it means; "" if nothing.
func (p *Poller) shownOfClaim(task *v1alpha1.PrefetchTask, l *look) string {
	claim := task.Status.Submission
	if schedule.IsNewRun(task) || l.unread[claim.ClaimID] != nil {
		return ""
	}
	if l.fenced[claim.ClaimID] {
		return fmt.Sprint("fenced ", l.at) // decided now
	}
	history := l.listing.window(claim.SignedAt.Time, p.complete(claim), func(string) bool { return false })
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(history)) {
		fmt.Fprintln(&b, id, len(history[id]))
	}
	return b.String()
}

// settlerShown returns what a look has shown of a task's call that told nothing, after it
// has noted what this one did, if that is given.
func (p *Poller) settlerShown(task *v1alpha1.PrefetchTask, now string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := client.ObjectKeyFromObject(task)
	work := p.zones[p.places[key]]
	if work == nil || work.tasks[key] != task {
		return ""
	}
	w := work.wantedOf(key, task)
	if now != "" {
		w.shownOfClaim = now
	}
	return w.shownOfClaim
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
	if schedule.IsNewRun(task) {
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
	if err := l.unread[claim.ClaimID]; err != nil {
		return p.sayNotSettled(claim, explain(err, ""), serverNow.Sub(p.complete(claim)) > overdue)
	}
	isOthers := func(jobID string) bool { return p.jobs.isOthers(jobID, claim.ClaimID) }
	history := l.listing.window(claim.SignedAt.Time, p.complete(claim), isOthers)
	for _, id := range claim.EarlierJobs {
		delete(history, id)
	}
	result, jobs := settle(claim, schedule.DistinctTargets(task), history, fenced, func(jobID string) string { return p.jobs.owner(jobID, claim.ClaimID) })
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

// sayNotSettled says of a claim whose window cannot be read that it is looked up, and why it
// is not; nil is to say nothing yet.
func (p *Poller) sayNotSettled(claim *v1alpha1.Submission, message string, stalled bool) change {
	if !p.edgeOne.ServerTime().After(p.complete(claim)) {
		return nil
	}
	return unknown(unanswered(claim)+", and its history cannot be read: "+message+
		". Let the key call teo:DescribePrefetchTasks, or set spec.revision to a new value to submit everything again", stalled)
}

// noteClaimsLook notes a look for claims and when the next may be.
func (s settler) noteClaimsLook(z zone, l *look, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if work := s.zones[z]; work != nil {
		work.claims.timed = l.timed
		s.noteResult(z, &work.claims, err)
	}
}

// sayUnsettled tells tasks that their calls cannot be looked for. A new run need not
// wait for that once the call of the one before cannot be executed any more.
func (s settler) sayUnsettled(ctx context.Context, tasks []*v1alpha1.PrefetchTask, z zone, err error) {
	message, isLasting := explain(err, ""), s.isRefusedForLong(z)
	forEach(len(tasks), func(i int) {
		task := tasks[i]
		claim := task.Status.Submission
		if schedule.IsNewRun(task) {
			if s.expired(claim) {
				s.write(ctx, task, expire)
			}
			return
		}
		if c := s.sayNotSettled(claim, message, isLasting); c != nil {
			s.write(ctx, task, c)
		}
	})
}

func (s settler) isRefusedForLong(z zone) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	work := s.zones[z]
	return work != nil && !work.claims.refused.IsZero() && time.Since(work.claims.refused) >= 2*s.RecheckInterval
}
