package simulator

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Fault is a misbehaviour: what it befalls and what it does. When several
// faults befall a call, their delays and holds add up, and the first one that
// says something about the answer decides it.
type Fault struct {
	Match  Matcher `json:"match"`
	Effect Effect  `json:"effect"`
}

// Matcher selects calls. All its conditions hold at once; the zero Matcher
// selects every call.
type Matcher struct {
	Action   string `json:"action,omitempty"`
	SecretID string `json:"secretID,omitempty"`
	ZoneID   string `json:"zoneID,omitempty"`
	// URL is a text in one of the targets of a CreatePrefetchTask.
	URL string `json:"url,omitempty"`
	// BodyOver selects requests whose body is longer, in bytes.
	BodyOver int `json:"bodyOver,omitempty"`

	// Of the calls that fit so far: Nth is the only one, counted from 1;
	// Every takes each n-th; Probability takes that share of them, with a
	// generator that starts from Seed; Count is how many it takes at most.
	Nth         int     `json:"nth,omitempty"`
	Every       int     `json:"every,omitempty"`
	Probability float64 `json:"probability,omitempty"`
	Seed        uint64  `json:"seed,omitempty"`
	Count       int     `json:"count,omitempty"`
}

// Effect is what befalls a call. One that says anything about the answer
// (Code, Answer, Status, StatusText, Body, Elements) keeps EdgeOne from executing
// the call unless Executed is set.
//
// Code, Message, StatusText and Body may echo what the request holds, as
// careless gateways do: {secretID}, {token}, {signature}, {authorization} and
// {proxyAuthorization} stand for it.
type Effect struct {
	// Delay is before EdgeOne sees the request, ServerDelay after the checks
	// of signature and rate and before the execution, AnswerDelay after it.
	Delay       time.Duration `json:"delay,omitempty"`
	ServerDelay time.Duration `json:"serverDelay,omitempty"`
	AnswerDelay time.Duration `json:"answerDelay,omitempty"`
	// Hold stops the call at a stage until the fault is removed. See
	// Simulator.Hold.
	Hold Stage `json:"hold,omitempty"`

	// Executed says that the call is executed, whatever its answer.
	Executed bool `json:"executed,omitempty"`
	// Code and Message are an error to answer with.
	Code    string `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
	// Answer is a way to spoil the answer.
	Answer Answer `json:"answer,omitempty"`
	// Status and Body replace those of the answer, StatusText the words behind
	// the status.
	Status     int    `json:"status,omitempty"`
	StatusText string `json:"statusText,omitempty"`
	Body       string `json:"body,omitempty"`
	// Elements replaces every list of the answer by one of so many empty objects.
	Elements int `json:"elements,omitempty"`
	// CutBody closes the connection once so many bytes of the request's body
	// have arrived. Shorter bodies pass. EdgeOne does not see the rest, so the
	// fault can match the action and the key only.
	CutBody int `json:"cutBody,omitempty"`
	// Location is where a Redirect leads. Default: /elsewhere here.
	Location string `json:"location,omitempty"`
}

// Answer is a way to spoil an answer.
type Answer string

const (
	// ConnectionClosed ends the connection without an answer.
	ConnectionClosed Answer = "close"
	// ConnectionReset does so with a TCP reset.
	ConnectionReset Answer = "reset"
	// TruncatedBody ends the connection in the middle of the answer.
	TruncatedBody Answer = "truncated"
	// BadGateway is a proxy's 502 with an HTML page.
	BadGateway Answer = "bad-gateway"
	// Redirect is a 302.
	Redirect Answer = "redirect"
	// EmptyBody is a 200 with nothing.
	EmptyBody Answer = "empty"
	// EmptyObject is a 200 with {}.
	EmptyObject Answer = "{}"
	// NullBody is a 200 with null.
	NullBody Answer = "null"
	// NoRequestID leaves that field out. The call is executed.
	NoRequestID Answer = "no-request-id"
	// NoJobID leaves that field out. The call is executed.
	NoJobID Answer = "no-job-id"
)

var answers = []Answer{
	"", ConnectionClosed, ConnectionReset, TruncatedBody, BadGateway, Redirect,
	EmptyBody, EmptyObject, NullBody, NoRequestID, NoJobID,
}

// Stage is a place at which a call can be held.
type Stage string

const (
	atRequest   Stage = "request"   // before EdgeOne sees it
	atExecution Stage = "execution" // checked, not executed yet
	atAnswer    Stage = "answer"    // executed, not answered yet
)

// Validate says what is wrong with f, if anything.
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
	if f.Effect.CutBody > 0 && (f.Match.ZoneID != "" || f.Match.URL != "") {
		return errors.New("a fault with cutBody cannot match a zone or a URL, which may be in the part that is cut off")
	}
	return nil
}

// spoils says whether the effect is about the answer.
func (e Effect) spoils() bool {
	return e.Code != "" || e.Answer != "" || e.Status != 0 || e.StatusText != "" || e.Body != "" || e.Elements > 0
}

// executes says whether EdgeOne executes a call that the effect spoils.
func (e Effect) executes() bool {
	return e.Executed || e.Answer == NoRequestID || e.Answer == NoJobID || e.Elements > 0
}

// fault is a Fault at work.
type fault struct {
	Fault
	id             int
	matched, taken int
	random         *rand.Rand
	held           *Held
}

// takes says whether the fault befalls a call, and counts it.
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

// isAbout says whether a call is one of those that the fault selects from.
func (f *fault) isAbout(c *call) bool {
	m := f.Match
	bodyOver := max(m.BodyOver, f.Effect.CutBody)
	return (m.Action == "" || m.Action == c.Action) &&
		(m.SecretID == "" || m.SecretID == c.SecretID) &&
		(m.ZoneID == "" || m.ZoneID == c.ZoneID) &&
		(bodyOver <= 0 || len(c.body) > bodyOver) &&
		(m.URL == "" || slices.ContainsFunc(c.targets, func(t string) bool { return strings.Contains(t, m.URL) }))
}

// isDue says whether the fault takes the call that it has matched last. It uses up a
// random number where there is a Probability.
func (f *fault) isDue() bool {
	m := f.Match
	return (m.Nth == 0 || f.matched == m.Nth) &&
		(m.Every == 0 || f.matched%m.Every == 0) &&
		(m.Probability == 0 || f.random.Float64() < m.Probability) &&
		(m.Count == 0 || f.taken < m.Count)
}

// effects are the faults that befall one call.
type effects []*fault

// fire returns the faults that befall a call.
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

// spoiler returns the effect that decides the answer, if any does.
func (fired effects) spoiler() *Effect {
	for _, f := range fired {
		if f.Effect.spoils() {
			return &f.Effect
		}
	}
	return nil
}

// cut says whether a fault cut the body off.
func (fired effects) cut() bool {
	return slices.ContainsFunc(fired, func(f *fault) bool { return f.Effect.CutBody > 0 })
}

// readable returns how many bytes of a request's body arrive.
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

// pass takes a call through a stage: it waits as long as its faults say. It
// returns false if the call goes no further.
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

// AddFault adds a misbehaviour and returns its number for RemoveFault. It
// panics if the fault is not valid.
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

// RemoveFault ends a misbehaviour. Calls that it holds go on.
func (s *Simulator) RemoveFault(id int) { s.removeFaults(func(f *fault) bool { return f.id == id }) }

// ClearFaults ends all misbehaviour.
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

// Hold stops the calls that m selects before EdgeOne sees them: released, they
// arrive late. A caller that gave up does not keep a call from arriving.
func (s *Simulator) Hold(m Matcher) *Held { return s.hold(m, atRequest) }

// HoldExecution stops the calls that m selects after their signature and rate
// were checked, before they are executed.
func (s *Simulator) HoldExecution(m Matcher) *Held { return s.hold(m, atExecution) }

// HoldAnswer stops the calls that m selects after they were executed.
func (s *Simulator) HoldAnswer(m Matcher) *Held { return s.hold(m, atAnswer) }

func (s *Simulator) hold(m Matcher, stage Stage) *Held {
	return s.addFault(Fault{m, Effect{Hold: stage}}).held
}
