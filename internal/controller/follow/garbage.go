package follow

import (
	"context"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// garbageCollector forgets recorded jobs that no open claim can ask for, and zones without
// tasks. It has other parts forget what is theirs.
type garbageCollector struct {
	*Poller
	synced func(context.Context) error // returns when all tasks are known
	others func()                      // forgets what other parts keep
}

// NewGarbageCollector returns a runnable that forgets, at intervals, what the Poller keeps of
// tasks that are gone. It starts when synced returns, and calls others each time.
func NewGarbageCollector(p *Poller, synced func(context.Context) error, others func()) manager.Runnable {
	return garbageCollector{p, synced, others}
}

// NeedLeaderElection is false: the tasks come to those that do not lead as well.
func (garbageCollector) NeedLeaderElection() bool { return false }

// Start collects garbage once in each SignatureValidity.
func (f garbageCollector) Start(ctx context.Context) error {
	if f.synced(ctx) != nil {
		return nil // the process ends, or does without
	}
	wait.UntilWithContext(ctx, func(context.Context) {
		f.Jobs.collectGarbage(f.neededJobs(), maxRecordedJobs)
		f.forgetZones()
		f.others()
	}, f.SignatureValidity)
	return nil
}

// neededJobs returns a function that says whether a claim can ask for a job that was signed
// at a time.
// A job can be in a claim's window although it was signed a signature's validity
// before: that long a request can be under way. A new claim can be signed now, and
// one that EdgeOne may have forgotten is not looked for.
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
		// The first claim whose window can have begun with the job under way.
		i, _ := slices.BinarySearchFunc(signed, job.Add(-after), time.Time.Compare)
		return job.After(now) || i < len(signed) && !signed[i].After(job.Add(before))
	}
}
