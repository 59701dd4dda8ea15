package follow

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/metrics"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// settleClaims writes the conclusions of a pass about the calls past the fence, or about
// the other calls. It settles only claims that the pass covers, in the versions that tasks
// have now: a claim may have changed during the read.
func (s lostCallReconciler) settleClaims(ctx context.Context, z ZoneKey, l *claimsRead, isFenced bool) {
	tasks, _ := s.claimsIn(z)
	tasks = slices.DeleteFunc(tasks, func(task *v1alpha1.PrefetchTask) bool {
		claim := task.Status.Submission
		return l.claims[claim.ClaimID] == nil || l.fenced[claim.ClaimID] != isFenced
	})
	kube.WriteInParallel(len(tasks), func(i int) { s.settleTask(ctx, tasks[i], l) })
	s.countSettled(z, l)
}

// settleTask writes the outcome of a task's call, if the pass shows it. It reads a long
// target list only if the pass shows something new in the window of the call.
func (p *Poller) settleTask(ctx context.Context, task *v1alpha1.PrefetchTask, l *claimsRead) {
	claim := task.Status.Submission
	listed, shown := task, p.claimFingerprint(task, l)
	if shown != "" {
		if taskstate.IsElided(task) && p.swapClaimFingerprint(task, "") == shown {
			shown = "" // the same records did not settle the call before
		} else {
			var done func()
			listed, done = p.borrowSlot(ctx, task, p.claimLists)
			defer done()
			if listed == nil {
				return // the next pass tries again
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
		if !taskstate.IsNewRun(task) { // the listing may already show outcomes of the adopted jobs
			p.followOutcomes(l.HistoryRead, false)(task)
		}
	})
	if after != nil && after.Status.Submission != nil {
		p.swapClaimFingerprint(task, shown)
	}
	if after != nil && after.Status.Submission == nil {
		found := len(after.Status.Jobs) > len(task.Status.Jobs)
		log.FromContext(ctx).Info("Settled a call whose answer was lost", "account", taskstate.AccountKeyOf(task).String(),
			"zone", claim.ZoneID, "claim", claim.ClaimID, "task", client.ObjectKeyFromObject(task).String(), "executed", found)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.settled[claim.ClaimID] = l.settled[claim.ClaimID] || found
	}
}

// claimFingerprint summarizes the records in the window of a task's call. It returns "" if
// settling the call needs no target list. The fingerprint of a fenced claim is never the
// same twice, because a pass after the fence always decides.
func (p *Poller) claimFingerprint(task *v1alpha1.PrefetchTask, l *claimsRead) string {
	claim := task.Status.Submission
	if taskstate.IsNewRun(task) || l.unread[claim.ClaimID] != nil {
		return ""
	}
	if l.fenced[claim.ClaimID] {
		return fmt.Sprint("fenced ", l.At) // this pass decides
	}
	history := l.Listing.SelectWindow(claim.SignedAt.Time, p.completeTime(claim), func(string) bool { return false })
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(history)) {
		fmt.Fprintln(&b, id, len(history[id]))
	}
	return b.String()
}

// swapClaimFingerprint returns the stored fingerprint of a task's call. If now is not
// empty, it first stores now as the fingerprint of the last pass that did not settle the
// call.
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

// countSettled counts the settled calls. A call counts once no task in the zone has a
// claim on it, because several tasks can share one call.
func (p *Poller) countSettled(z ZoneKey, l *claimsRead) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.settled) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if work := p.zones[z]; work != nil {
		for _, task := range work.tasks {
			if claim := p.claimOf(task); claim != nil {
				delete(l.settled, claim.ClaimID)
			}
		}
	}
	for _, found := range l.settled {
		metrics.CountSettledCall(found)
	}
	clear(l.settled)
}

