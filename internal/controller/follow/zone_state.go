package follow

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/backoff"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// maxUnprovenReads is how many concurrent passes may read zones that were never read
// before. Any user can name a zone that does not exist, and a pass over it costs a call.
const maxUnprovenReads = 4

// zoneState is the open work of a zone, and the results of the passes over it.
type zoneState struct {
	config    *Config
	tasks     map[client.ObjectKey]*v1alpha1.PrefetchTask
	wants     map[client.ObjectKey]*wantedOutcomes
	looks     map[string]jobReadState // by job ID
	firstLook time.Time               // earliest first read of jobs; random, so that a restart spreads its reads
	outcomes  readStreak
	starts    readStreak
	claims    readStreak
}

// readStreak is the result of the passes of one kind over a zone.
type readStreak struct {
	at        time.Time // time of the last pass
	timed     bool      // the last pass knew EdgeOne's time
	notBefore time.Time // earliest time of the next pass, whatever event arrives
	failures  int       // consecutive failures
	refused   time.Time // since when passes need user action; zero if the last one succeeded
}

// openZone returns the zone that a task has open work in, and whether it has any: jobs
// that have not ended, a claim, or a retry. Without its targets, records of a task mean
// nothing. A task that is being deleted needs no outcomes.
func (p *Poller) openZone(task *v1alpha1.PrefetchTask) (ZoneKey, bool) {
	if p.Kind == v1alpha1.JobPurge {
		return p.openPurgeZone(task)
	}
	if !task.DeletionTimestamp.IsZero() || taskstate.IsUnresolved(task) && !taskstate.IsNewRun(task) {
		return ZoneKey{}, false
	}
	if taskstate.NeedsHistory(task) && !taskstate.LacksTargets(task) {
		return ZoneKey{taskstate.AccountKeyOf(task), task.Spec.ZoneID}, true
	}
	if claim := p.claimOf(task); claim != nil && taskstate.HasClaim(task) {
		// Use the task's current credentials: the call's credentials may be gone.
		return ZoneKey{taskstate.AccountKeyOf(task), claim.ZoneID}, true
	}
	if taskstate.IsRetryDue(task) {
		return ZoneKey{taskstate.AccountKeyOf(task), task.Spec.ZoneID}, !taskstate.IsElided(task)
	}
	if taskstate.AwaitsFormerPrefetches(task) {
		return ZoneKey{taskstate.AccountKeyOf(task), task.Spec.ZoneID}, true
	}
	if taskstate.IsRunOver(task) && !taskstate.IsUnseen(task) || taskstate.IsNewRun(task) {
		return ZoneKey{}, false
	}
	return ZoneKey{taskstate.AccountKeyOf(task), task.Spec.ZoneID}, slices.ContainsFunc(task.Status.Jobs, taskstate.IsJobOpen)
}

// openPurgeZone is openZone for the history of purges. The purge of a run that the spec no longer
// asks for is followed too: the next run waits for its end.
func (p *Poller) openPurgeZone(task *v1alpha1.PrefetchTask) (ZoneKey, bool) {
	if claim := p.claimOf(task); claim != nil && taskstate.HasClaim(task) {
		return ZoneKey{taskstate.AccountKeyOf(task), claim.ZoneID}, task.DeletionTimestamp.IsZero()
	}
	isOpen := task.DeletionTimestamp.IsZero() && taskstate.HasOpenPurge(task) && (taskstate.IsNewRun(task) || !taskstate.IsUnresolved(task))
	return ZoneKey{taskstate.AccountKeyOf(task), task.Spec.ZoneID}, isOpen
}

// recordReadResult records the result of a pass, and the earliest time of the next one.
// Refused passes over an unproven zone become rarer with each failure. The caller holds
// p.mu.
func (p *Poller) recordReadResult(z ZoneKey, l *readStreak, err error) {
	now := time.Now()
	l.at = now
	logReads(z, l.failures, err)
	if err == nil {
		l.failures, l.refused, l.notBefore = 0, time.Time{}, time.Time{}
		p.proven[z] = now
		return
	}
	pause := max(backoff.PlanWait(err, 1, p.RecheckInterval).Duration, settleInterval)
	if _, isRefused := unreadCause(err, p.RecheckInterval); isRefused {
		l.refused = earlierTime(l.refused, now)
		pause = max(pause, p.RecheckInterval)
	}
	if !p.isProven(z) {
		pause = min(pause<<min(l.failures, 10), max(pause, rareReads*p.RecheckInterval))
	}
	l.failures++
	l.notBefore = now.Add(pause)
}

// logReads logs when passes over a zone begin to fail, and when they succeed again. Repeated
// failures are one line.
func logReads(z ZoneKey, failures int, err error) {
	values := []any{"account", z.AccountKey.String(), "zone", z.ID}
	switch {
	case err == nil && failures > 0:
		log.Log.WithName("poller").Info("EdgeOne's history can be read again", values...)
	case err != nil && failures == 0 && !errors.Is(err, context.Canceled):
		log.Log.WithName("poller").Info("Cannot read EdgeOne's history; will try again", append(values, "error", explainUnread(err, ""))...)
	}
}

// isProven reports whether the operator ever read the zone's history or submitted to the
// zone. The caller holds p.mu.
func (p *Poller) isProven(z ZoneKey) bool {
	if _, ok := p.proven[z]; ok {
		return true
	}
	work := p.zones[z]
	if work == nil {
		return false
	}
	for _, task := range work.tasks {
		if len(task.Status.Jobs) > 0 {
			return true
		}
	}
	return false
}

// acquireRead asks to start a pass over a zone. Only maxUnprovenReads passes run at once
// over unproven zones, so that workers and calls remain for the other zones. If the pass
// has to wait, leave is nil and wait is the time until the next attempt.
func (p *Poller) acquireRead(z ZoneKey) (leave func(), wait time.Duration) {
	p.mu.Lock()
	isProven := p.isProven(z)
	p.mu.Unlock()
	if isProven {
		return func() {}, 0
	}
	select {
	case p.unproven <- struct{}{}:
		return func() { <-p.unproven }, 0
	default:
		return nil, time.Second + rand.N(time.Second)
	}
}

// provenRetention is how long the Poller remembers that it could read a zone without
// tasks.
const provenRetention = time.Hour

// forgetZones drops the proof of zones that have no tasks and were not read lately.
func (p *Poller) forgetZones() {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.proven, func(z ZoneKey, at time.Time) bool { return p.zones[z] == nil && time.Since(at) > provenRetention })
}
