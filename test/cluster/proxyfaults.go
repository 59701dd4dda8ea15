package cluster

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// ProxyFault is a misbehaviour: what it befalls and what it does. When several
// befall a request, their delays and holds add up, and the first one that says
// something about the answer decides it.
type ProxyFault struct {
	Match  ProxyMatch
	Effect ProxyEffect
}

// ProxyMatch selects requests. All its conditions hold at once; the zero
// ProxyMatch selects every request. The verb "event" selects not requests but
// the events of watches, one by one.
type ProxyMatch struct {
	// Verb is get, list, watch, create, update, patch, delete, deletecollection,
	// or event. A client-go informer of today lists by a watch.
	Verb string
	// Resource is prefetchtasks, prefetchtasks/status, leases, secrets, …
	Resource        string
	Namespace, Name string // as in the request's path: a watch of all namespaces has none
	// Body is a text in the body of the request, or in the event.
	Body string

	// Of the requests that fit so far: Nth is the only one, counted from 1;
	// Every takes each n-th; Probability takes that share of them, with a
	// generator that starts from Seed; Count is how many it takes at most.
	Nth, Every, Count int
	Probability       float64
	Seed              uint64
}

const eventVerb = "event"

// ProxyEffect is what befalls a request. One that says anything about the answer
// (Status, Close) keeps the API server from executing it unless Executed is set.
type ProxyEffect struct {
	// Delay is before the API server sees the request (or the client the event),
	// AnswerDelay after it was executed: a slow network, or a slow API server.
	Delay, AnswerDelay time.Duration
	// Executed says that the request is executed, whatever its answer: with an
	// error of 500 or more, or with Close, the client cannot know.
	Executed bool
	// Status is an HTTP status to answer with, and a metav1.Status that fits: 409
	// is a conflict, 410 an expired resourceVersion (a watch that gets one lists
	// anew, as after a compaction of etcd), 429 the API server's own throttling,
	// with a Retry-After of a second that makes client-go try again by itself, 500
	// and 503 trouble inside, 504 a time-out there.
	Status int
	// Close closes the connection without an answer: a load balancer or an API
	// server that was restarted.
	Close bool
	// Drop, for events, swallows one and all that follow on the same connection: a
	// peer that is gone without a word. When the fault ends, the connection is
	// closed, as no TCP connection goes on after a gap; the client, which noticed
	// nothing until then, watches on from the last event it got.
	Drop bool

	hold proxyStage
}

// proxyStage is a place at which a request can be held.
type proxyStage string

const (
	atRequest proxyStage = "request" // before the API server sees it, or the client the event
	atAnswer  proxyStage = "answer"  // executed, not answered yet
)

func (f ProxyFault) validate() error {
	switch event, e := f.Match.Verb == eventVerb, f.Effect; {
	case e == (ProxyEffect{}):
		return errors.New("the fault has no effect")
	case e.Drop && !event:
		return errors.New("only events can be dropped")
	case event && (e.Status != 0 || e.Close || e.Executed || e.AnswerDelay != 0 || e.hold == atAnswer):
		return errors.New("an event has no answer")
	case e.Status != 0 && (e.Status < http.StatusBadRequest || e.Status > 599):
		return errors.New("the status is not that of an error")
	case e.Executed && e.Status == 0 && !e.Close:
		return errors.New("executed is said of a request that gets another answer")
	}
	return nil
}

// proxyFault is a ProxyFault at work.
type proxyFault struct {
	ProxyFault
	id             int
	matched, taken int
	random         *rand.Rand
	held           *HeldRequests
	deafened       map[*proxyWatch]bool
}

func (m ProxyMatch) selects(c *proxyCall) bool {
	return (m.Verb == c.verb || m.Verb == "" && c.verb != eventVerb) &&
		(m.Resource == "" || m.Resource == c.resource) &&
		(m.Namespace == "" || m.Namespace == c.namespace) &&
		(m.Name == "" || m.Name == c.name) &&
		bytes.Contains(c.body, []byte(m.Body))
}

// takes says whether the fault befalls a request, and counts it.
func (f *proxyFault) takes(c *proxyCall) bool {
	m := f.Match
	if !m.selects(c) {
		return false
	}
	f.matched++
	if m.Nth != 0 && f.matched != m.Nth ||
		m.Every != 0 && f.matched%m.Every != 0 ||
		m.Probability != 0 && f.random.Float64() >= m.Probability ||
		m.Count != 0 && f.taken >= m.Count {
		return false
	}
	f.taken++
	return true
}

