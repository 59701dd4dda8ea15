package queue

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// Limits are the sizes and intervals of a Queue.
type Limits struct {
	// Kind is what the calls of the queue do.
	Kind v1alpha1.JobKind
	// PurgeTime is how long a purge may take that EdgeOne has accepted.
	PurgeTime time.Duration
	// Batch is the number of URLs per call while the zone's own limit is unknown.
	Batch int
	// TasksPerCall is the maximum number of tasks per call. Each task costs one write of
	// its claim.
	TasksPerCall int
	// QuotaInterval is the minimum time between two reads of a zone's quota.
	QuotaInterval time.Duration
	// QuotaReset is the time of day (UTC) at which the quota is expected to return.
	QuotaReset time.Duration
	// QPS is EdgeOne's limit of calls per second. Tests of suspects use at most a quarter
	// of it.
	QPS int
	// StallAfter is how long a problem that needs user action may last before a task
	// reports Stalled. Users often apply a Secret together with its task, so the Secret
	// may be created shortly after the task.
	StallAfter time.Duration
	// SettleTime is the maximum time to find out the outcome of a lost call, unless that
	// needs user action.
	SettleTime time.Duration
	// Normalize returns the same text for all spellings of a URL.
	Normalize func(string) string
	// Admit, if set, says whether the account of a task allows its open targets now, and how
	// many URLs. It counts the URLs of claims that are written.
	Admit AdmitFunc
	// ObserveBackOff, if set, is called when a back-off that tasks report begins, changes
	// its cause, or ends.
	ObserveBackOff func(BackOffEvent)
}

// AdmitFunc says what the account of a task allows now.
type AdmitFunc func(task *v1alpha1.PrefetchTask) taskstate.Admission

// Queue is the queue of one account for calls of one kind. It is not safe for concurrent use.
type Queue struct {
	limits            Limits
	items             map[types.NamespacedName]*queueItem
	lanes             map[BatchKey]*laneState
	zoneQuotas        map[zoneMode]*zoneQuota
	namespaces        map[string]*namespaceState
	readyNamespaces   namespaceHeap
	idle              []idleNamespace // namespaces without tasks, in the order in which they became idle
	now               time.Time       // of the latest decision
	sequence          int64           // highest sequence of the calls sent so far
	arrivals          int64           // counts calls of enqueueNamespace; breaks ties between equal sequences
	accountBackOff    backOff
	probeInFlight     bool                                 // a probe of the account is in flight
	taskLimit         int                                  // per call, learned from slow claims; 0 means no limit
	reservations      map[string]*reservation              // by claim ID; calls of pending or unknown outcome
	reservedURLs      map[string][]*reservation            // by normalized URL; claims that may have submitted it
	widePurges        map[string]*reservation              // by claim ID; purges of prefixes, hosts and cache tags
	holders           map[types.NamespacedName]claimHolder // by task; the claim that it carries
	promises          map[types.NamespacedName]promise     // by task; the URLs that it has purged
	promised          urlCounts                            // the URLs of promises
	postponed         map[*queueItem]bool                  // items with a postponement
	denied            map[*queueItem]bool                  // items with a denial
	nextReadmit       time.Time                            // when the accounts of denied items are asked again; zero if no time is planned
	planned           urlCounts                            // URLs of planned calls whose claims are not written yet; once they are, Limits.Admit counts them
	failures          failureCounts
	lanesWithSuspects []*laneState                       // take turns
	lostCalls         map[string]*lostCall               // by claim ID
	returnedCalls     map[types.NamespacedName]*lostCall // by task; lost calls whose task is settled, until the queue splits them
	awaitingLists     map[types.NamespacedName]*lostCall // by task; parts of such calls whose target list is not in memory
	settledCalls      []*lostCall                        // lost calls to split
	timers            timerHeap
	quotaReads        quotaReads
	lastTestAt        time.Time       // time of the latest test of suspects
	reportsDue        []*queueItem    // items whose status must be written
	delayedReports    []delayedReport // reports that become due later
	aheadCounted      time.Time       // time of the latest countAhead
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
		widePurges:     map[string]*reservation{},
		holders:        map[types.NamespacedName]claimHolder{},
		promises:       map[types.NamespacedName]promise{},
		postponed:      map[*queueItem]bool{},
		denied:         map[*queueItem]bool{},
		planned:        urlCounts{byNamespace: map[string]int{}},
		promised:       urlCounts{byNamespace: map[string]int{}},
		lostCalls:      map[string]*lostCall{},
		returnedCalls:  map[types.NamespacedName]*lostCall{},
		awaitingLists:  map[types.NamespacedName]*lostCall{},
	}
}

// Len returns the number of tasks in the queue.
func (q *Queue) Len() int { return len(q.items) }

// IsIdle reports whether the queue has no tasks and remembers nothing about their calls.
// It also runs due timers, so that a queue that plans no calls releases its memory.
func (q *Queue) IsIdle(now time.Time) bool {
	q.runDueTimers(now)
	q.dropIdleNamespaces(now)
	return len(q.items) == 0 && len(q.reservations) == 0 && !q.accountBackOff.isActive(now)
}

