package model

import (
	"flag"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	exhaustive = flag.Bool("exhaustive", false, "check the large environments as well")
	limit      = flag.Int("states", 30_000_000, "stop exploring an environment at so many states")
)

// holding are the environments in which the protocol must hold. Every test run checks the
// small ones.
var holding = []environment{
	{Calls: 3, Partial: true, Growing: true},
	{Calls: 3, Growing: true, Denied: true},
	{Calls: 3, User: "edits"},
	{Calls: 3, User: "edits", Other: true},
	{Calls: 3, User: "reverts", Other: true},
	{Calls: 3, User: "deletes", Partial: true},
	{Calls: 3, User: "re-creates"},
	{Calls: 3, Foreign: true},
	{Calls: 3, Forgets: true, Denied: true},
	{Calls: 3, Overlap: true, Partial: true, Growing: true},
	{Calls: 3, Overlap: true, Forgets: true},
	{Calls: 3, Overlap: true, Lanes: true, Partial: true, Growing: true, Denied: true},
	{Calls: 2, Shared: true, Partial: true, Growing: true},
	{Calls: 2, Shared: true, User: "edits"},
	{Calls: 2, Shared: true, User: "edits", Other: true, Denied: true},
	{Calls: 2, Shared: true, User: "reverts", Other: true},
	{Calls: 2, Shared: true, User: "re-creates"},
	{Calls: 2, Shared: true, User: "re-creates", Other: true},
	{Calls: 2, Shared: true, Foreign: true},
	{Calls: 2, Shared: true, Forgets: true},
	{Calls: 2, Shared: true, Overlap: true, Growing: true},
	{Calls: 2, Shared: true, Overlap: true, User: "edits", Other: true},
	{Calls: 2, Shared: true, Overlap: true, Lanes: true, User: "re-creates", Partial: true},
	{Calls: 3, Alone: true, Retries: 2, Partial: true},
	{Calls: 3, Alone: true, Shared: true, Retries: 2},
	{Calls: 3, Alone: true, Shared: true, Retries: 2, User: "reverts", Other: true},
	{Calls: 2, Shared: true, Retries: 1},
	// As above, but without any reduction. The verdict must be the same.
	{Calls: 2, Partial: true, Growing: true, Whole: true},
	{Calls: 2, User: "reverts", Other: true, Whole: true},
	{Calls: 2, Overlap: true, Lanes: true, User: "edits", Other: true, Whole: true},
}

// large are further environments, for -exhaustive.
var large = []environment{
	{Calls: 3, Shared: true},
	{Calls: 3, Shared: true, Overlap: true, Lanes: true},
	{Calls: 3, Shared: true, Overlap: true},
	{Calls: 3, Shared: true, Overlap: true, Lanes: true, User: "edits", Other: true},
	{Calls: 3, Shared: true, User: "edits", Other: true},
	{Calls: 3, Shared: true, User: "reverts", Other: true},
	{Calls: 3, Shared: true, User: "re-creates"},
	{Calls: 3, Shared: true, Partial: true, Growing: true},
	{Calls: 3, Shared: true, Overlap: true, Denied: true, Foreign: true},
	{Calls: 3, Shared: true, Overlap: true, Partial: true, Growing: true, Denied: true, User: "edits"},
	{Calls: 2, Shared: true, Overlap: true, Partial: true, Growing: true, Denied: true, Forgets: true, User: "edits"},
	{Calls: 3, Alone: true, Shared: true, Retries: 2, Partial: true, Growing: true, Denied: true},
	{Calls: 3, Alone: true, Shared: true, Retries: 2, User: "re-creates"},
	{Calls: 2, Retries: 1, User: "edits"},
	{Calls: 2, Shared: true, Overlap: true, Lanes: true, Retries: 1, Partial: true, Denied: true},
	{Calls: 3, Shared: true, Retries: 2},
	{Calls: 2, Shared: true, User: "edits", Whole: true},
	{Calls: 2, Shared: true, Overlap: true, Growing: true, Whole: true},
}

