package controller

import (
	"context"
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/schedule"
)

// writers is how many status writes of this process go on at once, whatever they
// are for. The API server takes some 400 a second of them on two cores, at a few
// milliseconds each: more at a time would only wait there, and the lease's with
// them.
const writers = 32

// store writes statuses. Each write carries the resourceVersion of the task it
// changes, so that the API server, not our cache, decides between two writers.
type store struct {
	client.Client
	live    client.Reader
	timeout time.Duration // of one request
	turns   *turns
	patient bool // its writes give way to others
}

func newStore(c client.Client, live client.Reader, timeout time.Duration) store {
	return store{Client: c, live: live, timeout: timeout, turns: &turns{free: writers, patientFree: patientWriters}}
}

// giveWay returns a store for what is known and only has to be told: such writes
// give way to claims and records.
func (s store) giveWay() store {
	s.patient = true
	return s
}

// write applies c to a copy of the task and writes the status if it differs. Nothing
// else is sent: the API server takes nothing else, and the targets may be a megabyte.
// So the targets are not copied either.
func (s store) write(ctx context.Context, task *v1alpha1.PrefetchTask, c change) (*v1alpha1.PrefetchTask, error) {
	changed := withTargets(task, nil).DeepCopy()
	changed.Spec.Targets = task.Spec.Targets
	c(changed)
	if equality.Semantic.DeepEqual(task.Status, changed.Status) {
		return task, nil
	}
	if err := s.turns.take(ctx, s.patient); err != nil {
		return task, err
	}
	defer s.turns.give(s.patient)
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	written := &v1alpha1.PrefetchTask{
		ObjectMeta: metav1.ObjectMeta{Namespace: task.Namespace, Name: task.Name, UID: task.UID, ResourceVersion: task.ResourceVersion},
		Status:     changed.Status,
	}
	if err := s.Status().Update(ctx, written); err != nil {
		return task, err
	}
	written.ManagedFields = nil // as in the cache
	written.Spec.Targets = task.Spec.Targets
	return written, nil
}

// read gets the task as it is now, past the cache; nil if it is gone. Targets
// from a ConfigMap are those of the version that is known, if it is of the same run.
func (s store) read(ctx context.Context, task *v1alpha1.PrefetchTask) (*v1alpha1.PrefetchTask, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	var now v1alpha1.PrefetchTask
	if err := s.live.Get(ctx, client.ObjectKeyFromObject(task), &now); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	if now.UID != task.UID {
		return nil, nil // deleted, and made again under the same name
	}
	if schedule.FromConfigMap(&now) && schedule.Run(&now) == schedule.Run(task) && fits(&now, schedule.HashTargets(task)) {
		now.Spec.Targets = task.Spec.Targets
	}
	return &now, nil
}

// claim writes the claim to a task as the cache has it, and returns the newest
// version known. The claim is on it for certain if there is no error; without
// that the task may not be in the call. A stale cache is errStale.
func (s store) claim(ctx context.Context, task *v1alpha1.PrefetchTask, submission v1alpha1.Submission, c change) (*v1alpha1.PrefetchTask, error) {
	claimed, err := s.write(ctx, task, c)
	if err == nil {
		return claimed, nil
	}
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		err = errStale
	}
	// Any other failure may hide a write that happened; if it did, the claim is
	// released at once.
	now, readErr := s.read(ctx, task)
	if readErr != nil {
		return task, readErr
	}
	if now != nil && claimedBy(now, submission.ClaimID) {
		now, _ = s.write(ctx, now, release(noReason, time.Now()))
	}
	return now, err
}

// errStale: the task has changed, or is gone, since the cache saw it.
var errStale = errors.New("the task has changed")

// settle writes what became of a task's claim, for as long as it takes and the
// claim is there: a JobId that EdgeOne gave must not be lost.
func (s store) settle(ctx context.Context, task *v1alpha1.PrefetchTask, claimID string, c change) *v1alpha1.PrefetchTask {
	backoff := wait.Backoff{Duration: 20 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 16, Cap: 5 * time.Second}
	newest := task
	// The error is that of ctx: the process ends, and its successor settles.
	_ = backoff.DelayFunc().Until(ctx, true, true, func(ctx context.Context) (bool, error) {
		written, err := s.write(ctx, newest, c)
		if err == nil {
			newest = written
			return true, nil
		}
		// A conflict, or a write whose answer was lost: the live task tells.
		now, err := s.read(ctx, task)
		if err != nil {
			return false, nil //nolint:nilerr // tried again
		}
		newest = now
		return now == nil || !claimedBy(now, claimID), nil
	})
	return newest
}

func claimedBy(task *v1alpha1.PrefetchTask, claimID string) bool {
	return task.Status.Submission != nil && task.Status.Submission.ClaimID == claimID
}

// forEach runs f for 0 to n-1, some at a time, and returns when all are done.
func forEach(n int, f func(i int)) {
	workqueue.ParallelizeUntil(context.Background(), writers, n, f)
}
