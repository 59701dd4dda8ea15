package queue

import "time"

// maxQuotaReads is how many quotas of an account are read at once. What one namespace asks
// for does not keep another's zone waiting for longer than that.
const maxQuotaReads = 4

// quotaReads are the readings of quotas: those under way, and the zones whose turn is to come,
// by the namespaces that have tasks there. Namespaces are taken in turn; zones in which
// EdgeOne has accepted a call go first.
type quotaReads struct {
	underWay map[string]bool // by zone
	proven   []*zoneQuota
	others   RoundRobin[*zoneQuota]
}

// enqueueQuotaRead has the quota of a zone read when its turn comes.
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

// planQuotaRead is the next reading, if there may be one more.
func (q *Queue) planQuotaRead(now time.Time) Decision {
	r := &q.quotaReads
	for len(r.underWay) < maxQuotaReads {
		p := r.popMode()
		if p == nil {
			return Decision{}
		}
		if !p.readQueued || q.zoneQuotas[p.zoneMode] != p {
			continue // it was the turn of another namespace with tasks in the zone
		}
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

// hasTasks says whether tasks of a zone are in the queue, in either mode.
func (q *Queue) hasTasks(zoneID string) bool {
	for _, edge := range []bool{false, true} {
		if p := q.zoneQuotas[zoneMode{zoneID, edge}]; p != nil && len(p.lanes) > 0 {
			return true
		}
	}
	return false
}

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

func (r *quotaReads) endRead(zoneID string) { delete(r.underWay, zoneID) }
