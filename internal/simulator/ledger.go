package simulator

import (
	"iter"
	"maps"
	"slices"
	"strings"
	"time"
)

// Execution is a call of CreatePrefetchTask or CreatePurgeTask that EdgeOne executed.
type Execution struct {
	Time          time.Time `json:"time"` // on EdgeOne's clock
	Action        string    `json:"action"`
	Type          string    `json:"type"` // prefetch_url, or the type of the purge
	Account       string    `json:"account"`
	SecretID      string    `json:"secretID"`
	ZoneID        string    `json:"zoneID"` // as sent: "*" stays "*"
	JobID         string    `json:"jobID"`
	Mode          string    `json:"mode,omitempty"`    // of a prefetch: default or edge
	Method        string    `json:"method,omitempty"`  // of a purge: invalidate or delete, as executed
	Domains       []string  `json:"domains,omitempty"` // of a purge by tag
	Headers       []Header  `json:"headers,omitempty"`
	MediaSegments bool      `json:"mediaSegments,omitempty"`
	EncodeURL     bool      `json:"encodeURL,omitempty"`
	Accepted      []string  `json:"accepted"`
	Refused       []string  `json:"refused,omitempty"` // the targets in FailedList
	Fetched       []string  `json:"fetched,omitempty"` // with EncodeURL: the accepted targets as EdgeOne encoded them
	SignedAt      time.Time `json:"signedAt"`
	UserAgent     string    `json:"userAgent,omitempty"`
	RequestID     string    `json:"requestID"`
}

// Header is a request header that a prefetch sends to the origin.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Ledger lists what EdgeOne executed, in order, regardless of the answers that the
// callers got.
type Ledger []Execution

// IsPurge says whether the execution is one of CreatePurgeTask.
func (e Execution) IsPurge() bool { return e.Action == createPurge }

// Prefetches returns the executions of CreatePrefetchTask.
func (l Ledger) Prefetches() Ledger { return slices.Collect(l.of(createPrefetch)) }

// Purges returns the executions of CreatePurgeTask.
func (l Ledger) Purges() Ledger { return slices.Collect(l.of(createPurge)) }

// of iterates over the executions of an action.
func (l Ledger) of(action string) iter.Seq[Execution] {
	return func(yield func(Execution) bool) {
		for _, e := range l {
			if e.IsPurge() == (action == createPurge) && !yield(e) {
				return
			}
		}
	}
}

// Executed returns how often a URL was accepted for prefetch in this spelling.
func (l Ledger) Executed(url string) int { return l.count(createPrefetch, url) }

// Purged returns how often a target was accepted for purge in this spelling.
func (l Ledger) Purged(target string) int { return l.count(createPurge, target) }

func (l Ledger) count(action, target string) int {
	n := 0
	for e := range l.of(action) {
		for _, accepted := range e.Accepted {
			if accepted == target {
				n++
			}
		}
	}
	return n
}

// Targets returns how many URLs were accepted for prefetch in total.
func (l Ledger) Targets() int { return l.targets(createPrefetch) }

func (l Ledger) targets(action string) int {
	n := 0
	for e := range l.of(action) {
		n += len(e.Accepted)
	}
	return n
}

// Duplicates returns how often each URL was prefetched that was prefetched more than once
// with the same zone, mode and headers. Different spellings of a URL count as the same. A
// key consists of zone, mode, headers and canonical URL.
func (l Ledger) Duplicates() map[string]int { return l.DuplicatesBy(sameWork) }

// DuplicatesBy counts prefetches by a key of the caller's choice, and returns the keys
// that occur more than once.
func (l Ledger) DuplicatesBy(key func(e Execution, url string) string) map[string]int {
	times := map[string]int{}
	for e := range l.of(createPrefetch) {
		for _, url := range e.Accepted {
			times[key(e, url)]++
		}
	}
	maps.DeleteFunc(times, func(_ string, n int) bool { return n < 2 })
	return times
}

// sameWork returns the key of Duplicates.
func sameWork(e Execution, url string) string {
	parts := []string{e.ZoneID, e.Mode}
	for _, h := range e.Headers {
		parts = append(parts, strings.ToLower(h.Name)+": "+h.Value)
	}
	slices.Sort(parts[2:])
	return strings.Join(append(parts, Canonical(url)), " ")
}

