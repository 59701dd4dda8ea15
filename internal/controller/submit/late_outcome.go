package submit

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// maxSettleTries is how often recordOutcome tries to write the outcome to a task before the call
// ends for the other tasks. Errors of a briefly overloaded API server pass in that time.
const maxSettleTries = 3

// writeOutcome writes the outcome of the call to the tasks that have its claim. It returns the
// tasks that still have the claim because maxSettleTries tries failed, or because the API server
// refused the write.
func (a *attempt) writeOutcome(ctx context.Context, outcome taskstate.Transition) []*v1alpha1.PrefetchTask {
	var mu sync.Mutex
	var unsettled []*v1alpha1.PrefetchTask
	kube.WriteInParallel(len(a.parts), func(i int) {
		part := &a.parts[i]
		if !part.isClaimed || part.newest == nil {
			return
		}
		before := part.newest
		after, err := a.Writer.SettleClaim(ctx, before, a.claimID, outcome, maxSettleTries)
		part.newest = after
		a.Events.ReportChange(before, after)
		if err == nil {
			a.Events.ReportRefusedWrite(before, after, nil)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		unsettled = append(unsettled, after)
	})
	return unsettled
}

// recordInBackground writes the outcome of a call to the tasks that writeOutcome returned. It
// tries without limit, because a JobId must not be lost. Meanwhile, the claim of a task reserves
// only the task's own URLs. If the API server refuses a write, the outcome stays in memory until
// the task changes.
func (s *Submitter) recordInBackground(ctx context.Context, claimID string, unsettled []*v1alpha1.PrefetchTask, c taskstate.Transition) {
	kube.WriteInParallel(len(unsettled), func(i int) {
		before := unsettled[i]
		after, err := s.Writer.SettleClaim(ctx, before, claimID, c, kube.UnlimitedTries)
		s.Events.ReportChange(before, after)
		s.Events.ReportRefusedWrite(before, after, err)
		if kube.IsRefused(err) {
			log.FromContext(ctx).Error(err, "Could not record the outcome of a call", "task", client.ObjectKeyFromObject(before), "claim", claimID)
			s.unrecorded.addOutcome(after, unrecordedOutcome{claimID, after.ResourceVersion, c, time.Now()})
		}
	})
}

// unrecordedOutcome is the outcome of a call for a task whose status write the API server
// refused.
type unrecordedOutcome struct {
	claimID string
	version string // resource version of the task at the refused write
	outcome taskstate.Transition
	at      time.Time
}

// maxUnrecorded bounds the number of outcomes in memory. A dropped outcome is read from EdgeOne's
// history, like the outcome of a lost call.
const maxUnrecorded = 256

// unrecordedCalls holds unrecorded outcomes by task. Its zero value is ready to use.
type unrecordedCalls struct {
	mu    sync.Mutex
	tasks map[types.UID]unrecordedOutcome
}

// addOutcome stores the outcome for a task. If there are too many, it drops the oldest.
func (u *unrecordedCalls) addOutcome(task *v1alpha1.PrefetchTask, outcome unrecordedOutcome) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.tasks == nil {
		u.tasks = map[types.UID]unrecordedOutcome{}
	}
	kube.DropOldest(u.tasks, maxUnrecorded, task.UID, func(known unrecordedOutcome) time.Time { return known.at })
	u.tasks[task.UID] = outcome
}

// takeOutcome removes and returns the outcome to write to a changed task. ok is false if there
// is none, if the task has not changed since the refused write, or if it no longer has the claim.
func (u *unrecordedCalls) takeOutcome(task *v1alpha1.PrefetchTask) (outcome unrecordedOutcome, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	outcome, ok = u.tasks[task.UID]
	if !ok || outcome.version == task.ResourceVersion {
		return outcome, false
	}
	delete(u.tasks, task.UID)
	return outcome, kube.IsClaimedBy(task, outcome.claimID)
}

// recordLateOutcome writes the unrecorded outcome of a task that has changed since the API server
// refused the write.
func (s *Submitter) recordLateOutcome(task *v1alpha1.PrefetchTask) {
	if late, ok := s.unrecorded.takeOutcome(task); ok {
		go s.recordInBackground(s.Critical, late.claimID, []*v1alpha1.PrefetchTask{task}, late.outcome)
	}
}