// UpsertTask adds a task or replaces it by its newest version. The caller decides which
// version is the newest. UpsertTask returns whether there is something to do for the
// task, or for tasks that waited for its claim.
func (q *Queue) UpsertTask(task *v1alpha1.PrefetchTask, now time.Time) bool {
	key := types.NamespacedName{Namespace: task.Namespace, Name: task.Name}
	it := q.items[key]
	if it == nil && !q.isAbout(key, task) {
		return false
	}
	if it != nil {
		if it.task == task && !it.deleted {
			return false
		}
		// finishCall places the task when its call returns.
		if it.inFlight {
			it.task, it.deleted = task, false
			return false
		}
	}
	settled := q.trackClaim(key, task, now)
	waits, tell, away := q.isWaiting(task), q.needsStatusWrite(task), q.awaitsList(task)
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

// placeItem puts an item where the newest version of its task belongs, and removes it
// from where it was.
func (q *Queue) placeItem(it *queueItem, task *v1alpha1.PrefetchTask, waits bool, now time.Time) {
	lane := q.laneForTask(task, now)
	q.noticeEdit(it, task, now)
	before := it.lane
	q.removeFromLine(it)
	switch {
	case lane.lost == 0:
		it.since = q.queuedSince(lane.pool, task)
	case before != lane:
		it.since = now // behind all tasks that wait now, ahead of later ones
	}
	if it.failed.After(it.since) {
		it.since = it.failed
	}
	it.task, it.lane, it.blockedBy = task, lane, nil
	if before != nil && before != lane {
		q.dropLane(before, now)
	}
	q.listItem(it, waits, now)
}

// noticeEdit clears the suspicions and the postponement of an item if its task was edited
// or recreated.
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
// calls. It schedules the report of the reason.
func (q *Queue) listItem(it *queueItem, waits bool, now time.Time) {
	if !waits {
		q.endDenial(it)
	}
	switch lane := it.lane; {
	case waits && q.admitItem(it, now) <= 0:
	case waits && it.isPostponed(now):
		if it.postponed.NeedsUser {
			q.reportNow(it)
		} else {
			q.reportLater(it, now)
		}
	case waits && q.returnedCalls[it.key] != nil: // it waits until the other tasks of its call are settled
	case waits && it.suspectGroups == 0:
		q.enqueueItem(it)
		q.refreshLane(lane, now)
		if h := lane.pool.backOff; h.Quota && h.isActive(now) {
			q.reportNow(it) // the quota takes long to return
		} else {
			q.reportLater(it, now)
		}
	case !waits:
		q.clearSuspect(it)
	}
}

// queuedSince returns the time that orders a task in its queue: its creation or its last
// call. A task that needs many calls therefore goes behind tasks that arrived before its
// last call, and ahead of later ones. If the rest of the day's quota does not cover the
// task, tasks that arrive within a day of its last call also go first. Otherwise the task
// would use the whole quota of each day, and those tasks would wait for two days.
func (q *Queue) queuedSince(p *zoneQuota, task *v1alpha1.PrefetchTask) time.Time {
	jobs := task.Status.Jobs
	if len(jobs) == 0 || taskstate.IsNewRun(task) {
		return task.CreationTimestamp.Time
	}
	since := jobs[len(jobs)-1].SubmitTime.Time
	if p.remaining >= 0 && p.remaining < len(q.openPositions(task)) || p.backOff.Quota {
		since = since.Add(24 * time.Hour)
	}
	return since
}

// RemoveTask removes a task that no longer exists. A task in flight leaves the queue when
// its call returns.
func (q *Queue) RemoveTask(key types.NamespacedName, now time.Time) {
	q.abandonClaim(key, now)
	q.dropPromise(key, now)
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

// removeItem removes an item and everything that the queue knows about it. It ignores a
// nil item.
func (q *Queue) removeItem(it *queueItem, now time.Time) {
	if it == nil {
		return
	}
	q.clearSuspect(it)
	q.removeFromLine(it)
	it.deleted = true
	delete(q.items, it.key)
	delete(q.postponed, it)
	delete(q.denied, it)
	delete(q.returnedCalls, it.key)
	if it.lane != nil {
		q.dropLane(it.lane, now)
	}
}

// laneForTask returns the lane of a task. A separated namespace has its own lanes.
func (q *Queue) laneForTask(task *v1alpha1.PrefetchTask, now time.Time) *laneState {
	return q.laneForKey(q.laneKeyOf(task, now))
}

// laneKeyOf returns the key of the lane of a task.
func (q *Queue) laneKeyOf(task *v1alpha1.PrefetchTask, now time.Time) BatchKey {
	key := q.batchKeyOf(task)
	if p := q.zoneQuotas[key.mode()]; p != nil && p.tenants[task.Namespace].isSeparated(now) {
		key.apart = task.Namespace
	}
	return key
}

// laneForKey returns the lane with a key. It creates the lane if necessary.
func (q *Queue) laneForKey(key BatchKey) *laneState {
	l := q.lanes[key]
	if l == nil {
		l = &laneState{BatchKey: key, pool: q.zoneQuotaFor(key.mode()), queues: map[string]*namespaceQueue{}}
		l.pool.lanes[l] = true
		if key.apart != "" {
			l.tenant = q.tenantFor(l.pool, key.apart)
			l.tenant.lanes[l] = true
		}
		q.lanes[key] = l
	}
	return l
}

// dropLane deletes a lane that is unused and about which the queue needs to remember
// nothing.
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
