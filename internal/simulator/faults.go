package simulator

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Fault is a misbehaviour: Match selects calls, and Effect is what happens to them. If
// several faults affect a call, their delays and holds add up. The first fault with an
// effect on the answer decides the answer.
type Fault struct {
	Match  Matcher `json:"match"`
	Effect Effect  `json:"effect"`
}

// Matcher selects calls. All of its conditions must hold; the zero Matcher selects every
// call.
type Matcher struct {
	Action   string `json:"action,omitempty"`
	SecretID string `json:"secretID,omitempty"`
	ZoneID   string `json:"zoneID,omitempty"`
	// URL is a text that one of the targets of a CreatePrefetchTask or CreatePurgeTask
	// contains. Type is the type of a purge.
	URL  string `json:"url,omitempty"`
	Type string `json:"type,omitempty"`
	// BodyOver selects requests whose body is longer than this, in bytes.
	BodyOver int `json:"bodyOver,omitempty"`

	// These fields select from the calls that match the fields above. Nth selects only
	// the n-th call, counted from 1. Every selects each n-th call. Probability selects
	// this share of the calls at random; Seed seeds the generator. Count is the maximum
	// number of calls that are selected.
	Nth         int     `json:"nth,omitempty"`
	Every       int     `json:"every,omitempty"`
	Probability float64 `json:"probability,omitempty"`
	Seed        uint64  `json:"seed,omitempty"`
	Count       int     `json:"count,omitempty"`
}

