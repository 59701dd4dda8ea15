package follow

import (
	"cmp"
	"context"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// startRead is one pass over a zone's history for runs that start with it. All tasks of the zone
// that wait for such a pass share it.
type startRead struct {
	*taskstate.HistoryRead // the jobs of earlier runs, by ID
	tasks                  []*v1alpha1.PrefetchTask
	fresh                  taskstate.FreshURLs
	purged                 map[v1alpha1.PurgeType]taskstate.LastPurges
}

// startRuns starts the runs of a zone that need EdgeOne's history. It returns the time at which
// the next pass is due; zero if no task needs one.
func (p *Poller) startRuns(ctx context.Context, z ZoneKey) (due time.Time) {
	if p.Kind != v1alpha1.JobPrefetch {
		return time.Time{}
	}
	tasks, due := p.startsDue(z)
	if len(tasks) == 0 {
		return due
	}
	leave, wait := p.acquireRead(z)
	if leave == nil {
		return time.Now().Add(wait)
	}
	defer leave()
	read := &startRead{
		HistoryRead: taskstate.NewHistoryRead(p.EdgeOne.ServerTime()), tasks: tasks,
		fresh: taskstate.FreshURLs{}, purged: map[v1alpha1.PurgeType]taskstate.LastPurges{},
	}
	err := p.readStarts(ctx, z, read)
	p.mu.Lock()
	if work := p.zones[z]; work != nil {
		p.recordReadResult(z, &work.starts, err)
		pause := settleInterval // also if no status can be written
		if len(read.Rejected) > 0 {
			pause = p.PollInterval
		}
		work.starts.notBefore = latestTime(work.starts.notBefore, time.Now().Add(pause))
	}
	p.mu.Unlock()
	if err != nil {
		log.FromContext(ctx).V(1).Info("Could not read EdgeOne's history for the start of a run", "error", err.Error())
	}
	kube.WriteInParallel(len(tasks), func(i int) { p.startRun(ctx, tasks[i], z, read, err) })
	_, due = p.startsDue(z)
	return due
}

// startsDue returns the tasks of a zone whose runs may start with the history now, and when to look
// for further ones.
func (p *Poller) startsDue(z ZoneKey) (tasks []*v1alpha1.PrefetchTask, due time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	work := p.zones[z]
	if work == nil {
		return nil, time.Time{}
	}
	now := time.Now()
	for key, task := range work.tasks {
		w := work.wantedOutcomes(key, task)
		if !w.needsHistory {
			continue
		}
		at := latestTime(work.starts.notBefore, p.startAt(task), w.noStartBefore)
		if wait := p.Runs.WaitTime(task); wait > 0 {
			at = latestTime(at, now.Add(wait))
		}
		switch {
		case !taskstate.CanStartFromHistory(task) || p.isCallInFlight(task):
			at = latestTime(at, now.Add(settleInterval)) // a change of the task comes first
		case !at.After(now):
			tasks = append(tasks, task)
		}
		due = earlierTime(due, at)
	}
	return tasks, due
}

// startAt returns when the history can show what a task asks for: not before spec.freshSince, and
// not before all records of a job of the former list have appeared. The status says the former once;
// after that, nothing happens before that time.
func (p *Poller) startAt(task *v1alpha1.PrefetchTask) time.Time {
	if wait := p.listingWait(task); wait > 0 {
		return time.Now().Add(wait)
	}
	if wait := task.Spec.FreshSince.Sub(p.EdgeOne.ServerTime()); wait > taskstate.ClockSkew &&
		taskstate.IsStalledFor(task, v1alpha1.ReasonFreshSinceInFuture) && task.Status.ObservedGeneration == task.Generation {
		return time.Now().Add(wait)
	}
	return time.Time{}
}

// listingWait returns how long the records of the last job of a task whose list was edited may still
// be missing in the history.
func (p *Poller) listingWait(task *v1alpha1.PrefetchTask) (wait time.Duration) {
	if !taskstate.IsListEdit(task) {
		return 0
	}
	for _, job := range task.Status.Jobs {
		if job.Kind == v1alpha1.JobPrefetch {
			wait = max(wait, job.SubmitTime.Add(p.SettleMargin).Sub(p.EdgeOne.ServerTime()))
		}
	}
	return min(wait, p.SettleMargin) // EdgeOne's time may be unknown
}

// readStarts reads what the tasks of a pass need: their own jobs by ID, and the windows since
// their times of freshness.
func (p *Poller) readStarts(ctx context.Context, z ZoneKey, read *startRead) error {
	creds, err := p.Credentials.GetCredentials(ctx, z.AccountKey)
	if err != nil {
		return err
	}
	if err := p.readFormerJobs(ctx, creds, z, read); err != nil {
		return err
	}
	since, purgeSince, wanted := read.selectWindows(p)
	if !since.IsZero() {
		reader := windowReader{p, creds, z.ID, teo.PrefetchHistory, func(records []teo.Record) { read.fresh.AddRecords(selectWanted(records, wanted)) }}
		if err := reader.readRecentWindow(ctx, since); err != nil {
			return err
		}
		// A task that was deleted and created again has perhaps made its call a moment ago.
		if err := reader.readLastSeconds(ctx, since); err != nil {
			return err
		}
	}
	if purgeSince.IsZero() {
		return nil
	}
	reader := windowReader{p, creds, z.ID, teo.PurgeHistory, read.addPurges}
	return reader.readRecentWindow(ctx, purgeSince)
}

// addPurges adds records of the history of purges.
func (r *startRead) addPurges(records []teo.Record) {
	for purge, name := range taskstate.PurgeTypeNames {
		if r.purged[purge] == nil {
			r.purged[purge] = taskstate.LastPurges{}
		}
		r.purged[purge].AddRecords(records, name)
	}
}

// selectWindows returns the beginnings of the windows that the tasks need of the histories of prefetches
// and purges, zero if they need none, and the URLs that they want.
func (r *startRead) selectWindows(p *Poller) (since, purgeSince time.Time, wanted map[string]bool) {
	wanted = map[string]bool{}
	for _, task := range r.tasks {
		isFuture := task.Spec.FreshSince.After(r.At)
		if isFuture && !p.EdgeOne.ServerTimeKnown() {
			since = earlierTime(since, r.At.Add(-time.Second)) // any answer shows EdgeOne's time
		}
		if isFuture || !taskstate.MayAdopt(task) || p.isTooOld(task) {
			continue
		}
		since = earlierTime(since, task.Spec.FreshSince.Time)
		if taskstate.HasPurge(task) {
			purgeSince = earlierTime(purgeSince, task.Spec.FreshSince.Time)
		}
		for _, url := range taskstate.DistinctTargets(task) {
			wanted[target.Identity(url)] = true
		}
	}
	return since, purgeSince, wanted
}

// selectWanted returns the records of wanted URLs.
func selectWanted(records []teo.Record, wanted map[string]bool) (selected []teo.Record) {
	for _, record := range records {
		if wanted[record.Identity()] {
			selected = append(selected, record)
		}
	}
	return selected
}

// isTooOld reports whether EdgeOne's history no longer shows the time since which a task asks for
// fresh copies.
func (p *Poller) isTooOld(task *v1alpha1.PrefetchTask) bool {
	return !task.Spec.FreshSince.IsZero() && p.EdgeOne.ServerTime().Sub(task.Spec.FreshSince.Time) > p.HistoryRetention
}

// jobsPerRead is how many jobs one reader reads before the next one continues, so that none of
// them reaches the limits of a pass for outcomes.
const jobsPerRead = 16

// readFormerJobs reads the jobs of the runs before whose lists were edited. Jobs beyond the retention
// are left out: nothing of them is kept.
func (p *Poller) readFormerJobs(ctx context.Context, creds teo.Credentials, z ZoneKey, read *startRead) error {
	var jobs []followedJob
	known := map[string]bool{}
	for _, task := range read.tasks {
		if !taskstate.IsListEdit(task) {
			continue
		}
		for _, job := range task.Status.Jobs {
			if job.Kind == v1alpha1.JobPrefetch && !known[job.ID] && read.At.Sub(job.SubmitTime.Time) <= p.HistoryRetention {
				known[job.ID] = true
				jobs = append(jobs, followedJob{id: job.ID, signed: job.SubmitTime.Time, byID: true})
			}
		}
	}
	for len(jobs) > 0 {
		part := jobs[:min(len(jobs), jobsPerRead)]
		jobs = jobs[len(part):]
		read.Records = 0
		reader := jobReader{Poller: p, ctx: ctx, creds: creds, zoneID: z.ID, HistoryRead: read.HistoryRead}
		for _, job := range part {
			reader.Records, reader.calls = 0, 0 // a job that is left out would be submitted again
			if err := reader.readByID(job); err != nil {
				return err
			}
			read.completeRejected(job)
		}
	}
	return nil
}

// completeRejected decides about a job that EdgeOne does not show by its ID. Once the history is
// complete, the window around its call shows all of it; and what the window does not show, nothing
// shows.
func (r *startRead) completeRejected(job followedJob) {
	if r.Around[job.id] {
		delete(r.Rejected, job.id)
		r.Whole[job.id] = true
	}
}

// rejectionFor returns why EdgeOne does not show a job whose targets the run of a task may keep.
func (r *startRead) rejectionFor(task *v1alpha1.PrefetchTask) error {
	if !taskstate.IsListEdit(task) {
		return nil
	}
	for _, job := range task.Status.Jobs {
		if err := r.Rejected[job.ID]; err != nil {
			return err
		}
	}
	return nil
}

// startRun starts the run of one task with the result of a pass, or reports why it cannot start.
func (p *Poller) startRun(ctx context.Context, task *v1alpha1.PrefetchTask, z ZoneKey, read *startRead, err error) {
	rejected := read.rejectionFor(task)
	if why, isStalled := p.cannotStart(task, z, cmp.Or(err, rejected)); why.Reason != "" {
		if err == nil && rejected != nil { // it concerns this task alone
			isStalled, why.Advice = true, "Set spec.revision to a new value to submit everything"
			p.pauseStart(task, z)
		}
		p.writeStatus(ctx, task, taskstate.ReportHistoryUnread(why, isStalled))
		return
	}
	if err != nil {
		return // the next pass tries again
	}
	kept := taskstate.KeepFromHistory(task, read.HistoryRead, read.fresh, read.purged[task.Spec.Purge.Type])
	isEdit := taskstate.IsListEdit(task)
	before := task
	after := p.writeStatus(ctx, task, func(task *v1alpha1.PrefetchTask) {
		taskstate.StartFromHistory(kept, time.Now())(task)
		taskstate.FollowJobs(read.selectKept(kept), p.outcomeLimits(), time.Now(), false)(task)
	})
	if after == nil {
		return
	}
	p.Runs.CountEvent(after)
	p.reportStart(before, after, kept, isEdit)
}

// pauseStart keeps one task from asking for another pass for a while.
func (p *Poller) pauseStart(task *v1alpha1.PrefetchTask, z ZoneKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if work := p.zones[z]; work != nil {
		work.wantedOutcomes(client.ObjectKeyFromObject(task), task).noStartBefore = time.Now().Add(p.RecheckInterval)
	}
}

// selectKept returns what the pass has read of the kept jobs.
func (r *startRead) selectKept(kept taskstate.KeptJobs) *taskstate.HistoryRead {
	seen := taskstate.NewHistoryRead(r.At)
	for _, job := range kept {
		if r.Whole[job.JobID] {
			seen.Listing[job.JobID], seen.Whole[job.JobID] = r.Listing[job.JobID], true
		}
	}
	for identity, record := range r.fresh {
		if !seen.Whole[record.JobID] {
			if seen.Listing[record.JobID] == nil {
				seen.Listing[record.JobID] = map[string]teo.Record{}
			}
			seen.Listing[record.JobID][identity] = record
		}
	}
	return seen
}

// cannotStart returns why the run of a task cannot start now, if its status must say so.
func (p *Poller) cannotStart(task *v1alpha1.PrefetchTask, z ZoneKey, err error) (why taskstate.Cause, isStalled bool) {
	if task.Spec.FreshSince.Sub(p.EdgeOne.ServerTime()) > taskstate.ClockSkew && p.EdgeOne.ServerTimeKnown() {
		return taskstate.Cause{
			Reason: v1alpha1.ReasonFreshSinceInFuture, NeedsUser: true,
			Message: "spec.freshSince lies in the future: " + task.Spec.FreshSince.UTC().Format(time.RFC3339) + ". No copy can be as fresh",
			Advice:  "Set it to the time of a release, or remove it",
		}, true
	}
	if err == nil {
		return taskstate.Cause{}, false
	}
	why, isRefused := unreadCause(err, p.RecheckInterval)
	p.mu.Lock()
	defer p.mu.Unlock()
	work := p.zones[z]
	isStalled = work != nil && isRefused && !work.starts.refused.IsZero() && time.Since(work.starts.refused) >= 2*p.RecheckInterval
	why.Message = "Nothing is submitted before EdgeOne's history shows what is prefetched already, and it cannot be read: " + why.Message
	if why.Reason == "" || why.Reason == v1alpha1.ReasonNotFollowed {
		why.Reason = v1alpha1.ReasonHistoryUnread
	}
	return why, isStalled
}
