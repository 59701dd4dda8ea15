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

// errTooSoon says that the task has started too many runs within a minute.
var errTooSoon = errors.New("too many runs within a minute")

// claimInOrder claims the tasks when it is the call's turn to write, and signs the claims
// then. If all calls claimed at once, a slow API server would take so long for each that none
// could be sent in time.
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

// writeClaims writes the claim to the tasks of the call. It takes no longer than the signature
// or a process that stops can wait: what is not claimed by then goes into a later call.
func (a *attempt) writeClaims(ctx context.Context) {
	claim := v1alpha1.Submission{
		ClaimID: a.claimID, ZoneID: a.call.Lane.ZoneID, AccountHash: a.creds.Hash(), SignedAt: metav1.NewTime(a.signedAt),
		CallHash: taskstate.HashCall(a.call.URLs),
	}
	answered := a.account.jobsAnsweredMeanwhile(a.call.Lane)
	end := time.Now().Add(min(a.WriteTimeout, a.SignatureValidity/4))
	kube.WriteInParallel(len(a.parts), func(i int) {
		if part := &a.parts[i]; time.Now().Before(end) && !a.Calls.IsStopping() {
			own := claim
			own.EarlierJobs = append(jobsSince(part.Task, a.signedAt.Add(-a.SignatureValidity)), answered(part.CallPart)...)
			a.writeClaim(ctx, part, own)
		}
	})
}

// writeClaim writes the claim to the task of one part, if the task may start now.
func (a *attempt) writeClaim(ctx context.Context, part *attemptPart, claim v1alpha1.Submission) {
	isNewRun := taskstate.IsNewRun(part.Task)
	if isNewRun && a.Runs.WaitTime(part.Task) > 0 {
		part.err = errTooSoon
		return
	}
	if !a.Lists.IsFresh(part.Task) {
		return // it comes again when its list is there
	}
	claim.Targets, claim.Semantics = part.Positions.String(), taskstate.HashSemantics(part.Task)
	var err error
	part.newest, err = a.Writer.WriteClaim(ctx, part.Task, claim, taskstate.ClaimTargets(claim, time.Now()))
	if err != nil {
		if !errors.Is(err, kube.ErrStale) {
			part.err = err
		}
		return
	}
	part.isClaimed = true
	if isNewRun {
		a.Runs.CountEvent(part.Task)
	}
	if old := part.Task.Status.Submission; old != nil {
		a.Events.RecordEvent(part.newest, corev1.EventTypeWarning, "RunSuperseded", "Submit",
			"A new run started while the outcome of call "+old.ClaimID+" of the run before was unknown; what EdgeOne executed of that call is not followed")
	}
}

// postponeUnclaimed keeps the tasks waiting that took no claim because of their own trouble:
// if other tasks were claimed, if no other task was tried, or if the API server refuses the
// write for what the task is. Else it returns the error, which is the API server's trouble.
// The account's queue must be locked.
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

// jobsSince are the jobs that were signed after a time and had the targets that
// are now submitted again: those of the run before, or of this one what a retry is of.
func jobsSince(task *v1alpha1.PrefetchTask, after time.Time) []string {
	newRun := taskstate.IsNewRun(task)
	var ids []string
	for _, job := range slices.Backward(task.Status.Jobs) {
		if (newRun || job.Retried != "") && job.SubmitTime.After(after) && len(ids) < taskstate.MaxEarlierJobs/2 {
			ids = append(ids, job.ID)
		}
	}
	return ids
}

// answeredCall is a call that EdgeOne answered just now.
type answeredCall struct {
	lane  queue.BatchKey
	jobID string
	urls  map[string]bool
	at    time.Time
}

// answerRetention is how long after a call was answered its job may be in the window of a
// claim that was signed later: that begins ClockSkew before its signature, which is
// truncated to the second, as EdgeOne's times are.
const answerRetention = taskstate.ClockSkew + 2*time.Second

// jobsAnsweredMeanwhile returns a function that names the jobs that other calls got for a
// task's URLs just now: they were made before the claim, so they are not its own. Those
// of other lanes fetched the URLs in another way, and the history does not tell in which.
func (l *accountQueue) jobsAnsweredMeanwhile(lane queue.BatchKey) func(queue.CallPart) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answered = slices.DeleteFunc(l.answered, func(a answeredCall) bool { return time.Since(a.at) > answerRetention })
	beside := slices.DeleteFunc(slices.Clone(l.answered), func(a answeredCall) bool { return !a.lane.SharesZone(lane) })
	return func(part queue.CallPart) (ids []string) {
		if len(beside) == 0 {
			return nil
		}
		targets := taskstate.DistinctTargets(part.Task)
		for _, a := range beside {
			if len(ids) < taskstate.MaxEarlierJobs/2 && slices.ContainsFunc(part.Positions, func(i int) bool { return a.urls[target.Identity(targets[i])] }) {
				ids = append(ids, a.jobID)
			}
		}
		return ids
	}
}

func urlIdentities(urls []string) map[string]bool {
	set := make(map[string]bool, len(urls))
	for _, u := range urls {
		set[target.Identity(u)] = true
	}
	return set
}

// claimedURLs returns the distinct URLs of the tasks that are claimed for certain, in their
// first spelling. No others may be sent: nobody would look for them.
func (a *attempt) claimedURLs() []string {
	seen := make(map[string]bool, len(a.call.URLs))
	var urls []string
	for _, part := range a.parts {
		if !part.isClaimed {
			continue
		}
		targets := taskstate.DistinctTargets(part.Task)
		for _, p := range part.Positions {
			if u := targets[p]; !seen[target.Identity(u)] {
				seen[target.Identity(u)] = true
				urls = append(urls, u)
			}
		}
	}
	return urls
}

// tooSoon is what a task says that waits for its rate.
var tooSoon = taskstate.Cause{
	Reason: v1alpha1.ReasonWaiting, Message: "Too many runs started within a minute; the newest is submitted 10 seconds after the last one",
}
