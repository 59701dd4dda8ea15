package kube

import (
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
	// taskRate is of the Events of one task that have the same reason.
	taskRate = tokenRate{burst: 1, every: time.Minute}
	// alikeRate is of the Events of tasks that share a reason, a zone and a Secret: what
	// one of them says is true of all, and is in the status of each.
	alikeRate = tokenRate{burst: 20, every: 10 * time.Second}
	// namespaceRate is of all Events of a namespace, however many zones and Secrets its
	// tasks name.
	namespaceRate = tokenRate{burst: 200, every: time.Second}
)

// eventGroup is what tasks share whose Events say the same. Of a whole namespace all but its
// name is empty.
type eventGroup struct{ namespace, secret, zoneID, reason string }

type reportedEvents struct {
	task   types.UID
	reason string
}

// eventLimiter bounds Events by time, not by what tasks and their users do.
type eventLimiter struct {
	mu     sync.Mutex
	tasks  tokenBuckets[reportedEvents]
	groups tokenBuckets[eventGroup]
}

// allowEvent says whether an Event may be sent now, and counts it.
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

// NewEventReporter returns a reporter that sends to recorder and has observeRun count the end
// of each run.
func NewEventReporter(recorder events.EventRecorder, observeRun func(task *v1alpha1.PrefetchTask, reason string)) *EventReporter {
	return &EventReporter{events: recorder, observeRun: observeRun}
}

// RecordEvent reports on a task, always after the status says so, and no more often than
// Events are worth.
func (r *EventReporter) RecordEvent(task *v1alpha1.PrefetchTask, eventType, reason, action, message string) {
	if r.limits.allowEvent(task, reason) {
		r.sendEvent(task, eventType, reason, action, message)
	}
}

// sendEvent reports what comes once in a run.
func (r *EventReporter) sendEvent(task *v1alpha1.PrefetchTask, eventType, reason, action, message string) {
	r.events.Eventf(task, nil, eventType, reason, action, "%s", taskstate.TruncateMessage(message, taskstate.MaxMessage))
}

// ReportRefusedWrite sends an Event about a task whose status was refused, or did not fit and
// says so since this write.
func (r *EventReporter) ReportRefusedWrite(before, after *v1alpha1.PrefetchTask, err error) {
	switch {
	case IsRefused(err):
		why := RefusalCause(err)
		r.RecordEvent(before, corev1.EventTypeWarning, why.Reason, "WriteStatus", why.Message)
	case err == nil && after != nil && taskstate.IsStalledFor(after, v1alpha1.ReasonTooLarge) && !taskstate.IsStalledFor(before, v1alpha1.ReasonTooLarge):
		r.RecordEvent(after, corev1.EventTypeWarning, v1alpha1.ReasonTooLarge, "WriteStatus", taskstate.TooLargeMessage)
	}
}

// IsRetried says whether a retry of a run that was over is handled by the later of two
// versions.
func IsRetried(before, after *v1alpha1.PrefetchTask) bool {
	return taskstate.IsRunOver(before) && before.Status.LastHandledRetry != after.Status.LastHandledRetry
}

// ReportRetried reports that a retry was handled, if that means anything.
func (r *EventReporter) ReportRetried(before, after *v1alpha1.PrefetchTask) {
	ready := meta.FindStatusCondition(after.Status.Conditions, v1alpha1.ConditionReady)
	switch {
	case !IsRetried(before, after) || ready == nil:
	case !taskstate.IsRunOver(after):
		r.RecordEvent(after, corev1.EventTypeNormal, "Retried", "Retry", "Resubmitting failed targets")
	case ptr.Deref(after.Status.Targets.Failed, 0) > 0:
		r.RecordEvent(after, corev1.EventTypeWarning, "NotRetried", "Retry", ready.Message)
	}
}

// ReportFinished reports the end of a run, once, and its outcome if nobody knew it then.
func (r *EventReporter) ReportFinished(before, after *v1alpha1.PrefetchTask) {
	if after == nil {
		return
	}
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
			r.sendEvent(after, eventType, condition.Reason, "Prefetch", condition.Message)
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
