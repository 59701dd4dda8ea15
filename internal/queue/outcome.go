package queue

import (
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// RecordAccepted records that EdgeOne accepted the call, or that the refusal of its
// targets is in the statuses. tasks holds the newest version of each part's task, or nil
// if the task is gone. charged is the number of URLs that count against the day's quota.
func (q *Queue) RecordAccepted(call *Call, tasks []*v1alpha1.PrefetchTask, charged int, now time.Time) {
	if p := call.lane.pool; call.Refusal == "" {
		p.chargeCall(charged, len(call.URLs), q.limits.Batch)
		q.endBackOffs(call, now)
		if !call.refused {
			q.clearFailures(call, now)
		}
		// A call at the limit was claimed in time, so allow more tasks again.
		if q.taskLimit > 0 && len(call.Parts) >= q.taskLimit {
			q.taskLimit *= 2
		}
		// EdgeOne answered the call, so the cause of an expired back-off is gone.
		if p.backOff.Reason != "" && !p.backOff.isActive(now) {
			q.endBackOff(&p.backOff, p.backOffEvent())
			p.prober = nil
			q.refreshMode(p, now)
		}
		if t := call.lane.tenant; t != nil && t.backOff.Reason != "" && !t.backOff.isActive(now) {
			q.endBackOff(&t.backOff, t.backOffEvent())
			t.prober = nil
			q.refreshTenantLanes(t, now)
		}
	}
	q.finishCall(call, tasks, now)
}

// LimitTasksPerCall records that the call was not sent, because the claims took so long
// that its signature became too old. It halves the tasks per call. RecordAccepted raises
// the limit again when a call at the limit succeeds.
func (q *Queue) LimitTasksPerCall(call *Call) {
	q.taskLimit = max(1, len(call.Parts)/2)
}

// endBackOffs ends the expired back-offs of the account and the lane, because the call
// reached EdgeOne. It keeps a back-off that another call has started in the meantime.
func (q *Queue) endBackOffs(call *Call, now time.Time) {
	if !q.accountBackOff.isActive(now) {
		q.endBackOff(&q.accountBackOff, accountEvent)
	}
	if !call.lane.backOff.isActive(now) {
		call.lane.backOff = backOff{}
	}
}

// RecordReleased records that EdgeOne did not execute the call. Use it only if this is
// certain; otherwise use TrackLostCall.
func (q *Queue) RecordReleased(call *Call, tasks []*v1alpha1.PrefetchTask, now time.Time) {
	if call.suspects != nil { // a call that was not executed clears no suspects
		q.queueSuspectsFirst(call.lane, call.suspects)
		call.suspects = nil
	}
	q.finishCall(call, tasks, now)
}

// finishCall returns the tasks of a call to the queue, and makes the lane available for
// the next call. A refusal was not sent and did not occupy the lane.
func (q *Queue) finishCall(call *Call, tasks []*v1alpha1.PrefetchTask, now time.Time) {
	l := call.lane
	q.EndPlanning(call, now)
	q.endTaking(call, now)
	q.MarkSent(call) // even if the call was not sent, it used the turn of its namespace
	q.endProbes(call, now)
	q.clearGroup(call.suspects, now)
	switch {
	case call.test:
		l.testInFlight = false
	case call.Refusal == "":
		l.inFlight = false
	}
	for i, part := range call.Parts {
		q.returnItem(part, tasks[i], now)
	}
	q.refreshLane(l, now)
	q.dropLane(l, now)
}

// endProbes ends the probes of the call, so that other lanes may make calls again.
// Refusals and tests of suspects are not probes of a mode or a tenant.
func (q *Queue) endProbes(call *Call, now time.Time) {
	l := call.lane
	if call.probe {
		q.probeInFlight = false
	}
	if call.Refusal != "" || call.test {
		return
	}
	if l.pool.prober == l {
		l.pool.prober = nil
		q.refreshMode(l.pool, now)
	}
	if t := l.tenant; t != nil && t.prober == l {
		t.prober = nil
		q.refreshTenantLanes(t, now)
	}
}

// returnItem returns the task of a part to the queue. task is its newest version, or nil
// if the task is gone. A task that neither waits nor needs a status write leaves the
// queue.
func (q *Queue) returnItem(part CallPart, task *v1alpha1.PrefetchTask, now time.Time) {
	it := part.item
	it.inFlight = false
	it.endPostponedCall()
	if task == nil {
		q.detachClaim(it.key, now)
		q.removeItem(it, now)
		return
	}
	it.deleted = false
	q.trackClaim(it.key, task, now)
	if it.suspectGroups > 0 && (task.UID != part.Task.UID || taskstate.RunHash(task) != taskstate.RunHash(part.Task)) {
		q.clearSuspect(it) // edited while in flight
	}
	if waits, tell := q.isWaiting(task), q.needsStatusWrite(task); waits || tell || q.awaitsList(task) {
		q.placeItem(it, task, waits, now)
		q.reportIf(it, tell, now)
	} else {
		it.task = task
		q.removeItem(it, now)
	}
}
