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
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/metrics"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// lostCallReconciler looks for calls whose answer was lost. It has a queue and workers of its own:
// however long outcomes take to be read and written, and whatever keeps them from being
// read, lost calls are looked for on their interval, and the other way round.
type lostCallReconciler struct{ *Poller }

const (
	// settleInterval is how often a call whose answer was lost is looked up.
	settleInterval = 1500 * time.Millisecond
	// patience is how long a look-up goes on before the task's status says so.
	patience = 10 * time.Second
	// overdue is how long after its fence and margin a call is looked up that often.
	// Then a person has to make it settle.
	overdue = time.Minute
)

// openClaims returns the tasks of a zone whose calls are to be looked for, and when the
// first of them is due; zero if there are none.
func (p *Poller) openClaims(work *zoneState) (tasks []*v1alpha1.PrefetchTask, due time.Time) {
	for _, task := range work.tasks {
		if task.Status.Submission == nil {
			continue
		}
		due = earlierTime(due, p.claimDueAt(work, task))
		if !p.isCallInFlight(task) {
			tasks = append(tasks, task)
		}
	}
	if !due.IsZero() {
		due = latestTime(due, work.claims.notBefore)
	}
	return tasks, due
}

// claimDueAt is when the call of a task is to be looked for.
func (p *Poller) claimDueAt(work *zoneState, task *v1alpha1.PrefetchTask) time.Time {
	switch {
	case p.isCallInFlight(task): // this process still makes it
		return time.Now().Add(settleInterval)
	case work.claims.timed && p.edgeOne.ServerTime().Sub(p.completeTime(task.Status.Submission)) > overdue:
		return work.claims.at.Add(p.RecheckInterval)
	}
	return work.claims.at.Add(settleInterval)
}

