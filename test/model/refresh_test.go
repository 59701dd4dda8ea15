package model

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// refreshHolding are the environments in which a run with a purge must keep its promise.
// Every test run checks them.
var refreshHolding = []refresh{
	{Calls: 4, Failing: true, Partial: true},
	{Calls: 4, Batches: true},
	{Calls: 4, Foreign: true},
	{Calls: 4, User: "edits"},
	{Calls: 4, User: "reverts"},
	{Calls: 4, Failing: true, Retries: 1},
	{Calls: 4, Deadline: true, Retries: 1},
	{Calls: 4, Deadline: true, User: "edits"},
	{Calls: 4, Prefixes: true, Batches: true, Failing: true, Retries: 1},
	{Calls: 5, Prefixes: true, Batches: true, Foreign: true},
	{Calls: 5, Batches: true, User: "edits"},
	{Calls: 5, One: true, User: "reverts", Failing: true, Retries: 1},
	{Calls: 5, One: true, Foreign: true, User: "edits"},
	// Prefetches that read an old version need a new run that waits for them.
	{Calls: 5, One: true, Slow: true, Patient: true, User: "edits"},
	{Calls: 4, Slow: true, Patient: true, User: "edits"},
	// Without any reduction. The verdict must be the same.
	{Calls: 3, One: true, User: "edits", Deadline: true, Failing: true, Whole: true},
}

// refreshLarge are further environments, for -exhaustive.
var refreshLarge = []refresh{
	{Calls: 5, Partial: true, Failing: true, Retries: 1},
	{Calls: 5, User: "edits", Failing: true},
	{Calls: 5, User: "reverts", Failing: true, Deadline: true},
	{Calls: 5, Foreign: true, Partial: true},
	{Calls: 4, Foreign: true, User: "edits"},
	{Calls: 5, Deadline: true, Failing: true, Retries: 2},
	{Calls: 5, Prefixes: true, Batches: true, Failing: true, Retries: 2},
	{Calls: 5, Prefixes: true, Failing: true, User: "edits", Retries: 1},
}

func (e *refresh) machine() machine[refreshState, event] {
	return machine[refreshState, event]{e.start(), e.next, e.reduce, e.promise(), e.hasEnded}
}

func TestARefreshHoldsWhateverBreaks(t *testing.T) {
	rows := refreshHolding
	if raceDetector() {
		rows = slices.DeleteFunc(slices.Clone(rows), func(e refresh) bool { return e.Whole || e.Foreign && !e.One })
	}
	if *exhaustive {
		rows = append(slices.Clone(rows), refreshLarge...)
	}
	var done table
	t.Run("rows", func(t *testing.T) {
		for _, e := range rows {
			t.Run(e.String(), func(t *testing.T) {
				t.Parallel()
				if raceDetector() {
					e.Calls = 3 // it is slow, and the checker has no goroutines
				}
				r := checkIn(&done, e.String(), e.machine())
				if r.violation != "" {
					t.Errorf("%s\n\t%s", r.violation, strings.Join(r.trace, "\n\t"))
				}
				if !r.exhausted && !*exhaustive {
					t.Errorf("not exhausted after %d states", r.states)
				}
			})
		}
	})
	done.log(t)
}

type failingRefresh struct {
	refresh
	how string
}

// TestEveryWeakerRefreshFails removes one rule at a time. Each weaker protocol harms
// visitors. The last rows show that the rules of the promise notice it as well. In the
// same environment the complete protocol holds.
func TestEveryWeakerRefreshFails(t *testing.T) {
	refreshMustFail(t, []failingRefresh{
		{refresh{Calls: 3, One: true, Lacks: purgeNotLocked}, cold},
		{refresh{Calls: 2, One: true, Foreign: true, Lacks: purgeAdoptedEarly}, cold},
		{refresh{Calls: 3, One: true, Lacks: purgeReleasedEarly}, cold},
		{refresh{Calls: 3, One: true, Lacks: purgeSignedAgain}, cold},
		{refresh{Calls: 2, One: true, Lacks: purgeAnswered}, cold},
		{refresh{Calls: 2, One: true, Failing: true, Lacks: purgeAnswered}, stale},
		{refresh{Calls: 2, One: true, Failing: true, Lacks: purgeFailureIgnored}, stale},
		{refresh{Calls: 3, One: true, User: "edits", Lacks: purgeLookalike}, stale},
		{refresh{Calls: 2, One: true, Foreign: true, Lacks: purgeOneOfSeveral}, cold},
		{refresh{Calls: 3, One: true, User: "edits", Lacks: purgeOutlivesRun}, cold},
		{refresh{Calls: 3, One: true, User: "edits", Lacks: purgeJobOutlivesRun}, cold},
		{refresh{Calls: 3, One: true, Deadline: true, Retries: 1, Lacks: purgeGivenUp}, cold},
		{refresh{Calls: 3, Prefixes: true, Batches: true, Lacks: purgeOneIsEnough}, cold},
		{refresh{Calls: 3, Prefixes: true, Failing: true, Retries: 1, Lacks: purgePrefixAgain}, cold},
		{refresh{Calls: 2, One: true, Lacks: purgeReleasedEarly}, twice},
		{refresh{Calls: 2, One: true, Lacks: purgeAnswered}, unpurged},
		{refresh{Calls: 3, One: true, User: "edits", Lacks: purgeOutlivesRun}, overtaking},
		{refresh{Calls: 2, One: true, Foreign: true, Lacks: purgeAdoptedEarly}, overtaking},
	})
}

