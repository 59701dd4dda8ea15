package simulator

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Execution is a CreatePrefetchTask that EdgeOne executed.
type Execution struct {
	Time          time.Time `json:"time"` // on EdgeOne's clock
	Account       string    `json:"account"`
	SecretID      string    `json:"secretID"`
	ZoneID        string    `json:"zoneID"` // as sent: "*" stays "*"
	JobID         string    `json:"jobID"`
	Mode          string    `json:"mode"` // default or edge
	Headers       []Header  `json:"headers,omitempty"`
	MediaSegments bool      `json:"mediaSegments,omitempty"`
	EncodeURL     bool      `json:"encodeURL,omitempty"`
	Accepted      []string  `json:"accepted"`
	Refused       []string  `json:"refused,omitempty"` // those in FailedList
	Fetched       []string  `json:"fetched,omitempty"` // the accepted ones as EdgeOne encoded them, with EncodeURL
	SignedAt      time.Time `json:"signedAt"`
	UserAgent     string    `json:"userAgent,omitempty"`
	RequestID     string    `json:"requestID"`
}

// Header is a request header that a prefetch carries to the origin.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Ledger is what EdgeOne executed, in order, whatever its callers were told.
type Ledger []Execution

// Executed returns how often a URL was accepted.
func (l Ledger) Executed(url string) int {
	n := 0
	for _, e := range l {
		for _, accepted := range e.Accepted {
			if accepted == url {
				n++
			}
		}
	}
	return n
}

// Targets returns how many URLs were accepted in all.
func (l Ledger) Targets() int {
	n := 0
	for _, e := range l {
		n += len(e.Accepted)
	}
	return n
}

// Duplicates returns how often each URL was executed that was executed more
// than once in the same zone and mode with the same headers, in whatever
// spelling. The keys hold all that.
func (l Ledger) Duplicates() map[string]int { return l.DuplicatesBy(sameWork) }

// DuplicatesBy counts executions by a key of the caller's choice, and returns
// the keys that occur more than once.
func (l Ledger) DuplicatesBy(key func(e Execution, url string) string) map[string]int {
	times := map[string]int{}
	for _, e := range l {
		for _, url := range e.Accepted {
			times[key(e, url)]++
		}
	}
	maps.DeleteFunc(times, func(_ string, n int) bool { return n < 2 })
	return times
}

func sameWork(e Execution, url string) string {
	parts := []string{e.ZoneID, e.Mode}
	for _, h := range e.Headers {
		parts = append(parts, strings.ToLower(h.Name)+": "+h.Value)
	}
	slices.Sort(parts[2:])
	return strings.Join(append(parts, Canonical(url)), " ")
}

// Call is one call, whatever became of it.
type Call struct {
	Time     time.Time `json:"time"` // when EdgeOne saw it, on EdgeOne's clock
	Action   string    `json:"action"`
	Account  string    `json:"account,omitempty"`
	SecretID string    `json:"secretID,omitempty"`
	ZoneID   string    `json:"zoneID,omitempty"`
	Targets  int       `json:"targets,omitempty"`
	JobID    string    `json:"jobID,omitempty"`
	// URLs are the targets themselves, RequestID is that of the Execution if there
	// is one, SignedAt is what the caller signed (in seconds), and Faults are the
	// numbers of those that befell the call.
	URLs      []string  `json:"-"`
	RequestID string    `json:"requestID"`
	SignedAt  time.Time `json:"signedAt,omitzero"`
	Faults    []int     `json:"faults,omitempty"`
	// Outcome is what the caller was told: OK, an error code, or how the
	// answer was spoiled (an Answer, or an HTTP status).
	Outcome string `json:"outcome"`
	// Executed says whether EdgeOne did what it was asked.
	Executed bool `json:"executed"`
}

// Rate is what was seen of one action of one account.
type Rate struct {
	Account   string `json:"account"`
	Action    string `json:"action"`
	Arrived   int    `json:"arrived"`
	Throttled int    `json:"throttled"`
	// Peak is the largest number of calls in any one second, throttled ones
	// included.
	Peak int `json:"peak"`
}

// Stats sums up what happened so far.
type Stats struct {
	Rates      []Rate         `json:"rates"`
	Outcomes   map[string]int `json:"outcomes"` // finished calls by Call.Outcome
	Jobs       int            `json:"jobs"`
	Targets    int            `json:"targets"`    // accepted URLs
	Duplicates int            `json:"duplicates"` // accepted URLs beyond the first of the same work
}

// Calls returns how many calls of an action arrived ("": of any).
func (s Stats) Calls(action string) int {
	return s.sum(action, func(r Rate) int { return r.Arrived })
}

// Throttled returns how many calls of an action were throttled ("": of any).
func (s Stats) Throttled(action string) int {
	return s.sum(action, func(r Rate) int { return r.Throttled })
}

// Peak returns the largest number of calls of an action ("": of any one) that
// an account made in a second.
func (s Stats) Peak(action string) int {
	peak := 0
	for _, r := range s.Rates {
		if action == "" || r.Action == action {
			peak = max(peak, r.Peak)
		}
	}
	return peak
}

func (s Stats) sum(action string, of func(Rate) int) int {
	n := 0
	for _, r := range s.Rates {
		if action == "" || r.Action == action {
			n += of(r)
		}
	}
	return n
}

// Ledger returns what was executed so far.
func (s *Simulator) Ledger() Ledger {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(Ledger{}, s.ledger...)
}

// Executed returns how often a URL was executed.
func (s *Simulator) Executed(url string) int { return s.Ledger().Executed(url) }

// Duplicates returns what was executed more than once: see Ledger.Duplicates.
func (s *Simulator) Duplicates() map[string]int { return s.Ledger().Duplicates() }

// Calls returns the finished calls, in the order in which they finished.
func (s *Simulator) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Call{}, s.log...)
}

// Stats sums up what happened so far.
func (s *Simulator) Stats() Stats {
	ledger := s.Ledger()
	stats := Stats{Outcomes: map[string]int{}, Rates: []Rate{}, Targets: ledger.Targets()}
	for _, n := range ledger.Duplicates() { // of 100,000 URLs it takes a while: without the lock
		stats.Duplicates += n - 1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	stats.Jobs = len(s.history)
	for key, m := range s.meters {
		stats.Rates = append(stats.Rates, Rate{key.account, key.action, m.total, m.throttled, m.peak})
	}
	slices.SortFunc(stats.Rates, func(a, b Rate) int {
		return strings.Compare(a.Account+" "+a.Action, b.Account+" "+b.Action)
	})
	for _, c := range s.log {
		stats.Outcomes[c.Outcome]++
	}
	return stats
}
