package queue

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// reservation is a call whose outcome is open. It holds the URLs that the call may have
// submitted, and the tasks that wait because they have one of these URLs as a target.
type reservation struct {
	id        string
	zoneID    string
	purge     v1alpha1.PurgeType              // what it purges; "" if it prefetches
	urls      []string                        // as Limits.Normalize returns them; none if it is wide
	purged    map[string]bool                 // what a wide reservation purges
	blocked   []*queueItem                    // items that wait for the claim
	onRelease []func()                        // resume the suspect groups that wait for the claim
	inFlight  bool                            // this process is making the call, so its answer is due
	owners    map[string]types.NamespacedName // by URL; the first known task that carries the claim for it
	holders   int                             // number of tasks that carry the claim
	lane      *laneState                      // the lane in whose unknownCalls the call counts, if any
	until     time.Time                       // when the reservation expires if the claim is not settled
}

// claimHolder identifies a task that carries a claim. A recreated task with the same name
// has another UID, and its status is no evidence for the outcome of the claim.
type claimHolder struct {
	uid   types.UID
	claim string
}

// ReserveURLs keeps tasks that have one of the URLs as a target, in the same zone, out of
// calls until ReleaseURLs. A job that is found later then certainly belongs to this
// claim. A claim may stay unsettled because settling it needs user action. Such a
// reservation expires after SettleTime: a job that EdgeOne creates after that time is too
// late to belong to the claim.
func (q *Queue) ReserveURLs(claimID, zoneID string, urls []string, now time.Time) {
	q.reserve(reservation{id: claimID, zoneID: zoneID}, urls, now)
}

// ReservePurge is ReserveURLs for a purge of some type. It lasts longer, because the purge must
// also have ended: it would delete what a prefetch has fetched before.
func (q *Queue) ReservePurge(claimID, zoneID string, purge v1alpha1.PurgeType, targets []string, now time.Time) {
	q.reserve(reservation{id: claimID, zoneID: zoneID, purge: purge}, targets, now)
}

// reserve adds URLs to a reservation, and creates it if necessary.
func (q *Queue) reserve(held reservation, urls []string, now time.Time) {
	c := q.reservations[held.id]
	if c == nil {
		held.owners = map[string]types.NamespacedName{}
		c = &held
		q.reservations[c.id] = c
	}
	c.until = now.Add(q.limits.SettleTime)
	if c.purge != "" {
		c.until = c.until.Add(q.limits.PurgeTime)
	}
	q.runAt(c.until, func(now time.Time) { q.expireReservation(c.id, now) })
	if c.isWide() {
		c.setPurged(urls, q.limits.Normalize)
		q.widePurges[c.id] = c
		return
	}
	for _, u := range urls {
		u = q.limits.Normalize(u)
		if !slices.Contains(q.reservedURLs[u], c) {
			q.reservedURLs[u] = append(q.reservedURLs[u], c)
			c.urls = append(c.urls, u)
		}
	}
}

// expireReservation ends the reservation of a claim that was not settled in time. It does
// nothing if the reservation was extended.
func (q *Queue) expireReservation(claimID string, now time.Time) {
	if c := q.reservations[claimID]; c != nil && !now.Before(c.until) {
		q.ReleaseURLs(claimID, now)
	}
}

// trackClaim records which claim a task carries. Claims that another process wrote also
// reserve their URLs. A claim ends when the last task that carries it is settled. If that
// task is deleted, or a new run replaces the claim, no status records the outcome of the
// call: the claim then reserves its URLs for the whole SettleTime. trackClaim returns
// whether a claim has ended.
func (q *Queue) trackClaim(key types.NamespacedName, task *v1alpha1.PrefetchTask, now time.Time) (ended bool) {
	q.trackPromise(key, task, now)
	held, targets := heldCallOf(task)
	if q.limits.Kind == v1alpha1.JobPurge && held.purge == "" {
		held = reservation{} // a purge waits for no prefetch: the copy of that may come minutes later
	}
	if q.holders[key].uid != task.UID {
		q.abandonClaim(key, now) // the task was recreated
	}
	switch {
	case held.id == "":
		switch c := q.detachClaim(key, now); {
		case c == nil:
		case c.holders == 0:
			q.ReleaseURLs(c.id, now)
			return true
		case taskstate.HasEndedPurge(task, c.id):
			q.releasePart(c, key, now)
			return true
		}
		return false
	case q.holders[key].claim == held.id || targets == nil:
		return false // the claim is already known, or the task does not show its URLs
	}
	q.detachClaim(key, now)
	q.reserve(held, targets, now)
	q.holders[key] = claimHolder{task.UID, held.id}
	c := q.reservations[held.id]
	c.holders++
	// The names and not the tasks: a task may have a long target list, which the claim must
	// not keep in memory.
	for _, u := range targets {
		if u = q.limits.Normalize(u); c.owners[u].Name == "" {
			c.owners[u] = key
		}
	}
	return false
}

