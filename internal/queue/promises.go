package queue

import (
	"cmp"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// promise is what a task needs of a day's prefetch quota, because it has purged URLs. Until they
// are prefetched, every visitor of such a URL costs a request to the origin. So the quota for them
// is promised before the purge, and no other task gets it.
type promise struct {
	pool  *zoneQuota
	urls  int
	held  int       // of the quota; none for a suspended task, because nobody else waits for it
	since time.Time // when the first of their purges was signed
}

// trackPromise records how many purged URLs of a task wait for their prefetch.
func (q *Queue) trackPromise(key types.NamespacedName, task *v1alpha1.PrefetchTask, now time.Time) {
	if q.limits.Kind != v1alpha1.JobPrefetch {
		return
	}
	urls, since := taskstate.ColdTargets(task)
	held := urls
	if taskstate.IsSuspended(task) {
		held = 0
	}
	known := q.promises[key]
	isSame := known.urls == urls && known.held == held && known.since.Equal(since)
	if isSame && (urls == 0 || known.pool == q.zoneQuotas[q.batchKeyOf(task).mode()]) {
		return
	}
	q.dropPromise(key, now)
	if urls > 0 {
		p := q.zoneQuotaFor(q.batchKeyOf(task).mode())
		p.promised += held
		q.promises[key] = promise{p, urls, held, since}
		q.promised.add(key.Namespace, held)
	}
}

// dropPromise ends the promise to a task.
func (q *Queue) dropPromise(key types.NamespacedName, now time.Time) {
	if known, ok := q.promises[key]; ok {
		delete(q.promises, key)
		known.pool.promised -= known.held
		q.promised.add(key.Namespace, -known.held)
		q.dropZoneQuota(known.pool, now)
		q.RefreshBudget(now)
	}
}

// AdmitPurge says whether a task may purge its targets now, and how many: those that it may
// prefetch right afterwards. Nothing is purged unless the day's prefetch quota covers what the
// task has yet to hand over, or a whole day's quota if the task needs more than one. Where the
// quota is unknown, one call's worth of URLs is purged at a time. Call it for the queue of
// prefetches.
func (q *Queue) AdmitPurge(task *v1alpha1.PrefetchTask, now time.Time) taskstate.Admission {
	p := q.zoneQuotas[q.batchKeyOf(task).mode()]
	if p == nil {
		return taskstate.AdmitAll // nothing is known yet; the quota is read before the first call
	}
	if h := &p.backOff; h.isActive(now) {
		why := h.Cause
		why.Message = "Nothing is purged, because nothing can be prefetched: " + why.Message
		return taskstate.Admission{Cause: why, Until: h.until}
	}
	if q.accountBackOff.isActive(now) {
		return taskstate.Admission{Cause: q.accountBackOff.Cause, Until: q.accountBackOff.until}
	}
	need := len(taskstate.OpenPositions(task))
	if p.edge || p.remaining < 0 {
		if left := cmp.Or(p.batch, q.limits.Batch) - p.promised; left > 0 {
			return taskstate.Admission{Left: left, NamespaceLeft: taskstate.NoLimit}
		}
		why := taskstate.Cause{Reason: v1alpha1.ReasonWaiting, Message: "The zone's prefetch quota is not known: waiting until what is purged already is submitted"}
		return taskstate.Admission{Cause: why, Until: now.Add(readmitInterval)}
	}
	left := p.free()
	if left >= p.dayNeed(task, need) {
		return taskstate.Admission{Left: left, NamespaceLeft: taskstate.NoLimit}
	}
	why := p.dailyQuota()
	why.Message = fmt.Sprintf("The daily prefetch quota of this zone has too few URLs left for this task (%d of %d). Nothing is purged that cannot be prefetched",
		max(0, left), p.dayNeed(task, need))
	return taskstate.Admission{Cause: why, Until: now.Add(q.limits.QuotaInterval)}
}

// PromisePlanned promises the prefetches of a planned purge until EndPromising. By then, its claims are
// written, and the promises to its tasks count. Call it for the queue of prefetches.
func (q *Queue) PromisePlanned(purge *Call) {
	for _, part := range purge.Parts {
		urls := len(part.Positions)
		if part.Task.Spec.Purge.Type != v1alpha1.PurgeURL {
			urls = len(taskstate.OpenPositions(part.Task))
		}
		p := q.zoneQuotaFor(q.batchKeyOf(part.Task).mode())
		p.promised += urls
		q.promised.add(part.Task.Namespace, urls)
		purge.promises = append(purge.promises, plannedPromise{p, part.Task.Namespace, urls})
	}
}

// plannedPromise is what one task of a planned purge needs.
type plannedPromise struct {
	pool      *zoneQuota
	namespace string
	urls      int
}

// EndPromising ends what PromisePlanned promised.
func (q *Queue) EndPromising(purge *Call, now time.Time) {
	for _, planned := range purge.promises {
		planned.pool.promised -= planned.urls
		q.promised.add(planned.namespace, -planned.urls)
		q.dropZoneQuota(planned.pool, now)
	}
	if len(purge.promises) > 0 {
		purge.promises = nil
		q.RefreshBudget(now)
	}
}

// TakenURLs returns how many URLs of an account no other task may take, and how many of them are of a
// namespace: those that are purged and not handed over yet, and those of planned calls.
func (q *Queue) TakenURLs(namespace string) (total, own int) {
	return q.promised.total + q.planned.total, q.promised.byNamespace[namespace] + q.planned.byNamespace[namespace]
}

// LimitPurge is AdmitPurge for a task whose account allows what a says: the account must also allow what
// is prefetched after the purge, beside the URLs that no other task may take.
func (q *Queue) LimitPurge(a taskstate.Admission, task *v1alpha1.PrefetchTask, now time.Time) taskstate.Admission {
	total, own := q.TakenURLs(task.Namespace)
	if a.Left != taskstate.NoLimit {
		a.Left = max(0, a.Left-total)
	}
	if a.NamespaceLeft != taskstate.NoLimit {
		a.NamespaceLeft = max(0, a.NamespaceLeft-own)
	}
	b := q.AdmitPurge(task, now)
	if b.Left, b.NamespaceLeft = min(a.Left, b.Left), min(a.NamespaceLeft, b.NamespaceLeft); b.Until.IsZero() && total > 0 {
		b.Until = now.Add(promiseRecheck)
	}
	return b
}

// promiseRecheck is how often a purge asks again that waits for a budget which is promised to others:
// what fails to be purged needs nothing of it.
const promiseRecheck = 10 * time.Second

// CannotPrefetch reports whether a back-off keeps the targets of a task from being prefetched now.
func (q *Queue) CannotPrefetch(task *v1alpha1.PrefetchTask, now time.Time) bool {
	p := q.zoneQuotas[q.batchKeyOf(task).mode()]
	return q.accountBackOff.isActive(now) || p != nil && p.backOff.isActive(now)
}

// coverPurge allows no purge that the rest of the day's quota of purges does not cover, or that a
// whole day's quota does not, if the task needs more than one.
func (q *Queue) coverPurge(it *queueItem, a taskstate.Admission, now time.Time) taskstate.Admission {
	p := it.lane.pool
	if a.Reason != "" || p.remaining <= 0 { // 0: the mode backs off
		return a
	}
	need := p.dayNeed(it.task, taskstate.CountUnpurged(it.task))
	if p.remaining < need {
		a.Cause = p.dailyQuota()
		a.Message = fmt.Sprintf("The daily quota of this zone for purges of type %s has too few left for this task (%d of %d)", p.purge, p.remaining, need)
		a.Until = now.Add(q.limits.QuotaInterval)
	}
	return a
}

// dayNeed returns how much of a day's quota must be left for a task that needs so many URLs. A task
// that needs more than a day's quota cannot have it all: if it purges its own targets, a few at a
// time, it takes what is left of each day, and nothing of it stays cold.
func (p *zoneQuota) dayNeed(task *v1alpha1.PrefetchTask, need int) int {
	switch {
	case p.daily == 0 || need <= p.daily:
		return need
	case task.Spec.Purge.Type == v1alpha1.PurgeURL:
		return 1
	}
	return p.daily
}

// free returns how many URLs of today's quota neither a promise nor a call in flight needs.
func (p *zoneQuota) free() int { return p.remaining - p.promised - p.unpromised }

// takeFree counts URLs that an item without a promise brings to a planned call. The call is not
// charged yet, and the next item of the same call must not take what is promised either.
func (q *Queue) takeFree(call *Call, it *queueItem, urls int) {
	if q.limits.Kind == v1alpha1.JobPrefetch && q.promises[it.key].urls == 0 {
		call.unpromised += urls
		it.lane.pool.unpromised += urls
	}
}

// endTaking ends takeFree for a call that has returned. If it was accepted, it is charged by now.
func (q *Queue) endTaking(call *Call, now time.Time) {
	if call.unpromised > 0 {
		call.lane.pool.unpromised -= call.unpromised
		call.unpromised = 0
		q.RefreshBudget(now)
	}
}

// leavePromised limits what a task without purged URLs may take of the day's quota.
// The quota is read again after a while: no other task may be there that needs it read.
func (q *Queue) leavePromised(it *queueItem, a taskstate.Admission, now time.Time) taskstate.Admission {
	p := it.lane.pool
	if a.Reason != "" || p.promised == 0 || p.edge || p.remaining < 0 || q.promises[it.key].urls > 0 {
		return a
	}
	if a.Left = min(a.Left, p.free()); a.Left <= 0 {
		a.Cause, a.Until = p.dailyQuota(), now.Add(q.limits.QuotaInterval)
	}
	return a
}
