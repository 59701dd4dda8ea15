package kube

import (
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

var (
	// taskRate limits the Events of one task with the same reason.
	taskRate = tokenRate{burst: 1, every: time.Minute}
	// alikeRate limits the Events that share a reason, a zone and a Secret. They describe
	// the same problem, and the status of each task reports it anyway.
	alikeRate = tokenRate{burst: 20, every: 10 * time.Second}
	// namespaceRate limits all Events of a namespace, for any number of zones and Secrets.
	namespaceRate = tokenRate{burst: 200, every: time.Second}
)

// eventGroup identifies Events that share a rate. The group of a whole namespace has only
// the namespace set.
type eventGroup struct{ namespace, secret, zoneID, reason string }

// reportedEvents identifies the Events of one task with one reason.
type reportedEvents struct {
	task   types.UID
	reason string
}

// eventLimiter limits the rate of Events, whatever tasks and their users do.
type eventLimiter struct {
	mu     sync.Mutex // guards the buckets
	tasks  tokenBuckets[reportedEvents]
	groups tokenBuckets[eventGroup]
}

// allowEvent reports whether an Event may be sent now. An Event counts against all three
// rates, but only if all of them allow it.
func (e *eventLimiter) allowEvent(task *v1alpha1.PrefetchTask, reason string) bool {
	now := time.Now()
	this := reportedEvents{task.UID, reason}
	group := eventGroup{task.Namespace, task.Spec.CredentialsSecretRef.Name, task.Spec.ZoneID, reason}
	namespace := eventGroup{namespace: task.Namespace}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.tasks == nil {
		e.tasks, e.groups = tokenBuckets[reportedEvents]{}, tokenBuckets[eventGroup]{}
	}
	if e.tasks.waitTime(this, taskRate, now) > 0 || e.groups.waitTime(group, alikeRate, now) > 0 || e.groups.waitTime(namespace, namespaceRate, now) > 0 {
		return false
	}
	e.tasks.takeToken(this, taskRate, now)
	e.groups.takeToken(group, alikeRate, now)
	e.groups.takeToken(namespace, namespaceRate, now)
	return true
}

// EventReporter sends Events about tasks.
type EventReporter struct {
	events     events.EventRecorder
	observeRun func(task *v1alpha1.PrefetchTask, reason string) // counts the end of a run
	limits     eventLimiter
}

// NewEventReporter returns a reporter that sends Events to recorder. It calls observeRun
// once at the end of each run.
func NewEventReporter(recorder events.EventRecorder, observeRun func(task *v1alpha1.PrefetchTask, reason string)) *EventReporter {
	return &EventReporter{events: recorder, observeRun: observeRun}
}

// RecordEvent sends an Event about a task, unless a rate limit drops it, and reports
// whether it was sent. Call it only after the status reports the same.
func (r *EventReporter) RecordEvent(task *v1alpha1.PrefetchTask, eventType, reason, action, message string) (sent bool) {
	if sent = r.limits.allowEvent(task, reason); sent {
		r.sendEvent(task, eventType, reason, action, message)
	}
	return sent
}

// sendEvent sends an Event without a rate limit. Only Events that occur once per run may
// use it directly.
func (r *EventReporter) sendEvent(task *v1alpha1.PrefetchTask, eventType, reason, action, message string) {
	r.events.Eventf(task, nil, eventType, reason, action, "%s", taskstate.TruncateMessage(message, taskstate.MaxMessage))
}

// ReportRefusedWrite sends an Event if the API server refused the status, or if this write
// shortened the status because the task is too large.
func (r *EventReporter) ReportRefusedWrite(before, after *v1alpha1.PrefetchTask, err error) {
	switch {
	case IsRefused(err):
		why := RefusalCause(err)
		r.RecordEvent(before, corev1.EventTypeWarning, why.Reason, "WriteStatus", why.Message)
	case err == nil && after != nil && taskstate.IsStalledFor(after, v1alpha1.ReasonTooLarge) && !taskstate.IsStalledFor(before, v1alpha1.ReasonTooLarge):
		r.RecordEvent(after, corev1.EventTypeWarning, v1alpha1.ReasonTooLarge, "WriteStatus", taskstate.TooLargeMessage)
	}
}

// IsRetried reports whether a retry of a finished run was handled between two versions of
// a task.
func IsRetried(before, after *v1alpha1.PrefetchTask) bool {
	return taskstate.IsRunOver(before) && before.Status.LastHandledRetry != after.Status.LastHandledRetry
}

// ReportChange sends the Events that follow from a write of a task's status: milestones of
// the run, and its end.
func (r *EventReporter) ReportChange(before, after *v1alpha1.PrefetchTask) {
	if after == nil {
		return
	}
	r.reportPurge(before, after)
	r.reportMilestone(before, after)
	r.reportRetried(before, after)
	r.reportFinished(before, after)
}

// suspendField returns the field that suspends a task whose status says so: its own, or that of
// its account.
func suspendField(task *v1alpha1.PrefetchTask) string {
	account := taskstate.AccountKeyOf(task).Account
	if field := taskstate.AccountSuspendField(account); account != "" && strings.Contains(outcomeMessage(task), field) {
		return field
	}
	return "spec.suspend"
}

// reportMilestone reports what happens in the middle of a run.
func (r *EventReporter) reportMilestone(before, after *v1alpha1.PrefetchTask) {
	was, is := taskstate.ReadyReason(before), taskstate.ReadyReason(after)
	switch {
	case was != v1alpha1.ReasonSuspended && is == v1alpha1.ReasonSuspended:
		r.RecordEvent(after, corev1.EventTypeNormal, v1alpha1.ReasonSuspended, "Submit", suspendField(after)+" is true; nothing more is submitted")
	case was == v1alpha1.ReasonSuspended && is != v1alpha1.ReasonSuspended:
		r.RecordEvent(after, corev1.EventTypeNormal, "Resumed", "Submit", suspendField(before)+" is no longer true; the run continues")
	case was != v1alpha1.ReasonOutcomeUnknown && is == v1alpha1.ReasonOutcomeUnknown,
		taskstate.IsStalledFor(after, v1alpha1.ReasonOutcomeUnknown) && !taskstate.IsStalledFor(before, v1alpha1.ReasonOutcomeUnknown):
		r.RecordEvent(after, corev1.EventTypeWarning, v1alpha1.ReasonOutcomeUnknown, "Submit", outcomeMessage(after))
	case taskstate.IsUnreadReported(after) && !taskstate.IsUnreadReported(before),
		taskstate.IsPurgeUnreadReported(after) && !taskstate.IsPurgeUnreadReported(before):
		r.RecordEvent(after, corev1.EventTypeWarning, is, "ReadOutcomes", outcomeMessage(after))
	}
	isSubmitted := meta.IsStatusConditionTrue(after.Status.Conditions, v1alpha1.ConditionSubmitted)
	jobs := int(after.Status.JobCount) - taskstate.CountPurgeJobs(after)
	if isSubmitted && jobs > 0 && !meta.IsStatusConditionTrue(before.Status.Conditions, v1alpha1.ConditionSubmitted) {
		r.RecordEvent(after, corev1.EventTypeNormal, v1alpha1.ReasonSubmitted, "Submit", fmt.Sprintf("%s in %s",
			countNoun(ptr.Deref(after.Status.Targets.Submitted, 0), "URL"), countNoun(int32(jobs), "job")))
	}
}

// purgeNouns are the words for what the types of purges name.
var purgeNouns = map[v1alpha1.PurgeType][2]string{
	v1alpha1.PurgeURL: {"URL", "URLs"}, v1alpha1.PurgePrefix: {"prefix", "prefixes"},
	v1alpha1.PurgeHost: {"host", "hosts"}, v1alpha1.PurgeCacheTag: {"cache tag", "cache tags"},
}

// countPurged returns a number of what the task purges.
func countPurged(n int32, task *v1alpha1.PrefetchTask) string {
	nouns := purgeNouns[task.Spec.Purge.Type]
	if n == 1 {
		return "1 " + nouns[0]
	}
	return fmt.Sprintf("%d %s", n, nouns[1])
}

// reportPurge reports what EdgeOne failed to purge, and that the purge of a run is complete.
func (r *EventReporter) reportPurge(before, after *v1alpha1.PrefetchTask) {
	if !taskstate.HasPurge(after) || taskstate.IsNewRun(after) {
		return
	}
	was, is := before.Status.Purge, after.Status.Purge
	if before.Status.Run != after.Status.Run {
		was = v1alpha1.PurgeCounts{}
	}
	if failed := ptr.Deref(is.Failed, 0) - ptr.Deref(was.Failed, 0); failed > 0 {
		effect := "no target is prefetched"
		if after.Spec.Purge.Type == v1alpha1.PurgeURL {
			effect = "what is not purged is not prefetched"
		}
		r.RecordEvent(after, corev1.EventTypeWarning, v1alpha1.FailedPurge, "Purge", fmt.Sprintf("EdgeOne did not purge %s; %s", countPurged(failed, after), effect))
	}
	isNewlyPurged := before.Status.Run != after.Status.Run || !taskstate.IsPurgeComplete(before)
	if isNewlyPurged && taskstate.IsPurgeComplete(after) && ptr.Deref(is.Succeeded, 0) > 0 {
		r.RecordEvent(after, corev1.EventTypeNormal, "Purged", "Purge", fmt.Sprintf("%s in %s",
			countPurged(*is.Succeeded, after), countNoun(int32(taskstate.CountPurgeJobs(after)), "purge")))
	}
}

// countNoun returns a number with its noun.
func countNoun(n int32, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// reportRetried sends an Event if a retry was handled: the failed targets are submitted
// again, or cannot be, or there are none.
func (r *EventReporter) reportRetried(before, after *v1alpha1.PrefetchTask) {
	ready := meta.FindStatusCondition(after.Status.Conditions, v1alpha1.ConditionReady)
	switch {
	case !IsRetried(before, after) || before.Status.Run != after.Status.Run || ready == nil:
	case !taskstate.IsRunOver(after):
		// Some that had failed may have succeeded since.
		reopened := ptr.Deref(before.Status.Targets.Submitted, 0) - ptr.Deref(after.Status.Targets.Submitted, 0)
		r.RecordEvent(after, corev1.EventTypeNormal, "Retried", "Retry", "Resubmitting "+countNoun(reopened, "failed URL"))
	case ptr.Deref(after.Status.Targets.Failed, 0) > 0:
		r.RecordEvent(after, corev1.EventTypeWarning, "NotRetried", "Retry", ready.Message)
	default:
		r.RecordEvent(after, corev1.EventTypeNormal, "NothingToRetry", "Retry", "No target of the run has failed")
	}
}

// reportFinished sends an Event about the end of a run, once. It sends a second Event if
// the run ended with unread outcomes and they are read later; observeRun does not count
// the run again.
func (r *EventReporter) reportFinished(before, after *v1alpha1.PrefetchTask) {
	isAgain := taskstate.IsRunOver(before) && before.Status.Run == after.Status.Run
	if !taskstate.IsRunOver(after) || isAgain && (!taskstate.IsUnseen(before) || taskstate.IsUnseen(after)) {
		return
	}
	for _, condition := range after.Status.Conditions {
		if condition.Type == v1alpha1.ConditionFinished {
			eventType := corev1.EventTypeNormal
			if condition.Reason != v1alpha1.ReasonSucceeded {
				eventType = corev1.EventTypeWarning
			}
			r.sendEvent(after, eventType, condition.Reason, "Prefetch", outcomeMessage(after))
			if !isAgain {
				r.observeRun(after, condition.Reason)
			}
		}
	}
	if owner := taskstate.RecreatedBy(after); owner != "" && after.Spec.TTLSecondsAfterFinished > 0 {
		r.RecordEvent(after, corev1.EventTypeWarning, "NotDeleted", "Expire", "spec.ttlSecondsAfterFinished has no effect: "+owner+
			" would make the task again, and everything would be submitted again")
	}
}

// outcomeMessage returns what the status says about the outcome of the run.
func outcomeMessage(task *v1alpha1.PrefetchTask) string {
	if ready := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		return ready.Message
	}
	return ""
}
