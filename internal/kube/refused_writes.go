package kube

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// isTooLarge reports whether a write failed because the object is too large. The API
// server has an error of its own for this case. It passes on the errors of etcd and of
// its etcd client as internal errors without a reason, so isTooLarge recognizes them by
// their text.
func isTooLarge(err error) bool {
	if apierrors.IsRequestEntityTooLargeError(err) {
		return true
	}
	var answer apierrors.APIStatus
	if !errors.As(err, &answer) || answer.Status().Code != http.StatusInternalServerError {
		return false
	}
	text := answer.Status().Message
	return strings.Contains(text, "etcdserver: request is too large") || strings.Contains(text, "trying to send message larger than max")
}

// IsRefused reports whether the API server would refuse the same write again. It does so
// until a user changes the object, a policy or the CRD.
func IsRefused(err error) bool {
	return isTooLarge(err) || apierrors.IsInvalid(err) || apierrors.IsForbidden(err)
}

// RefusalCause returns the cause for a task whose status the API server refuses. Its
// message says what a user can do.
func RefusalCause(err error) taskstate.Cause {
	if isTooLarge(err) {
		return taskstate.Cause{Reason: v1alpha1.ReasonTooLarge, Message: taskstate.TooLargeMessage, NeedsUser: true}
	}
	return taskstate.Cause{
		Reason: v1alpha1.ReasonUnavailable, NeedsUser: true,
		Message: taskstate.TruncateMessage("The Kubernetes API refuses the status of this task: "+err.Error(), taskstate.MaxMessage/2),
	}
}

// refusedWrites remembers the tasks whose status the API server refused. Each attempt
// sends, validates and encodes up to 1.5 MB, so the operator must not repeat it in each
// pass.
type refusedWrites struct {
	mu    sync.Mutex
	tasks map[types.UID]refusedWrite
}

// refusedWrite describes what the API server accepts for one task.
type refusedWrite struct {
	room    int       // maximum size of the status, in bytes
	short   bool      // only the short form of the status fits
	err     error     // the error, if the status was refused in every form
	version string    // the resourceVersion to which err applies
	until   time.Time // when this entry expires
}

const (
	// maxRefusals is the maximum number of remembered tasks. For a task beyond it, the
	// operator makes a few more writes that are refused.
	maxRefusals = 1024
	// refusalMemory is how long a refusal counts if the task does not change.
	refusalMemory = 5 * time.Minute
)

// lookUp returns the entry of a task. A task without an entry has room for MaxStatus
// bytes.
func (r *refusedWrites) lookUp(uid types.UID) refusedWrite {
	r.mu.Lock()
	defer r.mu.Unlock()
	known, ok := r.tasks[uid]
	if !ok || !time.Now().Before(known.until) {
		return refusedWrite{room: taskstate.MaxStatus}
	}
	return known
}

// rememberWrite replaces the entry of a task. The entry expires after refusalMemory.
func (r *refusedWrites) rememberWrite(uid types.UID, known refusedWrite) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tasks == nil {
		r.tasks = map[types.UID]refusedWrite{}
	}
	DropOldest(r.tasks, maxRefusals, uid, func(known refusedWrite) time.Time { return known.until })
	known.until = time.Now().Add(refusalMemory)
	r.tasks[uid] = known
}
