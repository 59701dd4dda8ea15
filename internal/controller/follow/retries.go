package follow

import (
	"context"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// reopenKnownFailures starts each retry of a zone whose failed targets are all known. It
// reports whether it started all of them. A retry stays pending if the rate limit for
// starts of runs delays it, or if its write fails.
func (p *Poller) reopenKnownFailures(ctx context.Context, z ZoneKey) bool {
	var tasks []*v1alpha1.PrefetchTask
	var read []map[string]taskstate.JobFailures
	var failed atomic.Bool
	if p.Kind != v1alpha1.JobPrefetch {
		return true
	}
	p.mu.Lock()
	if work := p.zones[z]; work != nil {
		for key, task := range work.tasks {
			w := work.wantedOutcomes(key, task)
			switch {
			case !taskstate.IsRetryDue(task) || len(w.jobs) > 0:
			case p.Runs.WaitTime(task) > 0:
				failed.Store(true)
			default:
				tasks, read = append(tasks, task), append(read, maps.Clone(w.failures))
			}
		}
	}
	p.mu.Unlock()
	// Write without p.mu: writes take time, and onChange needs the lock meanwhile.
	kube.WriteInParallel(len(tasks), func(i int) {
		if p.writeStatus(ctx, tasks[i], taskstate.ReopenFailed(read[i], time.Now())) == nil {
			failed.Store(true)
		}
	})
	return !failed.Load()
}

// planRetry starts a retry once it knows the failed targets of all jobs: from the status
// where that names them, and from EdgeOne's history otherwise. Reading the history may
// take several passes, so planRetry keeps the failures that it has read.
//
// If the history has been unreadable for two recheck intervals, the status reports the
// cause. The operator submits nothing on a guess.
func (p *Poller) planRetry(task *v1alpha1.PrefetchTask, z ZoneKey, seen *taskstate.HistoryRead, u unreadState, why *taskstate.Cause) taskstate.Transition {
	p.mu.Lock()
	defer p.mu.Unlock()
	work := p.zones[z]
	if work == nil {
		return func(*v1alpha1.PrefetchTask) {}
	}
	// Keep the failures in memory until a pass has read the last job.
	w := work.wantedOutcomes(client.ObjectKeyFromObject(task), task)
	for i := range task.Status.Jobs {
		if job := &task.Status.Jobs[i]; job.Kind == p.Kind && seen.HasWholeJob(task, job) {
			w.failures[job.ID] = taskstate.FailuresOf(task, job, seen)
		}
	}
	// The remaining jobs are those whose failures no pass has read so far.
	w.jobs = slices.DeleteFunc(slices.Clone(w.jobs), func(job followedJob) bool { _, isRead := w.failures[job.id]; return isRead })
	switch {
	case len(w.jobs) == 0 && p.Runs.WaitTime(task) > 0:
		p.EnqueueAfter(z, p.PollInterval)
	case len(w.jobs) == 0:
		return taskstate.ReopenFailed(w.failures, time.Now())
	case why != nil && u.refused >= 2*p.RecheckInterval:
		return taskstate.RetryWaits(taskstate.Cause{
			Reason:  why.Reason,
			Message: "EdgeOne's history, which tells which they are, cannot be read: " + why.FullMessage(),
			Advice:  "Set spec.revision to a new value to submit everything again",
		}, true)
	}
	return func(*v1alpha1.PrefetchTask) {}
}
