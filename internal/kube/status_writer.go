package kube

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
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// MaxStatusWriters is the number of status writes of this process at a time, whatever they are
// for. The API server takes some 400 a second of them on two cores, at a few
// milliseconds each: more at a time would only wait there, and the lease's with
// them.
const MaxStatusWriters = 32

// maxLongWriters is how many of them are of tasks with long lists: the answer to each has the
// list, and the API server works on it for a tenth of a second.
const maxLongWriters = 4

// StatusWriter writes statuses. Each write carries the resourceVersion of the task it
// changes, so that the API server, not our cache, decides between two writers.
// What it writes and reads becomes known to the versions.
type StatusWriter struct {
	client.Client
	live     client.Reader
	versions *TaskStore
	timeout  time.Duration // of one request
	turns    *writePriority
	long     chan struct{} // has those that write to tasks with long lists
	patient  bool          // its writes give way to others
	refused  *refusedWrites
}

// NewStatusWriter returns a writer. live reads past the cache; timeout bounds each request.
func NewStatusWriter(c client.Client, live client.Reader, versions *TaskStore, timeout time.Duration) StatusWriter {
	return StatusWriter{
		Client: c, live: live, versions: versions, timeout: timeout,
		turns: &writePriority{free: MaxStatusWriters, patientFree: patientWriters}, long: make(chan struct{}, maxLongWriters), refused: &refusedWrites{},
	}
}

// WithLowPriority returns a writer for reports: its writes give way to claims and records.
func (s StatusWriter) WithLowPriority() StatusWriter {
	s.patient = true
	return s
}

// WriteStatus applies c to a copy of the task and writes the status if it differs. One that
// etcd does not take is written in short, and says so. An error that IsRefused comes
// again until somebody changes the object, a policy or the CRD.
func (s StatusWriter) WriteStatus(ctx context.Context, task *v1alpha1.PrefetchTask, c taskstate.Transition) (*v1alpha1.PrefetchTask, error) {
	known := s.refused.lookUp(task.UID)
	if known.err != nil && known.version == task.ResourceVersion {
		return task, known.err
	}
	var err error
	if !known.short {
		var written *v1alpha1.PrefetchTask
		if written, err = s.writeWholeStatus(ctx, task, c); err == nil {
			return written, nil
		}
	}
	if known.short || isTooLarge(err) {
		var written *v1alpha1.PrefetchTask
		if written, err = s.writeWholeStatus(ctx, task, func(task *v1alpha1.PrefetchTask) { c(task); taskstate.ShortenStatus(task) }); err == nil {
			s.refused.rememberWrite(task.UID, refusedWrite{short: true})
			return written, nil
		}
	}
	if isTooLarge(err) || apierrors.IsInvalid(err) {
		s.refused.rememberWrite(task.UID, refusedWrite{short: known.short || isTooLarge(err), err: err, version: task.ResourceVersion})
	}
	return task, err
}

// writeWholeStatus applies c to a copy of the task and writes all that c says, or nothing: if
// etcd does not take it, only the names of failed targets are left out, half of the
// status at a time. Nothing but the status is sent: the API server takes nothing else,
// and the targets may be a megabyte. So the targets are not copied either.
func (s StatusWriter) writeWholeStatus(ctx context.Context, task *v1alpha1.PrefetchTask, c taskstate.Transition) (*v1alpha1.PrefetchTask, error) {
	changed := taskstate.WithTargets(task, nil).DeepCopy()
	changed.Spec.Targets = task.Spec.Targets
	c(changed)
	for room := s.refused.lookUp(task.UID).room; ; {
		taskstate.TrimStatus(&changed.Status, room)
		if equality.Semantic.DeepEqual(task.Status, changed.Status) {
			return task, nil
		}
		written, err := s.putStatus(ctx, task, changed)
		if !isTooLarge(err) || len(changed.Status.FailedTargets) == 0 {
			return written, err
		}
		if room = taskstate.JSONSize(changed.Status) / 2; room < taskstate.LeastRoom {
			room = 0
		}
		s.refused.rememberWrite(task.UID, refusedWrite{room: room})
	}
}

// putStatus writes the status of changed to the version of the task that was read.
func (s StatusWriter) putStatus(ctx context.Context, task, changed *v1alpha1.PrefetchTask) (*v1alpha1.PrefetchTask, error) {
	if taskstate.IsElided(task) || taskstate.TargetsSize(task) > taskstate.MaxCachedTargets && !taskstate.IsFromConfigMap(task) {
		select {
		case s.long <- struct{}{}:
			defer func() { <-s.long }()
		case <-ctx.Done():
			return task, ctx.Err()
		}
	}
	if err := s.turns.acquireSlot(ctx, s.patient); err != nil {
		return task, err
	}
	defer s.turns.releaseSlot(s.patient)
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	written := &v1alpha1.PrefetchTask{
		ObjectMeta: metav1.ObjectMeta{Namespace: task.Namespace, Name: task.Name, UID: task.UID, ResourceVersion: task.ResourceVersion},
		Status:     changed.Status,
	}
	if err := s.Status().Update(ctx, written); err != nil {
		return task, err
	}
	PruneMetadata(written) // as in the cache
	if taskstate.IsElided(task) {
		written = taskstate.ElideTargets(written)
	} else {
		written.Spec.Targets = task.Spec.Targets
	}
	s.versions.LearnVersion(written)
	return written, nil
}

