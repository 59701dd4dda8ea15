package controller

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
)

const (
	// maxStatus is the budget of a status, in bytes of JSON. Evidence (jobs, positions,
	// counts, the claim) is always written; the names of failed targets get what it
	// leaves. etcd takes 1.5 MiB for the whole object, and the spec may need most of it.
	maxStatus = 256 << 10
	// maxMessage bounds each message of a status, in bytes. It is also the limit of the
	// API server for the note of an Event.
	maxMessage = 1024
	// shortMessage bounds each message of a status for which the object has hardly any
	// room.
	shortMessage = 256
	// leastRoom is the budget below which no failed target is named.
	leastRoom = 4 << 10
)

// tooLargeMessage is what a person can do about a task that etcd does not take.
const tooLargeMessage = "The Kubernetes API refuses the status: the task is too large for etcd. " +
	"Remove large annotations, split the list, or move it to a ConfigMap with targetsFrom"

// trimStatus drops failed targets from the end of the list until the status has at most
// so many bytes. The counts stay exact.
func trimStatus(s *v1alpha1.PrefetchTaskStatus, room int) {
	if len(s.FailedTargets) == 0 {
		return
	}
	failed := s.FailedTargets
	s.FailedTargets = nil
	room -= jsonSize(s)
	n := 0
	for n < len(failed) {
		if room -= jsonSize(failed[n]) + 1; room < 0 {
			break
		}
		n++
	}
	if n > 0 {
		s.FailedTargets = failed[:n]
	}
}

// shortenStatus makes a status as small as its evidence allows, and says why it is.
func shortenStatus(task *v1alpha1.PrefetchTask) {
	task.Status.FailedTargets = nil
	for i := range task.Status.Conditions {
		c := &task.Status.Conditions[i]
		c.Message = truncateMessage(c.Message, shortMessage)
	}
	setStalled(task, true, v1alpha1.ReasonTooLarge, tooLargeMessage)
}

func jsonSize(v any) int {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, numbers and times always marshal
	}
	return len(text)
}

// truncateMessage returns valid UTF-8 of at most so many bytes.
func truncateMessage(message string, most int) string {
	message = strings.ToValidUTF8(message, "�")
	if len(message) <= most {
		return message
	}
	return strings.ToValidUTF8(message[:most-len("…")], "") + "…"
}

// isTooLarge says whether a write failed because the object is too large. The API server
// has one error of its own for that, and passes on those of etcd and of its client as
// internal errors without a reason, so that only the text tells.
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

// isRefused says whether the same write is refused again, until somebody changes the
// object, a policy or the CRD.
func isRefused(err error) bool {
	return isTooLarge(err) || apierrors.IsInvalid(err) || apierrors.IsForbidden(err)
}

// refusalCause says what a person can do about a task whose status is refused.
func refusalCause(err error) queue.Cause {
	if isTooLarge(err) {
		return queue.Cause{Reason: v1alpha1.ReasonTooLarge, Message: tooLargeMessage, NeedsUser: true}
	}
	return queue.Cause{
		Reason: v1alpha1.ReasonUnavailable, NeedsUser: true,
		Message: truncateMessage("The Kubernetes API refuses the status of this task: "+err.Error(), maxMessage/2),
	}
}

// refusedWrites remembers which tasks have a status that the API server did not take. Each
// attempt sends, checks and encodes up to 1.5 MB, so a task's own trouble must not cost
// one at each look.
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
		return refusedWrite{room: maxStatus}
	}
	return known
}

func (r *refusedWrites) rememberWrite(uid types.UID, known refusedWrite) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tasks == nil {
		r.tasks = map[types.UID]refusedWrite{}
	}
	dropOldest(r.tasks, maxRefusals, uid, func(known refusedWrite) time.Time { return known.until })
	known.until = time.Now().Add(refusalMemory)
	r.tasks[uid] = known
}

// dropOldest makes room for a key in a map of so many entries at most.
func dropOldest[K comparable, V any](m map[K]V, most int, key K, at func(V) time.Time) {
	if _, known := m[key]; known || len(m) < most {
		return
	}
	var oldest K
	var since time.Time
	for k, v := range m {
		if t := at(v); since.IsZero() || t.Before(since) {
			oldest, since = k, t
		}
	}
	delete(m, oldest)
}
