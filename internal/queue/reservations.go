package queue

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// reservation is a call whose outcome is open: the URLs that it may have submitted, and
// the tasks that wait because they want one of these URLs.
type reservation struct {
	id        string
	zoneID    string
	urls      []string // as Limits.Normalize returns them
	blocked   []*queueItem
	onRelease []func()   // resume the suspect groups that wait for it
	holders   int        // number of tasks that carry the claim
	lane      *laneState // the lane that counts the lost call of this queue, if any
	until     time.Time  // when it ends without being settled
}

// claimHolder is a task that carries a claim. A recreated task of the same name has
// another UID and says nothing about the outcome of the claim.
type claimHolder struct {
	uid   types.UID
	claim string
}

// ReserveURLs keeps tasks that share a URL with the claim out of calls until ReleaseURLs,
// so that a job found later belongs to this claim beyond doubt. A claim that is not
// settled within SettleTime, because that needs user action, ends automatically: any
// later job is too late to count as the claim's own.
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

// expireReservation ends the reservation of a claim that was not settled in time.
func (q *Queue) expireReservation(claimID string, now time.Time) {
	if c := q.reservations[claimID]; c != nil && !now.Before(c.until) {
		q.ReleaseURLs(claimID, now)
	}
}

// trackClaim tracks which claim a task carries. Claims of calls that another process made
// reserve URLs as well, and end when the last task that carries them is settled. If that
// task is deleted, or a new run replaces the claim, nobody determines the outcome of the
// call: the claim then reserves its URLs for the whole SettleTime. trackClaim returns
// whether a claim has ended.
func (q *Queue) trackClaim(key types.NamespacedName, task *v1alpha1.PrefetchTask, now time.Time) (ended bool) {
	submission := task.Status.Submission
	if q.holders[key].uid != task.UID {
		q.detachClaim(key, now) // the task was recreated
	}
	switch {
	case submission == nil:
		if c := q.detachClaim(key, now); c != nil && c.holders == 0 {
			q.ReleaseURLs(c.id, now)
			return true
		}
		return false
	case q.holders[key].claim == submission.ClaimID || taskstate.IsNewRun(task) || taskstate.IsUnresolved(task) || taskstate.IsElided(task):
		return false // the task does not say which URLs the claim is for
	}
	q.detachClaim(key, now)
	targets := taskstate.DistinctTargets(task)
	var urls []string
	for _, i := range taskstate.CoveredPositions(submission.Targets, len(targets)) {
		urls = append(urls, targets[i])
	}
	q.ReserveURLs(submission.ClaimID, submission.ZoneID, urls, now)
	q.holders[key] = claimHolder{task.UID, submission.ClaimID}
	q.reservations[submission.ClaimID].holders++
	return false
}

// detachClaim forgets which claim a task carries, and returns that claim or nil.
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
// for it return to the queue.
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
			q.placeItem(it, it.task, taskstate.IsWaiting(it.task), now)
		}
	}
	for _, resume := range c.onRelease {
		resume()
	}
}

// blockItem removes an item from its namespace queue if a claim may have one of its URLs,
// and says whether it did.
func (q *Queue) blockItem(it *queueItem, open taskstate.Positions, targets []string) bool {
	c := q.findReservation(it, open, targets)
	if c == nil {
		return false
	}
	q.removeFromLine(it)
	it.blocked = true
	c.blocked = append(c.blocked, it)
	return true
}

// findReservation returns a claim that may have one of an item's URLs, or nil. The task's
// own claim does not count, because it is from the run before.
func (q *Queue) findReservation(it *queueItem, open taskstate.Positions, targets []string) *reservation {
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
