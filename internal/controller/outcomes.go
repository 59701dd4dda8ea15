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
	"github.com/prefetch-operator/teo-prefetch-operator/internal/schedule"
)

// jobLook is what the Poller remembers of its looks at a job.
type jobLook struct {
	at      time.Time // of the last one, whatever it found
	refused time.Time // since when all of them were refused; zero if the last was not
	why     schedule.Cause
	byID    bool // a window does not tell enough
}

// wanted are the jobs of a version of a task that are to be read.
type wanted struct {
	version *v1alpha1.PrefetchTask
	jobs    []followedJob
	isRare  bool   // nothing is expected of them
	shown   string // what the last look showed of them whose result is written
	// shownOfClaim is what the last look showed of the time of its call, which told nothing.
	shownOfClaim string
	// failures are what was read for a retry, by job.
	failures map[string]failures
}

// wantedJobs are the jobs of a task that are to be read: those of which outcomes are
// missing, and for a retry those of which the status does not tell what failed.
func wantedJobs(task *v1alpha1.PrefetchTask) *wanted {
	w := &wanted{version: task, isRare: over(task) && !schedule.IsRetryDue(task), failures: map[string]failures{}}
	if schedule.IsNewRun(task) {
		return w
	}
	isRetry := schedule.IsRetryDue(task)
	for i := range task.Status.Jobs {
		job := &task.Status.Jobs[i]
		if isRetry && !tellsFailures(task, job) || !isRetry && underWay(*job) {
			w.jobs = append(w.jobs, followedJob{id: job.ID, signed: job.SubmitTime.Time})
		}
	}
	return w
}

// rareLooks is how many recheck intervals pass between two looks at a job of a run
// that has ended because nobody could read its outcomes.
const rareLooks = 20

// jobDue is when a job is to be looked at. Jobs are looked at less often the older they
// are: a prefetch takes seconds to half an hour.
func (p *Poller) jobDue(work *openWork, w *wanted, job followedJob) time.Time {
	look := work.looks[job.id]
	interval := p.jobInterval(w, job, look)
	if !look.at.IsZero() {
		return look.at.Add(interval)
	}
	if look.byID || schedule.IsRetryDue(w.version) {
		return time.Now()
	}
	age := p.edgeOne.ServerTime().Sub(job.signed)
	return latest(time.Now().Add(p.PollInterval-age), work.firstLook)
}

func (p *Poller) jobInterval(w *wanted, job followedJob, look jobLook) time.Duration {
	if w.isRare {
		return rareLooks * p.RecheckInterval
	}
	interval := p.PollInterval
	if !schedule.IsRetryDue(w.version) {
		age := p.edgeOne.ServerTime().Sub(job.signed)
		interval = min(max(age/4, p.PollInterval), 12*p.PollInterval)
	}
	if !look.refused.IsZero() {
		interval = max(interval, p.RecheckInterval)
	}
	return interval
}

