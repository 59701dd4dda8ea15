package queue

import (
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// denial keeps an item out of calls because its account does not allow its targets now. It
// ends when the account allows them: see Readmit.
type denial struct {
	taskstate.Cause
	since   time.Time
	isTimed bool // the account is asked again after a while
}

// urlCounts counts URLs that Limits.Admit does not count yet.
type urlCounts struct {
	total       int
	byNamespace map[string]int
}

// add adds n URLs of a namespace.
func (c *urlCounts) add(namespace string, n int) {
	c.total += n
	if c.byNamespace[namespace] += n; c.byNamespace[namespace] == 0 {
		delete(c.byNamespace, namespace)
	}
}

// takeFrom takes the URLs from what an account allows to a namespace.
func (c *urlCounts) takeFrom(a *taskstate.Admission, namespace string) {
	if a.Left != taskstate.NoLimit {
		a.Left -= c.total
	}
	if a.NamespaceLeft != taskstate.NoLimit {
		a.NamespaceLeft -= c.byNamespace[namespace]
	}
}

// admission returns what the account and the quota of an item allow now, apart from planned calls.
func (q *Queue) admission(it *queueItem, now time.Time) taskstate.Admission {
	if q.limits.Kind == v1alpha1.JobPurge {
		return q.coverPurge(it, q.accountAdmission(it, now), now)
	}
	return q.leavePromised(it, q.accountAdmission(it, now), now)
}

// accountAdmission returns what the account of an item allows now, apart from planned calls.
func (q *Queue) accountAdmission(it *queueItem, now time.Time) taskstate.Admission {
	if q.limits.Admit == nil {
		return taskstate.AdmitAll
	}
	a := q.limits.Admit(it.task)
	if a.Reason != "" {
		return taskstate.Admission{Cause: a.Cause, Until: a.Until}
	}
	q.planned.takeFrom(&a, it.key.Namespace)
	if q.promises[it.key].urls == 0 { // only a task that has purged its URLs gets what is promised
		q.promised.takeFrom(&a, it.key.Namespace)
	}
	if a.Left <= 0 || a.NamespaceLeft <= 0 {
		a.Cause = taskstate.BudgetCause(it.task, a.NamespaceLeft <= 0)
		if it.lane.PurgeType != "" && taskstate.AccountKeyOf(it.task).Account == "" { // only planned purges take what is left
			a.Cause = taskstate.QueuedCause
			a.Until = now.Add(readmitInterval)
		}
	}
	return a
}

// admitItem asks the account of a waiting item whether it allows the item's targets, and
// returns how many URLs. If it allows none, the item stays out of calls, and reports why.
func (q *Queue) admitItem(it *queueItem, now time.Time) (room int) {
	room, _ = q.admitToCall(it, false, now)
	return room
}

// admitToCall is admitItem for an item that may go into a call. isShared says that the call
// already has a URL of the item: this URL does not count against a budget again, so ok is true
// even if nothing of the budget is left.
func (q *Queue) admitToCall(it *queueItem, isShared bool, now time.Time) (room int, ok bool) {
	a := q.admission(it, now)
	switch {
	case a.Reason == "":
		q.endDenial(it)
		return min(a.Left, a.NamespaceLeft), true
	case a.Quota && isShared:
		return 0, true
	}
	q.denyItem(it, a, now)
	return 0, false
}

// denyItem keeps an item out of calls. Suspect groups do not wait for a denied item.
func (q *Queue) denyItem(it *queueItem, a taskstate.Admission, now time.Time) {
	why := a.Cause
	q.clearSuspect(it)
	q.removeFromLine(it)
	q.denied[it] = true
	if !a.Until.IsZero() {
		defer q.askAgain(it, a.Until)
	}
	if it.denied.Cause == why {
		if !q.isHeldByPlans(it) {
			q.reportNow(it) // again, if a change of the task replaced the report
		}
		return
	}
	since := now
	if it.denied.Reason == why.Reason {
		since = it.denied.since
	}
	it.denied = denial{Cause: why, since: since}
	switch {
	case why.Reason == v1alpha1.ReasonWaiting:
		q.reportLater(it, now)
		return
	case why.Quota:
		q.readmitAt(q.nextReset(now))
		if q.isHeldByPlans(it) {
			q.reportLater(it, now)
			return
		}
	case q.isPatient(it.denied) && now.Before(since.Add(q.limits.StallAfter)):
		q.runAt(since.Add(q.limits.StallAfter), func(time.Time) {
			if q.items[it.key] == it && it.denied.Cause == why {
				q.reportNow(it)
			}
		})
	}
	q.reportNow(it)
}

// askAgain asks the account of a denied item again at a time. If it is about the quota, the quota is
// read again by then.
func (q *Queue) askAgain(it *queueItem, at time.Time) {
	it.denied.isTimed = true
	q.readmitAt(at)
	if it.denied.Quota {
		q.runAt(at, func(now time.Time) {
			if p := it.lane.pool; q.denied[it] && now.Sub(p.readAt) >= q.limits.QuotaInterval {
				q.setQuotaReading(p.zoneID, true, now)
				q.enqueueQuotaRead(p)
			}
		})
	}
}

// isHeldByPlans reports whether an item only waits for a budget because of planned calls. Their
// URLs count twice while their claims are written, and a claim may fail. So the item may go out
// in a moment, and must not report that the budget is used up.
func (q *Queue) isHeldByPlans(it *queueItem) bool {
	if !it.denied.Quota || q.planned.total == 0 {
		return false
	}
	a := q.limits.Admit(it.task)
	return a.Reason == "" && a.Left > 0 && a.NamespaceLeft > 0
}

// isPatient reports whether a denial is Stalled only after StallAfter. Users often apply an
// account together with its tasks.
func (q *Queue) isPatient(d denial) bool { return d.Reason == v1alpha1.ReasonAccountMissing }

// isDenialStalled reports whether an item is Stalled because of its denial. If the status says
// so for the same reason, the denial is older than this process, or than the list of targets in
// memory.
func (q *Queue) isDenialStalled(it *queueItem, now time.Time) bool {
	d := it.denied
	return d.NeedsUser && (!q.isPatient(d) || now.Sub(d.since) >= q.limits.StallAfter || taskstate.IsStalledFor(it.task, d.Reason))
}

// endDenial ends a denial.
func (q *Queue) endDenial(it *queueItem) {
	it.denied = denial{}
	delete(q.denied, it)
}

// isKeptOut reports whether an item stays out of calls because of its own problem, or
// because of its account.
func (it *queueItem) isKeptOut(now time.Time) bool {
	return it.isPostponed(now) || it.denied.Reason != ""
}

// Readmit asks the accounts again of the waiting items of a namespace, or of all if namespace is
// "". Call it when an account or the labels of a namespace have changed. It returns whether
// there is something to do.
func (q *Queue) Readmit(namespace string, now time.Time) (isDue bool) {
	for key, it := range q.items {
		if namespace != "" && key.Namespace != namespace {
			continue
		}
		if !it.inFlight && q.isWaiting(it.task) && q.admission(it, now).Cause != it.denied.Cause {
			q.placeItem(it, it.task, true, now)
			isDue = true
		}
	}
	return isDue
}

// readmitInterval is the shortest time between two rounds of RefreshBudget.
const readmitInterval = time.Second

// RefreshBudget asks the accounts again of the items that wait for a budget. Call it when a
// budget has more left than before.
func (q *Queue) RefreshBudget(now time.Time) {
	if len(q.denied) > 0 {
		q.readmitAt(now.Add(readmitInterval))
	}
}

// readmitAt asks the accounts again at a time of the items that wait for a budget, unless it is
// planned for an earlier time.
func (q *Queue) readmitAt(at time.Time) {
	if !q.nextReadmit.IsZero() && !at.Before(q.nextReadmit) {
		return
	}
	q.nextReadmit = at
	q.runAt(at, func(now time.Time) {
		if q.nextReadmit.Equal(at) { // otherwise, another time came first
			q.nextReadmit = time.Time{}
			q.readmitForBudget(now, at.Equal(q.lastReset(now)))
		}
	})
}

// readmitForBudget returns the items that wait for a budget to the queue if there is room. It
// asks once for each namespace whose budget is used up, because thousands of its tasks may wait.
// At the start of a day, the other items report when the next one starts.
func (q *Queue) readmitForBudget(now time.Time, isNewDay bool) {
	usedUp := map[string]bool{}
	for it := range q.denied {
		if !it.denied.Quota && !it.denied.isTimed || it.inFlight {
			continue
		}
		if it.denied.isTimed { // each task needs its own part of the quota
			q.placeItem(it, it.task, q.isWaiting(it.task), now)
			continue
		}
		if !usedUp[it.key.Namespace] {
			if usedUp[it.key.Namespace] = q.admission(it, now).Quota; !usedUp[it.key.Namespace] {
				q.placeItem(it, it.task, q.isWaiting(it.task), now)
				continue
			}
		}
		if isNewDay {
			q.reportNow(it)
		}
	}
	if len(usedUp) > 0 {
		q.readmitAt(q.nextReset(now))
	}
}

// planURLs counts the URLs that an item brings to a planned call.
func (q *Queue) planURLs(call *Call, namespace string, urls int) {
	if urls == 0 || q.limits.Admit == nil {
		return
	}
	if call.planned == nil {
		call.planned = map[string]int{}
	}
	call.planned[namespace] += urls
	q.planned.add(namespace, urls)
}

// EndPlanning records that the claims of a call are written, or that it has none. Its URLs
// with a claim count in Limits.Admit now; the others leave room for other tasks. While the
// claims were written, their URLs counted twice, so that the account may have denied too much.
func (q *Queue) EndPlanning(call *Call, now time.Time) {
	for namespace, urls := range call.planned {
		q.planned.add(namespace, -urls)
	}
	if len(call.planned) > 0 {
		call.planned = nil
		q.RefreshBudget(now)
	}
}
