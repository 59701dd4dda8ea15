package follow

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// Reconcile makes one pass for the outcomes of a zone, if a pass is due, and writes them.
// It first starts retries whose failed targets are known, because they need no read.
func (p *Poller) Reconcile(ctx context.Context, z ZoneKey) (reconcile.Result, error) {
	if !p.reopenKnownFailures(ctx, z) {
		p.EnqueueAfter(z, p.PollInterval) // whatever the result of this pass
	}
	// The outcomes come first: a pass for the starts of runs may take as long as a pass may.
	due := p.followJobs(ctx, z)
	return requeueSooner(due, p.startRuns(ctx, z)), nil
}

// followJobs reads the outcomes of the jobs of a zone, if they are due, and writes them. It returns
// when the next ones are due; zero if there are none.
func (p *Poller) followJobs(ctx context.Context, z ZoneKey) time.Time {
	jobs, due := p.dueJobs(z)
	if len(jobs) == 0 || time.Until(due) > 0 {
		return due
	}
	// A pass over an unproven zone needs a slot.
	leave, wait := p.acquireRead(z)
	if leave == nil {
		return time.Now().Add(wait)
	}
	defer leave()
	seen, err := p.readJobs(ctx, z, jobs)
	// After an error, the pass still writes the outcomes that it read before the error.
	tasks := p.recordJobsRead(z, jobs, seen, err)
	kube.WriteInParallel(len(tasks), func(i int) { p.writeOutcomes(ctx, tasks[i], z, seen) })
	if err != nil {
		log.FromContext(ctx).V(1).Info("Could not read EdgeOne's history", "error", err.Error())
	}
	_, due = p.dueJobs(z)
	return due
}

// requeueSooner returns a result that requeues at the earlier of two times. Zero means never.
func requeueSooner(a, b time.Time) reconcile.Result {
	if !b.IsZero() {
		a = earlierTime(a, b)
	}
	return requeueAt(a)
}

// readJobs reads jobs of a zone from EdgeOne's history. After an error, the result contains the
// records that were read before it.
func (p *Poller) readJobs(ctx context.Context, z ZoneKey, jobs []followedJob) (*taskstate.HistoryRead, error) {
	seen := taskstate.NewHistoryRead(p.EdgeOne.ServerTime())
	creds, err := p.Credentials.GetCredentials(ctx, z.AccountKey)
	if err == nil {
		reader := jobReader{Poller: p, ctx: ctx, creds: creds, zoneID: z.ID, HistoryRead: seen}
		err = reader.readJobs(jobs)
	}
	if !p.EdgeOne.ServerTimeKnown() {
		seen.At = time.Time{} // no job counts as late by an unknown time
	}
	return seen, err
}

// recordJobsRead records the result of a pass by job, and returns the tasks whose status
// may change because of it. If EdgeOne refuses the pass as a whole, the refusal applies to
// each due job that the pass did not read. Otherwise, an unread job keeps its state. Tasks
// with a call in flight are left out: the submitter writes their statuses.
func (p *Poller) recordJobsRead(z ZoneKey, jobs []followedJob, seen *taskstate.HistoryRead, err error) (tasks []*v1alpha1.PrefetchTask) {
	p.mu.Lock()
	defer p.mu.Unlock()
	work := p.zones[z]
	if work == nil {
		return nil
	}
	why, isRefused := taskstate.Cause{}, false
	if err != nil {
		why, isRefused = unreadCause(err, p.RecheckInterval)
	}
	isAsked := map[string]bool{}
	now := time.Now()
	for _, job := range jobs {
		isAsked[job.id] = true
		look := work.looks[job.id]
		// EdgeOne's words about this job come before an error of the whole pass.
		switch rejected := seen.Rejected[job.id]; {
		case rejected != nil:
			look.at = now
			look.why, _ = unreadCause(rejected, p.RecheckInterval)
			look.refused = earlierTime(look.refused, now)
		case seen.HasJob(job.id):
			look = jobReadState{at: now, byID: look.byID && !seen.Whole[job.id]}
		case isRefused:
			look.why, look.refused = why, earlierTime(look.refused, now)
		}
		work.looks[job.id] = look
	}
	p.recordReadResult(z, &work.outcomes, err)
	isNews := func(jobID string) bool { return isAsked[jobID] && (seen.HasJob(jobID) || isRefused) }
	return slices.DeleteFunc(work.tasksWithNews(isNews), p.isCallInFlight)
}

