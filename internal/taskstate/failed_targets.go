package taskstate

import (
	"slices"
	"strings"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// addFailedTarget names a failed target, once and as far as there is room.
func addFailedTarget(task *v1alpha1.PrefetchTask, target, reason, message string) {
	s := &task.Status
	known := func(f v1alpha1.FailedTarget) bool { return f.URL == target }
	if len(s.FailedTargets) >= maxFailedTargets || slices.ContainsFunc(s.FailedTargets, known) {
		return
	}
	s.FailedTargets = append(s.FailedTargets, v1alpha1.FailedTarget{URL: target, Reason: reason, Message: TruncateMessage(message, MaxMessage)})
}

func joinSentences(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ": ")
}
