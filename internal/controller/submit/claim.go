package submit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/backoff"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// errTooSoon means that the task has started too many runs within a minute; see kube.RunRate.
var errTooSoon = errors.New("too many runs within a minute")

// claimInOrder waits until the call may write its claims, and then writes them. The claims
// carry the time at which the wait ends. If all calls wrote their claims at once, a slow API
// server would delay every call until its signature is too old.
func (a *attempt) claimInOrder(ctx context.Context) error {
	n := int64(min(len(a.parts), kube.MaxStatusWriters))
	if err := a.claiming.Acquire(ctx, n); err != nil {
		return err
	}
	defer a.claiming.Release(n)
	a.signedAt = a.EdgeOne.ServerTime().Truncate(time.Second)
	a.writeClaims(ctx)
	return nil
}

// writeClaims writes the claim to the tasks of the call. It starts no write after WriteTimeout
// or a quarter of SignatureValidity, or if the process is stopping. Tasks that are not claimed
// by then go into a later call.
func (a *attempt) writeClaims(ctx context.Context) {
	claim := v1alpha1.Submission{
		ClaimID: a.claimID, Kind: a.account.kind, ZoneID: a.call.Lane.ZoneID, AccountHash: a.creds.Hash(), SignedAt: metav1.NewTime(a.signedAt),
		CallHash: taskstate.HashCall(a.call.URLs),
	}
	answered := a.account.jobsAnsweredMeanwhile(a.call.Lane)
	shares := a.sharesOf(func(attemptPart) bool { return true })
	end := time.Now().Add(min(a.WriteTimeout, a.SignatureValidity/4))
	kube.WriteInParallel(len(a.parts), func(i int) {
		if part := &a.parts[i]; time.Now().Before(end) && !a.Calls.IsStopping() {
			own := claim
			own.EarlierJobs = append(jobsSince(part.Task, a.signedAt.Add(-a.SignatureValidity)), answered(part.CallPart)...)
			if shares != nil {
				own.SharedURLs = shares.CountShared(part.Task, part.Positions)
			}
			a.writeClaim(ctx, part, own)
		}
	})
}

// writeClaim writes the claim to the task of one part, if the task may start now. A new run is
// subject to the rate limit for starts of runs.
func (a *attempt) writeClaim(ctx context.Context, part *attemptPart, claim v1alpha1.Submission) {
	isNewRun := taskstate.IsNewRun(part.Task)
	if isNewRun && a.Runs.WaitTime(part.Task) > 0 {
		part.err = errTooSoon
		return
	}
	if a.Accounts.Admit(part.Task).Reason != "" {
		return // the account has changed: the queue keeps the task out of calls
	}
	if !a.Lists.IsFresh(part.Task) {
		return // the task returns to the queue once its list is read again
	}
	if claim.Positions = part.Positions.String(); claim.Kind == v1alpha1.JobPrefetch {
		claim.Semantics = taskstate.HashSemantics(part.Task)
	}
	var err error
	part.newest, err = a.Writer.WriteClaim(ctx, part.Task, claim, taskstate.ClaimTargets(claim, time.Now()))
	if err != nil {
		if !errors.Is(err, kube.ErrStale) {
			part.err = err
		}
		return
	}
	part.isClaimed = true
	a.Events.ReportChange(part.Task, part.newest)
	if isNewRun {
		a.Runs.CountEvent(part.Task)
	}
	if old := part.Task.Status.Submission; old != nil {
		a.Events.RecordEvent(part.newest, corev1.EventTypeWarning, "RunSuperseded", "Submit",
			"A new run started while the outcome of call "+old.ClaimID+" of the run before was unknown; what EdgeOne executed of that call is not followed")
	}
}

