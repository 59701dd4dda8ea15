package follow

import (
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// jobReadState is the result of the Poller's reads of a job so far.
type jobReadState struct {
	at      time.Time // time of the last read, whatever its result
	refused time.Time // since when EdgeOne refuses every read; zero if the last one succeeded
	why     taskstate.Cause
	byID    bool // read the job by its ID: a window does not show all of it
}

// wantedOutcomes lists the jobs to read for one version of a task.
type wantedOutcomes struct {
	version *v1alpha1.PrefetchTask
	jobs    []followedJob
	isRare  bool // no outcome is expected, so read them rarely
	// needsHistory reports that the run starts with a look at EdgeOne's history, and noStartBefore
	// when the next look may be.
	needsHistory  bool
	noStartBefore time.Time
	shown         string // fingerprint of the last pass whose outcomes are written
	// shownOfClaim is the fingerprint of the last pass for the task's call that did not
	// settle it.
	shownOfClaim string
	// failures holds the failed targets that were read for a retry, by job.
	failures map[string]taskstate.JobFailures
}

// wantedOutcomesOf returns the jobs of a task to read: jobs with missing outcomes, or, for
// a retry, jobs whose failed targets the status does not name. A new run has none.
func (c *Config) wantedOutcomesOf(task *v1alpha1.PrefetchTask) *wantedOutcomes {
	w := &wantedOutcomes{version: task, isRare: taskstate.IsRunOver(task) && !taskstate.IsRetryDue(task), failures: map[string]taskstate.JobFailures{}}
	w.needsHistory = c.Kind == v1alpha1.JobPrefetch && taskstate.NeedsHistory(task) && !taskstate.LacksTargets(task)
	if taskstate.IsNewRun(task) && c.Kind == v1alpha1.JobPrefetch && !taskstate.AwaitsFormerPrefetches(task) {
		return w
	}
	isRetry := taskstate.IsRetryDue(task) && c.Kind == v1alpha1.JobPrefetch
	for i := range task.Status.Jobs {
		job := &task.Status.Jobs[i]
		if job.Kind != c.Kind {
			continue
		}
		if isRetry && !taskstate.NamesAllFailures(task, job) || !isRetry && c.isOpen(*job) {
			w.jobs = append(w.jobs, followedJob{id: job.ID, signed: job.SubmitTime.Time, byID: taskstate.IsNewRun(task)})
		}
	}
	return w
}

// rareReads is how many recheck intervals pass between two reads of a job of an ended run.
// It applies to runs that ended because EdgeOne did not show their outcomes.
const rareReads = 20

// jobDueAt returns the time at which a job is due for a read. A read by ID and a read for
// a retry are due at once. Otherwise, the first read is due when the job is one
// PollInterval old.
func (p *Poller) jobDueAt(work *zoneState, w *wantedOutcomes, job followedJob) time.Time {
	look := work.looks[job.id]
	interval := p.jobInterval(w, job, look)
	if !look.at.IsZero() {
		return look.at.Add(interval)
	}
	if look.byID || taskstate.IsRetryDue(w.version) {
		return time.Now()
	}
	age := p.EdgeOne.ServerTime().Sub(job.signed)
	return latestTime(time.Now().Add(p.PollInterval-age), work.firstLook)
}

// jobInterval returns the time between two reads of a job. It grows with the age of the
// job, because a prefetch takes seconds to half an hour: a quarter of the age, within 1 to
// 12 times PollInterval. If EdgeOne refuses to show the job, the interval is at least
// RecheckInterval.
func (p *Poller) jobInterval(w *wantedOutcomes, job followedJob, look jobReadState) time.Duration {
	if w.isRare {
		return rareReads * p.RecheckInterval
	}
	interval := p.PollInterval
	if !taskstate.IsRetryDue(w.version) {
		age := p.EdgeOne.ServerTime().Sub(job.signed)
		part := time.Duration(4)
		if p.Kind == v1alpha1.JobPurge { // the targets are cold until the prefetch
			part = 32
		}
		interval = min(max(age/part, p.PollInterval), 12*p.PollInterval)
	}
	if !look.refused.IsZero() {
		interval = max(interval, p.RecheckInterval)
	}
	return interval
}

// dueJobs returns the jobs of a zone to read, longest unread first, and the time at which
// the first job is due. The time is zero if there are no jobs. The result includes jobs
// that are due within half their interval, because one window shows them all.
func (p *Poller) dueJobs(z ZoneKey) (jobs []followedJob, due time.Time) {
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
			if job.byID = job.byID || look.byID; isSoon && !seen[job.id] {
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

// wantedOutcomes returns the jobs to read for a task. It computes them once per version of
// the task.
func (w *zoneState) wantedOutcomes(key client.ObjectKey, task *v1alpha1.PrefetchTask) *wantedOutcomes {
	known := w.wants[key]
	if known == nil || known.version != task {
		known = w.config.wantedOutcomesOf(task)
		w.wants[key] = known
	}
	return known
}
