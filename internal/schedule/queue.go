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
	limits     Limits
	items      map[types.NamespacedName]*item
	lanes      map[Lane]*lane
	pools      map[poolKey]*pool
	namespaces map[string]*namespace
	line       line
	idle       []idle
	now        time.Time // of the latest decision
	turn       int64     // the latest of those whose call was sent
	stood      int64     // counts who stood in line
	account    hold
	probing    bool                            // the call that tries the account again is under way
	tasks      int                             // per call, learned from calls that took too long to claim; 0 is no limit
	claims     map[string]*claim               // of unknown or not yet known outcome
	wanted     map[string][]*claim             // URL -> claims that may have it
	holders    map[types.NamespacedName]holder // task -> claim it carries
	postponed  map[*item]bool
	troubles   troubles
	suspicious []*lane                            // lanes with suspects, taken in turn
	lost       map[string]*lostCall               // by claim
	returned   map[types.NamespacedName]*lostCall // tasks of calls that were not executed, until those are split
	away       map[types.NamespacedName]*lostCall // the part of such a task whose list is out of memory
	settled    []*lostCall                        // to be split
	expiries   expiries
	reads      reads
	lastTest   time.Time // of a group of suspects
	soon       []*item   // to be told something at once
	later      []later   // to be told in a while why they still wait
}

// NewQueue returns an empty Queue.
func NewQueue(limits Limits) *Queue {
	return &Queue{
		limits:     limits,
		account:    hold{probe: true}, // whether its key is any good is tried with one task
		items:      map[types.NamespacedName]*item{},
		lanes:      map[Lane]*lane{},
		pools:      map[poolKey]*pool{},
		namespaces: map[string]*namespace{},
		claims:     map[string]*claim{},
		wanted:     map[string][]*claim{},
		holders:    map[types.NamespacedName]holder{},
		postponed:  map[*item]bool{},
		lost:       map[string]*lostCall{},
		returned:   map[types.NamespacedName]*lostCall{},
		away:       map[types.NamespacedName]*lostCall{},
	}
}

// Len is the number of tasks the queue knows of.
func (q *Queue) Len() int { return len(q.items) }

// IsIdle says whether the queue has no tasks, and remembers nothing of their calls.
func (q *Queue) IsIdle(now time.Time) bool {
	q.expire(now)
	q.dropIdle(now)
	return len(q.items) == 0 && len(q.claims) == 0 && !q.account.at(now)
}

// Set tells the queue of a task, or of its newest version: which one that is, others
// decide. It returns whether there is something to do: for it, or for those who
// waited for its claim.
func (q *Queue) Set(task *v1alpha1.PrefetchTask, now time.Time) bool {
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
	waits, tell, away := Waiting(task), mustTell(task), isAway(task)
	switch {
	case away:
		q.setAway(key)
	case waits:
		q.comeBack(key)
	default:
		delete(q.away, key)
	}
	if !waits && !tell && !away {
		q.remove(it, now)
		return settled
	}
	if it == nil {
		it = &item{key: key, joined: now}
		q.items[key] = it
	}
	q.place(it, task, waits, now)
	q.sayIf(it, tell, now)
	return true
}

// place puts an item where the newest version of its task belongs.
func (q *Queue) place(it *item, task *v1alpha1.PrefetchTask, waits bool, now time.Time) {
	lane := q.laneFor(task, now)
	if it.task != nil && (it.task.UID != task.UID || Run(it.task) != Run(task)) {
		q.acquit(it)
	}
	if it.isPostponed(now) && !it.postponed.firm && it.task != nil && isEdited(it.task, task) {
		it.postponed = postponement{}
	}
	if !it.isPostponed(now) {
		delete(q.postponed, it)
	}
	before := it.lane
	q.take(it)
	switch {
	case lane.lost == 0:
		it.since = lane.pool.inLineSince(task)
	case before != lane:
		it.since = now // behind all who wait now, but not behind those who come later
	}
	if it.failed.After(it.since) {
		it.since = it.failed
	}
	it.task, it.lane, it.parked = task, lane, false
	if before != nil && before != lane {
		q.drop(before, now)
	}
	switch {
	case waits && it.isPostponed(now):
		if it.postponed.Person {
			q.sayNow(it)
		} else {
			q.sayLater(it, now)
		}
	case waits && q.returned[it.key] != nil: // the others of its call are to be settled first
	case waits && it.suspects == 0:
		q.add(it)
		q.refresh(lane, now)
		if h := lane.pool.hold; h.Quota && h.at(now) {
			q.sayNow(it) // it will be a while
		} else {
			q.sayLater(it, now)
		}
	case !waits:
		q.acquit(it)
	}
}

