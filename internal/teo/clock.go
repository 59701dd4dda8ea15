package teo

import (
	"net/http"
	"sync"
	"time"
)

// serverClock estimates EdgeOne's clock, which decides when a signature has expired.
type serverClock struct {
	mu       sync.Mutex
	date     time.Time // as the server sent it
	received time.Time // when it arrived, with the monotonic reading
}

// now returns the estimate. It never runs ahead of the server: a Date is old when it
// arrives and is cut to whole seconds, and the monotonic clock stops while the machine
// sleeps.
func (c *serverClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.date.IsZero() {
		return time.Now()
	}
	return c.date.Add(time.Since(c.received))
}

// known says whether the clock has learned a Date.
func (c *serverClock) known() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.date.IsZero()
}

// learn sets the clock by the Date header of an answer. It ignores a malformed header.
func (c *serverClock) learn(date string, received time.Time) {
	t, err := http.ParseTime(date)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// The answer that arrived last counts, whatever the order in which the callers of
	// overlapping calls read their answers.
	if received.After(c.received) {
		c.date, c.received = t, received
	}
}
