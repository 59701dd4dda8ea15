package queue

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// Limits are the sizes and intervals of a Queue.
type Limits struct {
	// Batch is the number of targets per call while the zone's own limit is unknown.
	Batch int
	// TasksPerCall bounds the tasks of one call, because each claim costs a write.
	TasksPerCall int
	// QuotaInterval is the minimum time between two reads of a zone's quota.
	QuotaInterval time.Duration
	// QuotaReset is the time of day (UTC) at which the quota is expected to return.
	QuotaReset time.Duration
	// QPS is EdgeOne's limit of calls per second. Tests of suspects use at most a quarter
	// of it.
	QPS int
	// StallAfter is how long trouble that needs user action may last before a task
	// reports Stalled. Users often apply a Secret together with its task, so the Secret
	// may follow soon.
	StallAfter time.Duration
	// SettleTime is the maximum time to find out the outcome of a lost call, unless that
	// needs user action.
	SettleTime time.Duration
	// Normalize returns the same text for all spellings of a URL.
	Normalize func(string) string
}

// Queue is the queue of one account. It is not safe for concurrent use.
type Queue struct {
	limits            Limits
	items             map[types.NamespacedName]*queueItem
	lanes             map[BatchKey]*laneState
	zoneQuotas        map[zoneMode]*zoneQuota
	namespaces        map[string]*namespaceState
	readyNamespaces   namespaceHeap
	idle              []idleNamespace
	now               time.Time // of the latest decision
	sequence          int64     // the highest sequence of the calls that were sent
	arrivals          int64     // counts the turns that were queued
	accountBackOff    backOff
	probeInFlight     bool                                 // a call that checks the account is in flight
	taskLimit         int                                  // per call, learned from slow claims; 0 means no limit
	reservations      map[string]*reservation              // by claim ID, of calls of unknown or pending outcome
	reservedURLs      map[string][]*reservation            // normalized URL -> claims that may have it
	holders           map[types.NamespacedName]claimHolder // task -> the claim that it carries
	postponed         map[*queueItem]bool
	failures          failureCounts
	lanesWithSuspects []*laneState                       // taken in turn
	lostCalls         map[string]*lostCall               // by claim ID
	returnedCalls     map[types.NamespacedName]*lostCall // tasks of unexecuted calls, until the queue splits the calls
	awaitingLists     map[types.NamespacedName]*lostCall // parts of such calls whose target list is not in memory
	settledCalls      []*lostCall                        // to be split
	timers            timerHeap
	quotaReads        quotaReads
	lastTestAt        time.Time       // time of the latest test of suspects
	reportsDue        []*queueItem    // items whose status is due
	delayedReports    []delayedReport // reports that become due later
}

// NewQueue returns an empty queue.
func NewQueue(limits Limits) *Queue {
	return &Queue{
		limits:         limits,
		accountBackOff: backOff{probe: true}, // the first call checks the key with a single task
		items:          map[types.NamespacedName]*queueItem{},
		lanes:          map[BatchKey]*laneState{},
		zoneQuotas:     map[zoneMode]*zoneQuota{},
		namespaces:     map[string]*namespaceState{},
		reservations:   map[string]*reservation{},
		reservedURLs:   map[string][]*reservation{},
		holders:        map[types.NamespacedName]claimHolder{},
		postponed:      map[*queueItem]bool{},
		lostCalls:      map[string]*lostCall{},
		returnedCalls:  map[types.NamespacedName]*lostCall{},
		awaitingLists:  map[types.NamespacedName]*lostCall{},
	}
}

// Len returns the number of tasks in the queue.
func (q *Queue) Len() int { return len(q.items) }

// IsIdle says whether the queue has no tasks and remembers nothing about their calls.
func (q *Queue) IsIdle(now time.Time) bool {
	q.runDueTimers(now)
	q.dropIdleNamespaces(now)
	return len(q.items) == 0 && len(q.reservations) == 0 && !q.accountBackOff.isActive(now)
}

// UpsertTask adds a task or replaces it by its newest version; the caller decides which
// version is the newest. It returns whether there is something to do for the task, or for
// tasks that waited for its claim.
func (q *Queue) UpsertTask(task *v1alpha1.PrefetchTask, now time.Time) bool {
	key := types.NamespacedName{Namespace: task.Namespace, Name: task.Name}
	it := q.items[key]
	if it != nil {
		if it.task == task && !it.deleted {
			return false
		}
		// The task gets its place when the call returns.
		if it.inFlight {
			it.task, it.deleted = task, false
			return false
		}
	}
	settled := q.trackClaim(key, task, now)
	waits, tell, away := taskstate.IsWaiting(task), needsStatusWrite(task), taskstate.AwaitsList(task)
	switch {
	case away:
		q.markListAway(key)
	case waits:
		q.markListLoaded(key)
	default:
		delete(q.awaitingLists, key)
	}
	if !waits && !tell && !away {
		q.removeItem(it, now)
		return settled
	}
	if it == nil {
		it = &queueItem{key: key, joined: now}
		q.items[key] = it
	}
	q.placeItem(it, task, waits, now)
	q.reportIf(it, tell, now)
	return true
}