// Reconcile looks once for the calls of a zone whose answers were lost, if that is due,
// and settles those of which it tells the outcome.
func (s lostCallReconciler) Reconcile(ctx context.Context, z zoneKey) (reconcile.Result, error) {
	tasks, due := s.claimsIn(z)
	if len(tasks) == 0 || time.Until(due) > 0 {
		return requeueAt(due), nil
	}
	leave, wait := s.acquireRead(z)
	if leave == nil {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	defer leave()
	seen := s.planClaimsRead(tasks)
	creds, err := s.credentials.GetCredentials(ctx, z.AccountKey)
	if err == nil {
		seen.account = creds.Hash()
		// Those past the fence come first: their windows are fixed.
		for _, isFenced := range []bool{true, false} {
			if err = s.readClaimWindows(ctx, creds, z, seen, isFenced); err != nil {
				break
			}
			s.settleClaims(ctx, z, seen, isFenced)
		}
	}
	if err == nil {
		err = seen.rejectionError()
	}
	s.recordClaimsRead(z, seen, err)
	if err != nil {
		s.reportUnsettled(ctx, tasks, z, err)
		log.FromContext(ctx).V(1).Info("Could not look up a lost call", "error", err.Error())
	}
	_, due = s.claimsIn(z)
	return requeueAt(due), nil
}

func (s lostCallReconciler) claimsIn(z zoneKey) (tasks []*v1alpha1.PrefetchTask, due time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if work := s.zones[z]; work != nil {
		return s.openClaims(work)
	}
	return nil, time.Time{}
}

// claimsRead is one look for the lost calls of a zone: what is asked for, and what was seen.
type claimsRead struct {
	*taskstate.HistoryRead
	timed   bool // EdgeOne's time was known before it
	claims  map[string]*v1alpha1.Submission
	fenced  map[string]bool  // claims that were past the fence before the look
	unread  map[string]error // claims whose window cannot be read
	wanted  map[string]bool  // the URLs that the claims may have; nil if they are not known
	account string           // hash of the SecretId that looks

	mu      sync.Mutex
	settled map[string]bool // claims that tasks were rid of, and whether something was found
}

// rejectionError is why EdgeOne rejects all windows that were asked for; nil if it does not.
func (l *claimsRead) rejectionError() (rejection error) {
	for id := range l.claims {
		if rejection = l.unread[id]; teo.KindOf(rejection) != teo.Rejected {
			return nil
		}
	}
	return rejection
}

// planClaimsRead decides what to look for. Whether a claim is past its fence is decided
// here, before the look: looked at first, a call could still execute afterwards.
// Where EdgeOne may have forgotten the call, no look shows that it was not
// executed, and the claim is never past the fence.
func (p *Poller) planClaimsRead(tasks []*v1alpha1.PrefetchTask) *claimsRead {
	serverNow := p.edgeOne.ServerTime()
	l := &claimsRead{
		HistoryRead: taskstate.NewHistoryRead(serverNow), timed: p.edgeOne.ServerTimeKnown(), claims: map[string]*v1alpha1.Submission{},
		fenced: map[string]bool{}, unread: map[string]error{}, settled: map[string]bool{},
	}
	for _, task := range tasks {
		claim := task.Status.Submission
		l.claims[claim.ClaimID] = claim
		l.fenced[claim.ClaimID] = l.timed && serverNow.After(p.completeTime(claim)) && !p.isForgotten(claim, serverNow)
	}
	l.wanted = wantedURLs(tasks)
	return l
}

// wantedURLs are the URLs of which the claims of tasks may have some; nil if the list of
// one is not in memory.
func wantedURLs(tasks []*v1alpha1.PrefetchTask) map[string]bool {
	wanted := map[string]bool{}
	for _, task := range tasks {
		if taskstate.IsNewRun(task) {
			continue // whatever became of its call
		}
		if taskstate.LacksTargets(task) {
			return nil
		}
		targets := taskstate.DistinctTargets(task)
		for _, i := range taskstate.CoveredPositions(task.Status.Submission.Targets, len(targets)) {
			wanted[target.Identity(targets[i])] = true
		}
	}
	return wanted
}

// AddTasks keeps of what was read what may concern the claims.
func (l *claimsRead) addTasks(tasks []teo.PrefetchTask) {
	l.AddWanted(tasks, func(identity string) bool { return l.wanted == nil || l.wanted[identity] })
}

// fenceTime is when EdgeOne refuses a request signed for the claim.
func (p *Poller) fenceTime(claim *v1alpha1.Submission) time.Time {
	return claim.SignedAt.Add(p.SignatureValidity)
}

// completeTime is when EdgeOne's history shows all that was signed for the claim.
func (p *Poller) completeTime(claim *v1alpha1.Submission) time.Time {
	return p.fenceTime(claim).Add(p.SettleMargin)
}

// isExpired says whether the claim's call cannot be executed any more.
func (p *Poller) isExpired(claim *v1alpha1.Submission) bool {
	return p.edgeOne.ServerTimeKnown() && p.edgeOne.ServerTime().After(p.completeTime(claim))
}

// isForgotten says whether the claim is so old that EdgeOne's history may no
// longer show its call.
func (p *Poller) isForgotten(claim *v1alpha1.Submission, serverNow time.Time) bool {
	return serverNow.Sub(claim.SignedAt.Time) > p.HistoryRetention
}

// historyWindow is the time in which calls of some claims can have been executed.
type historyWindow struct {
	start, end time.Time
	claims     []string
}

// readClaimWindows reads the windows in which calls of unknown outcome can have been
// executed: one look-up for each call, fewer where windows overlap. Those past
// the fence are fixed in the past and no longer change; the others are read as far as
// they have passed. A window that EdgeOne does not let us read concerns its claims only.
func (p *Poller) readClaimWindows(ctx context.Context, creds teo.Credentials, z zoneKey, l *claimsRead, fenced bool) error {
	var windows []historyWindow
	for id, claim := range l.claims {
		if l.fenced[id] != fenced {
			continue
		}
		if fenced || !p.isForgotten(claim, l.At) { // EdgeOne may refuse a window that far back
			windows = append(windows, historyWindow{claim.SignedAt.Add(-taskstate.ClockSkew), p.completeTime(claim), []string{id}})
		}
	}
	for _, window := range mergeWindows(windows) {
		var err error
		if fenced {
			err = p.readWindow(ctx, creds, z.ID, window.start, window.end, l.addTasks)
		} else {
			err = p.readRecentWindow(ctx, creds, z.ID, window.start, l.addTasks)
		}
		switch {
		case err == nil:
		case concernsOneJob(err):
			for _, id := range window.claims {
				l.unread[id] = err
			}
		default:
			return err
		}
	}
	return nil
}

// mergeWindows joins windows that overlap.
func mergeWindows(windows []historyWindow) (merged []historyWindow) {
	slices.SortFunc(windows, func(a, b historyWindow) int { return a.start.Compare(b.start) })
	for _, w := range windows {
		if last := len(merged) - 1; last >= 0 && !w.start.After(merged[last].end) {
			merged[last].end = latestTime(merged[last].end, w.end)
			merged[last].claims = append(merged[last].claims, w.claims...)
		} else {
			merged = append(merged, w)
		}
	}
	return merged
}

// settleClaims writes what the look has found out about the calls that are past the
// fence, or about the others.
func (s lostCallReconciler) settleClaims(ctx context.Context, z zoneKey, l *claimsRead, isFenced bool) {
	tasks, _ := s.claimsIn(z)
	tasks = slices.DeleteFunc(tasks, func(task *v1alpha1.PrefetchTask) bool {
		claim := task.Status.Submission
		return l.claims[claim.ClaimID] == nil || l.fenced[claim.ClaimID] != isFenced
	})
	kube.WriteInParallel(len(tasks), func(i int) { s.settleTask(ctx, tasks[i], l) })
	s.countSettled(z, l)
}

// settleTask writes what became of the call of a task, if the look tells.
func (p *Poller) settleTask(ctx context.Context, task *v1alpha1.PrefetchTask, l *claimsRead) {
	claim := task.Status.Submission
	listed, shown := task, p.claimFingerprint(task, l)
	if shown != "" {
		if taskstate.IsElided(task) && p.swapClaimFingerprint(task, "") == shown {
			shown = "" // its list has told nothing then
		} else {
			var done func()
			listed, done = p.borrowSlot(ctx, task, p.claimLists)
			defer done()
			if listed == nil {
				return // the next look knows
			}
		}
	}
	c := p.settleClaim(listed, claim, l)
	if c == nil {
		p.swapClaimFingerprint(task, shown)
		return
	}
	after := p.writeStatus(ctx, listed, func(task *v1alpha1.PrefetchTask) {
		c(task)
		if !taskstate.IsNewRun(task) { // of what was found the listing may tell more
			taskstate.FollowJobs(l.HistoryRead, p.outcomeLimits(), time.Now(), false)(task)
		}
	})
	if after != nil && after.Status.Submission != nil {
		p.swapClaimFingerprint(task, shown)
	}
	if after != nil && after.Status.Submission == nil {
		found := len(after.Status.Jobs) > len(task.Status.Jobs)
		log.FromContext(ctx).Info("Settled a call whose answer was lost", "task", client.ObjectKeyFromObject(task), "claim", claim.ClaimID, "found", found)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.settled[claim.ClaimID] = l.settled[claim.ClaimID] || found
	}
}

// claimFingerprint is what a look shows of the time of a task's call, as far as only the URLs
// of the task tell what it means; "" if nothing.
func (p *Poller) claimFingerprint(task *v1alpha1.PrefetchTask, l *claimsRead) string {
	claim := task.Status.Submission
	if taskstate.IsNewRun(task) || l.unread[claim.ClaimID] != nil {
		return ""
	}
	if l.fenced[claim.ClaimID] {
		return fmt.Sprint("fenced ", l.At) // decided now
	}
	history := l.Listing.SelectWindow(claim.SignedAt.Time, p.completeTime(claim), func(string) bool { return false })
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(history)) {
		fmt.Fprintln(&b, id, len(history[id]))
	}
	return b.String()
}

