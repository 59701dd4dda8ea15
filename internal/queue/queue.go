package queue

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// Limits are the sizes and intervals of a Queue.
type Limits struct {
	// Batch is how many targets a call holds where the zone's own limit is not
	// known.
	Batch int
	// TasksPerCall bounds the tasks of one call: claiming costs a write for each.
	TasksPerCall int
	// QuotaInterval is how often a zone's quota is read at most.
	QuotaInterval time.Duration
	// QuotaReset is the time of day (UTC) at which quota is expected to return.
	QuotaReset time.Duration
	// QPS is EdgeOne's limit; at most a quarter of it goes to finding bad URLs.
	QPS int
	// StallAfter is how long trouble that needs a person may last before a task is
	// Stalled: a Secret and its task are often applied together.
	StallAfter time.Duration
	// SettleTime is how long it takes at most to find out what became of a call
	// whose answer was lost, unless a person has to help.
	SettleTime time.Duration
	// Normalize gives URLs that mean the same the same text.
	Normalize func(string) string
}

// Queue is one account's line. It is not safe for concurrent use.
type Queue struct {
	limits            Limits
	items             map[types.NamespacedName]*queueItem
	lanes             map[BatchKey]*laneState
	zoneQuotas        map[zoneMode]*zoneQuota
	namespaces        map[string]*namespaceState
	readyNamespaces   namespaceHeap
	idle              []idleNamespace
	now               time.Time // of the latest decision
	sequence          int64     // the latest of those whose call was sent
	arrivals          int64     // counts who stood in line
	accountBackOff    backOff
	probeInFlight     bool                                 // the call that tries the account again is under way
	taskLimit         int                                  // per call, learned from calls that took too long to claim; 0 is no limit
	reservations      map[string]*reservation              // of unknown or not yet known outcome
	reservedURLs      map[string][]*reservation            // URL -> claims that may have it
	holders           map[types.NamespacedName]claimHolder // task -> claim it carries
	postponed         map[*queueItem]bool
	failures          failureCounts
	lanesWithSuspects []*laneState                       // lanes with suspects, taken in turn
	lostCalls         map[string]*lostCall               // by claim
	returnedCalls     map[types.NamespacedName]*lostCall // tasks of calls that were not executed, until those are split
	awaitingLists     map[types.NamespacedName]*lostCall // the part of such a task whose list is out of memory
	settledCalls      []*lostCall                        // to be split
	timers            timerHeap
	quotaReads        quotaReads
	lastTestAt        time.Time       // of a group of suspects
	reportsDue        []*queueItem    // to be told something at once
	delayedReports    []delayedReport // to be told in a while why they still wait
}

// NewQueue returns an empty Queue.
func NewQueue(limits Limits) *Queue {
	return &Queue{
		limits:         limits,
		accountBackOff: backOff{probe: true}, // whether its key is any good is tried with one task
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

// Len is the number of tasks the queue knows of.
func (q *Queue) Len() int { return len(q.items) }

// IsIdle says whether the queue has no tasks, and remembers nothing of their calls.
func (q *Queue) IsIdle(now time.Time) bool {
	q.runDueTimers(now)
	q.dropIdleNamespaces(now)
	return len(q.items) == 0 && len(q.reservations) == 0 && !q.accountBackOff.isActive(now)
}

// UpsertTask tells the queue of a task, or of its newest version: which one that is, others
// decide. It returns whether there is something to do: for it, or for those who
// waited for its claim.
func (q *Queue) UpsertTask(task *v1alpha1.PrefetchTask, now time.Time) bool {
	key := types.NamespacedName{Namespace: task.Namespace, Name: task.Name}
	it := q.items[key]
	if it != nil {
		if it.task == task && !it.deleted {
			return false
		}
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
		it.since = now // behind all who wait now, but not behind those who come later
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

// noticeEdit forgets what is known of an item if its task is another one or was edited.
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

// listItem lists an item among those that wait for a call, unless something keeps it.
func (q *Queue) listItem(it *queueItem, waits bool, now time.Time) {
	switch lane := it.lane; {
	case waits && it.isPostponed(now):
		if it.postponed.NeedsUser {
			q.reportNow(it)
		} else {
			q.reportLater(it, now)
		}
	case waits && q.returnedCalls[it.key] != nil: // the others of its call are to be settled first
	case waits && it.suspectGroups == 0:
		q.enqueueItem(it)
		q.refreshLane(lane, now)
		if h := lane.pool.backOff; h.Quota && h.isActive(now) {
			q.reportNow(it) // it will be a while
		} else {
			q.reportLater(it, now)
		}
	case !waits:
		q.clearSuspect(it)
	}
}

// queuedSince is when a task joined the line: when it was created, or when its last
// call was made. So a task that takes many calls lets those who came meanwhile go
// before its next, and none who come later. One that the rest of the day's quota
// is not enough for lets those go as well who come within a day of its last call:
// they would wait for two days else, while it has all of each.
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

// RemoveTask tells the queue that a task is gone.
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

// laneForTask is the lane that a task belongs in: one of its namespace alone while that is
// kept apart.
func (q *Queue) laneForTask(task *v1alpha1.PrefetchTask, now time.Time) *laneState {
	key := batchKeyOf(task)
	if p := q.zoneQuotas[zoneMode{key.ZoneID, key.Edge}]; p != nil && p.tenants[task.Namespace].isSeparated(now) {
		key.apart = task.Namespace
	}
	return q.laneForKey(key)
}

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

// dropLane forgets a lane that nobody uses and nothing is remembered about.
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