// ReadTask gets the task as it is now, past the cache; nil if it is gone. Targets
// from a ConfigMap are those of the version that is known, if it is of the same run.
func (s StatusWriter) ReadTask(ctx context.Context, task *v1alpha1.PrefetchTask) (*v1alpha1.PrefetchTask, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	var now v1alpha1.PrefetchTask
	err := s.live.Get(ctx, client.ObjectKeyFromObject(task), &now)
	if apierrors.IsNotFound(err) || err == nil && now.UID != task.UID { // or made again under the same name
		s.versions.learnDeleted(task)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if taskstate.IsFromConfigMap(&now) && taskstate.RunHash(&now) == taskstate.RunHash(task) && taskstate.MatchesList(&now, taskstate.HashTargets(task)) {
		now.Spec.Targets = task.Spec.Targets
	}
	PruneMetadata(&now)
	if newest := s.versions.LearnVersion(&now); newest.ResourceVersion != now.ResourceVersion {
		return newest, nil
	}
	return &now, nil // with its targets, however long they are
}

// WithTargetList returns the task with the targets in its spec that are left out in memory, or
// nil if they cannot be read, or the spec has changed.
func (s StatusWriter) WithTargetList(ctx context.Context, task *v1alpha1.PrefetchTask) *v1alpha1.PrefetchTask {
	if !taskstate.IsElided(task) {
		return task
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	var now v1alpha1.PrefetchTask
	if err := s.live.Get(ctx, client.ObjectKeyFromObject(task), &now); err != nil || now.UID != task.UID || now.Generation != task.Generation {
		return nil
	}
	return taskstate.WithTargets(task, now.Spec.Targets)
}

// WriteClaim writes the claim to a task as the cache has it, and returns the newest
// version known. The claim is on it for certain if there is no error; without
// that the task may not be in the call. A stale cache is ErrStale.
func (s StatusWriter) WriteClaim(
	ctx context.Context, task *v1alpha1.PrefetchTask, submission v1alpha1.Submission, c taskstate.Transition,
) (*v1alpha1.PrefetchTask, error) {
	claimed, err := s.writeWholeStatus(ctx, task, c)
	if err == nil || IsRefused(err) {
		return claimed, err
	}
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		err = ErrStale
	}
	// Any other failure may hide a write that happened; if it did, the claim is
	// released at once.
	now, readErr := s.ReadTask(ctx, task)
	if readErr != nil {
		return task, readErr
	}
	if now != nil && IsClaimedBy(now, submission.ClaimID) {
		now, _ = s.WriteStatus(ctx, now, taskstate.ReleaseClaim(taskstate.Cause{}, time.Now()))
	}
	return now, err
}

// ErrStale says that the task has changed, or is gone, since the cache saw it.
var ErrStale = errors.New("the task has changed")

// UnlimitedTries is the number of tries of a write that is tried for as long as it takes.
const UnlimitedTries = -1

// SettleClaim writes the outcome of a task's claim, with a number of tries, and returns the newest
// version known. The error is nil once that is written, or the claim or the task is
// gone. One that IsRefused is not tried again.
func (s StatusWriter) SettleClaim(
	ctx context.Context, task *v1alpha1.PrefetchTask, claimID string, c taskstate.Transition, tries int,
) (newest *v1alpha1.PrefetchTask, trouble error) {
	newest = task
	backoff := wait.Backoff{Duration: 20 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 16, Cap: 5 * time.Second}
	ended := backoff.DelayFunc().Until(ctx, true, true, func(ctx context.Context) (bool, error) {
		if listed := s.WithTargetList(ctx, newest); listed != nil { // EdgeOne tells by URLs what it refused
			written, err := s.WriteStatus(ctx, listed, c)
			if trouble = err; err == nil || IsRefused(err) {
				newest = written
				return true, nil
			}
		} else {
			trouble = ErrStale
		}
		tries--
		// A conflict, or a write whose answer was lost: the live task tells.
		now, err := s.ReadTask(ctx, task)
		if err != nil {
			return tries == 0, nil //nolint:nilerr // tried again
		}
		if newest = now; now == nil || !IsClaimedBy(now, claimID) {
			trouble = nil
			return true, nil
		}
		return tries == 0, nil
	})
	if ended != nil { // the process ends, and its successor settles
		trouble = ended
	}
	return newest, trouble
}

// IsClaimedBy says whether the task carries this claim.
func IsClaimedBy(task *v1alpha1.PrefetchTask, claimID string) bool {
	return task.Status.Submission != nil && task.Status.Submission.ClaimID == claimID
}

// WriteInParallel runs f for 0 to n-1, some at a time, and returns when all are done.
func WriteInParallel(n int, f func(i int)) {
	workqueue.ParallelizeUntil(context.Background(), MaxStatusWriters, n, f)
}
