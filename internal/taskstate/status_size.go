package taskstate

import (
	"encoding/json"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

const (
	// MaxStatus is the size limit of a status, in bytes of JSON. The operator always
	// writes evidence: jobs, positions, counts and the claim. Failed targets get the
	// remaining room. etcd accepts 1.5 MiB for the whole object, and the spec may need
	// most of it.
	MaxStatus = 256 << 10
	// shortMessage is the limit of each message, in bytes, if the object is almost too
	// large.
	shortMessage = 256
	// LeastRoom is the room, in bytes, below which the status names no failed targets.
	LeastRoom = 4 << 10
)

// TooLargeMessage explains how to fix a task that is too large for etcd.
const TooLargeMessage = "The Kubernetes API refuses the status: the task is too large for etcd. " +
	"Remove large annotations, split the list, or move it to a ConfigMap with targetsFrom"

// TrimStatus drops failed targets from the end of the list until the status has at most
// room bytes. The counts stay exact.
func TrimStatus(s *v1alpha1.PrefetchTaskStatus, room int) {
	if len(s.FailedTargets) == 0 {
		return
	}
	failed := s.FailedTargets
	s.FailedTargets = nil
	room -= JSONSize(s) // the rest of the status comes first
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

// ShortenStatus reduces a status to its evidence and short messages. It also reports in
// the condition Stalled that the object is too large.
func ShortenStatus(task *v1alpha1.PrefetchTask) {
	task.Status.FailedTargets = nil
	for i := range task.Status.Conditions {
		c := &task.Status.Conditions[i]
		c.Message = TruncateMessage(c.Message, shortMessage)
	}
	setStalled(task, true, v1alpha1.ReasonTooLarge, TooLargeMessage)
}

// JSONSize returns the size of v as JSON, in bytes.
func JSONSize(v any) int {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, numbers and times always marshal
	}
	return len(text)
}
