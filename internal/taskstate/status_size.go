package taskstate

import (
	"encoding/json"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

const (
	// MaxStatus is the budget of a status, in bytes of JSON. Evidence (jobs, positions,
	// counts, the claim) is always written; the names of failed targets get what it
	// leaves. etcd takes 1.5 MiB for the whole object, and the spec may need most of it.
	MaxStatus = 256 << 10
	// shortMessage bounds each message, in bytes, if the object has hardly any room.
	shortMessage = 256
	// LeastRoom is the budget below which no failed target is named.
	LeastRoom = 4 << 10
)

// TooLargeMessage is what a person can do about a task that etcd does not take.
const TooLargeMessage = "The Kubernetes API refuses the status: the task is too large for etcd. " +
	"Remove large annotations, split the list, or move it to a ConfigMap with targetsFrom"

// TrimStatus drops failed targets from the end of the list until the status has at most
// so many bytes. The counts stay exact.
func TrimStatus(s *v1alpha1.PrefetchTaskStatus, room int) {
	if len(s.FailedTargets) == 0 {
		return
	}
	failed := s.FailedTargets
	s.FailedTargets = nil
	room -= JSONSize(s)
	n := 0
	for n < len(failed) {
		if room -= JSONSize(failed[n]) + 1; room < 0 {
			break
		}
		n++
	}
	if n > 0 {
		s.FailedTargets = failed[:n]
	}
}

// ShortenStatus makes a status as small as its evidence allows, and says why it is.
func ShortenStatus(task *v1alpha1.PrefetchTask) {
	task.Status.FailedTargets = nil
	for i := range task.Status.Conditions {
		c := &task.Status.Conditions[i]
		c.Message = TruncateMessage(c.Message, shortMessage)
	}
	setStalled(task, true, v1alpha1.ReasonTooLarge, TooLargeMessage)
}

// JSONSize returns the size of v in JSON, in bytes.
func JSONSize(v any) int {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, numbers and times always marshal
	}
	return len(text)
}