// abandonClaim is detachClaim for a task that is gone. No status shows when its call ends, so
// its URLs stay reserved for a while.
func (q *Queue) abandonClaim(key types.NamespacedName, now time.Time) {
	if c := q.detachClaim(key, now); c != nil && c.holders == 0 && c.until.After(now.Add(q.limits.SettleTime)) {
		c.until = now.Add(q.limits.SettleTime)
		q.runAt(c.until, func(now time.Time) { q.expireReservation(c.id, now) })
	}
}

// detachClaim removes the link from a task to the claim that it carries. It returns that
// claim, or nil.
func (q *Queue) detachClaim(key types.NamespacedName, now time.Time) *reservation {
	q.settlePart(key, now)
	c := q.reservations[q.holders[key].claim]
	if c != nil {
		c.holders--
	}
	delete(q.holders, key)
	return c
}

// ReleaseURLs ends the reservation of a claim. The tasks and suspect groups that waited
// for the claim return to the queue.
func (q *Queue) ReleaseURLs(claimID string, now time.Time) {
	c := q.reservations[claimID]
	if c == nil {
		return
	}
	delete(q.reservations, claimID)
	delete(q.widePurges, claimID)
	for _, u := range c.urls {
		q.unreserve(c, u)
	}
	if l := c.lane; l != nil {
		l.unknownCalls--
		q.refreshLane(l, now)
		q.dropLane(l, now)
	}
	q.resumeBlocked(c, now)
	for _, resume := range c.onRelease {
		resume()
	}
}

// releasePart ends the reservation of a task's URLs in a purge, which has ended for them. Other tasks
// of the call may wait for long.
func (q *Queue) releasePart(c *reservation, key types.NamespacedName, now time.Time) {
	c.urls = slices.DeleteFunc(c.urls, func(u string) bool {
		if c.owners[u] != key {
			return false
		}
		q.unreserve(c, u)
		return true
	})
	for u, owner := range c.owners {
		if owner == key {
			delete(c.owners, u)
			delete(c.purged, u)
		}
	}
	q.retryBlocked(c, now)
}

// unreserve removes a URL from what claims reserve.
func (q *Queue) unreserve(c *reservation, url string) {
	q.reservedURLs[url] = slices.DeleteFunc(q.reservedURLs[url], func(other *reservation) bool { return other == c })
	if len(q.reservedURLs[url]) == 0 {
		delete(q.reservedURLs, url)
	}
}

// resumeBlocked returns the items that wait for a claim to the queue. If the call of the
// claim was lost and is settled, they wait until it is bisected. If it was not executed,
// its tasks and the items that want the same URLs share the next call.
func (q *Queue) resumeBlocked(c *reservation, now time.Time) {
	blocked := c.blocked
	c.blocked = nil
	i := slices.IndexFunc(q.settledCalls, func(lost *lostCall) bool { return lost.claimID == c.id })
	for _, it := range blocked {
		switch {
		case it.blockedBy != c || q.items[it.key] != it:
		case i >= 0:
			it.blockedBy = nil
			q.returnedCalls[it.key] = q.settledCalls[i]
			q.settledCalls[i].waiting = append(q.settledCalls[i].waiting, it)
		default:
			q.placeItem(it, it.task, q.isWaiting(it.task), now)
		}
	}
}

