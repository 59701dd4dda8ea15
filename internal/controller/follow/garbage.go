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
	pollers []*Poller                   // they share the recorded jobs
	synced  func(context.Context) error // blocks until all tasks are known
	others  func()                      // collects the garbage of other components
}

// NewGarbageCollector returns a runnable that periodically drops the Pollers' entries for
// deleted tasks. The runnable starts when synced returns, and calls others in each cycle.
func NewGarbageCollector(pollers []*Poller, synced func(context.Context) error, others func()) manager.Runnable {
	return garbageCollector{pollers, synced, others}
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
		f.pollers[0].Jobs.collectGarbage(f.neededJobs(), maxRecordedJobs)
		for _, p := range f.pollers {
			p.forgetZones()
		}
		f.others()
	}, f.pollers[0].SignatureValidity)
	return nil
}

// neededJobs returns a function that reports whether a claim can ask for a job signed at a
// given time.
//
// A request can be in transit for as long as its signature is valid. So a job can appear in
// a claim's window although it was signed up to SignatureValidity before the claim. A
// claim can be signed at any moment, so the current time counts as a claim. A claim that
// EdgeOne may have forgotten does not count, because nothing reads the history for it.
func (f garbageCollector) neededJobs() func(signedAt time.Time) bool {
	c := f.pollers[0].Config
	now := c.EdgeOne.ServerTime()
	signed := []time.Time{now}
	for _, p := range f.pollers {
		signed = append(signed, p.openClaimTimes(now)...)
	}
	slices.SortFunc(signed, time.Time.Compare)
	signed = slices.Compact(signed)
	before, after := c.SignatureValidity+taskstate.ClockSkew, c.SignatureValidity+c.SettleMargin+taskstate.ClockSkew
	return func(job time.Time) bool {
		// Find the first claim whose window can overlap the life of the job's request.
		i, _ := slices.BinarySearchFunc(signed, job.Add(-after), time.Time.Compare)
		return job.After(now) || i < len(signed) && !signed[i].After(job.Add(before))
	}
}

// openClaimTimes returns when the open claims were signed that EdgeOne's history can still show.
func (p *Poller) openClaimTimes(now time.Time) (signed []time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, work := range p.zones {
		for _, task := range work.tasks {
			if claim := p.claimOf(task); claim != nil && !p.isForgotten(claim, now) {
				signed = append(signed, claim.SignedAt.Time)
			}
		}
	}
	return signed
}
