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

// isTooLarge says whether a write failed because the object is too large. The API server has one
// error of its own for that. It passes on the errors of etcd and of its etcd client as internal
// errors without a reason, so that only their text shows it.
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

// IsRefused says whether the same write is refused again, until somebody changes the
// object, a policy or the CRD.
func IsRefused(err error) bool {
	return isTooLarge(err) || apierrors.IsInvalid(err) || apierrors.IsForbidden(err)
}

// RefusalCause says what a person can do about a task whose status is refused.
func RefusalCause(err error) taskstate.Cause {
	if isTooLarge(err) {
		return taskstate.Cause{Reason: v1alpha1.ReasonTooLarge, Message: taskstate.TooLargeMessage, NeedsUser: true}
	}
	return taskstate.Cause{
		Reason: v1alpha1.ReasonUnavailable, NeedsUser: true,
		Message: taskstate.TruncateMessage("The Kubernetes API refuses the status of this task: "+err.Error(), taskstate.MaxMessage/2),
	}
}

// refusedWrites remembers the tasks whose status the API server did not take. Each attempt sends,
// checks and encodes up to 1.5 MB, so that it must not be repeated in each pass.
type refusedWrites struct {
	mu    sync.Mutex
	tasks map[types.UID]refusedWrite
}

// refusedWrite is what is known of one task.
type refusedWrite struct {
	room    int    // for its status, in bytes
	short   bool   // only the short form of a status fits
	err     error  // that version was refused in any form
	version string // of the object
	until   time.Time
}

const (
	// maxRefusals bounds the memory of refusals. A task that is forgotten costs a few
	// refused writes more.
	maxRefusals = 1024
	// refusalMemory is how long a refusal counts if nobody changes the task.
	refusalMemory = 5 * time.Minute
)

// lookUp returns what is known of a task, with the room that all have if that is nothing.
func (r *refusedWrites) lookUp(uid types.UID) refusedWrite {
	r.mu.Lock()
	defer r.mu.Unlock()
	known, ok := r.tasks[uid]
	if !ok || !time.Now().Before(known.until) {
		return refusedWrite{room: taskstate.MaxStatus}
	}
	return known
}

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
