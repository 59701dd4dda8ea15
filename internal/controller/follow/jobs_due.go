package follow

import (
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
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
	age := p.EdgeOne.ServerTime().Sub(job.signed)
	return latestTime(time.Now().Add(p.PollInterval-age), work.firstLook)
}

func (p *Poller) jobInterval(w *wantedOutcomes, job followedJob, look jobReadState) time.Duration {
	if w.isRare {
		return rareReads * p.RecheckInterval
	}
	interval := p.PollInterval
	if !taskstate.IsRetryDue(w.version) {
		age := p.EdgeOne.ServerTime().Sub(job.signed)
		interval = min(max(age/4, p.PollInterval), 12*p.PollInterval)
	}
	if !look.refused.IsZero() {
		interval = max(interval, p.RecheckInterval)
	}
	return interval
}

// dueJobs returns the jobs of a zone to look at, those first that were not looked at
// for longest, and when the first of all is due; zero if there are none. Those are
// looked at as well that are due soon: one window shows them all.
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
