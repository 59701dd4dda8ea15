package teo

import (
	"net/http"
	"sync"
	"time"
)

// serverClock estimates EdgeOne's clock, the one that decides when a signature
// has expired.
type serverClock struct {
	mu       sync.Mutex
	date     time.Time // as the server wrote it
	received time.Time // when it came, with the monotonic reading
}

// now never runs ahead of the server: a Date is old when it arrives and cut to
// whole seconds, and the monotonic clock does not count time asleep.
func (c *serverClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.date.IsZero() {
		return time.Now()
	}
	return c.date.Add(time.Since(c.received))
}

func (c *serverClock) known() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.date.IsZero()
}

func (c *serverClock) learn(date string, received time.Time) {
	t, err := http.ParseTime(date)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// Of calls that overlap, the answer that came last counts, even if its
	// reader comes first.
	if received.After(c.received) {
		c.date, c.received = t, received
	}
}
