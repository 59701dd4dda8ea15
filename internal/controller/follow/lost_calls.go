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

// lostCallReconciler settles calls whose answer was lost. It has its own queue and
// workers, so that lost calls and outcomes do not delay each other: slow reads, slow
// writes or errors of one do not change the interval of the other.
type lostCallReconciler struct{ *Poller }

// NewLostCallReconciler returns the reconciler whose keys come from p.LostCalls.
func NewLostCallReconciler(p *Poller) reconcile.TypedReconciler[ZoneKey] {
	return lostCallReconciler{p}
}

const (
	// settleInterval is the time between two passes for a call whose answer was lost.
	settleInterval = 1500 * time.Millisecond
	// patience is how long a call stays unsettled before the task's status reports it.
	patience = 10 * time.Second
	// overdue is how long after fence and margin the reconciler still reads the history at
	// settleInterval. After that, the call needs user action to settle.
	overdue = time.Minute
)

// openClaims returns the tasks of a zone whose calls need settling, and the time at which
// the first of them is due. The time is zero if there are none. The caller holds p.mu.
func (p *Poller) openClaims(work *zoneState) (tasks []*v1alpha1.PrefetchTask, due time.Time) {
	for _, task := range work.tasks {
		if p.claimOf(task) == nil {
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

// claimDueAt returns the time at which the call of a task is due for a pass. An overdue
// call is due once per RecheckInterval.
func (p *Poller) claimDueAt(work *zoneState, task *v1alpha1.PrefetchTask) time.Time {
	switch {
	case p.isCallInFlight(task): // this process is still making it
		return time.Now().Add(settleInterval)
	case work.claims.timed && p.EdgeOne.ServerTime().Sub(p.completeTime(task.Status.Submission)) > overdue:
		return work.claims.at.Add(p.RecheckInterval)
	}
	return work.claims.at.Add(settleInterval)
}

// Reconcile makes one pass for the lost calls of a zone, if a pass is due. It settles each
// call whose outcome the history shows.
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
	// Decide about the fence before the read; see planClaimsRead.
	seen := s.planClaimsRead(tasks)
	err := s.readAndSettle(ctx, z, seen)
	s.recordClaimsRead(z, seen, err)
	if err != nil {
		s.reportUnsettled(ctx, tasks, z, err)
		log.FromContext(ctx).V(1).Info("Could not look up a lost call", "error", err.Error())
	}
	_, due = s.claimsIn(z)
	return requeueAt(due), nil
}

// readAndSettle reads the windows of the claims, and settles each claim whose outcome they show.
// Claims past the fence come first: their windows no longer change. It returns an error if it
// could read no window.
func (s lostCallReconciler) readAndSettle(ctx context.Context, z ZoneKey, seen *claimsRead) error {
	creds, err := s.Credentials.GetCredentials(ctx, z.AccountKey)
	if err != nil {
		return err
	}
	seen.account = creds.Hash()
	for _, isFenced := range []bool{true, false} {
		if err := s.readClaimWindows(ctx, creds, z, seen, isFenced); err != nil {
			return err
		}
		s.settleClaims(ctx, z, seen, isFenced)
	}
	return seen.rejectionError()
}

// claimsIn returns the tasks of a zone whose calls need settling, and the time at which the
// first of them is due; see openClaims.
func (s lostCallReconciler) claimsIn(z ZoneKey) (tasks []*v1alpha1.PrefetchTask, due time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if work := s.zones[z]; work != nil {
		return s.openClaims(work)
	}
	return nil, time.Time{}
}

// recordClaimsRead records the result of a pass for claims, and the earliest time of the
// next one.
func (s lostCallReconciler) recordClaimsRead(z ZoneKey, l *claimsRead, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if work := s.zones[z]; work != nil {
		work.claims.timed = l.timed
		s.recordReadResult(z, &work.claims, err)
	}
}

// reportUnsettled reports in the statuses of tasks that the history of their calls cannot
// be read. A new run does not depend on that history: once the call of the previous run
// can no longer be executed, reportUnsettled expires its claim.
func (s lostCallReconciler) reportUnsettled(ctx context.Context, tasks []*v1alpha1.PrefetchTask, z ZoneKey, err error) {
	message, isLasting := explainUnread(err, ""), s.isRefusedForLong(z)
	kube.WriteInParallel(len(tasks), func(i int) {
		task := tasks[i]
		claim := task.Status.Submission
		if taskstate.IsNewRun(task) {
			if s.isHarmless(task, claim) {
				s.writeStatus(ctx, task, taskstate.ExpireClaim)
			}
			return
		}
		if c := s.reportNotSettled(claim, message, isLasting); c != nil {
			s.writeStatus(ctx, task, c)
		}
	})
}

// isRefusedForLong reports whether EdgeOne has refused the passes of a zone for two
// recheck intervals. One refused pass alone is not worth a Stalled condition.
func (s lostCallReconciler) isRefusedForLong(z ZoneKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	work := s.zones[z]
	return work != nil && !work.claims.refused.IsZero() && time.Since(work.claims.refused) >= 2*s.RecheckInterval
}