// swapClaimFingerprint stores the fingerprint of a look for a task's call that found nothing,
// if there is one, and returns the stored one.
func (p *Poller) swapClaimFingerprint(task *v1alpha1.PrefetchTask, now string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := client.ObjectKeyFromObject(task)
	work := p.zones[p.places[key]]
	if work == nil || work.tasks[key] != task {
		return ""
	}
	w := work.wantedOutcomes(key, task)
	if now != "" {
		w.shownOfClaim = now
	}
	return w.shownOfClaim
}

// countSettled counts the calls that no task waits to hear of any more.
func (p *Poller) countSettled(z zoneKey, l *claimsRead) {
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
		metrics.CountSettledCall(found)
	}
	clear(l.settled)
}

// SettleClaim decides about a claimed task; nil is to wait.
func (p *Poller) settleClaim(task *v1alpha1.PrefetchTask, claim *v1alpha1.Submission, l *claimsRead) taskstate.Transition {
	fenced, serverNow := l.fenced[claim.ClaimID], p.edgeOne.ServerTime()
	if taskstate.IsNewRun(task) {
		// The spec no longer says which URLs the claim was for, and the new run
		// only has to wait until that call cannot happen any more. The claim
		// stays: if the spec is changed back, what became of the call counts.
		if p.isExpired(claim) {
			return taskstate.ExpireClaim
		}
		return nil
	}
	if claim.ZoneID == "*" && claim.AccountHash != l.account {
		return taskstate.OutcomeUnknown(taskstate.UnansweredMessage(claim)+", and the key that made it was replaced by one that may belong to another account, "+
			"whose history says nothing about that call. Restore the key, or set spec.revision to a new value to submit everything again", true)
	}
	if err := l.unread[claim.ClaimID]; err != nil {
		return p.reportNotSettled(claim, explainUnread(err, ""), serverNow.Sub(p.completeTime(claim)) > overdue)
	}
	isOthers := func(jobID string) bool { return p.jobs.belongsToOthers(jobID, claim.ClaimID) }
	history := l.Listing.SelectWindow(claim.SignedAt.Time, p.completeTime(claim), isOthers)
	for _, id := range claim.EarlierJobs {
		delete(history, id)
	}
	result, jobs := taskstate.MatchClaim(claim, taskstate.DistinctTargets(task), history, fenced, func(jobID string) string { return p.jobs.ownerOf(jobID, claim.ClaimID) })
	switch {
	case result != taskstate.Undecided:
		return taskstate.AdoptJobs(jobs, time.Now())
	case p.isForgotten(claim, serverNow):
		return taskstate.OutcomeUnknown(taskstate.UnansweredMessage(claim)+" so long ago that its history may no longer show the call. "+
			"Nothing is submitted again by itself; set spec.revision to a new value to submit everything again", true)
	case serverNow.Sub(claim.SignedAt.Time) > patience:
		return taskstate.OutcomeUnknown(fmt.Sprintf("%s; checking its history until %s for whether the call was executed",
			taskstate.UnansweredMessage(claim), p.completeTime(claim).UTC().Format(time.RFC3339)), false)
	}
	return nil
}