// tasksWithNews returns the tasks of the zone that want a job with news. It also drops the
// read states of jobs that no task wants.
func (w *zoneState) tasksWithNews(isNews func(jobID string) bool) (tasks []*v1alpha1.PrefetchTask) {
	isWanted := map[string]bool{}
	for key, task := range w.tasks {
		hasNews := false
		for _, job := range w.wantedOutcomes(key, task).jobs {
			isWanted[job.id] = true
			hasNews = hasNews || isNews(job.id)
		}
		if hasNews {
			tasks = append(tasks, task)
		}
	}
	maps.DeleteFunc(w.looks, func(id string, _ jobReadState) bool { return !isWanted[id] })
	return tasks
}

// writeOutcomes writes the result of a pass to a task's status. It reads a long target
// list only if the pass shows a change since the last write: each read of a list costs
// memory and a request to the API server.
func (p *Poller) writeOutcomes(ctx context.Context, task *v1alpha1.PrefetchTask, z ZoneKey, seen *taskstate.HistoryRead) {
	if taskstate.IsNewRun(task) && p.Kind == v1alpha1.JobPrefetch {
		p.writeStatus(ctx, task, taskstate.FollowFormerJobs(seen, p.outcomeLimits()))
		return
	}
	unread, why := p.unreadSince(task, z)
	shown := p.outcomeFingerprint(task, z, seen)
	if why == nil && taskstate.IsElided(task) && shown == p.swapOutcomeFingerprint(task, z, nil) {
		return // no change that justifies a read of the target list
	}
	listed, done := p.borrowList(ctx, task)
	defer done()
	if listed == nil {
		return // the next pass tries again
	}
	changes := p.planOutcomes(task, z, seen, unread, why)
	after := p.writeStatus(ctx, listed, func(task *v1alpha1.PrefetchTask) {
		for _, c := range changes {
			c(task)
		}
	})
	if after == nil {
		return
	}
	if newest := p.Tasks.NewestVersion(client.ObjectKeyFromObject(task)); newest != nil && newest.ResourceVersion == after.ResourceVersion {
		after = newest // the same version, without its target list
	}
	p.swapOutcomeFingerprint(after, z, &shown)
	p.readAgainByID(after, z, seen)
}

// planOutcomes returns what a pass changes in a task's status. A pass for a retry writes only the
// retry. Any other pass writes the outcomes first.
func (p *Poller) planOutcomes(
	task *v1alpha1.PrefetchTask, z ZoneKey, seen *taskstate.HistoryRead, unread unreadState, why *taskstate.Cause,
) []taskstate.Transition {
	changes := []taskstate.Transition{p.followOutcomes(seen, unread.isRead)}
	step := unread.nextStep(p.RecheckInterval, p.JobDeadline)
	switch {
	case p.Kind == v1alpha1.JobPurge:
		if why != nil && step != sayNothing && !taskstate.IsNewRun(task) {
			changes = append(changes, taskstate.PurgeUnreadable(*why))
		}
	case taskstate.IsRetryDue(task):
		return []taskstate.Transition{p.planRetry(task, z, seen, unread, why)}
	case why == nil:
	case step == sayUnread:
		changes = append(changes, taskstate.OutcomesUnreadable(*why))
	case step == endUnread:
		changes = append(changes, taskstate.EndNotFollowed(why.FullMessage(), time.Now()))
	case step == forgetUnread:
		changes = append(changes, taskstate.EndForgotten(time.Now()))
	}
	return changes
}

// outcomeFingerprint summarizes the records of a task's jobs, as far as they can change
// the status. Equal fingerprints mean that the pass has no news for the task.
func (p *Poller) outcomeFingerprint(task *v1alpha1.PrefetchTask, z ZoneKey, seen *taskstate.HistoryRead) string {
	var b strings.Builder
	p.mu.Lock()
	defer p.mu.Unlock()
	work := p.zones[z]
	if work == nil {
		return ""
	}
	for _, job := range work.wantedOutcomes(client.ObjectKeyFromObject(task), task).jobs {
		ended := 0
		for _, record := range seen.Listing[job.id] {
			if record.Ended() {
				ended++
			}
		}
		if p.PurgeSettle > 0 {
			fmt.Fprintln(&b, seen.At) // a success counts some time later
		}
		fmt.Fprintln(&b, job.id, len(seen.Listing[job.id]), ended, seen.Whole[job.id], min(seen.At.Sub(job.signed)/max(p.JobDeadline, 1), 2))
	}
	return b.String()
}

