package controller

import (
	"context"
	"fmt"
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

// jobReadState is what the Poller remembers of its looks at a job.
type jobReadState struct {
	at      time.Time // of the last one, whatever it found
	refused time.Time // since when all of them were refused; zero if the last was not
	why     taskstate.Cause
	byID    bool // a window does not tell enough
}

// wantedOutcomes are the jobs of a version of a task that are to be read.
type wantedOutcomes struct {
	version *v1alpha1.PrefetchTask
	jobs    []followedJob
	isRare  bool   // ScopeNone is expected of them
	shown   string // what the last look showed of them whose result is written
	// shownOfClaim is what the last look showed of the time of its call, which told nothing.
	shownOfClaim string
	// failures are what was read for a retry, by job.
	failures map[string]taskstate.JobFailures
}

// wantedOutcomesOf are the jobs of a task that are to be read: those of which outcomes are
// missing, and for a retry those of which the status does not tell what failed.
func wantedOutcomesOf(task *v1alpha1.PrefetchTask) *wantedOutcomes {
	w := &wantedOutcomes{version: task, isRare: taskstate.IsRunOver(task) && !taskstate.IsRetryDue(task), failures: map[string]taskstate.JobFailures{}}
	if taskstate.IsNewRun(task) {
		return w
	}
	isRetry := taskstate.IsRetryDue(task)
	for i := range task.Status.Jobs {
		job := &task.Status.Jobs[i]
		if isRetry && !taskstate.NamesAllFailures(task, job) || !isRetry && taskstate.IsJobOpen(*job) {
			w.jobs = append(w.jobs, followedJob{id: job.ID, signed: job.SubmitTime.Time})
		}
	}
	return w
}

// rareReads is how many recheck intervals pass between two looks at a job of a run
// that has ended because nobody could read its outcomes.
const rareReads = 20

// jobDueAt is when a job is to be looked at. Jobs are looked at less often the older they
// are: a prefetch takes seconds to half an hour.
func (p *Poller) jobDueAt(work *zoneState, w *wantedOutcomes, job followedJob) time.Time {
	look := work.looks[job.id]
	interval := p.jobInterval(w, job, look)
	if !look.at.IsZero() {
		return look.at.Add(interval)
	}
	if look.byID || taskstate.IsRetryDue(w.version) {
		return time.Now()
	}
	age := p.edgeOne.ServerTime().Sub(job.signed)
	return latestTime(time.Now().Add(p.PollInterval-age), work.firstLook)
}

func (p *Poller) jobInterval(w *wantedOutcomes, job followedJob, look jobReadState) time.Duration {
	if w.isRare {
		return rareReads * p.RecheckInterval
	}
	interval := p.PollInterval
	if !taskstate.IsRetryDue(w.version) {
		age := p.edgeOne.ServerTime().Sub(job.signed)
		interval = min(max(age/4, p.PollInterval), 12*p.PollInterval)
	}
	if !look.refused.IsZero() {
		interval = max(interval, p.RecheckInterval)
	}
	return interval
}

// Reconcile looks once for outcomes in a zone, if that is due, and writes them.
func (p *Poller) Reconcile(ctx context.Context, z zoneKey) (reconcile.Result, error) {
	if !p.reopenKnownFailures(ctx, z) {
		p.EnqueueAfter(z, p.PollInterval) // whatever becomes of this pass
	}
	jobs, due := p.dueJobs(z)
	if len(jobs) == 0 || time.Until(due) > 0 {
		return requeueAt(due), nil
	}
	leave, wait := p.acquireRead(z)
	if leave == nil {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	defer leave()
	seen := taskstate.NewHistoryRead(p.edgeOne.ServerTime())
	creds, err := p.credentials.GetCredentials(ctx, z.AccountKey)
	if err == nil {
		reader := jobReader{Poller: p, ctx: ctx, creds: creds, zoneID: z.ID, HistoryRead: seen}
		err = reader.readJobs(jobs)
	}
	if !p.edgeOne.ServerTimeKnown() {
		seen.At = time.Time{} // ScopeNone is late
	}
	tasks := p.recordJobsRead(z, jobs, seen, err)
	kube.WriteInParallel(len(tasks), func(i int) { p.writeOutcomes(ctx, tasks[i], z, seen) })
	if err != nil {
		log.FromContext(ctx).V(1).Info("Could not read EdgeOne's prefetch history", "error", err.Error())
	}
	_, due = p.dueJobs(z)
	return requeueAt(due), nil
}

// dueJobs returns the jobs of a zone to look at, those first that were not looked at
// for longest, and when the first of all is due; zero if there are none. Those are
// looked at as well that are due soon: one window shows them all.
func (p *Poller) dueJobs(z zoneKey) (jobs []followedJob, due time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	work := p.zones[z]
	if work == nil {
		return nil, time.Time{}
	}
	now, seen := time.Now(), map[string]bool{}
	for key, task := range work.tasks {
		if p.isCallInFlight(task) {
			continue
		}
		w := work.wantedOutcomes(key, task)
		for _, job := range w.jobs {
			look := work.looks[job.id]
			at := p.jobDueAt(work, w, job)
			due = earlierTime(due, at)
			isSoon := !at.Add(-p.jobInterval(w, job, look) / 2).After(now)
			if job.byID = look.byID; isSoon && !seen[job.id] {
				seen[job.id] = true
				jobs = append(jobs, job)
			}
		}
	}
	slices.SortFunc(jobs, func(a, b followedJob) int {
		if c := work.looks[a.id].at.Compare(work.looks[b.id].at); c != 0 {
			return c
		}
		return a.signed.Compare(b.signed)
	})
	if !due.IsZero() {
		due = latestTime(due, work.outcomes.notBefore)
	}
	return jobs, due
}

// wantedOutcomes returns the wanted jobs of a task, which are found out once for each
// version of it.
func (w *zoneState) wantedOutcomes(key client.ObjectKey, task *v1alpha1.PrefetchTask) *wantedOutcomes {
	known := w.wants[key]
	if known == nil || known.version != task {
		known = wantedOutcomesOf(task)
		w.wants[key] = known
	}
	return known
}

// recordJobsRead notes what a look has read, or why it could not, and returns the tasks for
// which that is news.
func (p *Poller) recordJobsRead(z zoneKey, jobs []followedJob, seen *taskstate.HistoryRead, err error) (tasks []*v1alpha1.PrefetchTask) {
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
	isWanted := map[string]bool{}
	for key, task := range work.tasks {
		isNews := false
		for _, job := range work.wantedOutcomes(key, task).jobs {
			isWanted[job.id] = true
			isNews = isNews || isAsked[job.id] && (seen.HasJob(job.id) || isRefused)
		}
		if isNews && !p.isCallInFlight(task) {
			tasks = append(tasks, task)
		}
	}
	for id := range work.looks { // forget the others
		if !isWanted[id] {
			delete(work.looks, id)
		}
	}
	return tasks
}

// writeOutcomes writes what a look has found out about a task.
func (p *Poller) writeOutcomes(ctx context.Context, task *v1alpha1.PrefetchTask, z zoneKey, seen *taskstate.HistoryRead) {
	if taskstate.IsNewRun(task) {
		return
	}
	unread, why := p.unreadSince(task, z)
	shown := p.outcomeFingerprint(task, z, seen)
	if why == nil && taskstate.IsElided(task) && shown == p.swapOutcomeFingerprint(task, z, nil) {
		return // ScopeNone that is worth reading its list for
	}
	listed, done := p.borrowList(ctx, task)
	defer done()
	if listed == nil {
		return // the next look knows
	}
	changes := []taskstate.Transition{taskstate.FollowJobs(seen, p.outcomeLimits(), time.Now(), unread.isRead)}
	switch step := unread.nextStep(p.RecheckInterval, p.JobDeadline); {
	case taskstate.IsRetryDue(task):
		changes = []taskstate.Transition{p.planRetry(task, z, seen, unread, why)}
	case why == nil:
	case step == sayUnread:
		changes = append(changes, taskstate.OutcomesUnreadable(*why))
	case step == endUnread:
		changes = append(changes, taskstate.EndNotFollowed(why.Message, time.Now()))
	case step == forgetUnread:
		changes = append(changes, taskstate.EndForgotten(time.Now()))
	}
	after := p.writeStatus(ctx, listed, func(task *v1alpha1.PrefetchTask) {
		for _, c := range changes {
			c(task)
		}
	})
	if after == nil {
		return
	}
	if newest := p.versions.NewestVersion(client.ObjectKeyFromObject(task)); newest != nil && newest.ResourceVersion == after.ResourceVersion {
		after = newest // without its list
	}
	p.swapOutcomeFingerprint(after, z, &shown)
	p.readAgainByID(after, z, seen)
}

// outcomeFingerprint is what a look shows of a task's jobs, as far as it may change the status.
func (p *Poller) outcomeFingerprint(task *v1alpha1.PrefetchTask, z zoneKey, seen *taskstate.HistoryRead) string {
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
		fmt.Fprintln(&b, job.id, len(seen.Listing[job.id]), ended, seen.Whole[job.id], seen.At.Sub(job.signed) > p.JobDeadline)
	}
	return b.String()
}

// swapOutcomeFingerprint stores the fingerprint of a look whose result is written for a
// version of a task, if there is one, and returns the stored one.
func (p *Poller) swapOutcomeFingerprint(task *v1alpha1.PrefetchTask, z zoneKey, now *string) string {
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

// borrowList returns the task with its targets until done is called; nil if they cannot
// be read. Only a few long lists are in memory at a time.
func (p *Poller) borrowList(ctx context.Context, task *v1alpha1.PrefetchTask) (listed *v1alpha1.PrefetchTask, done func()) {
	return p.borrowSlot(ctx, task, p.longLists)
}

func (p *Poller) borrowSlot(ctx context.Context, task *v1alpha1.PrefetchTask, slots chan struct{}) (listed *v1alpha1.PrefetchTask, done func()) {
	if !taskstate.IsElided(task) {
		return task, func() {}
	}
	select {
	case slots <- struct{}{}:
		return p.store.WithTargetList(ctx, task), func() { <-slots }
	case <-ctx.Done():
		return nil, func() {}
	}
}

func (p *Poller) outcomeLimits() taskstate.OutcomeLimits {
	return taskstate.OutcomeLimits{Deadline: p.JobDeadline, Retention: p.HistoryRetention}
}

// unreadSince says what is known of the jobs of a task that EdgeOne does not let us read,
// and why; nil if there are none.
func (p *Poller) unreadSince(task *v1alpha1.PrefetchTask, z zoneKey) (u unreadState, why *taskstate.Cause) {
	u.isHandedOver = task.Status.Submission == nil && len(taskstate.OpenPositions(task)) == 0
	u.isOver, u.isBeyond = taskstate.IsRunOver(task), taskstate.IsPastRetention(task, p.HistoryRetention, p.edgeOne.ServerTime())
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

// readAgainByID has late jobs read by their ID of which a window has not shown all
// outcomes: only then can it be concluded that there are none.
func (p *Poller) readAgainByID(task *v1alpha1.PrefetchTask, z zoneKey, seen *taskstate.HistoryRead) {
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