// Effect is what happens to a call. EdgeOne does not execute a call if the effect has
// Code, Answer, Status, StatusText or Body, unless Executed is set. It executes calls
// with Elements, NoRequestID or NoJobID, because their answers need a result.
//
// Code, Message, StatusText and Body may contain placeholders for secrets of the request,
// which careless gateways repeat: {secretID}, {token}, {signature}, {authorization} and
// {proxyAuthorization}.
type Effect struct {
	// Delay applies before EdgeOne sees the request. ServerDelay applies between the
	// checks of signature and rate and the execution. AnswerDelay applies after the
	// execution.
	Delay       time.Duration `json:"delay,omitempty"`
	ServerDelay time.Duration `json:"serverDelay,omitempty"`
	AnswerDelay time.Duration `json:"answerDelay,omitempty"`
	// Hold stops the call at a stage until the fault is removed; see Simulator.Hold.
	Hold Stage `json:"hold,omitempty"`

	// Executed makes EdgeOne execute the call, whatever its answer.
	Executed bool `json:"executed,omitempty"`
	// Code and Message are the error to answer with.
	Code    string `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
	// Answer is how the answer is spoiled.
	Answer Answer `json:"answer,omitempty"`
	// Status, StatusText and Body replace those of the answer. StatusText is the text
	// after the status code.
	Status     int    `json:"status,omitempty"`
	StatusText string `json:"statusText,omitempty"`
	Body       string `json:"body,omitempty"`
	// Elements replaces every list of the answer with a list of this many empty objects.
	Elements int `json:"elements,omitempty"`
	// CutBody resets the connection after this many bytes of the request's body have
	// arrived. Bodies that are not longer pass. EdgeOne does not see the rest of the
	// body, so the fault can match only the action and the key.
	CutBody int `json:"cutBody,omitempty"`
	// Location is where a Redirect leads. Default: /elsewhere on the same host.
	Location string `json:"location,omitempty"`
}

// Answer is a way to spoil an answer.
type Answer string

const (
	// ConnectionClosed closes the connection without an answer.
	ConnectionClosed Answer = "close"
	// ConnectionReset ends the connection with a TCP reset, without an answer.
	ConnectionReset Answer = "reset"
	// TruncatedBody closes the connection in the middle of the answer.
	TruncatedBody Answer = "truncated"
	// BadGateway answers with a proxy's 502 and an HTML page.
	BadGateway Answer = "bad-gateway"
	// Redirect answers with a 302.
	Redirect Answer = "redirect"
	// EmptyBody answers 200 with an empty body.
	EmptyBody Answer = "empty"
	// EmptyObject answers 200 with {}.
	EmptyObject Answer = "{}"
	// NullBody answers 200 with null.
	NullBody Answer = "null"
	// NoRequestID omits the RequestId. The call is executed.
	NoRequestID Answer = "no-request-id"
	// NoJobID omits the JobId. The call is executed.
	NoJobID Answer = "no-job-id"
)

var answers = []Answer{
	"", ConnectionClosed, ConnectionReset, TruncatedBody, BadGateway, Redirect,
	EmptyBody, EmptyObject, NullBody, NoRequestID, NoJobID,
}

// Stage is a point at which a call can be held.
type Stage string

const (
	atRequest   Stage = "request"   // before EdgeOne sees the call
	atExecution Stage = "execution" // checked, but not executed yet
	atAnswer    Stage = "answer"    // executed, but not answered yet
)

// Validate returns an error that says what is wrong with f, or nil.
func (f Fault) Validate() error {
	if !slices.Contains(answers, f.Effect.Answer) {
		return fmt.Errorf("the answer %q is not one of %q", f.Effect.Answer, answers[1:])
	}
	if !slices.Contains([]Stage{"", atRequest, atExecution, atAnswer}, f.Effect.Hold) {
		return fmt.Errorf("hold is %q, not request, execution or answer", f.Effect.Hold)
	}
	if f.Effect == (Effect{}) {
		return errors.New("the fault has no effect")
	}
	if f.Effect.CutBody > 0 && (f.Match.ZoneID != "" || f.Match.URL != "" || f.Match.Type != "") {
		return errors.New("a fault with cutBody cannot match a zone, a type or a URL, which may be in the part that is cut off")
	}
	return nil
}

// spoils says whether the effect changes the answer.
func (e Effect) spoils() bool {
	return e.Code != "" || e.Answer != "" || e.Status != 0 || e.StatusText != "" || e.Body != "" || e.Elements > 0
}

// executes says whether EdgeOne executes a call that the effect spoils.
func (e Effect) executes() bool {
	return e.Executed || e.Answer == NoRequestID || e.Answer == NoJobID || e.Elements > 0
}

// fault is the state of a Fault.
type fault struct {
	Fault
	id             int
	matched, taken int
	random         *rand.Rand
	held           *Held
}

// takes says whether the fault affects a call, and counts the call.
func (f *fault) takes(c *call) bool {
	if !f.isAbout(c) {
		return false
	}
	f.matched++
	if !f.isDue() {
		return false
	}
	f.taken++
	return true
}

// isAbout says whether a call matches all conditions that do not depend on earlier calls.
func (f *fault) isAbout(c *call) bool {
	m := f.Match
	bodyOver := max(m.BodyOver, f.Effect.CutBody)
	return (m.Action == "" || m.Action == c.Action) &&
		(m.SecretID == "" || m.SecretID == c.SecretID) &&
		(m.ZoneID == "" || m.ZoneID == c.ZoneID) &&
		(m.Type == "" || m.Type == c.Type) &&
		(bodyOver <= 0 || len(c.body) > bodyOver) &&
		(m.URL == "" || slices.ContainsFunc(c.targets, func(t string) bool { return strings.Contains(t, m.URL) }))
}

// isDue says whether the fault selects the call that it matched last. It may draw a
// random number, so it is called only once for each matched call.
func (f *fault) isDue() bool {
	m := f.Match
	return (m.Nth == 0 || f.matched == m.Nth) &&
		(m.Every == 0 || f.matched%m.Every == 0) &&
		(m.Probability == 0 || f.random.Float64() < m.Probability) &&
		(m.Count == 0 || f.taken < m.Count)
}

// effects are the faults that affect one call.
type effects []*fault

// fire returns the faults that affect a call, and counts the call.
func (s *Simulator) fire(c *call) (fired effects) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		if f.takes(c) {
			fired = append(fired, f)
		}
	}
	return fired
}

// spoiler returns the effect that decides the answer, or nil.
func (fired effects) spoiler() *Effect {
	for _, f := range fired {
		if f.Effect.spoils() {
			return &f.Effect
		}
	}
	return nil
}

// cut says whether a fault cuts off the body.
func (fired effects) cut() bool {
	return slices.ContainsFunc(fired, func(f *fault) bool { return f.Effect.CutBody > 0 })
}

// readable returns the maximum number of bytes of a request's body that arrive.
func (s *Simulator) readable(action, secretID string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	most := maxBody
	for _, f := range s.faults {
		m, cut := f.Match, f.Effect.CutBody
		if cut > 0 && (m.Action == "" || m.Action == action) && (m.SecretID == "" || m.SecretID == secretID) {
			most = min(most, cut)
		}
	}
	return most
}

// pass takes a call through a stage, with the delays and holds of its faults. It returns
// false if the call ends there.
func (s *Simulator) pass(fired effects, stage Stage) bool {
	for _, f := range fired {
		delay := map[Stage]time.Duration{atRequest: f.Effect.Delay, atExecution: f.Effect.ServerDelay, atAnswer: f.Effect.AnswerDelay}[stage]
		if delay > 0 {
			select {
			case <-time.After(delay):
			case <-s.closed:
				return false
			}
		}
		if f.Effect.Hold == stage && !f.held.wait(s.closed) {
			return false
		}
	}
	return true
}

// AddFault adds a fault and returns its ID for RemoveFault. It panics if the fault is not
// valid.
func (s *Simulator) AddFault(f Fault) int { return s.addFault(f).id }

func (s *Simulator) addFault(f Fault) *fault {
	if err := f.Validate(); err != nil {
		panic("simulator: " + err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faultID++
	added := &fault{Fault: f, id: s.faultID, random: rand.New(rand.NewPCG(f.Match.Seed, 0))}
	if f.Effect.Hold != "" {
		added.held = &Held{s: s, id: added.id, arrived: make(chan struct{}), released: make(chan struct{})}
	}
	s.faults = append(s.faults, added)
	return added
}

// RemoveFault removes a fault. The calls that it holds continue.
func (s *Simulator) RemoveFault(id int) { s.removeFaults(func(f *fault) bool { return f.id == id }) }

// ClearFaults removes all faults. The calls that they hold continue.
func (s *Simulator) ClearFaults() { s.removeFaults(func(*fault) bool { return true }) }

func (s *Simulator) removeFaults(which func(*fault) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = slices.DeleteFunc(s.faults, func(f *fault) bool {
		if which(f) && f.held != nil {
			f.held.end(true)
		}
		return which(f)
	})
}

// Hold stops the calls that m selects before EdgeOne sees them. A released call arrives
// late, even if its caller has given up.
func (s *Simulator) Hold(m Matcher) *Held { return s.hold(m, atRequest) }

// HoldExecution stops the calls that m selects between the checks of signature and rate
// and the execution.
func (s *Simulator) HoldExecution(m Matcher) *Held { return s.hold(m, atExecution) }

// HoldAnswer stops the calls that m selects after their execution, before their answer.
func (s *Simulator) HoldAnswer(m Matcher) *Held { return s.hold(m, atAnswer) }

func (s *Simulator) hold(m Matcher, stage Stage) *Held {
	return s.addFault(Fault{m, Effect{Hold: stage}}).held
}
