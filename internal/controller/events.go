package controller

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

var (
	// taskRate is of the Events of one task that have the same reason.
	taskRate = rate{burst: 1, every: time.Minute}
	// alikeRate is of the Events of tasks that share a reason, a zone and a Secret: what
	// one of them says is true of all, and is in the status of each.
	alikeRate = rate{burst: 20, every: 10 * time.Second}
	// namespaceRate is of all Events of a namespace, however many zones and Secrets its
	// tasks name.
	namespaceRate = rate{burst: 200, every: time.Second}
)

// alike is what tasks share whose Events say the same. Of a whole namespace all but its
// name is empty.
type alike struct{ namespace, secret, zoneID, reason string }

type reported struct {
	task   types.UID
	reason string
}

// eventLimits bounds Events by time, not by what tasks and their users do.
type eventLimits struct {
	mu     sync.Mutex
	tasks  buckets[reported]
	groups buckets[alike]
}

// allow says whether an Event may be sent now, and counts it.
func (e *eventLimits) allow(task *v1alpha1.PrefetchTask, reason string) bool {
	now := time.Now()
	this := reported{task.UID, reason}
	group := alike{task.Namespace, task.Spec.CredentialsSecretRef.Name, task.Spec.ZoneID, reason}
	namespace := alike{namespace: task.Namespace}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.tasks == nil {
		e.tasks, e.groups = buckets[reported]{}, buckets[alike]{}
	}
	if e.tasks.wait(this, taskRate, now) > 0 || e.groups.wait(group, alikeRate, now) > 0 || e.groups.wait(namespace, namespaceRate, now) > 0 {
		return false
	}
	e.tasks.take(this, taskRate, now)
	e.groups.take(group, alikeRate, now)
	e.groups.take(namespace, namespaceRate, now)
	return true
}

// event reports on a task, always after the status says so, and no more often than
// Events are worth.
func (o *operator) event(task *v1alpha1.PrefetchTask, eventType, reason, action, message string) {
	if o.eventLimits.allow(task, reason) {
		o.send(task, eventType, reason, action, message)
	}
}

// send reports what comes once in a run.
func (o *operator) send(task *v1alpha1.PrefetchTask, eventType, reason, action, message string) {
	o.events.Eventf(task, nil, eventType, reason, action, "%s", cut(message, maxMessage))
}
