package simulator

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// Never is the Status of a Rule that keeps a target processing forever.
const Never = "never"

// Rule decides the outcome of the targets that contain a text. Message, Refuse and
// FailMessage may contain placeholders for the call's secrets; see [Effect].
type Rule struct {
	// Action is the action that creates the job of the target: CreatePrefetchTask
	// (default) or CreatePurgeTask.
	Action string `json:"action,omitempty"`
	// URL is the text. Default: every target.
	URL string `json:"url,omitempty"`
	// Code and Message are an error that answers every call with the URL. Executed makes
	// EdgeOne execute the call nevertheless. See also CacheDelay.
	Code     string `json:"code,omitempty"`
	Message  string `json:"message,omitempty"`
	Executed bool   `json:"executed,omitempty"`
	// Refuse is the reason for which the URL is in FailedList and not in the job.
	Refuse string `json:"refuse,omitempty"`
	// Status is the final status of the URL (default: success). EdgeOne's values are
	// success, failed, timeout, canceled and, for prefetches, invalid. See also Never.
	Status      string `json:"status,omitempty"`
	FailType    string `json:"failType,omitempty"`
	FailMessage string `json:"failMessage,omitempty"`
	// Duration and ListingDelay override those of the Config.
	Duration     time.Duration `json:"duration,omitempty"`
	ListingDelay time.Duration `json:"listingDelay,omitempty"`
	// CacheDelay is the time from the end of the target until the cache changes: a prefetch
	// fills it, a purge empties it. If it is negative, the cache changes before the end,
	// but not before the call. Targets with another status than success change nothing,
	// unless Executed is set.
	CacheDelay time.Duration `json:"cacheDelay,omitempty"`
	// Segments is how many media segments the URL lists if it is a manifest. If a call
	// requests the segments, they use up daily quota, as far as there is any left.
	Segments int `json:"segments,omitempty"`
}

// validateRules refuses a rule for an action that creates no jobs.
func validateRules(rules []Rule) error {
	for _, r := range rules {
		if r.Action != "" && r.Action != createPrefetch && r.Action != createPurge {
			return fmt.Errorf("the action of a rule is %q, not %s or %s", r.Action, createPrefetch, createPurge)
		}
	}
	return nil
}

// ruleFor returns the first rule that matches a target of an action, or an empty Rule.
func (s *Simulator) ruleFor(action, target string) Rule {
	for _, rule := range s.rules {
		if cmp.Or(rule.Action, createPrefetch) == action && strings.Contains(target, rule.URL) {
			return rule
		}
	}
	return Rule{}
}

// SetRules replaces the rules that decide the outcome of each target. Targets that are
// already accepted keep their outcome. It panics if a rule is not valid.
func (s *Simulator) SetRules(rules ...Rule) {
	if err := validateRules(rules); err != nil {
		panic("simulator: " + err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = append([]Rule(nil), rules...)
}
