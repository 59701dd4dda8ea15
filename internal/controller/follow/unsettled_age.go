package follow

import (
	"time"
)

// UnsettledAges returns by zone the age of the oldest call of unknown outcome, by EdgeOne's
// time; 0 if the zone has none.
func (p *Poller) UnsettledAges(time.Time) map[string]time.Duration {
	now := p.EdgeOne.ServerTime()
	p.mu.Lock()
	defer p.mu.Unlock()
	ages := map[string]time.Duration{}
	for z, work := range p.zones {
		oldest := ages[z.ID]
		for _, task := range work.tasks {
			if claim := task.Status.Submission; claim != nil && !p.isCallInFlight(task) {
				oldest = max(oldest, now.Sub(claim.SignedAt.Time))
			}
		}
		ages[z.ID] = oldest
	}
	return ages
}
