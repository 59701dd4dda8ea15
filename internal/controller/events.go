package controller

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

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

// recordEvent reports on a task, always after the status says so, and no more often than
// Events are worth.
func (o *sharedState) recordEvent(task *v1alpha1.PrefetchTask, eventType, reason, action, message string) {
	if o.eventLimits.allowEvent(task, reason) {
		o.sendEvent(task, eventType, reason, action, message)
	}
}

// sendEvent reports what comes once in a run.
func (o *sharedState) sendEvent(task *v1alpha1.PrefetchTask, eventType, reason, action, message string) {
	o.events.Eventf(task, nil, eventType, reason, action, "%s", taskstate.TruncateMessage(message, taskstate.MaxMessage))
}
