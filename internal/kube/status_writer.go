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

// MaxStatusWriters is the maximum number of concurrent status writes of this process, for
// all purposes. On two cores, the API server handles about 400 status writes per second,
// a few milliseconds each. More concurrent writes would only wait in the API server, and
// the renewal of the lease would wait with them.
const MaxStatusWriters = 32

// maxLongWriters is the maximum number of concurrent status writes to tasks with long
// target lists. The response to such a write contains the list, and the API server needs
// about 100 ms for it.
const maxLongWriters = 4

// StatusWriter writes statuses. Each write carries the resourceVersion of the task that it
// changes. So the API server decides between two writers, and a stale cache does no harm.
// The TaskStore learns each version that the StatusWriter writes or reads. Copies of a
// StatusWriter share all limits.
type StatusWriter struct {
	client.Client
	live     client.Reader  // reads past the cache
	versions *TaskStore     // learns what is written and read
	timeout  time.Duration  // of one request
	turns    *writePriority // slots for all writes
	long     chan struct{}  // slots for writes to tasks with long lists
	patient  bool           // the writes have low priority
	refused  *refusedWrites
	observe  func(before, after *v1alpha1.PrefetchTask) // called after each write
}

// NewStatusWriter returns a writer whose writes are urgent. live reads past the cache, and
// timeout bounds each request. If observe is not nil, it is called after each write with the
// version that the write changed and the new version.
func NewStatusWriter(
	c client.Client, live client.Reader, versions *TaskStore, timeout time.Duration, observe func(before, after *v1alpha1.PrefetchTask),
) StatusWriter {
	return StatusWriter{
		Client: c, live: live, versions: versions, timeout: timeout, observe: observe,
		turns: &writePriority{free: MaxStatusWriters, patientFree: patientWriters}, long: make(chan struct{}, maxLongWriters), refused: &refusedWrites{},
	}
}

// WithLowPriority returns a writer for reports. Its writes wait for claims and records.
func (s StatusWriter) WithLowPriority() StatusWriter {
	s.patient = true
	return s
}

// WriteStatus applies c to a copy of the task, and writes the status if it differs. If
// etcd does not accept the status, WriteStatus writes its short form, which reports that
// the task is too large. It returns the written version, or the unchanged task and an
// error.
//
// If IsRefused is true for the error, the same write fails until a user changes the
// object, a policy or the CRD. If the status is too large or invalid, WriteStatus returns
// the same error without a request until the resourceVersion changes or refusalMemory has
// passed.
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

// writeWholeStatus applies c to a copy of the task, and writes the whole result or
// nothing. It leaves out only names of failed targets: each time etcd does not accept the
// status, it halves the maximum size.
//
// The request contains only the status. The API server ignores everything else, and the
// targets may have a megabyte. For the same reason, the copy shares the targets.
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

// putStatus writes the status of changed under the resourceVersion of task. Before it
// acquires a slot of all writes, it acquires one for long lists if the task has one.
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
	NormalizeTask(written) // as in the cache
	if taskstate.IsElided(task) {
		written = taskstate.ElideTargets(written)
	} else {
		written.Spec.Targets = task.Spec.Targets
	}
	s.versions.LearnVersion(written)
	if s.observe != nil {
		s.observe(task, written)
	}
	return written, nil
}

// ReadTask reads the latest version of the task past the cache. It returns nil if the
// task is gone. For targets from a ConfigMap, it takes the targets of the given version
// if both versions have the same run and the run may continue with these targets.
func (s StatusWriter) ReadTask(ctx context.Context, task *v1alpha1.PrefetchTask) (*v1alpha1.PrefetchTask, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	var now v1alpha1.PrefetchTask
	err := s.live.Get(ctx, client.ObjectKeyFromObject(task), &now)
	if apierrors.IsNotFound(err) || err == nil && now.UID != task.UID { // gone, or recreated under the same name
		s.versions.learnDeleted(task)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	NormalizeTask(&now)
	if taskstate.IsFromConfigMap(&now) && taskstate.RunHash(&now) == taskstate.RunHash(task) && taskstate.HasList(&now, taskstate.HashTargets(task)) {
		now.Spec.Targets = task.Spec.Targets
	}
	if newest := s.versions.LearnVersion(&now); newest.ResourceVersion != now.ResourceVersion {
		return newest, nil
	}
	return &now, nil // with its targets, even a long list
}

// WithTargetList returns the task with the targets of its spec. If the task is elided, it
// reads them past the cache. It returns nil if it cannot read them, or if the spec has
// changed.
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

// WriteClaim writes a claim to the cached version of a task, and returns the newest known
// version. If the error is nil, the status contains the claim for certain. Otherwise, the
// call must not include the task. The error is ErrStale if the cached version is outdated.
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
	// After any other failure, the claim may have been written. If so, it is released at
	// once.
	now, readErr := s.ReadTask(ctx, task)
	if readErr != nil {
		return task, readErr
	}
	if now != nil && IsClaimedBy(now, submission.ClaimID) {
		now, _ = s.WriteStatus(ctx, now, taskstate.ReleaseClaim(taskstate.Cause{}, time.Now()))
	}
	return now, err
}

// ErrStale reports that the task has changed or is gone since the cache saw it.
var ErrStale = errors.New("the task has changed")

// UnlimitedTries makes SettleClaim retry until it succeeds or the context ends.
const UnlimitedTries = -1

// SettleClaim writes the outcome c of a task's claim, in at most the given number of
// tries. It returns the newest known version. The error is nil if the outcome is written,
// or if the claim or the task is gone. If IsRefused is true for an error, SettleClaim
// does not retry.
func (s StatusWriter) SettleClaim(
	ctx context.Context, task *v1alpha1.PrefetchTask, claimID string, c taskstate.Transition, tries int,
) (newest *v1alpha1.PrefetchTask, trouble error) {
	newest = task
	backoff := wait.Backoff{Duration: 20 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 16, Cap: 5 * time.Second}
	ended := backoff.DelayFunc().Until(ctx, true, true, func(ctx context.Context) (bool, error) {
		if listed := s.WithTargetList(ctx, newest); listed != nil { // EdgeOne identifies refused targets by URL
			written, err := s.WriteStatus(ctx, listed, c)
			if trouble = err; err == nil || IsRefused(err) {
				newest = written
				return true, nil
			}
		} else {
			trouble = ErrStale
		}
		tries--
		// After a conflict or a lost response, the live task shows whether the claim is
		// still open.
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
	if ended != nil { // the process ends, and its successor settles the claim
		trouble = ended
	}
	return newest, trouble
}

// IsClaimedBy reports whether the task's status contains the claim with this ID.
func IsClaimedBy(task *v1alpha1.PrefetchTask, claimID string) bool {
	return task.Status.Submission != nil && task.Status.Submission.ClaimID == claimID
}

// WriteInParallel calls f for 0 to n-1, at most MaxStatusWriters calls at a time. It
// returns when all calls have returned.
func WriteInParallel(n int, f func(i int)) {
	workqueue.ParallelizeUntil(context.Background(), MaxStatusWriters, n, f)
}