// inLineSince is when a task joined the line: when it was created, or when its last
// call was made. So a task that takes many calls lets those who came meanwhile go
// before its next, and none who come later. One that the rest of the day's quota
// is not enough for lets those go as well who come within a day of its last call:
// they would wait for two days else, while it has all of each.
func (p *pool) inLineSince(task *v1alpha1.PrefetchTask) time.Time {
	jobs := task.Status.Jobs
	if len(jobs) == 0 || NewRun(task) {
		return task.CreationTimestamp.Time
	}
	since := jobs[len(jobs)-1].SubmitTime.Time
	if p.left >= 0 && p.left < len(Open(task)) || p.hold.Quota {
		since = since.Add(24 * time.Hour)
	}
	return since
}

// Delete tells the queue that a task is gone.
func (q *Queue) Delete(key types.NamespacedName, now time.Time) {
	q.letGo(key, now)
	delete(q.returned, key)
	delete(q.away, key)
	it := q.items[key]
	if it == nil {
		return
	}
	if it.inFlight {
		it.deleted = true
		q.acquit(it)
		return
	}
	q.remove(it, now)
}

func (q *Queue) remove(it *item, now time.Time) {
	if it == nil {
		return
	}
	q.acquit(it)
	q.take(it)
	it.deleted = true
	delete(q.items, it.key)
	delete(q.postponed, it)
	delete(q.returned, it.key)
	if it.lane != nil {
		q.drop(it.lane, now)
	}
}

// laneFor is the lane that a task belongs in: one of its namespace alone while that is
// kept apart.
func (q *Queue) laneFor(task *v1alpha1.PrefetchTask, now time.Time) *lane {
	key := laneOf(task)
	if p := q.pools[poolKey{key.ZoneID, key.Edge}]; p != nil && p.tenants[task.Namespace].isApart(now) {
		key.apart = task.Namespace
	}
	return q.lane(key)
}

func (q *Queue) lane(key Lane) *lane {
	l := q.lanes[key]
	if l == nil {
		l = &lane{Lane: key, pool: q.pool(key.ZoneID, key.Edge), strands: map[string]*strand{}}
		l.pool.lanes[l] = true
		if key.apart != "" {
			l.tenant = q.tenant(l.pool, key.apart)
			l.tenant.lanes[l] = true
		}
		q.lanes[key] = l
	}
	return l
}

// drop forgets a lane that nobody uses and nothing is remembered about.
func (q *Queue) drop(l *lane, now time.Time) {
	used := len(l.strands) > 0 || l.busy || l.testing || len(l.suspects) > 0 || len(l.postponed) > 0
	if q.lanes[l.Lane] == l && !used && l.unknown == 0 && !l.hold.at(now) {
		q.setReady(l, false)
		delete(q.lanes, l.Lane)
		delete(l.pool.lanes, l)
		if l.tenant != nil {
			delete(l.tenant.lanes, l)
			q.dropTenant(l.tenant, now)
		}
		q.dropPool(l.pool, now)
	}
}

// claim is a call whose outcome is open: the URLs it may have submitted, and the
// tasks that wait for it because they want one of them.
type claim struct {
	id      string
	zoneID  string
	urls    []string // as Normalize gives them
	parked  []*item
	resume  []func()  // for groups of suspects that wait for it
	holders int       // tasks that carry it
	lane    *lane     // of a call of this queue whose answer was lost
	until   time.Time // when it ends without being settled
}

