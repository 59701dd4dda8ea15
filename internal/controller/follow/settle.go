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

// settleClaims writes what the look has found out about the calls that are past the
// fence, or about the others.
func (s lostCallReconciler) settleClaims(ctx context.Context, z ZoneKey, l *claimsRead, isFenced bool) {
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
	fenced, serverNow := l.fenced[claim.ClaimID], p.EdgeOne.ServerTime()
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
	isOthers := func(jobID string) bool { return p.Jobs.belongsToOthers(jobID, claim.ClaimID) }
	history := l.Listing.SelectWindow(claim.SignedAt.Time, p.completeTime(claim), isOthers)
	for _, id := range claim.EarlierJobs {
		delete(history, id)
	}
	result, jobs := taskstate.MatchClaim(claim, taskstate.DistinctTargets(task), history, fenced, func(jobID string) string { return p.Jobs.ownerOf(jobID, claim.ClaimID) })
	switch {
	case result != taskstate.Undecided:
		return taskstate.AdoptJobs(jobs, time.Now())
	case p.isForgotten(claim, serverNow):
		return taskstate.OutcomeUnknown(taskstate.UnansweredMessage(claim)+" so long ago that its history may no longer show the call. "+
			"The operator submits nothing again on its own; set spec.revision to a new value to submit everything again", true)
	case serverNow.Sub(claim.SignedAt.Time) > patience:
		return taskstate.OutcomeUnknown(fmt.Sprintf("%s; checking its history until %s for whether the call was executed",
			taskstate.UnansweredMessage(claim), p.completeTime(claim).UTC().Format(time.RFC3339)), false)
	}
	return nil
}

// reportNotSettled says of a claim whose window cannot be read that it is looked up, and why it
// is not; nil is to say nothing yet.
func (p *Poller) reportNotSettled(claim *v1alpha1.Submission, message string, stalled bool) taskstate.Transition {
	if !p.EdgeOne.ServerTime().After(p.completeTime(claim)) {
		return nil
	}
	return taskstate.OutcomeUnknown(taskstate.UnansweredMessage(claim)+", and its history cannot be read: "+message+
		". Let the key call teo:DescribePrefetchTasks, or set spec.revision to a new value to submit everything again", stalled)
}