// settleClaim decides about a claimed task. It returns nil to leave the task as it is
// until the next pass. In doubt it keeps the claim, so that nothing is submitted twice.
func (p *Poller) settleClaim(task *v1alpha1.PrefetchTask, claim *v1alpha1.Submission, l *claimsRead) taskstate.Transition {
	fenced, serverNow := l.fenced[claim.ClaimID], p.EdgeOne.ServerTime()
	if taskstate.IsNewRun(task) {
		return p.settleFormerClaim(task, claim, l)
	}
	// The history of another account does not contain the call, so its absence proves
	// nothing. "*" means all zones of an account, so it does not identify the account.
	if claim.ZoneID == "*" && claim.AccountHash != l.account {
		return taskstate.OutcomeUnknown(taskstate.UnansweredMessage(claim)+", and the key that made it was replaced by one that may belong to another account, "+
			"whose history says nothing about that call. Restore the key, or set spec.revision to a new value to submit everything again", true)
	}
	if err := l.unread[claim.ClaimID]; err != nil {
		return p.reportNotSettled(claim, explainUnread(err, ""), serverNow.Sub(p.completeTime(claim)) > overdue)
	}
	ownerOf := func(jobID string) string { return p.Jobs.ownerOf(jobID, claim.ClaimID) }
	result, jobs := taskstate.MatchClaim(claim, taskstate.CallIdentities(task, claim.Kind), p.windowOf(claim, l), fenced, ownerOf)
	switch {
	case result != taskstate.Undecided:
		return taskstate.AdoptJobs(jobs, time.Now())
	// The operator cannot decide about a call that the history may no longer show.
	case p.isForgotten(claim, serverNow):
		return taskstate.OutcomeUnknown(taskstate.UnansweredMessage(claim)+" so long ago that its history may no longer show the call. "+
			"The operator submits nothing again on its own; set spec.revision to a new value to submit everything again", true)
	case serverNow.Sub(claim.SignedAt.Time) > patience:
		return taskstate.OutcomeUnknown(fmt.Sprintf("%s; checking its history until %s for whether the call was executed",
			taskstate.UnansweredMessage(claim), p.completeTime(claim).UTC().Format(time.RFC3339)), false)
	}
	return nil
}

// settleFormerClaim decides about the claim of the run before. If only the list of targets has
// changed, the new run keeps what the call has prefetched: the spec no longer names its URLs, but
// their hash is in the claim. Otherwise, the new run only has to wait until the call can no longer
// be executed. Then the claim stays: if a user changes the spec back, the outcome of the call counts.
func (p *Poller) settleFormerClaim(task *v1alpha1.PrefetchTask, claim *v1alpha1.Submission, l *claimsRead) taskstate.Transition {
	if taskstate.IsListEdit(task) && l.unread[claim.ClaimID] == nil {
		if jobs := taskstate.MatchCall(claim, p.windowOf(claim, l), func(jobID string) string { return p.Jobs.ownerOf(jobID, claim.ClaimID) }); jobs != nil {
			return taskstate.AdoptJobs(jobs, time.Now())
		}
	}
	if p.isBygone(task, claim, l) {
		return taskstate.ExpireClaim
	}
	return nil
}

// windowOf returns the jobs of a pass that can be those of a claim. Jobs of other claims can lie in
// the window, because it begins ClockSkew early. The claim lists jobs that were created just before
// the call: none of them is its job.
func (p *Poller) windowOf(claim *v1alpha1.Submission, l *claimsRead) taskstate.JobRecords {
	isOthers := func(jobID string) bool { return p.Jobs.belongsToOthers(jobID, claim.ClaimID) }
	history := l.Listing.SelectWindow(claim.SignedAt.Time, p.completeTime(claim), isOthers)
	for _, id := range claim.EarlierJobs {
		delete(history, id)
	}
	return history
}

// isBygone reports whether the call of a claim can no longer change what the new run does: it can no
// longer be executed, and if one of the two purges, nothing of the call is under way.
func (p *Poller) isBygone(task *v1alpha1.PrefetchTask, claim *v1alpha1.Submission, l *claimsRead) bool {
	return p.isHarmless(task, claim) || p.isExpired(claim) && p.hasEnded(claim, l)
}

// hasEnded reports whether the pass shows that nothing of a call is under way. The targets of the
// call are not known, so everything in its window must have ended.
func (p *Poller) hasEnded(claim *v1alpha1.Submission, l *claimsRead) bool {
	if !l.fenced[claim.ClaimID] || l.unread[claim.ClaimID] != nil {
		return false
	}
	for _, job := range l.Listing.SelectWindow(claim.SignedAt.Time, p.completeTime(claim), func(string) bool { return false }) {
		for _, record := range job {
			if !record.Ended() {
				return false
			}
		}
	}
	return true
}

// reportNotSettled reports that the window of a claim cannot be read, and why. It returns
// nil until fence and margin have passed: before, an unreadable history delays nothing.
func (p *Poller) reportNotSettled(claim *v1alpha1.Submission, message string, stalled bool) taskstate.Transition {
	if !p.EdgeOne.ServerTime().After(p.completeTime(claim)) {
		return nil
	}
	return taskstate.OutcomeUnknown(taskstate.UnansweredMessage(claim)+", and its history cannot be read: "+message+
		". Let the key call teo:"+p.history().Action()+", or set spec.revision to a new value to submit everything again", stalled)
}
