package taskstate_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

func TestPositionsText(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       taskstate.Positions
		wrong      bool
	}{
		{name: "none", text: ""},
		{name: "one", text: "7", want: taskstate.Positions{7}},
		{name: "ranges and single ones", text: "0-2,4,6-7", want: taskstate.Positions{0, 1, 2, 4, 6, 7}},
		{name: "descending", text: "4,2", wrong: true},
		{name: "overlapping", text: "0-4,4", wrong: true},
		{name: "a range backwards", text: "4-2", wrong: true},
		{name: "negative", text: "-1", wrong: true},
		{name: "words", text: "all", wrong: true},
		{name: "a gap in the list", text: "1,,2", wrong: true},
		{name: "so long that it would fill the memory", text: "0-999999999", wrong: true},
		{name: "more than an int holds", text: "0-99999999999999999999", wrong: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := taskstate.ParsePositions(c.text)
			if (err != nil) != c.wrong || !c.wrong && !slices.Equal(got, c.want) {
				t.Fatalf("got %v, %v", got, err)
			}
			if !c.wrong && got.String() != c.text {
				t.Errorf("written as %q", got.String())
			}
		})
	}
	for _, nonsense := range []string{"nonsense", "1-3", "5000-6000"} {
		if got := taskstate.CoveredPositions(nonsense, 3); !slices.Equal(got, taskstate.AllPositions(3)) {
			t.Errorf("a status edited into %s is %v, want all: submitting twice is worse", nonsense, got)
		}
	}
}

func TestPositionsAreSets(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 1))
		draw := func() (taskstate.Positions, map[int]bool) {
			set, density := map[int]bool{}, r.Float64()
			var p taskstate.Positions
			for i := range r.IntN(60) {
				if r.Float64() < density {
					p, set[i] = append(p, i), true
				}
			}
			return p, set
		}
		a, inA := draw()
		b, inB := draw()
		check := func(name string, got taskstate.Positions, want func(i int) bool) {
			var expected taskstate.Positions
			for i := range 60 {
				if want(i) {
					expected = append(expected, i)
				}
			}
			if !slices.Equal(got, expected) {
				t.Fatalf("seed %d: %s of %v and %v is %v, want %v", seed, name, a, b, got, expected)
			}
		}
		again, err := taskstate.ParsePositions(a.String())
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		check("round trip", again, func(i int) bool { return inA[i] })
		check("union", a.Union(b), func(i int) bool { return inA[i] || inB[i] })
		check("minus", a.Minus(b), func(i int) bool { return inA[i] && !inB[i] })
		check("in", a.Intersect(b), func(i int) bool { return inA[i] && inB[i] })
	}
}