// takeUnreserved returns the open positions of an item whose URLs no claim may have
// submitted. The other URLs wait for the claim. If no position is left, or a call in flight
// has one of the URLs, takeUnreserved removes the item from its namespace queue until the
// claim ends. The answer to a call in flight is due, and one call for all of the item's
// URLs is cheaper than two.
func (q *Queue) takeUnreserved(it *queueItem, open taskstate.Positions, targets []string) taskstate.Positions {
	if !q.hasReservations() {
		return open
	}
	var free taskstate.Positions
	var by *reservation
	for _, i := range open {
		c := q.reservationOf(it, targets[i])
		switch {
		case c == nil:
			free = append(free, i)
		case by == nil || c.inFlight:
			by = c
		}
	}
	if by == nil || len(free) > 0 && !by.inFlight {
		return free
	}
	q.removeFromLine(it)
	it.blockedBy = by
	by.blocked = append(by.blocked, it)
	return nil
}

// findReservation returns a claim that may have submitted one of an item's URLs, or nil.
func (q *Queue) findReservation(it *queueItem, open taskstate.Positions, targets []string) *reservation {
	if !q.hasReservations() {
		return nil
	}
	for _, i := range open {
		if c := q.reservationOf(it, targets[i]); c != nil {
			return c
		}
	}
	return nil
}

// hasReservations reports whether any URL is reserved.
func (q *Queue) hasReservations() bool { return len(q.reservedURLs)+len(q.widePurges) > 0 }

// reservationOf returns a claim that may have submitted a URL of an item, or a purge under way
// that may delete it, or nil. It ignores the claim that the task itself carries: that claim is
// from the previous run, or the purge does not concern the open targets of the task.
func (q *Queue) reservationOf(it *queueItem, url string) *reservation {
	own := it.task.Status.Submission
	isOthers := func(c *reservation) bool {
		isOwn := own != nil && own.ClaimID == c.id || q.holders[it.key].claim == c.id
		return it.lane.SharesZone(BatchKey{ZoneID: c.zoneID}) && !isOwn
	}
	url = q.limits.Normalize(url)
	for _, c := range q.reservedURLs[url] {
		if isOthers(c) {
			return c
		}
	}
	for _, c := range q.widePurges {
		if isOthers(c) && c.covers(url) {
			return c
		}
	}
	return nil
}

// StartCall reserves the URLs of a call that the caller is about to make.
func (q *Queue) StartCall(call *Call, claimID string, now time.Time) {
	q.reserve(reservation{id: claimID, zoneID: call.Lane.ZoneID, purge: call.Lane.PurgeType}, call.URLs, now)
	q.reservations[claimID].inFlight = true
}

// loseReservation records that no answer to a call is due, because it was lost or has come. Items that waited for the
// answer may submit their other URLs now.
func (q *Queue) loseReservation(claimID string, now time.Time) {
	c := q.reservations[claimID]
	c.inFlight = false
	q.retryBlocked(c, now)
}

// retryBlocked lets the items that wait for a claim take the URLs that it does not reserve.
func (q *Queue) retryBlocked(c *reservation, now time.Time) {
	blocked := c.blocked
	c.blocked = nil
	for _, it := range blocked {
		if it.blockedBy == c && q.items[it.key] == it {
			q.placeItem(it, it.task, q.isWaiting(it.task), now)
		}
	}
}

// maxShownURL bounds a URL in a message, in bytes.
const maxShownURL = 256

// blockedMessage explains which call an item waits for: the URL that both have, the task
// of the call, and until when. It does not name tasks of other namespaces.
func (q *Queue) blockedMessage(it *queueItem) string {
	c, url, targets := it.blockedBy, "", q.targetsOf(it.task)
	for _, i := range q.openPositions(it.task) {
		if q.reservationOf(it, targets[i]) == c {
			url = targets[i]
			break
		}
	}
	owner := "another task"
	switch key := c.owners[q.limits.Normalize(url)]; {
	case key.Name == "":
	case key.Namespace == it.key.Namespace:
		owner = "task " + key.Name
	default:
		owner = "a task in another namespace"
	}
	call := "call"
	if c.purge != "" {
		call = "purge"
	}
	return fmt.Sprintf("Waiting for the outcome of a %s of %s with the same URL %s, until %s at the latest",
		call, owner, taskstate.TruncateMessage(url, maxShownURL), c.until.UTC().Format(time.RFC3339))
}