// Reconcile looks once for outcomes in a zone, if that is due, and writes them.
func (p *Poller) Reconcile(ctx context.Context, z zone) (reconcile.Result, error) {
	if !p.reopenKnown(ctx, z) {
		p.wake(z, p.PollInterval) // whatever becomes of this pass
	}
	jobs, due := p.dueJobs(z)
	if len(jobs) == 0 || time.Until(due) > 0 {
		return when(due), nil
	}
	leave, wait := p.enter(z)
	if leave == nil {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	defer leave()
	seen := newReading(p.edgeOne.ServerTime())
	creds, err := p.credentials.get(ctx, z.account)
	if err == nil {
		reader := jobReader{Poller: p, ctx: ctx, creds: creds, zoneID: z.ID, reading: seen}
		err = reader.read(jobs)
	}
	if !p.edgeOne.ServerTimeKnown() {
		seen.at = time.Time{} // nothing is late
	}
	tasks := p.noteLook(z, jobs, seen, err)
	forEach(len(tasks), func(i int) { p.update(ctx, tasks[i], z, seen) })
	if err != nil {
		log.FromContext(ctx).V(1).Info("Could not read EdgeOne's prefetch history", "error", err.Error())
	}
	_, due = p.dueJobs(z)
	return when(due), nil
}

// dueJobs returns the jobs of a zone to look at, those first that were not looked at
// for longest, and when the first of all is due; zero if there are none. Those are
// looked at as well that are due soon: one window shows them all.
func (p *Poller) dueJobs(z zone) (jobs []followedJob, due time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	work := p.zones[z]
	if work == nil {
		return nil, time.Time{}
	}
	now, seen := time.Now(), map[string]bool{}
	for key, task := range work.tasks {
		if p.underWay(task) {
			continue
		}
		w := work.wantedOf(key, task)
		for _, job := range w.jobs {
			look := work.looks[job.id]
			at := p.jobDue(work, w, job)
			due = earlier(due, at)
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
		due = latest(due, work.outcomes.notBefore)
	}
	return jobs, due
}

// wantedOf returns the wanted jobs of a task, which are found out once for each
// version of it.
func (w *openWork) wantedOf(key client.ObjectKey, task *v1alpha1.PrefetchTask) *wanted {
	known := w.wants[key]
	if known == nil || known.version != task {
		known = wantedJobs(task)
		w.wants[key] = known
	}
	return known
}

// noteLook notes what a look has read, or why it could not, and returns the tasks for
// which that is news.
func (p *Poller) noteLook(z zone, jobs []followedJob, seen *reading, err error) (tasks []*v1alpha1.PrefetchTask) {
	p.mu.Lock()
	defer p.mu.Unlock()
	work := p.zones[z]
	if work == nil {
		return nil
	}
	why, isRefused := schedule.Cause{}, false
	if err != nil {
		why, isRefused = whyUnread(err, p.RecheckInterval)
	}
	isAsked := map[string]bool{}
	now := time.Now()
	for _, job := range jobs {
		isAsked[job.id] = true
		look := work.looks[job.id]
		switch rejected := seen.rejected[job.id]; {
		case rejected != nil:
			look.at = now
			look.why, _ = whyUnread(rejected, p.RecheckInterval)
			look.refused = earlier(look.refused, now)
		case seen.has(job.id):
			look = jobLook{at: now, byID: look.byID && !seen.whole[job.id]}
		case isRefused:
			look.why, look.refused = why, earlier(look.refused, now)
		}
		work.looks[job.id] = look
	}
	p.noteResult(z, &work.outcomes, err)
	isWanted := map[string]bool{}
	for key, task := range work.tasks {
		isNews := false
		for _, job := range work.wantedOf(key, task).jobs {
			isWanted[job.id] = true
			isNews = isNews || isAsked[job.id] && (seen.has(job.id) || isRefused)
		}
		if isNews && !p.underWay(task) {
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

// update writes what a look has found out about a task.
func (p *Poller) update(ctx context.Context, task *v1alpha1.PrefetchTask, z zone, seen *reading) {
	if schedule.IsNewRun(task) {
		return
	}
	unread, why := p.unreadOf(task, z)
	shown := p.shownOf(task, z, seen)
	if why == nil && schedule.IsElided(task) && shown == p.shown(task, z, nil) {
		return // nothing that is worth reading its list for
	}
	listed, done := p.borrowList(ctx, task)
	defer done()
	if listed == nil {
		return // the next look knows
	}
	changes := []change{followJobs(seen, p.limits(), time.Now(), unread.isRead)}
	switch step := unread.step(p.RecheckInterval, p.JobDeadline); {
	case schedule.IsRetryDue(task):
		changes = []change{p.retryStep(task, z, seen, unread, why)}
	case why == nil:
	case step == sayUnread:
		changes = append(changes, blind(*why))
	case step == endUnread:
		changes = append(changes, notFollowed(why.Message, time.Now()))
	case step == forgetUnread:
		changes = append(changes, forgetOutcomes(time.Now()))
	}
	after := p.write(ctx, listed, func(task *v1alpha1.PrefetchTask) {
		for _, c := range changes {
			c(task)
		}
	})
	if after == nil {
		return
	}
	if newest := p.versions.newest(client.ObjectKeyFromObject(task)); newest != nil && newest.ResourceVersion == after.ResourceVersion {
		after = newest // without its list
	}
	p.shown(after, z, &shown)
	p.readAgainByID(after, z, seen)
}

// shownOf is what a look shows of a task's jobs, as far as it may change the status.
func (p *Poller) shownOf(task *v1alpha1.PrefetchTask, z zone, seen *reading) string {
	var b strings.Builder
	p.mu.Lock()
	defer p.mu.Unlock()
	work := p.zones[z]
	if work == nil {
		return ""
	}
	for _, job := range work.wantedOf(client.ObjectKeyFromObject(task), task).jobs {
		ended := 0
		for _, record := range seen.listing[job.id] {
			if record.Ended() {
				ended++
			}
		}
		fmt.Fprintln(&b, job.id, len(seen.listing[job.id]), ended, seen.whole[job.id], seen.at.Sub(job.signed) > p.JobDeadline)
	}
	return b.String()
}

// shown returns what the last look showed of a version of a task whose result is written,
// after it has noted what this one did, if that is given.
func (p *Poller) shown(task *v1alpha1.PrefetchTask, z zone, now *string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	work := p.zones[z]
	if work == nil {
		return ""
	}
	w := work.wantedOf(client.ObjectKeyFromObject(task), task)
	if now != nil {
		w.shown = *now
	}
	return w.shown
}

// borrowList returns the task with its targets until done is called; nil if they cannot
// be read. Only a few long lists are in memory at a time.
func (p *Poller) borrowList(ctx context.Context, task *v1alpha1.PrefetchTask) (listed *v1alpha1.PrefetchTask, done func()) {
	return p.borrow(ctx, task, p.longLists)
}

func (p *Poller) borrow(ctx context.Context, task *v1alpha1.PrefetchTask, slots chan struct{}) (listed *v1alpha1.PrefetchTask, done func()) {
	if !schedule.IsElided(task) {
		return task, func() {}
	}
	select {
	case slots <- struct{}{}:
		return p.store.withList(ctx, task), func() { <-slots }
	case <-ctx.Done():
		return nil, func() {}
	}
}

func (p *Poller) limits() limits { return limits{p.JobDeadline, p.HistoryRetention} }

// unreadOf says what is known of the jobs of a task that EdgeOne does not let us read,
// and why; nil if there are none.
func (p *Poller) unreadOf(task *v1alpha1.PrefetchTask, z zone) (u unread, why *schedule.Cause) {
	u.isHandedOver = task.Status.Submission == nil && len(schedule.OpenPositions(task)) == 0
	u.isOver, u.isBeyond = over(task), isBeyond(task, p.HistoryRetention, p.edgeOne.ServerTime())
	if stalled := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionStalled); stalled != nil && saysUnread(task) {
		u.said = max(time.Since(stalled.LastTransitionTime.Time), 1)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	work := p.zones[z]
	if work == nil {
		return u, nil
	}
	u.isRead = true
	for _, job := range work.wantedOf(client.ObjectKeyFromObject(task), task).jobs {
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
func (p *Poller) readAgainByID(task *v1alpha1.PrefetchTask, z zone, seen *reading) {
	p.mu.Lock()
	defer p.mu.Unlock()
	work := p.zones[z]
	if work == nil {
		return
	}
	key := client.ObjectKeyFromObject(task)
	w := work.wantedOf(key, task)
	for _, job := range w.jobs {
		look, isKnown := work.looks[job.id]
		isLate := schedule.IsRetryDue(task) || seen.at.Sub(job.signed) > p.JobDeadline
		if isKnown && isLate && seen.listing[job.id] != nil && !seen.whole[job.id] && !look.byID {
			work.looks[job.id] = jobLook{byID: true}
		}
	}
}
