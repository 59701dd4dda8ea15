// Package schedule is the line in which tasks wait for a call, and the decision
// who goes next. It does no I/O: tasks, holds and the time go in, planned calls
// and things to tell the tasks come out.
//
// There is one Queue per account. Namespaces are taken in turn, the oldest task
// first within each; the lane of the chosen task then fills the call from all
// namespaces in turn. A namespace's calls have turns, one after the other from the
// turn that is served when it comes: so of those planned ahead that of another
// namespace can be sent before the second of this one. One call of a lane is unanswered at a time: what arrives
// meanwhile shares the next. Planning a call costs the size of that call, not of
// the queue.
package schedule

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
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
	returnedCalls     map[types.NamespacedName]*lostCall // taskLimit of calls that were not executed, until those are split
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
	waits, tell, away := IsWaiting(task), needsStatusWrite(task), AwaitsList(task)
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
	if it.task != nil && (it.task.UID != task.UID || RunHash(it.task) != RunHash(task)) {
		q.clearSuspect(it)
	}
	if it.isPostponed(now) && !it.postponed.firm && it.task != nil && isEdited(it.task, task) {
		it.postponed = postponement{}
	}
	if !it.isPostponed(now) {
		delete(q.postponed, it)
	}
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
	switch {
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
	if len(jobs) == 0 || IsNewRun(task) {
		return task.CreationTimestamp.Time
	}
	since := jobs[len(jobs)-1].SubmitTime.Time
	if p.remaining >= 0 && p.remaining < len(OpenPositions(task)) || p.backOff.Quota {
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

// reservation is a call whose outcome is open: the URLs it may have submitted, and the
// tasks that wait for it because they want one of them.
type reservation struct {
	id        string
	zoneID    string
	urls      []string // as Normalize gives them
	blocked   []*queueItem
	onRelease []func()   // for groups of suspects that wait for it
	holders   int        // taskLimit that carry it
	lane      *laneState // of a call of this queue whose answer was lost
	until     time.Time  // when it ends without being settled
}

// claimHolder is a task that carries a claim. Another task of the same name tells nothing
// of what became of that claim.
type claimHolder struct {
	uid   types.UID
	claim string
}

// ReserveURLs keeps tasks that share a URL with the claim out of calls until Settled,
// so that a job found later is this claim's beyond doubt. A claim that is not
// settled in time, because only a person can settle it, ends by itself: jobs made
// from then on are too late to be taken for its own.
func (q *Queue) ReserveURLs(claimID, zoneID string, urls []string, now time.Time) {
	c := q.reservations[claimID]
	if c == nil {
		c = &reservation{id: claimID, zoneID: zoneID}
		q.reservations[claimID] = c
	}
	c.until = now.Add(q.limits.SettleTime)
	q.runAt(c.until, func(now time.Time) { q.expireReservation(claimID, now) })
	for _, u := range urls {
		u = q.limits.Normalize(u)
		if !slices.Contains(q.reservedURLs[u], c) {
			q.reservedURLs[u] = append(q.reservedURLs[u], c)
			c.urls = append(c.urls, u)
		}
	}
}

// expireReservation ends the effect of a claim that was not settled in time.
func (q *Queue) expireReservation(claimID string, now time.Time) {
	if c := q.reservations[claimID]; c != nil && !now.Before(c.until) {
		q.ReleaseURLs(claimID, now)
	}
}

// trackClaim follows which claim a task carries: the claims of calls that another
// process made hold URLs as well, and end when the last task that carries them is
// settled. If that task is deleted, or a new run takes the claim's place, nobody
// finds out what became of the call, and the claim holds its URLs for as long as
// that would have taken. It returns whether a claim has ended.
func (q *Queue) trackClaim(key types.NamespacedName, task *v1alpha1.PrefetchTask, now time.Time) (ended bool) {
	submission := task.Status.Submission
	if q.holders[key].uid != task.UID {
		q.detachClaim(key, now) // it was made again
	}
	switch {
	case submission == nil:
		if c := q.detachClaim(key, now); c != nil && c.holders == 0 {
			q.ReleaseURLs(c.id, now)
			return true
		}
		return false
	case q.holders[key].claim == submission.ClaimID || IsNewRun(task) || IsUnresolved(task) || IsElided(task):
		return false // the task does not say which URLs the claim is for
	}
	q.detachClaim(key, now)
	targets := DistinctTargets(task)
	var urls []string
	for _, i := range CoveredPositions(submission.Targets, len(targets)) {
		urls = append(urls, targets[i])
	}
	q.ReserveURLs(submission.ClaimID, submission.ZoneID, urls, now)
	q.holders[key] = claimHolder{task.UID, submission.ClaimID}
	q.reservations[submission.ClaimID].holders++
	return false
}

// detachClaim forgets which claim a task carries, and returns that claim.
func (q *Queue) detachClaim(key types.NamespacedName, now time.Time) *reservation {
	q.settlePart(key, now)
	c := q.reservations[q.holders[key].claim]
	if c != nil {
		c.holders--
	}
	delete(q.holders, key)
	return c
}

// ReleaseURLs ends the effect of a claim.
func (q *Queue) ReleaseURLs(claimID string, now time.Time) {
	c := q.reservations[claimID]
	if c == nil {
		return
	}
	delete(q.reservations, claimID)
	for _, u := range c.urls {
		q.reservedURLs[u] = slices.DeleteFunc(q.reservedURLs[u], func(other *reservation) bool { return other == c })
		if len(q.reservedURLs[u]) == 0 {
			delete(q.reservedURLs, u)
		}
	}
	if l := c.lane; l != nil {
		l.unknownCalls--
		q.refreshLane(l, now)
		q.dropLane(l, now)
	}
	for _, it := range c.blocked {
		if it.blocked && q.items[it.key] == it {
			q.placeItem(it, it.task, IsWaiting(it.task), now)
		}
	}
	for _, resume := range c.onRelease {
		resume()
	}
}

// blockItem takes an item out of the line if a claim may have one of its URLs.
func (q *Queue) blockItem(it *queueItem, open Positions, targets []string) bool {
	c := q.findReservation(it, open, targets)
	if c == nil {
		return false
	}
	q.removeFromLine(it)
	it.blocked = true
	c.blocked = append(c.blocked, it)
	return true
}

// findReservation returns a claim that may have one of an item's URLs; nil if there is none. One
// of its own does not count, it is of the run before.
func (q *Queue) findReservation(it *queueItem, open Positions, targets []string) *reservation {
	if len(q.reservedURLs) == 0 {
		return nil
	}
	own := it.task.Status.Submission
	for _, i := range open {
		for _, c := range q.reservedURLs[q.limits.Normalize(targets[i])] {
			if it.lane.SharesZone(BatchKey{ZoneID: c.zoneID}) && (own == nil || own.ClaimID != c.id) {
				return c
			}
		}
	}
	return nil
}
