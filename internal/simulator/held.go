package simulator

import (
	"sync"
	"sync/atomic"
)

// Held is a hold and the calls that it stops.
type Held struct {
	s                 *Simulator
	id                int
	arrived, released chan struct{}
	arrive, release   sync.Once
	dropped           bool
	waiting           atomic.Int32
}

// Arrived returns a channel that is closed when the first call is held.
func (h *Held) Arrived() <-chan struct{} { return h.arrived }

// Waiting returns how many calls are held now.
func (h *Held) Waiting() int { return int(h.waiting.Load()) }

// Release ends the hold, and the held calls continue.
func (h *Held) Release() { h.s.RemoveFault(h.id) }

// Drop ends the hold and the held calls, whose connections close.
func (h *Held) Drop() {
	h.end(false)
	h.s.RemoveFault(h.id)
}

// end releases the held calls if goOn is true, and drops them otherwise. Only its first
// call counts.
func (h *Held) end(goOn bool) {
	h.release.Do(func() {
		h.dropped = !goOn
		close(h.released)
	})
}

// wait holds a call. It returns true if the call continues, and false if it was dropped
// or the simulator is closed.
func (h *Held) wait(closed <-chan struct{}) bool {
	h.waiting.Add(1)
	defer h.waiting.Add(-1)
	h.arrive.Do(func() { close(h.arrived) })
	select {
	case <-h.released:
		return !h.dropped
	case <-closed:
		return false
	}
}
