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

// maxSettleTries is how often the outcome is written to a task before the call ends for the
// other tasks. The errors of an overloaded API server pass in that time.
const maxSettleTries = 3

// writeOutcome writes the outcome of the call to those of its tasks that carry the claim. It
// returns the tasks that have not taken it in a few tries, and still carry it.
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
		a.Events.ReportFinished(before, after)
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

// recordInBackground writes the outcome of a call to the tasks that did not take it at once, for
// as long as it takes: a JobId must not be lost. Meanwhile their claims hold their own URLs, and
// nothing else. If the API server refuses the write, the outcome is kept until somebody changes
// the task.
func (s *Submitter) recordInBackground(ctx context.Context, claimID string, unsettled []*v1alpha1.PrefetchTask, c taskstate.Transition) {
	kube.WriteInParallel(len(unsettled), func(i int) {
		before := unsettled[i]
		after, err := s.Writer.SettleClaim(ctx, before, claimID, c, kube.UnlimitedTries)
		s.Events.ReportFinished(before, after)
		s.Events.ReportRefusedWrite(before, after, err)
		if kube.IsRefused(err) {
			log.FromContext(ctx).Error(err, "Could not record the outcome of a call", "task", client.ObjectKeyFromObject(before), "claim", claimID)
			s.unrecorded.addOutcome(after, unrecordedOutcome{claimID, after.ResourceVersion, c, time.Now()})
		}
	})
}

// unrecordedOutcome is the outcome of a call that a task's status does not take.
type unrecordedOutcome struct {
	claimID string
	version string // of the task that did not take it
	outcome taskstate.Transition
	at      time.Time
}

// maxUnrecorded bounds the memory of outcomes. An outcome that is forgotten is found in EdgeOne's
// history, like that of a lost call.
const maxUnrecorded = 256

// unrecordedCalls remembers outcomes by task.
type unrecordedCalls struct {
	mu    sync.Mutex
	tasks map[types.UID]unrecordedOutcome
}

func (u *unrecordedCalls) addOutcome(task *v1alpha1.PrefetchTask, outcome unrecordedOutcome) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.tasks == nil {
		u.tasks = map[types.UID]unrecordedOutcome{}
	}
	kube.DropOldest(u.tasks, maxUnrecorded, task.UID, func(known unrecordedOutcome) time.Time { return known.at })
	u.tasks[task.UID] = outcome
}

// takeOutcome returns what a newer version of a task may take, and forgets it.
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

// recordLateOutcome writes an outcome that a task did not take before somebody changed the task.
func (s *Submitter) recordLateOutcome(task *v1alpha1.PrefetchTask) {
	if late, ok := s.unrecorded.takeOutcome(task); ok {
		go s.recordInBackground(s.Critical, late.claimID, []*v1alpha1.PrefetchTask{task}, late.outcome)
	}
}
