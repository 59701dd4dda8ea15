package model

import (
	"fmt"
	"hash/maphash"
	"slices"
)

// machine is what the checker explores: every state that any sequence of steps can reach
// from the start.
type machine[S comparable, L fmt.Stringer] struct {
	start S
	// next appends the possible steps of a state.
	next func(s S, steps []step[S, L]) []step[S, L]
	// reduce maps equivalent states, which have the same possible futures, to one of them.
	reduce     func(S) S
	invariants []invariant[S]
	// ended reports that nothing is left to do. From every state, a state that has ended
	// must be reachable without further faults.
	ended func(S) bool
}

type step[S comparable, L fmt.Stringer] struct {
	to    S
	label L
	fault bool // may happen, but progress must not depend on it
}

type invariant[S comparable] struct {
	name  string
	holds func(S) bool
}

// stuck is the violation of a state from which no end can be reached.
const stuck = "stuck"

type result struct {
	states    int
	exhausted bool     // every reachable state was visited
	violation string   // the invariant that does not hold, or stuck; empty if there is no violation
	trace     []string // one of the shortest ways to the violation
}

// check visits the reachable states breadth first, so that a violation has one of the
// shortest traces. It stops at the first violation, or at limit states.
func check[S comparable, L fmt.Stringer](m machine[S, L], limit int) result {
	return explore(m).check(limit)
}

func explore[S comparable, L fmt.Stringer](m machine[S, L]) *explorer[S, L] {
	e := &explorer[S, L]{machine: m, seed: maphash.MakeSeed(), index: make([]entry, 1<<12)}
	e.visit(m.reduce(m.start), 0)
	return e
}

func (e *explorer[S, L]) check(limit int) result {
	var steps []step[S, L]
	for x := 0; x < e.count; x++ {
		s := *e.at(x)
		for _, invariant := range e.invariants {
			if !invariant.holds(s) {
				return result{states: e.count, violation: invariant.name, trace: e.trace(x)}
			}
		}
		if e.count > limit {
			return result{states: e.count}
		}
		steps = e.next(s, steps[:0])
		for i := range steps {
			e.visit(e.reduce(steps[i].to), x)
		}
	}
	if x, ok := e.findStuck(); ok {
		return result{states: e.count, exhausted: true, violation: stuck, trace: e.trace(x)}
	}
	return result{states: e.count, exhausted: true}
}

// explorer stores the visited states, numbered in the order of their first visit. The
// states are stored in blocks, so that growing copies none of them. An open-addressed hash
// table of their numbers finds them.
type explorer[S comparable, L fmt.Stringer] struct {
	machine[S, L]
	seed   maphash.Seed
	blocks [][]visited[S]
	count  int
	index  []entry
}

type visited[S comparable] struct {
	state S
	from  uint32 // the state from which it was first reached
}

const blockSize = 1 << 13

func (e *explorer[S, L]) at(x int) *S { return &e.blocks[x/blockSize][x%blockSize].state }

func (e *explorer[S, L]) from(x int) int { return int(e.blocks[x/blockSize][x%blockSize].from) }

// entry is a slot of the index: the number of a state + 1, or 0 if the slot is free. It
// also stores 32 bits of the hash, which avoids most comparisons of states, and rehashing
// when the index grows.
type entry struct{ number, hash uint32 }

// place returns the slot of the state in the index, or the free slot where it belongs.
func (e *explorer[S, L]) place(s *S) (i int, hash uint32) {
	hash = uint32(maphash.Comparable(e.seed, *s))
	mask := len(e.index) - 1
	i = int(hash) & mask
	for e.index[i].number != 0 && (e.index[i].hash != hash || *e.at(int(e.index[i].number) - 1) != *s) {
		i = (i + 1) & mask
	}
	return i, hash
}

// visit records a state that was reached from another one, unless it is known already.
func (e *explorer[S, L]) visit(s S, from int) {
	i, hash := e.place(&s)
	if e.index[i].number != 0 {
		return
	}
	if e.count%blockSize == 0 {
		e.blocks = append(e.blocks, make([]visited[S], blockSize))
	}
	e.blocks[e.count/blockSize][e.count%blockSize] = visited[S]{s, uint32(from)}
	e.count++
	e.index[i] = entry{uint32(e.count), hash}
	if e.count*3 > len(e.index)*2 {
		e.grow()
	}
}

// number returns the number of a state, or -1 if it was not visited.
func (e *explorer[S, L]) number(s S) int {
	i, _ := e.place(&s)
	return int(e.index[i].number) - 1
}

func (e *explorer[S, L]) grow() {
	old := e.index
	e.index = make([]entry, 2*len(old))
	mask := len(e.index) - 1
	for _, moved := range old {
		if moved.number == 0 {
			continue
		}
		i := int(moved.hash) & mask
		for e.index[i].number != 0 {
			i = (i + 1) & mask
		}
		e.index[i] = moved
	}
}

// findStuck returns a state from which no end can be reached. It sweeps from the last
// state to the first, because most steps lead to a state with a higher number; mostly a
// few sweeps are enough. Computing the steps again is cheaper than storing them all.
func (e *explorer[S, L]) findStuck() (int, bool) {
	canEnd := make([]bool, e.count)
	open := make([]uint32, 0, e.count)
	for x := e.count - 1; x >= 0; x-- {
		open = append(open, uint32(x))
	}
	var steps []step[S, L]
	for before := -1; len(open) != before; {
		before = len(open)
		open = slices.DeleteFunc(open, func(x uint32) bool {
			s := *e.at(int(x))
			canEnd[x] = e.ended(s)
			if canEnd[x] {
				return true
			}
			steps = e.next(s, steps[:0])
			canEnd[x] = slices.ContainsFunc(steps, func(step step[S, L]) bool {
				return !step.fault && canEnd[e.number(e.reduce(step.to))]
			})
			return canEnd[x]
		})
	}
	if len(open) == 0 {
		return 0, false
	}
	return int(open[len(open)-1]), true // has one of the shortest traces
}

// trace returns how a state was reached, one line per step.
func (e *explorer[S, L]) trace(x int) []string {
	var lines []string
	for x != 0 {
		from, to := e.from(x), *e.at(x)
		for _, step := range e.next(*e.at(from), nil) {
			if e.reduce(step.to) == to {
				lines = append(lines, step.label.String())
				break
			}
		}
		x = from
	}
	slices.Reverse(lines)
	return lines
}
