// Package faults injects faults between the manager and the API server, and into
// processes. Requests fail or arrive late, watches miss events, a machine freezes, a lease
// is lost. The simulator ships its own faults of EdgeOne.
//
//   - proxy: the proxy between a client and the API server that injects the faults
//   - requests: which requests a fault strikes, and what it does to them
//   - held: requests that wait until the test releases them
//   - named: the requests of a task's life that tests target
//   - process: pauses and restarts processes, and takes leases away
//
// The package knows the cluster, and what the operator sends to the API server. Its
// callers decide when faults strike, and check whether the operator copes.
package faults

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"
)

// Fault is a misbehaviour: the requests it strikes, and its effect on them. If several
// faults strike a request, their delays and holds add up. The first one with an effect on
// the response decides the response.
type Fault struct {
	Match  Match
	Effect Effect
}

// Match selects requests. All its conditions must hold; the zero Match selects every
// request. The verb "event" selects the individual events of watches instead of requests.
type Match struct {
	// Verb is get, list, watch, create, update, patch, delete, deletecollection, or event.
	// Current informers of client-go use a watch to list.
	Verb string
	// Resource is for example prefetchtasks, prefetchtasks/status, leases or secrets.
	Resource        string
	Namespace, Name string // as in the request's path; empty for a watch of all namespaces
	// Body is a substring of the request body, or of the event.
	Body string

	// These fields limit the matching requests. Nth selects only one, counted from 1.
	// Every selects each n-th. Probability selects this share, with a random generator
	// that Seed initializes. Count is the maximum number of selected requests.
	Nth, Every, Count int
	Probability       float64
	Seed              uint64
}

const eventVerb = "event"

// Effect is what happens to a request that a fault strikes. With a Status or Close, the
// API server does not execute the request, unless Executed is set.
type Effect struct {
	// Delay applies before the API server receives the request, or the client the event.
	// AnswerDelay applies after the request was executed. Both simulate a slow network or
	// a slow API server.
	Delay, AnswerDelay time.Duration
	// Executed means that the API server executes the request, whatever the response is.
	// With a Status of 500 or more, or with Close, the client cannot know this.
	Executed bool
	// Status is the HTTP status of the response, with a matching metav1.Status. 409 is a
	// conflict. 410 is an expired resourceVersion: a watch that gets it lists again, as
	// after a compaction of etcd. 429 is the API server's throttling, with a Retry-After
	// of one second that makes client-go retry. 500 and 503 are internal errors, and 504
	// is a timeout.
	Status int
	// Close closes the connection without a response, like a load balancer or an API
	// server that restarts.
	Close bool
	// Drop, for events only, discards the event and all later ones on the same connection,
	// like a peer that has silently disappeared. When the fault ends, the connection is
	// closed, because no TCP connection continues after a gap. Until then the client
	// notices nothing. Afterwards it resumes its watch after the last event that it
	// received.
	Drop bool

	hold stage
}

// stage is a point at which a request can be held.
type stage string

const (
	atRequest stage = "request" // before the API server receives the request, or the client the event
	atAnswer  stage = "answer"  // executed, but not answered yet
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

// activeFault is a Fault that is in effect.
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

// strikesCall reports whether the fault strikes a request, and counts the request.
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

// answeringEffect returns the effect that decides the response, or nil.
func (struck struckFaults) answeringEffect() *Effect {
	for _, f := range struck {
		if f.Effect.Status != 0 || f.Effect.Close {
			return &f.Effect
		}
	}
	return nil
}

// passStage applies the delays and holds of a stage to a request. It returns false if the
// request must not continue.
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

// AddFault adds a fault and returns its ID for RemoveFault. It panics if the fault is
// invalid.
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

// RemoveFault ends a fault. The requests it holds continue.
func (p *Proxy) RemoveFault(id int) { p.removeFaults(func(f *activeFault) bool { return f.id == id }) }

// ClearFaults ends all faults.
func (p *Proxy) ClearFaults() { p.removeFaults(func(*activeFault) bool { return true }) }

// Taken returns how many requests or events a fault has struck. It also works after the
// fault has ended.
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