func TestTheProtocolHoldsWhateverBreaks(t *testing.T) {
	rows := holding
	if raceDetector() {
		rows = slices.DeleteFunc(slices.Clone(rows), func(e environment) bool { return e.Shared || e.Whole })
	}
	if *exhaustive {
		rows = append(slices.Clone(rows), large...)
	}
	var done table
	t.Run("rows", func(t *testing.T) {
		for _, e := range rows {
			t.Run(e.String(), func(t *testing.T) {
				t.Parallel()
				if raceDetector() {
					e.Calls = 2 // it is slow, and the checker has no goroutines
				}
				r := done.check(e, e.holds())
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

// TestEveryWeakerProtocolFails removes one safeguard at a time. If nothing failed without
// a safeguard, the safeguard would be useless, or the model too lenient. In the same
// environment the complete protocol holds.
func TestEveryWeakerProtocolFails(t *testing.T) {
	mustFail(t, []failing{
		{environment{Calls: 2, Shared: true, Lacks: noLock}, duplicate},
		{environment{Calls: 2, Lacks: fenceAfterLook}, duplicate},
		{environment{Calls: 2, Shared: true, Lacks: signedWhenSent}, duplicate},
		{environment{Calls: 2, Lacks: readYourWrites}, duplicate},
		{environment{Calls: 2, Lacks: lostMeansFailed}, duplicate},
		{environment{Calls: 2, User: "edits", Lacks: recordedElsewhere}, miscounted},
		{environment{Calls: 2, Growing: true, Lacks: earlyPartial}, duplicate},
		{environment{Calls: 2, User: "re-creates", Lacks: windowTooEarly}, predating},
		{environment{Calls: 2, Shared: true, Lacks: sentUnacknowledged}, duplicate},
		{environment{Calls: 2, Lacks: shortMargin}, duplicate},
		{environment{Calls: 2, Forgets: true, Lacks: forgottenReleased}, duplicate},
		{environment{Calls: 2, Denied: true, Lacks: deniedReleased}, duplicate},
		{environment{Calls: 2, User: "edits", Other: true, Lacks: newRunAtOnce}, otherSemantics},
		{environment{Calls: 2, User: "reverts", Other: true, Lacks: oldRunForgotten}, duplicate},
		{environment{Calls: 2, Overlap: true, Forgets: true, Lacks: endlessHold}, stuck},
		{environment{Calls: 2, Alone: true, Retries: 1, Lacks: retryAtOnce}, unfailed},
		{environment{Calls: 3, Alone: true, Retries: 1, Lacks: retryOpensFirst}, duplicate},
		{environment{Calls: 2, Alone: true, Retries: 1, Lacks: retryNotedFirst}, skipped},
		{environment{Calls: 2, Alone: true, Retries: 1, Lacks: failedTaken}, predating},
	})
}

// TestTheLimitsOfThePromiseAreReal shows environments in which the protocol cannot know to
// which task a job belongs. In the same environments the rest of the promise holds, see
// above.
func TestTheLimitsOfThePromiseAreReal(t *testing.T) {
	mustFail(t, []failing{
		{environment{Calls: 2, Shared: true, Overlap: true, Partial: true}, lost},
		{environment{Calls: 2, Shared: true, Overlap: true, Lanes: true}, otherSemantics},
		{environment{Calls: 2, Overlap: true, Lanes: true, User: "deletes"}, otherSemantics},
		{environment{Calls: 2, User: "re-creates", Other: true}, otherSemantics},
		{environment{Calls: 2, Foreign: true}, lost},
	})
}

// TestReducingLosesNoState compares all states with the states after reduction. Every
// state must have a reduced one.
func TestReducingLosesNoState(t *testing.T) {
	if raceDetector() {
		t.Skip("it would take minutes, and the checker has no goroutines")
	}
	for _, e := range []environment{
		{Calls: 2, Partial: true, Growing: true},
		{Calls: 2, User: "reverts", Other: true, Denied: true},
		{Calls: 2, Forgets: true, Overlap: true, Lanes: true, User: "edits"},
		{Calls: 2, Shared: true, Overlap: true},
		{Calls: 2, Alone: true, Retries: 1, Partial: true},
	} {
		t.Run(e.String(), func(t *testing.T) {
			t.Parallel()
			whole := e
			whole.Whole = true
			compareReduced(t,
				explore(machine[state, label]{whole.start(), whole.next, whole.reduce, nil, whole.ended}),
				explore(machine[state, label]{e.start(), e.next, e.reduce, nil, e.ended}))
		})
	}
}

func compareReduced[S comparable, L fmt.Stringer](t *testing.T, all, few *explorer[S, L]) {
	t.Helper()
	if !all.check(*limit).exhausted || !few.check(*limit).exhausted {
		t.Fatal("not exhausted")
	}
	for x := range all.count {
		if s := *all.at(x); few.number(few.reduce(s)) < 0 {
			t.Fatalf("%+v\n%+v\n\t%s", s, few.reduce(s), strings.Join(all.trace(x), "\n\t"))
		}
	}
	t.Logf("%d states for %d", few.count, all.count)
}

type failing struct {
	environment
	how string
}

func mustFail(t *testing.T, rows []failing) {
	var done table
	t.Run("rows", func(t *testing.T) {
		for _, row := range rows {
			t.Run(row.String(), func(t *testing.T) {
				t.Parallel()
				e := row.environment
				r := done.check(e, slices.DeleteFunc(e.promise(), func(i invariant[state]) bool { return i.name != row.how }))
				if r.violation != row.how {
					t.Fatalf("after %d states: %q, but it should be %q", r.states, r.violation, row.how)
				}
				t.Logf("%s\n\t%s", r.violation, strings.Join(r.trace, "\n\t"))
				if e.Lacks == "" {
					return
				}
				e.Lacks = ""
				if r := done.check(e, e.holds()); r.violation != "" || !r.exhausted {
					t.Errorf("with the safeguard: %s\n\t%s", r.violation, strings.Join(r.trace, "\n\t"))
				}
			})
		}
	})
	done.log(t)
}

// table collects what was explored.
type table struct {
	mu    sync.Mutex
	lines []string
	total int
}

func (d *table) check(e environment, invariants []invariant[state]) result {
	return checkIn(d, e.String(), machine[state, label]{e.start(), e.next, e.reduce, invariants, e.ended})
}

// checkIn checks a machine and adds it to the table.
func checkIn[S comparable, L fmt.Stringer](d *table, name string, m machine[S, L]) result {
	began := time.Now()
	r := check(m, *limit)
	verdict := r.violation
	switch {
	case verdict == "" && r.exhausted:
		verdict = "holds"
	case verdict == "":
		verdict = "holds as far as explored"
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.total += r.states
	d.lines = append(d.lines, fmt.Sprintf("%10d states %7.1f s  %-60s %s", r.states, time.Since(began).Seconds(), name, verdict))
	return r
}

func (d *table) log(t *testing.T) {
	t.Logf("%d environments, %d states\n%s", len(d.lines), d.total, strings.Join(d.lines, "\n"))
}

func (e environment) String() string {
	words := []string{fmt.Sprintf("%d calls", e.Calls)}
	for _, word := range []struct {
		said bool
		text string
	}{
		{e.Alone, "one task"},
		{e.Shared, "many processes"},
		{e.Overlap, "overlap"},
		{e.Lanes, "two lanes"},
		{e.User != "", "user " + e.User},
		{e.Other, "other semantics"},
		{e.Partial, "partial"},
		{e.Growing, "growing"},
		{e.Denied, "denied"},
		{e.Foreign, "foreign"},
		{e.Forgets, "forgets"},
		{e.Retries > 0, fmt.Sprintf("%d retries", e.Retries)},
		{e.Whole, "not reduced"},
		{e.Lacks != "", string(e.Lacks)},
	} {
		if word.said {
			words = append(words, word.text)
		}
	}
	return strings.Join(words, ", ")
}

func raceDetector() bool {
	info, _ := debug.ReadBuildInfo()
	return info != nil && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
}
