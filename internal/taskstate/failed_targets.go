package taskstate

import (
	"slices"
	"strings"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// addFailedTarget adds a failed target to the status. It adds each target once, and none
// beyond maxFailedTargets. The first reason of a target stays.
func addFailedTarget(task *v1alpha1.PrefetchTask, target, reason, message string) {
	s := &task.Status
	known := func(f v1alpha1.FailedTarget) bool { return f.URL == target }
	if len(s.FailedTargets) >= maxFailedTargets || slices.ContainsFunc(s.FailedTargets, known) {
		return
	}
	s.FailedTargets = append(s.FailedTargets, v1alpha1.FailedTarget{URL: target, Reason: reason, Message: TruncateMessage(message, MaxMessage)})
}

// joinSentences joins the parts that are not empty with ": ".
func joinSentences(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ": ")
}
