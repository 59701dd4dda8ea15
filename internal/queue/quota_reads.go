package queue

import "time"

// maxQuotaReads is how many quotas of an account are read at the same time. The zones of
// one namespace cannot delay the zone of another namespace for longer than these reads
// take.
const maxQuotaReads = 4

// quotaReads holds the quota reads in flight, and the zones that wait for a read, by the
// namespaces with tasks there. Namespaces take turns; zones in which EdgeOne has accepted
// a call go first.
type quotaReads struct {
	underWay map[string]bool // by zone
	proven   []*zoneQuota
	others   RoundRobin[*zoneQuota]
}

// enqueueQuotaRead queues a read of the zone's quota. The zone waits once in each
// namespace with tasks there, so the first of their turns reads it.
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
}

// planQuotaRead returns the next quota read, if one more may start.
func (q *Queue) planQuotaRead(now time.Time) Decision {
	r := &q.quotaReads
	for len(r.underWay) < maxQuotaReads {
		p := r.popMode()
		if p == nil {
			return Decision{}
		}
		if !p.readQueued || q.zoneQuotas[p.zoneMode] != p {
			continue // another namespace with tasks in the zone had its turn first
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

// hasTasks says whether the queue has tasks of a zone, in either mode.
func (q *Queue) hasTasks(zoneID string) bool {
	for _, edge := range []bool{false, true} {
		if p := q.zoneQuotas[zoneMode{zoneID, edge}]; p != nil && len(p.lanes) > 0 {
			return true
		}
	}
	return false
}

// popMode removes and returns the next mode of a zone that waits for a read, or nil.
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