// postponeUnclaimed postpones each task whose claim failed because of the task itself. This is
// the case if the API server refuses the write because of the task's content, if the claims of
// other tasks succeeded, or if no other claim failed. Otherwise, the API server is the cause:
// postponeUnclaimed does not postpone the task, and returns the error. Tasks that start too many
// runs wait for their rate limit. The account's queue must be locked.
func (a *attempt) postponeUnclaimed(someClaimed bool) (shared error) {
	tried := 0
	for _, part := range a.parts {
		if part.err != nil && !kube.IsRefused(part.err) && !errors.Is(part.err, errTooSoon) {
			tried++
		}
	}
	q := a.account.queue
	for _, part := range a.parts {
		switch {
		case part.err == nil:
		case errors.Is(part.err, errTooSoon):
			q.PostponeTaskUntil(part.CallPart, tooSoon, time.Now().Add(a.Runs.WaitTime(part.Task)))
		case kube.IsRefused(part.err):
			q.PostponeTask(part.CallPart, kube.RefusalCause(part.err), time.Now())
		case someClaimed || tried == 1:
			why := backoff.PlanWait(fmt.Errorf("%w: %w", backoff.ErrNotClaimed, part.err), 1, 0).Cause
			q.PostponeTask(part.CallPart, why, time.Now())
		default:
			shared = part.err
		}
	}
	return shared
}

// jobsSince returns the jobs that were signed after a time and may contain the targets to
// submit. These are the jobs of the previous run if a new run starts, and otherwise the
// retried jobs of this run. It returns the newest MaxEarlierJobs/2 at most.
func jobsSince(task *v1alpha1.PrefetchTask, after time.Time) []string {
	newRun := taskstate.IsNewRun(task)
	var ids []string
	for _, job := range slices.Backward(task.Status.Jobs) {
		if (newRun || job.RetriedPositions != "") && job.SubmitTime.After(after) && len(ids) < taskstate.MaxEarlierJobs/2 {
			ids = append(ids, job.ID)
		}
	}
	return ids
}

// answeredCall is a call that EdgeOne accepted within the last answerRetention.
type answeredCall struct {
	lane  queue.BatchKey
	jobID string
	urls  map[string]bool // target.Identity of each URL
	at    time.Time       // when the answer arrived
}

// answerRetention is how long after the answer to a call its job can lie in the window of a
// claim that is signed later. The window starts ClockSkew before the claim's signature. The
// signature's time and EdgeOne's times are truncated to the second, hence the 2 s.
const answerRetention = taskstate.ClockSkew + 2*time.Second

// jobsAnsweredMeanwhile returns a function that returns the jobs that other calls recently
// created for a task's URLs. These jobs are older than the claim, so they do not belong to it.
// Jobs of other lanes in the zone count too: they fetched the URLs in another way, but EdgeOne's
// history does not show in which.
func (l *accountQueue) jobsAnsweredMeanwhile(lane queue.BatchKey) func(queue.CallPart) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answered = slices.DeleteFunc(l.answered, func(a answeredCall) bool { return time.Since(a.at) > answerRetention })
	beside := slices.DeleteFunc(slices.Clone(l.answered), func(a answeredCall) bool { return !a.lane.SharesZone(lane) })
	return func(part queue.CallPart) (ids []string) {
		if len(beside) == 0 {
			return nil
		}
		targets := taskstate.CallTargets(part.Task, l.kind)
		for _, a := range beside {
			if len(ids) < taskstate.MaxEarlierJobs/2 && slices.ContainsFunc(part.Positions, func(i int) bool { return a.urls[target.Identity(targets[i])] }) {
				ids = append(ids, a.jobID)
			}
		}
		return ids
	}
}

// urlIdentities returns the set of the URLs' identities.
func urlIdentities(urls []string) map[string]bool {
	set := make(map[string]bool, len(urls))
	for _, u := range urls {
		set[target.Identity(u)] = true
	}
	return set
}

// claimedURLs returns the distinct URLs of the tasks that certainly have the claim, each in its
// first spelling. Only these URLs may be sent: without a claim, a lost call for a URL would
// never be looked up.
func (a *attempt) claimedURLs() []string {
	seen := make(map[string]bool, len(a.call.URLs))
	var urls []string
	for _, part := range a.parts {
		if !part.isClaimed {
			continue
		}
		targets := taskstate.CallTargets(part.Task, a.account.kind)
		for _, p := range part.Positions {
			if u := targets[p]; !seen[target.Identity(u)] {
				seen[target.Identity(u)] = true
				urls = append(urls, u)
			}
		}
	}
	return urls
}

// tooSoon is the cause that the status of a task reports after errTooSoon.
var tooSoon = taskstate.Cause{
	Reason: v1alpha1.ReasonWaiting, Message: "Too many runs started within a minute; the newest is submitted 10 seconds after the last one",
}
