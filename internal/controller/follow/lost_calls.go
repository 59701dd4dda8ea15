package follow

import (
	"context"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// lostCallReconciler looks for calls whose answer was lost. It has a queue and workers of its own:
// however long outcomes take to be read and written, and whatever keeps them from being
// read, lost calls are looked for on their interval, and the other way round.
type lostCallReconciler struct{ *Poller }

// NewLostCallReconciler returns the reconciler whose keys come from p.LostCalls.
func NewLostCallReconciler(p *Poller) reconcile.TypedReconciler[ZoneKey] {
	return lostCallReconciler{p}
}

const (
	// settleInterval is how often a call whose answer was lost is looked up.
	settleInterval = 1500 * time.Millisecond
	// patience is how long a look-up goes on before the task's status says so.
	patience = 10 * time.Second
	// overdue is how long after its fence and margin a call is looked up that often.
	// Then a person has to make it settle.
	overdue = time.Minute
)

// openClaims returns the tasks of a zone whose calls are to be looked for, and when the
// first of them is due; zero if there are none.
func (p *Poller) openClaims(work *zoneState) (tasks []*v1alpha1.PrefetchTask, due time.Time) {
	for _, task := range work.tasks {
		if task.Status.Submission == nil {
			continue
		}
		due = earlierTime(due, p.claimDueAt(work, task))
		if !p.isCallInFlight(task) {
			tasks = append(tasks, task)
		}
	}
	if !due.IsZero() {
		due = latestTime(due, work.claims.notBefore)
	}
	return tasks, due
}

// claimDueAt is when the call of a task is to be looked for.
func (p *Poller) claimDueAt(work *zoneState, task *v1alpha1.PrefetchTask) time.Time {
	switch {
	case p.isCallInFlight(task): // this process still makes it
		return time.Now().Add(settleInterval)
	case work.claims.timed && p.EdgeOne.ServerTime().Sub(p.completeTime(task.Status.Submission)) > overdue:
		return work.claims.at.Add(p.RecheckInterval)
	}
	return work.claims.at.Add(settleInterval)
}

// Reconcile looks once for the calls of a zone whose answers were lost, if that is due,
// and settles those of which it tells the outcome.
func (s lostCallReconciler) Reconcile(ctx context.Context, z ZoneKey) (reconcile.Result, error) {
	tasks, due := s.claimsIn(z)
	if len(tasks) == 0 || time.Until(due) > 0 {
		return requeueAt(due), nil
	}
	leave, wait := s.acquireRead(z)
	if leave == nil {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	defer leave()
	seen := s.planClaimsRead(tasks)
	creds, err := s.Credentials.GetCredentials(ctx, z.AccountKey)
	if err == nil {
		seen.account = creds.Hash()
		// Those past the fence come first: their windows are fixed.
		for _, isFenced := range []bool{true, false} {
			if err = s.readClaimWindows(ctx, creds, z, seen, isFenced); err != nil {
				break
			}
			s.settleClaims(ctx, z, seen, isFenced)
		}
	}
	if err == nil {
		err = seen.rejectionError()
	}
	s.recordClaimsRead(z, seen, err)
	if err != nil {
		s.reportUnsettled(ctx, tasks, z, err)
		log.FromContext(ctx).V(1).Info("Could not look up a lost call", "error", err.Error())
	}
	_, due = s.claimsIn(z)
	return requeueAt(due), nil
}

func (s lostCallReconciler) claimsIn(z ZoneKey) (tasks []*v1alpha1.PrefetchTask, due time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if work := s.zones[z]; work != nil {
		return s.openClaims(work)
	}
	return nil, time.Time{}
}

// recordClaimsRead notes a look for claims and when the next may be.
func (s lostCallReconciler) recordClaimsRead(z ZoneKey, l *claimsRead, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if work := s.zones[z]; work != nil {
		work.claims.timed = l.timed
		s.recordReadResult(z, &work.claims, err)
	}
}

// reportUnsettled tells tasks that their calls cannot be looked for. A new run need not
// wait for that once the call of the one before cannot be executed any more.
func (s lostCallReconciler) reportUnsettled(ctx context.Context, tasks []*v1alpha1.PrefetchTask, z ZoneKey, err error) {
	message, isLasting := explainUnread(err, ""), s.isRefusedForLong(z)
	kube.WriteInParallel(len(tasks), func(i int) {
		task := tasks[i]
		claim := task.Status.Submission
		if taskstate.IsNewRun(task) {
			if s.isExpired(claim) {
				s.writeStatus(ctx, task, taskstate.ExpireClaim)
			}
			return
		}
		if c := s.reportNotSettled(claim, message, isLasting); c != nil {
			s.writeStatus(ctx, task, c)
		}
	})
}

func (s lostCallReconciler) isRefusedForLong(z ZoneKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	work := s.zones[z]
	return work != nil && !work.claims.refused.IsZero() && time.Since(work.claims.refused) >= 2*s.RecheckInterval
}
