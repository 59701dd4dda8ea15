package faults

import (
	"context"
	"sync"
	"sync/atomic"
)

// Hold stops the requests that m selects before they reach the API server. When released,
// they reach it late, even if the client has given up; only a watch ends with its client.
// With the verb "event", Hold stops the watches themselves at their next event. Nothing
// more gets through until the release, so the client's cache becomes stale.
func (p *Proxy) Hold(m Match) *Held { return p.hold(m, atRequest) }

// HoldAnswer stops the requests that m selects after the API server has executed them.
func (p *Proxy) HoldAnswer(m Match) *Held { return p.hold(m, atAnswer) }

func (p *Proxy) hold(m Match, at stage) *Held {
	return p.addFault(Fault{m, Effect{hold: at}}).held
}

// Held represents the requests, or watches, that Hold or HoldAnswer has stopped.
type Held struct {
	p                 *Proxy
	id                int
	arrived, released chan struct{}
	arrive, release   sync.Once
	dropped           bool
	waiting           atomic.Int32
}

// Arrived returns a channel that is closed when the first request is held.
func (h *Held) Arrived() <-chan struct{} { return h.arrived }

// Waiting returns how many requests are held now.
func (h *Held) Waiting() int { return int(h.waiting.Load()) }

// Taken returns how many requests have been held so far.
func (h *Held) Taken() int { return h.p.Taken(h.id) }

// Release lets the held requests continue, and ends the fault.
func (h *Held) Release() { h.p.RemoveFault(h.id) }

// Drop closes the connections of the held requests, and ends the fault.
func (h *Held) Drop() {
	h.end(false)
	h.p.RemoveFault(h.id)
}

func (h *Held) end(goOn bool) {
	h.release.Do(func() {
		h.dropped = !goOn
		close(h.released)
	})
}

// wait blocks until the request is released or dropped. It returns true if the request may
// continue.
func (h *Held) wait(ctx context.Context) bool {
	h.waiting.Add(1)
	defer h.waiting.Add(-1)
	h.arrive.Do(func() { close(h.arrived) })
	select {
	case <-h.released:
		return !h.dropped
	case <-ctx.Done():
		return false
	}
}