// swapOutcomeFingerprint returns the stored fingerprint of a version of a task. If now is
// not nil, it first stores now as the fingerprint of the last written pass.
func (p *Poller) swapOutcomeFingerprint(task *v1alpha1.PrefetchTask, z ZoneKey, now *string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	work := p.zones[z]
	if work == nil {
		return ""
	}
	w := work.wantedOutcomes(client.ObjectKeyFromObject(task), task)
	if now != nil {
		w.shown = *now
	}
	return w.shown
}

// borrowList returns the task with its targets, which stay in memory until the caller
// calls done. It returns nil if it cannot read the targets. At most maxLongLists long
// lists are in memory at a time.
func (p *Poller) borrowList(ctx context.Context, task *v1alpha1.PrefetchTask) (listed *v1alpha1.PrefetchTask, done func()) {
	return p.borrowSlot(ctx, task, p.longLists)
}

// borrowSlot is borrowList with the given slots. A task whose targets are in memory needs
// no slot.
func (p *Poller) borrowSlot(ctx context.Context, task *v1alpha1.PrefetchTask, slots chan struct{}) (listed *v1alpha1.PrefetchTask, done func()) {
	if !taskstate.IsElided(task) {
		return task, func() {}
	}
	select {
	case slots <- struct{}{}:
		return p.Writer.WithTargetList(ctx, task), func() { <-slots }
	case <-ctx.Done():
		return nil, func() {}
	}
}

// outcomeLimits returns the limits by which a pass judges targets.
func (p *Poller) outcomeLimits() taskstate.OutcomeLimits {
	return taskstate.OutcomeLimits{Deadline: p.JobDeadline, Retention: p.HistoryRetention, Settle: p.PurgeSettle}
}

// unreadSince returns the state of a task's jobs that EdgeOne refuses to show, and the
// cause. The cause is nil if EdgeOne refuses no job of the task. If it refuses several,
// the longest refusal counts.
func (p *Poller) unreadSince(task *v1alpha1.PrefetchTask, z ZoneKey) (u unreadState, why *taskstate.Cause) {
	u.isHandedOver = task.Status.Submission == nil && (p.Kind == v1alpha1.JobPurge || len(taskstate.OpenPositions(task)) == 0)
	u.isOver, u.isBeyond = taskstate.IsRunOver(task), taskstate.IsPastRetention(task, p.HistoryRetention, p.EdgeOne.ServerTime())
	// The transition time of Stalled is the start of the report.
	if stalled := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionStalled); stalled != nil && taskstate.IsUnreadReported(task) {
		u.said = max(time.Since(stalled.LastTransitionTime.Time), 1)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	work := p.zones[z]
	if work == nil {
		return u, nil
	}
	u.isRead = true
	for _, job := range work.wantedOutcomes(client.ObjectKeyFromObject(task), task).jobs {
		look := work.looks[job.id]
		u.isRead = u.isRead && look.refused.IsZero() && (look.byID || !look.at.IsZero())
		if since := time.Since(look.refused); !look.refused.IsZero() && (why == nil || since > u.refused) {
			u.refused, why = since, &look.why
		}
	}
	return u, why
}

// readAgainByID schedules a read by ID for each late job whose outcomes a window showed
// only in part. Only a read by ID can prove that a target has no outcome.
func (p *Poller) readAgainByID(task *v1alpha1.PrefetchTask, z ZoneKey, seen *taskstate.HistoryRead) {
	p.mu.Lock()
	defer p.mu.Unlock()
	work := p.zones[z]
	if work == nil {
		return
	}
	key := client.ObjectKeyFromObject(task)
	w := work.wantedOutcomes(key, task)
	for _, job := range w.jobs {
		look, isKnown := work.looks[job.id]
		isLate := taskstate.IsRetryDue(task) || seen.At.Sub(job.signed) > p.JobDeadline
		if isKnown && isLate && seen.Listing[job.id] != nil && !seen.Whole[job.id] && !look.byID {
			work.looks[job.id] = jobReadState{byID: true}
		}
	}
}