// reportNotSettled says of a claim whose window cannot be read that it is looked up, and why it
// is not; nil is to say nothing yet.
func (p *Poller) reportNotSettled(claim *v1alpha1.Submission, message string, stalled bool) taskstate.Transition {
	if !p.edgeOne.ServerTime().After(p.completeTime(claim)) {
		return nil
	}
	return taskstate.OutcomeUnknown(taskstate.UnansweredMessage(claim)+", and its history cannot be read: "+message+
		". Let the key call teo:DescribePrefetchTasks, or set spec.revision to a new value to submit everything again", stalled)
}

// recordClaimsRead notes a look for claims and when the next may be.
func (s lostCallReconciler) recordClaimsRead(z zoneKey, l *claimsRead, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if work := s.zones[z]; work != nil {
		work.claims.timed = l.timed
		s.recordReadResult(z, &work.claims, err)
	}
}

// reportUnsettled tells tasks that their calls cannot be looked for. A new run need not
// wait for that once the call of the one before cannot be executed any more.
func (s lostCallReconciler) reportUnsettled(ctx context.Context, tasks []*v1alpha1.PrefetchTask, z zoneKey, err error) {
	message, isLasting := explainUnread(err, ""), s.isRefusedForLong(z)
	kube.WriteInParallel(len(tasks), func(i int) {
		task := tasks[i]
		claim := task.Status.Submission
		if taskstate.IsNewRun(task) {
			if s.isExpired(claim) {
				s.writeStatus(ctx, task, taskstate.ExpireClaim)
			}
			return
		}
		if c := s.reportNotSettled(claim, message, isLasting); c != nil {
			s.writeStatus(ctx, task, c)
		}
	})
}

func (s lostCallReconciler) isRefusedForLong(z zoneKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	work := s.zones[z]
	return work != nil && !work.claims.refused.IsZero() && time.Since(work.claims.refused) >= 2*s.RecheckInterval
}
