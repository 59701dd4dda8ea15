package queue

import "time"

// maxQuotaReads is the maximum number of simultaneous quota reads of an account. The
// zones of one namespace can delay the zone of another namespace only until one of these
// reads ends.
const maxQuotaReads = 4

// quotaReads holds the quota reads in flight, and the zones that wait for a read. Zones
// in which EdgeOne has accepted a call go first. The other zones are ordered by the
// namespaces with tasks there, which take turns.
type quotaReads struct {
	underWay map[string]bool        // zones whose quota is being read
	proven   []*zoneQuota           // EdgeOne has accepted a call there
	others   RoundRobin[*zoneQuota] // by namespace
}

// enqueueQuotaRead queues a read of the zone's quota. The zone waits once for each
// namespace with tasks there, so that the first of these namespaces to have its turn
// starts the read.
func (q *Queue) enqueueQuotaRead(p *zoneQuota) {
	if p.readQueued || q.quotaReads.underWay[p.zoneID] {
		return
	}
	p.readQueued = true
	if p.proven {
		q.quotaReads.proven = append(q.quotaReads.proven, p)
		return
	}
	for l := range p.lanes {
		for name := range l.queues {
			q.quotaReads.others.Push(name, p)
		}
		for _, g := range l.suspects {
			q.quotaReads.others.Push(g[0].item.key.Namespace, p)
		}
	}
	for it := range q.denied { // they are in no queue of a lane
		if it.denied.Quota && it.lane.pool == p {
			q.quotaReads.others.Push(it.key.Namespace, p)
		}
	}
}

// planQuotaRead returns the next quota read, if fewer than maxQuotaReads are in flight.
func (q *Queue) planQuotaRead(now time.Time) Decision {
	r := &q.quotaReads
	for len(r.underWay) < maxQuotaReads {
		p := r.popMode()
		if p == nil {
			return Decision{}
		}
		if !p.readQueued || q.zoneQuotas[p.zoneMode] != p {
			continue // another namespace with tasks in the zone had the read first
		}
		// No task needs the quota any more: end the wait without a read.
		if p.readQueued = false; !q.hasTasks(p.zoneID) {
			q.setQuotaReading(p.zoneID, false, now)
			q.dropZoneQuota(p, now)
			continue
		}
		if r.underWay == nil {
			r.underWay = map[string]bool{}
		}
		r.underWay[p.zoneID] = true
		return Decision{ReadQuota: p.zoneID}
	}
	return Decision{}
}

// hasTasks reports whether the queue has tasks of a zone, in either mode.
func (q *Queue) hasTasks(zoneID string) bool {
	for _, mode := range q.modesOf(zoneID) {
		if p := q.zoneQuotas[mode]; p != nil && len(p.lanes) > 0 {
			return true
		}
	}
	for it := range q.denied {
		if it.denied.Quota && it.lane.ZoneID == zoneID {
			return true
		}
	}
	return false
}

// popMode removes and returns the next mode of a zone that waits for a read, or nil if
// none waits.
func (r *quotaReads) popMode() *zoneQuota {
	if len(r.proven) > 0 {
		p := r.proven[0]
		r.proven = r.proven[1:]
		return p
	}
	if r.others.IsEmpty() {
		return nil
	}
	return r.others.Pop()
}

// endRead records that the read of a zone's quota has ended.
func (r *quotaReads) endRead(zoneID string) { delete(r.underWay, zoneID) }
