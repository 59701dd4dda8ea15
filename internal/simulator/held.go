package simulator

import (
	"sync"
	"sync/atomic"
)

// Held are the calls that a hold stopped.
type Held struct {
	s                 *Simulator
	id                int
	arrived, released chan struct{}
	arrive, release   sync.Once
	dropped           bool
	waiting           atomic.Int32
}

// Arrived is closed when the first call is held.
func (h *Held) Arrived() <-chan struct{} { return h.arrived }

// Waiting returns how many calls are held now.
func (h *Held) Waiting() int { return int(h.waiting.Load()) }

// Release lets the held calls go on, and ends the hold.
func (h *Held) Release() { h.s.RemoveFault(h.id) }

// Drop ends the held calls where they are: their connections close. Then the
// hold ends.
func (h *Held) Drop() {
	h.end(false)
	h.s.RemoveFault(h.id)
}

func (h *Held) end(goOn bool) {
	h.release.Do(func() {
		h.dropped = !goOn
		close(h.released)
	})
}

// wait returns true when the call may go on.
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
