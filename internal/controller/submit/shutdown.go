package submit

import (
	"context"
	"sync"
	"time"
)

// InFlightCalls tracks the calls that this process is making. It allows no new call once the
// process is stopping. Its zero value is ready to use.
type InFlightCalls struct {
	mu       sync.Mutex
	stopping bool
	open     sync.WaitGroup
	claims   map[string]bool
}

// Start registers the call of a claim. It returns false if the process is stopping: the caller
// must then not make the call. Otherwise, the caller must call End.
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

// IsStopping reports whether the process is stopping.
func (c *InFlightCalls) IsStopping() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopping
}

// End records the end of a call that Start registered.
func (c *InFlightCalls) End(claimID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.claims, claimID)
	c.open.Done()
}

// IsInFlight reports whether this process is still making the claim's call.
func (c *InFlightCalls) IsInFlight(claimID string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.claims[claimID]
}

// ShutdownGate delays the release of the lease until the calls in flight have ended, so that a
// rolling update leaves no calls to settle.
type ShutdownGate struct {
	Calls  *InFlightCalls
	Grace  time.Duration      // the longest wait
	Cancel context.CancelFunc // called when the calls have ended or Grace has passed
}

// Start blocks until ctx is done, and then until the calls have ended or Grace has passed.
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
