package follow

import (
	"context"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// garbageCollector drops recorded jobs that no open claim can ask for, and zones without
// tasks. It also triggers the garbage collection of other components.
type garbageCollector struct {
	*Poller
	synced func(context.Context) error // blocks until all tasks are known
	others func()                      // collects the garbage of other components
}

// NewGarbageCollector returns a runnable that periodically drops the Poller's entries for
// deleted tasks. The runnable starts when synced returns, and calls others in each cycle.
func NewGarbageCollector(p *Poller, synced func(context.Context) error, others func()) manager.Runnable {
	return garbageCollector{p, synced, others}
}

// NeedLeaderElection returns false: replicas that do not lead observe the tasks as well,
// so their memory grows too.
func (garbageCollector) NeedLeaderElection() bool { return false }

// Start collects garbage once per SignatureValidity.
func (f garbageCollector) Start(ctx context.Context) error {
	if f.synced(ctx) != nil {
		return nil // the process is stopping, or runs without garbage collection
	}
	wait.UntilWithContext(ctx, func(context.Context) {
		f.Jobs.collectGarbage(f.neededJobs(), maxRecordedJobs)
		f.forgetZones()
		f.others()
	}, f.SignatureValidity)
	return nil
}

// neededJobs returns a function that reports whether a claim can ask for a job signed at a
// given time.
//
// A request can be under way for as long as its signature is valid. So a job can appear in
// a claim's window although it was signed up to SignatureValidity before the claim. A
// claim can be signed at any moment, so the current time counts as a claim. A claim that
// EdgeOne may have forgotten does not count, because nothing reads the history for it.
func (f garbageCollector) neededJobs() func(signedAt time.Time) bool {
	now := f.EdgeOne.ServerTime()
	signed := []time.Time{now}
	f.mu.Lock()
	for _, work := range f.zones {
		for _, task := range work.tasks {
			if claim := task.Status.Submission; claim != nil && !f.isForgotten(claim, now) {
				signed = append(signed, claim.SignedAt.Time)
			}
		}
	}
	f.mu.Unlock()
	slices.SortFunc(signed, time.Time.Compare)
	signed = slices.Compact(signed)
	before, after := f.SignatureValidity+taskstate.ClockSkew, f.SignatureValidity+f.SettleMargin+taskstate.ClockSkew
	return func(job time.Time) bool {
		// Find the first claim whose window can overlap the life of the job's request.
		i, _ := slices.BinarySearchFunc(signed, job.Add(-after), time.Time.Compare)
		return job.After(now) || i < len(signed) && !signed[i].After(job.Add(before))
	}
}