// placeItem puts an item where the newest version of its task belongs.
func (q *Queue) placeItem(it *queueItem, task *v1alpha1.PrefetchTask, waits bool, now time.Time) {
	lane := q.laneForTask(task, now)
	q.noticeEdit(it, task, now)
	before := it.lane
	q.removeFromLine(it)
	switch {
	case lane.lost == 0:
		it.since = lane.pool.queuedSince(task)
	case before != lane:
		it.since = now // behind all tasks that wait now, ahead of those that arrive later
	}
	if it.failed.After(it.since) {
		it.since = it.failed
	}
	it.task, it.lane, it.blocked = task, lane, false
	if before != nil && before != lane {
		q.dropLane(before, now)
	}
	q.listItem(it, waits, now)
}

// noticeEdit forgets what the queue knows about an item if its task was edited or
// recreated.
func (q *Queue) noticeEdit(it *queueItem, task *v1alpha1.PrefetchTask, now time.Time) {
	if it.task != nil && (it.task.UID != task.UID || taskstate.RunHash(it.task) != taskstate.RunHash(task)) {
		q.clearSuspect(it)
	}
	if it.isPostponed(now) && !it.postponed.firm && it.task != nil && isEdited(it.task, task) {
		it.postponed = postponement{}
	}
	if !it.isPostponed(now) {
		delete(q.postponed, it)
	}
}

// listItem puts a waiting item into its namespace queue, unless something keeps it out of
// calls, and schedules the report of why it waits.
func (q *Queue) listItem(it *queueItem, waits bool, now time.Time) {
	switch lane := it.lane; {
	case waits && it.isPostponed(now):
		if it.postponed.NeedsUser {
			q.reportNow(it)
		} else {
			q.reportLater(it, now)
		}
	case waits && q.returnedCalls[it.key] != nil: // the other tasks of its call must be settled first
	case waits && it.suspectGroups == 0:
		q.enqueueItem(it)
		q.refreshLane(lane, now)
		if h := lane.pool.backOff; h.Quota && h.isActive(now) {
			q.reportNow(it) // quota takes long to return
		} else {
			q.reportLater(it, now)
		}
	case !waits:
		q.clearSuspect(it)
	}
}

// queuedSince returns the time since which a task counts as queued: its creation or its
// last call. A task that needs many calls therefore goes behind tasks that arrived before
// its last call, and ahead of later ones. If the rest of the day's quota does not cover
// the task, tasks that arrive within a day of its last call go first as well. Otherwise
// they would wait for two days, while the task uses the whole quota of each day.
func (p *zoneQuota) queuedSince(task *v1alpha1.PrefetchTask) time.Time {
	jobs := task.Status.Jobs
	if len(jobs) == 0 || taskstate.IsNewRun(task) {
		return task.CreationTimestamp.Time
	}
	since := jobs[len(jobs)-1].SubmitTime.Time
	if p.remaining >= 0 && p.remaining < len(taskstate.OpenPositions(task)) || p.backOff.Quota {
		since = since.Add(24 * time.Hour)
	}
	return since
}

// RemoveTask removes a task that is gone. A task in flight leaves when its call returns.
func (q *Queue) RemoveTask(key types.NamespacedName, now time.Time) {
	q.detachClaim(key, now)
	delete(q.returnedCalls, key)
	delete(q.awaitingLists, key)
	it := q.items[key]
	if it == nil {
		return
	}
	if it.inFlight {
		it.deleted = true
		q.clearSuspect(it)
		return
	}
	q.removeItem(it, now)
}

// removeItem removes an item with everything that is known about it. A nil item is
// ignored.
func (q *Queue) removeItem(it *queueItem, now time.Time) {
	if it == nil {
		return
	}
	q.clearSuspect(it)
	q.removeFromLine(it)
	it.deleted = true
	delete(q.items, it.key)
	delete(q.postponed, it)
	delete(q.returnedCalls, it.key)
	if it.lane != nil {
		q.dropLane(it.lane, now)
	}
}

// laneForTask returns the lane of a task. A namespace that is separated has lanes of its
// own.
func (q *Queue) laneForTask(task *v1alpha1.PrefetchTask, now time.Time) *laneState {
	key := batchKeyOf(task)
	if p := q.zoneQuotas[zoneMode{key.ZoneID, key.Edge}]; p != nil && p.tenants[task.Namespace].isSeparated(now) {
		key.apart = task.Namespace
	}
	return q.laneForKey(key)
}

// laneForKey returns the lane with a key, which it creates if necessary.
func (q *Queue) laneForKey(key BatchKey) *laneState {
	l := q.lanes[key]
	if l == nil {
		l = &laneState{BatchKey: key, pool: q.zoneQuotaFor(key.ZoneID, key.Edge), queues: map[string]*namespaceQueue{}}
		l.pool.lanes[l] = true
		if key.apart != "" {
			l.tenant = q.tenantFor(l.pool, key.apart)
			l.tenant.lanes[l] = true
		}
		q.lanes[key] = l
	}
	return l
}

// dropLane forgets a lane if it is unused and the queue remembers nothing about it.
func (q *Queue) dropLane(l *laneState, now time.Time) {
	used := len(l.queues) > 0 || l.inFlight || l.testInFlight || len(l.suspects) > 0 || len(l.postponed) > 0
	if q.lanes[l.BatchKey] == l && !used && l.unknownCalls == 0 && !l.backOff.isActive(now) {
		q.setLaneReady(l, false)
		delete(q.lanes, l.BatchKey)
		delete(l.pool.lanes, l)
		if l.tenant != nil {
			delete(l.tenant.lanes, l)
			q.dropTenant(l.tenant, now)
		}
		q.dropZoneQuota(l.pool, now)
	}
}