// TestTheLimitsOfARefreshAreReal shows where the promise of a refresh ends: a task that is
// created again does not know the claim of the task before it; and a prefetch of the run
// before may store a version that it has read before the new run began.
func TestTheLimitsOfARefreshAreReal(t *testing.T) {
	refreshMustFail(t, []failingRefresh{
		{refresh{Calls: 3, One: true, User: "re-creates"}, cold},
		{refresh{Calls: 4, One: true, User: "edits", Slow: true}, stale},
	})
}

// TestARefreshOfATaskCreatedAgainServesNoOlderVersion shows what the first limit leaves:
// the URL may be cold, and never old.
func TestARefreshOfATaskCreatedAgainServesNoOlderVersion(t *testing.T) {
	for _, e := range []refresh{
		{Calls: 4, User: "re-creates"},
		{Calls: 5, One: true, User: "re-creates", Failing: true, Foreign: true},
	} {
		m := e.machine()
		m.invariants = []invariant[refreshState]{{stale, e.servesNoOlder}, {twice, e.actsOnce}}
		if r := check(m, *limit); r.violation != "" || !r.exhausted {
			t.Errorf("%s: %s\n\t%s", e, r.violation, strings.Join(r.trace, "\n\t"))
		}
	}
}

func refreshMustFail(t *testing.T, rows []failingRefresh) {
	var done table
	t.Run("rows", func(t *testing.T) {
		for _, row := range rows {
			t.Run(row.String()+": "+row.how, func(t *testing.T) {
				t.Parallel()
				e := row.refresh
				m := e.machine()
				m.invariants = slices.DeleteFunc(m.invariants, func(i invariant[refreshState]) bool { return i.name != row.how })
				r := checkIn(&done, e.String(), m)
				if r.violation != row.how {
					t.Fatalf("after %d states: %q, but it should be %q", r.states, r.violation, row.how)
				}
				t.Logf("%s\n\t%s", r.violation, strings.Join(r.trace, "\n\t"))
				if e.Lacks == "" {
					return
				}
				e.Lacks = ""
				if r := checkIn(&done, e.String(), e.machine()); r.violation != "" || !r.exhausted {
					t.Errorf("with the safeguard: %s\n\t%s", r.violation, strings.Join(r.trace, "\n\t"))
				}
			})
		}
	})
	done.log(t)
}

func TestReducingARefreshLosesNoState(t *testing.T) {
	for _, e := range []refresh{
		{Calls: 3, Partial: true},
		{Calls: 3, One: true, User: "reverts", Failing: true},
		{Calls: 3, One: true, Foreign: true, Deadline: true, Retries: 1},
	} {
		t.Run(e.String(), func(t *testing.T) {
			t.Parallel()
			whole := e
			whole.Whole = true
			compareReduced(t, explore(whole.machine()), explore(e.machine()))
		})
	}
}

func (e refresh) String() string {
	words := []string{fmt.Sprintf("%d calls", e.Calls)}
	for _, word := range []struct {
		said bool
		text string
	}{
		{e.One, "one URL"},
		{e.Prefixes, "prefixes"},
		{e.Batches, "batches"},
		{e.User != "", "user " + e.User},
		{e.Failing, "failing"},
		{e.Partial, "partial"},
		{e.Foreign, "foreign"},
		{e.Deadline, "deadline"},
		{e.Slow, "slow"},
		{e.Patient, "patient"},
		{e.Retries > 0, fmt.Sprintf("%d retries", e.Retries)},
		{e.Whole, "not reduced"},
		{e.Lacks != "", string(e.Lacks)},
	} {
		if word.said {
			words = append(words, word.text)
		}
	}
	return "refresh: " + strings.Join(words, ", ")
}
