package faults

import (
	"context"
	"sync"
	"sync/atomic"
)

// Hold stops the requests that m selects before the API server sees them:
// released, they arrive late. A client that gave up does not keep a request from
// arriving, unless it is a watch. With the verb "event" it stops the watches
// themselves at their next event, and nothing more comes through until the
// release: the client's cache grows stale.
func (p *Proxy) Hold(m Match) *Held { return p.hold(m, atRequest) }

// HoldAnswer stops the requests that m selects after they were executed.
func (p *Proxy) HoldAnswer(m Match) *Held { return p.hold(m, atAnswer) }

func (p *Proxy) hold(m Match, at stage) *Held {
	return p.addFault(Fault{m, Effect{hold: at}}).held
}

// Held are the requests, or watches, that a hold stopped.
type Held struct {
	p                 *Proxy
	id                int
	arrived, released chan struct{}
	arrive, release   sync.Once
	dropped           bool
	waiting           atomic.Int32
}

// Arrived is closed when the first request is held.
func (h *Held) Arrived() <-chan struct{} { return h.arrived }

// Waiting returns how many requests are held now.
func (h *Held) Waiting() int { return int(h.waiting.Load()) }

// Taken returns how many requests were held.
func (h *Held) Taken() int { return h.p.Taken(h.id) }

// Release lets what is held continue, and ends the hold.
func (h *Held) Release() { h.p.RemoveFault(h.id) }

// Drop ends what is held where it is: the connections close. Then the hold ends.
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

// wait returns true when the request may continue.
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