// Call is one call with any outcome.
type Call struct {
	Time     time.Time `json:"time"` // when EdgeOne saw it, on EdgeOne's clock
	Action   string    `json:"action"`
	Account  string    `json:"account,omitempty"`
	SecretID string    `json:"secretID,omitempty"`
	ZoneID   string    `json:"zoneID,omitempty"`
	Type     string    `json:"type,omitempty"` // of a purge
	Targets  int       `json:"targets,omitempty"`
	JobID    string    `json:"jobID,omitempty"`
	// URLs are the targets. RequestID is the same as in the Execution, if there is one.
	// SignedAt is the time that the caller signed, in whole seconds. Faults are the IDs
	// of the faults that affected the call.
	URLs      []string  `json:"-"`
	RequestID string    `json:"requestID"`
	SignedAt  time.Time `json:"signedAt,omitzero"`
	Faults    []int     `json:"faults,omitempty"`
	// Outcome describes the answer to the caller: OK, an error code, or how the answer
	// was spoiled (an Answer, or an HTTP status).
	Outcome string `json:"outcome"`
	// Executed says whether EdgeOne executed the call.
	Executed bool `json:"executed"`
}

// Rate counts the calls of one action and account.
type Rate struct {
	Account   string `json:"account"`
	Action    string `json:"action"`
	Arrived   int    `json:"arrived"`
	Throttled int    `json:"throttled"`
	// Peak is the maximum number of calls in any one second, including throttled ones.
	Peak int `json:"peak"`
}

// Stats summarizes what has happened so far.
type Stats struct {
	Rates      []Rate         `json:"rates"`
	Outcomes   map[string]int `json:"outcomes"`   // finished calls by Call.Outcome
	Jobs       int            `json:"jobs"`       // prefetches
	Targets    int            `json:"targets"`    // URLs that were accepted for prefetch
	Duplicates int            `json:"duplicates"` // accepted URLs, without the first of each key of Ledger.Duplicates
	// PurgeJobs and PurgeTargets are Jobs and Targets of purges.
	PurgeJobs    int `json:"purgeJobs"`
	PurgeTargets int `json:"purgeTargets"`
}

// Calls returns how many calls of an action arrived; "" means all actions.
func (s Stats) Calls(action string) int {
	return s.sum(action, func(r Rate) int { return r.Arrived })
}

// Throttled returns how many calls of an action were throttled; "" means all actions.
func (s Stats) Throttled(action string) int {
	return s.sum(action, func(r Rate) int { return r.Throttled })
}

// Peak returns the maximum number of calls of an action that one account made in a
// second; "" means any single action.
func (s Stats) Peak(action string) int {
	peak := 0
	for _, r := range s.Rates {
		if action == "" || r.Action == action {
			peak = max(peak, r.Peak)
		}
	}
	return peak
}

// sum adds up a number over the rates of an action; "" means all actions.
func (s Stats) sum(action string, of func(Rate) int) int {
	n := 0
	for _, r := range s.Rates {
		if action == "" || r.Action == action {
			n += of(r)
		}
	}
	return n
}

// Ledger returns what EdgeOne has executed so far.
func (s *Simulator) Ledger() Ledger {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(Ledger{}, s.ledger...)
}

// Purged returns how often a target was purged; see Ledger.Purged.
func (s *Simulator) Purged(target string) int { return s.Ledger().Purged(target) }

// Executed returns how often a URL was executed; see Ledger.Executed.
func (s *Simulator) Executed(url string) int { return s.Ledger().Executed(url) }

// Duplicates returns the URLs that were executed more than once; see Ledger.Duplicates.
func (s *Simulator) Duplicates() map[string]int { return s.Ledger().Duplicates() }

// Calls returns the finished calls, in the order in which they finished.
func (s *Simulator) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Call{}, s.log...)
}

// Stats summarizes what has happened so far.
func (s *Simulator) Stats() Stats {
	ledger := s.Ledger()
	stats := Stats{Outcomes: map[string]int{}, Rates: []Rate{}, Targets: ledger.Targets(), PurgeTargets: ledger.targets(createPurge)}
	for _, n := range ledger.Duplicates() { // without the lock, because it is slow for 100,000 URLs
		stats.Duplicates += n - 1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	stats.Jobs, stats.PurgeJobs = len(s.histories[createPrefetch]), len(s.histories[createPurge])
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
