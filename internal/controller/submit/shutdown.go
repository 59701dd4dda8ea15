package submit

import (
	"context"
	"sync"
	"time"
)

// InFlightCalls knows the calls that this process is making. It lets no new call start once the
// process is stopping.
type InFlightCalls struct {
	mu       sync.Mutex
	stopping bool
	open     sync.WaitGroup
	claims   map[string]bool
}

// Start registers a claim, unless the process is stopping.
func (c *InFlightCalls) Start(claimID string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping {
		return false
	}
	if c.claims == nil {
		c.claims = map[string]bool{}
	}
	c.claims[claimID] = true
	c.open.Add(1)
	return true
}

// IsStopping says whether the process is stopping.
func (c *InFlightCalls) IsStopping() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopping
}

// End ends a call that was started.
func (c *InFlightCalls) End(claimID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.claims, claimID)
	c.open.Done()
}

// IsInFlight says whether this process is still making the claim's call.
func (c *InFlightCalls) IsInFlight(claimID string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.claims[claimID]
}

// ShutdownGate waits for calls in flight before the lease is given up, so that a rolling
// update leaves nothing to settle.
type ShutdownGate struct {
	Calls  *InFlightCalls
	Grace  time.Duration      // for how long it waits
	Cancel context.CancelFunc // called when the calls have ended, or the grace has
}

// Start waits until the process stops, and then for the calls.
func (g ShutdownGate) Start(ctx context.Context) error {
	<-ctx.Done()
	g.Calls.mu.Lock()
	g.Calls.stopping = true
	g.Calls.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.Calls.Wait()
	}()
	select {
	case <-done:
	case <-time.After(g.Grace):
	}
	g.Cancel()
	return nil
}

// Wait waits until no call is in flight.
func (c *InFlightCalls) Wait() { c.open.Wait() }
