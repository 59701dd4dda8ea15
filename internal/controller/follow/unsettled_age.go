package follow

import (
	"time"
)

// UnsettledAges returns the age of the oldest call of unknown outcome by zone ID. The age
// counts by EdgeOne's time. It is 0 if the zone has no such call. Calls that this process
// is still making do not count.
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
