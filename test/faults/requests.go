// Package faults makes things go wrong between the manager and what it talks to, and with
// processes: requests fail or arrive late, watches miss events, a machine stands still, a
// lease is lost. Faults of EdgeOne are the simulator's own, as they ship with it.
//
//   - proxy: what stands between a client and the API server, and misbehaves
//   - requests: which requests a fault strikes, and what it does to them
//   - held: requests that wait until the test lets them go
//   - named: the requests of a PrefetchTask's life that tests strike
//   - process: pausing and restarting processes, and taking a lease away
//
// The package knows the cluster, and what the operator sends to the API server. It does not
// know when faults strike or whether the operator copes: that is up to its callers.
package faults

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"
)

// Fault is a misbehaviour: which requests it strikes and what it does to them. When several
// strike a request, their delays and holds add up, and the first one that says
// something about the answer decides it.
type Fault struct {
	Match  Match
	Effect Effect
}

// Match selects requests. All its conditions hold at once; the zero
// Match selects every request. The verb "event" selects not requests but
// the events of watches, one by one.
type Match struct {
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

// Effect is what happens to a request that a fault strikes. One that says anything about the answer
// (Status, Close) keeps the API server from executing it unless Executed is set.
type Effect struct {
	// Delay is before the API server sees the request (or the client the event),
	// AnswerDelay after it was executed: a slow network, or a slow API server.
	Delay, AnswerDelay time.Duration
	// Executed says that the request is executed, whatever its answer: with an
	// error of 500 or more, or with Close, the client cannot know.
	Executed bool
	// Status is an HTTP status to answer with, and a metav1.Status that fits: 409
	// is a conflict, 410 an expired resourceVersion (a watch that gets one lists
	// anew, as after a compaction of etcd), 429 the API server's own throttling,
	// with a Retry-After of a second that makes client-go retry, 500
	// and 503 trouble inside, 504 a time-out there.
	Status int
	// Close closes the connection without an answer: a load balancer or an API
	// server that was restarted.
	Close bool
	// Drop, for events, swallows one and all that follow on the same connection: a
	// peer that is gone without a word. When the fault ends, the connection is
	// closed, as no TCP connection continues after a gap; the client, which noticed
	// nothing until then, watches on from the last event it got.
	Drop bool

	hold stage
}

// stage is a place at which a request can be held.
type stage string

const (
	atRequest stage = "request" // before the API server sees it, or the client the event
	atAnswer  stage = "answer"  // executed, not answered yet
)

func (f Fault) validate() error {
	switch event, e := f.Match.Verb == eventVerb, f.Effect; {
	case e == (Effect{}):
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

// activeFault is a Fault at work.
type activeFault struct {
	Fault
	id             int
	matched, taken int
	random         *rand.Rand
	held           *Held
	deafened       map[*openWatch]bool
}

func (m Match) selectsCall(c *call) bool {
	return (m.Verb == c.verb || m.Verb == "" && c.verb != eventVerb) &&
		(m.Resource == "" || m.Resource == c.resource) &&
		(m.Namespace == "" || m.Namespace == c.namespace) &&
		(m.Name == "" || m.Name == c.name) &&
		bytes.Contains(c.body, []byte(m.Body))
}

// strikesCall says whether the fault strikes a request, and counts it.
func (f *activeFault) strikesCall(c *call) bool {
	m := f.Match
	if !m.selectsCall(c) {
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

// struckFaults are the faults that strike one request.
type struckFaults []*activeFault

// strikeCall returns the faults that strike a request.
func (p *Proxy) strikeCall(c *call) (struck struckFaults) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.faults {
		if f.strikesCall(c) {
			struck = append(struck, f)
		}
	}
	return struck
}

// answeringEffect returns the effect that decides the answer, if any does.
func (struck struckFaults) answeringEffect() *Effect {
	for _, f := range struck {
		if f.Effect.Status != 0 || f.Effect.Close {
			return &f.Effect
		}
	}
	return nil
}

// passStage takes a request through a stage: it waits as long as its faults say, and
// returns false if the request goes no further.
func (p *Proxy) passStage(ctx context.Context, struck struckFaults, at stage) bool {
	for _, f := range struck {
		delay := f.Effect.Delay
		if at == atAnswer {
			delay = f.Effect.AnswerDelay
		}
		if delay > 0 {
			select {
			case <-time.After(delay):
			case <-ctx.Done():
				return false
			}
		}
		if f.Effect.hold == at && !f.held.wait(ctx) {
			return false
		}
	}
	return true
}

// AddFault adds a misbehaviour and returns its number for RemoveFault. It panics
// if the fault makes no sense.
func (p *Proxy) AddFault(f Fault) int { return p.addFault(f).id }

func (p *Proxy) addFault(f Fault) *activeFault {
	if err := f.validate(); err != nil {
		panic("faults: " + err.Error())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faultID++
	added := &activeFault{
		Fault: f, id: p.faultID, deafened: map[*openWatch]bool{},
		random: rand.New(rand.NewPCG(f.Match.Seed, 0)),
	}
	if f.Effect.hold != "" {
		added.held = &Held{p: p, id: added.id, arrived: make(chan struct{}), released: make(chan struct{})}
	}
	p.faults = append(p.faults, added)
	return added
}

// RemoveFault ends a misbehaviour. What it holds continues.
func (p *Proxy) RemoveFault(id int) { p.removeFaults(func(f *activeFault) bool { return f.id == id }) }

// ClearFaults ends all misbehaviour.
func (p *Proxy) ClearFaults() { p.removeFaults(func(*activeFault) bool { return true }) }

// Taken returns how many requests, or events, a fault has struck, also after
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