// holder is a task that carries a claim. Another task of the same name tells nothing
// of what became of that claim.
type holder struct {
	uid   types.UID
	claim string
}

// Hold keeps tasks that share a URL with the claim out of calls until Settled,
// so that a job found later is this claim's beyond doubt. A claim that is not
// settled in time, because only a person can settle it, ends by itself: jobs made
// from then on are too late to be taken for its own.
func (q *Queue) Hold(claimID, zoneID string, urls []string, now time.Time) {
	c := q.claims[claimID]
	if c == nil {
		c = &claim{id: claimID, zoneID: zoneID}
		q.claims[claimID] = c
	}
	c.until = now.Add(q.limits.SettleTime)
	q.expireAt(c.until, func(now time.Time) { q.endClaim(claimID, now) })
	for _, u := range urls {
		u = q.limits.Normalize(u)
		if !slices.Contains(q.wanted[u], c) {
			q.wanted[u] = append(q.wanted[u], c)
			c.urls = append(c.urls, u)
		}
	}
}

// endClaim ends the effect of a claim that was not settled in time.
func (q *Queue) endClaim(claimID string, now time.Time) {
	if c := q.claims[claimID]; c != nil && !now.Before(c.until) {
		q.Settled(claimID, now)
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
		q.letGo(key, now) // it was made again
	}
	switch {
	case submission == nil:
		if c := q.letGo(key, now); c != nil && c.holders == 0 {
			q.Settled(c.id, now)
			return true
		}
		return false
	case q.holders[key].claim == submission.ClaimID || NewRun(task) || Unresolved(task) || IsElided(task):
		return false // the task does not say which URLs the claim is for
	}
	q.letGo(key, now)
	targets := Targets(task)
	var urls []string
	for _, i := range Covered(submission.Targets, len(targets)) {
		urls = append(urls, targets[i])
	}
	q.Hold(submission.ClaimID, submission.ZoneID, urls, now)
	q.holders[key] = holder{task.UID, submission.ClaimID}
	q.claims[submission.ClaimID].holders++
	return false
}

// letGo forgets which claim a task carries, and returns that claim.
func (q *Queue) letGo(key types.NamespacedName, now time.Time) *claim {
	q.settle(key, now)
	c := q.claims[q.holders[key].claim]
	if c != nil {
		c.holders--
	}
	delete(q.holders, key)
	return c
}

// Settled ends the effect of a claim.
func (q *Queue) Settled(claimID string, now time.Time) {
	c := q.claims[claimID]
	if c == nil {
		return
	}
	delete(q.claims, claimID)
	for _, u := range c.urls {
		q.wanted[u] = slices.DeleteFunc(q.wanted[u], func(other *claim) bool { return other == c })
		if len(q.wanted[u]) == 0 {
			delete(q.wanted, u)
		}
	}
	if l := c.lane; l != nil {
		l.unknown--
		q.refresh(l, now)
		q.drop(l, now)
	}
	for _, it := range c.parked {
		if it.parked && q.items[it.key] == it {
			q.place(it, it.task, Waiting(it.task), now)
		}
	}
	for _, resume := range c.resume {
		resume()
	}
}

// park takes an item out of the line if a claim may have one of its URLs.
func (q *Queue) park(it *item, open Positions, targets []string) bool {
	c := q.claimOn(it, open, targets)
	if c == nil {
		return false
	}
	q.take(it)
	it.parked = true
	c.parked = append(c.parked, it)
	return true
}

// claimOn returns a claim that may have one of an item's URLs; nil if there is none. One
// of its own does not count, it is of the run before.
func (q *Queue) claimOn(it *item, open Positions, targets []string) *claim {
	if len(q.wanted) == 0 {
		return nil
	}
	own := it.task.Status.Submission
	for _, i := range open {
		for _, c := range q.wanted[q.limits.Normalize(targets[i])] {
			if it.lane.SharesZone(Lane{ZoneID: c.zoneID}) && (own == nil || own.ClaimID != c.id) {
				return c
			}
		}
	}
	return nil
}
