package schedule

import "time"

// maxReads is how many quotas of an account are read at once. What one namespace asks
// for does not keep another's zone waiting for longer than that.
const maxReads = 4

// reads are the readings of quotas: those under way, and the zones whose turn is to come,
// by the namespaces that have tasks there. Namespaces are taken in turn; zones in which
// EdgeOne has accepted a call go first.
type reads struct {
	underWay map[string]bool // by zone
	proven   []*pool
	others   InTurn[*pool]
}

// queueRead has the quota of a zone read when its turn comes.
func (q *Queue) queueRead(p *pool) {
	if p.queued || q.reads.underWay[p.zoneID] {
		return
	}
	p.queued = true
	if p.proven {
		q.reads.proven = append(q.reads.proven, p)
		return
	}
	for l := range p.lanes {
		for name := range l.strands {
			q.reads.others.Push(name, p)
		}
		for _, g := range l.suspects {
			q.reads.others.Push(g[0].item.key.Namespace, p)
		}
	}
}

// nextRead is the next reading, if there may be one more.
func (q *Queue) nextRead(now time.Time) Decision {
	r := &q.reads
	for len(r.underWay) < maxReads {
		p := r.next()
		if p == nil {
			return Decision{}
		}
		if !p.queued || q.pools[p.poolKey] != p {
			continue // it was the turn of another namespace with tasks in the zone
		}
		if p.queued = false; !q.hasTasks(p.zoneID) {
			q.reading(p.zoneID, false, now)
			q.dropPool(p, now)
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
		if p := q.pools[poolKey{zoneID, edge}]; p != nil && len(p.lanes) > 0 {
			return true
		}
	}
	return false
}

func (r *reads) next() *pool {
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

func (r *reads) ended(zoneID string) { delete(r.underWay, zoneID) }
