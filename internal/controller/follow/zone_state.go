package follow

import (
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/backoff"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// maxUnprovenReads is how many of the looks that are made at once are into zones of which
// nothing was ever read. Anybody can invent zones, and a look into one costs a call.
const maxUnprovenReads = 4

// zoneState is what a zone is looked at for.
type zoneState struct {
	tasks     map[client.ObjectKey]*v1alpha1.PrefetchTask
	wants     map[client.ObjectKey]*wantedOutcomes
	looks     map[string]jobReadState // by the ID of a job
	firstLook time.Time               // at jobs; later than at once, so that a restart does not look everywhere at once
	outcomes  readStreak
	claims    readStreak
}

// readStreak is what the looks of one kind into a zone have met.
type readStreak struct {
	at        time.Time // of the last one
	timed     bool      // it knew EdgeOne's time
	notBefore time.Time // of the next one, whatever event comes
	failures  int       // in a row
	refused   time.Time // since when only a person can make them work; zero if the last one did
}

// openZone says in which zone the task has something to look for: jobs that have
// not ended, or a claim. Without its targets nothing can be made of what is seen,
// and of a task that is being deleted nobody will read it.
func openZone(task *v1alpha1.PrefetchTask) (ZoneKey, bool) {
	if !task.DeletionTimestamp.IsZero() || taskstate.IsUnresolved(task) && !taskstate.IsNewRun(task) {
		return ZoneKey{}, false
	}
	if claim := task.Status.Submission; claim != nil {
		// With the keys that the task has now: those of the call may be gone.
		return ZoneKey{taskstate.AccountKeyOf(task), claim.ZoneID}, taskstate.HasClaim(task)
	}
	if taskstate.IsRetryDue(task) {
		return ZoneKey{taskstate.AccountKeyOf(task), task.Spec.ZoneID}, !taskstate.IsElided(task)
	}
	if taskstate.IsRunOver(task) && !taskstate.IsUnseen(task) || taskstate.IsNewRun(task) {
		return ZoneKey{}, false
	}
	return ZoneKey{taskstate.AccountKeyOf(task), task.Spec.ZoneID}, slices.ContainsFunc(task.Status.Jobs, taskstate.IsJobOpen)
}

// recordReadResult decides when a zone may be looked at again after a look, and remembers
// whether looks are refused. Looks into a zone of which nothing was ever read get
// rarer each time that they are refused.
func (p *Poller) recordReadResult(z ZoneKey, l *readStreak, err error) {
	now := time.Now()
	l.at = now
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

// isProven says whether something of the zone was ever read, or submitted to it.
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

// acquireRead lets a look into a zone begin. Only a few go on at once into zones of which
// nothing is proven, so that the others have workers and calls left: leave is nil if
// the look has to wait.
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

// provenRetention is how long it is remembered that a zone could be read.
const provenRetention = time.Hour

func (p *Poller) forgetZones() {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.proven, func(z ZoneKey, at time.Time) bool { return p.zones[z] == nil && time.Since(at) > provenRetention })
}