// proxyFaults are the faults that befall one request.
type proxyFaults []*proxyFault

// fire returns the faults that befall a request.
func (p *Proxy) fire(c *proxyCall) (fired proxyFaults) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.faults {
		if f.takes(c) {
			fired = append(fired, f)
		}
	}
	return fired
}

// spoiler returns the effect that decides the answer, if any does.
func (fired proxyFaults) spoiler() *ProxyEffect {
	for _, f := range fired {
		if f.Effect.Status != 0 || f.Effect.Close {
			return &f.Effect
		}
	}
	return nil
}

// pass takes a request through a stage: it waits as long as its faults say, and
// returns false if the request goes no further.
func (p *Proxy) pass(ctx context.Context, fired proxyFaults, stage proxyStage) bool {
	for _, f := range fired {
		delay := f.Effect.Delay
		if stage == atAnswer {
			delay = f.Effect.AnswerDelay
		}
		if delay > 0 {
			select {
			case <-time.After(delay):
			case <-ctx.Done():
				return false
			}
		}
		if f.Effect.hold == stage && !f.held.wait(ctx) {
			return false
		}
	}
	return true
}

// AddFault adds a misbehaviour and returns its number for RemoveFault. It panics
// if the fault makes no sense.
func (p *Proxy) AddFault(f ProxyFault) int { return p.addFault(f).id }

func (p *Proxy) addFault(f ProxyFault) *proxyFault {
	if err := f.validate(); err != nil {
		panic("test-cluster: " + err.Error())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faultID++
	added := &proxyFault{
		ProxyFault: f, id: p.faultID, deafened: map[*proxyWatch]bool{},
		random: rand.New(rand.NewPCG(f.Match.Seed, 0)),
	}
	if f.Effect.hold != "" {
		added.held = &HeldRequests{p: p, id: added.id, arrived: make(chan struct{}), released: make(chan struct{})}
	}
	p.faults = append(p.faults, added)
	return added
}

// RemoveFault ends a misbehaviour. What it holds goes on.
func (p *Proxy) RemoveFault(id int) { p.removeFaults(func(f *proxyFault) bool { return f.id == id }) }

// ClearFaults ends all misbehaviour.
func (p *Proxy) ClearFaults() { p.removeFaults(func(*proxyFault) bool { return true }) }

// Taken returns how many requests, or events, a fault has befallen, also after
// its end.
func (p *Proxy) Taken(id int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.faults {
		if f.id == id {
			return f.taken
		}
	}
	return p.taken[id]
}

// Hold stops the requests that m selects before the API server sees them:
// released, they arrive late. A client that gave up does not keep a request from
// arriving, unless it is a watch. With the verb "event" it stops the watches
// themselves at their next event, and nothing more comes through until the
// release: the client's cache grows stale.
func (p *Proxy) Hold(m ProxyMatch) *HeldRequests { return p.hold(m, atRequest) }

// HoldAnswer stops the requests that m selects after they were executed.
func (p *Proxy) HoldAnswer(m ProxyMatch) *HeldRequests { return p.hold(m, atAnswer) }

func (p *Proxy) hold(m ProxyMatch, stage proxyStage) *HeldRequests {
	return p.addFault(ProxyFault{m, ProxyEffect{hold: stage}}).held
}

// HeldRequests are the requests, or watches, that a hold stopped.
type HeldRequests struct {
	p                 *Proxy
	id                int
	arrived, released chan struct{}
	arrive, release   sync.Once
	dropped           bool
	waiting           atomic.Int32
}

// Arrived is closed when the first request is held.
func (h *HeldRequests) Arrived() <-chan struct{} { return h.arrived }

// Waiting returns how many requests are held now.
func (h *HeldRequests) Waiting() int { return int(h.waiting.Load()) }

// Taken returns how many requests were held.
func (h *HeldRequests) Taken() int { return h.p.Taken(h.id) }

// Release lets what is held go on, and ends the hold.
func (h *HeldRequests) Release() { h.p.RemoveFault(h.id) }

// Drop ends what is held where it is: the connections close. Then the hold ends.
func (h *HeldRequests) Drop() {
	h.end(false)
	h.p.RemoveFault(h.id)
}

func (h *HeldRequests) end(goOn bool) {
	h.release.Do(func() {
		h.dropped = !goOn
		close(h.released)
	})
}

// wait returns true when the request may go on.
func (h *HeldRequests) wait(ctx context.Context) bool {
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
