package main

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// fault is one line of the catalogue: a kind of trouble.
type fault struct {
	name string
	// often is how many cards of the group's deck are this one.
	often int
	// least and most bound how long it lasts, calls how many calls it takes (1 to
	// calls, drawn); 0 is no limit.
	least, most time.Duration
	calls       int
	// lost says that it keeps the answer of a call from the manager, byCalls that
	// the log of calls says how often it struck.
	lost, byCalls bool
	// inject does it, and returns when it is over. It returns how often it struck
	// and when recovery starts to count, zero for the time of its return.
	inject func(ctx context.Context, c *chaos, e event) (struck int, from time.Time)
}

// group is faults that share a place. Those of a group come one after the other,
// unless they may overlap.
type group struct {
	name    string
	overlap bool
	gap     time.Duration // from the end of one (or its start, if they overlap) to the next, on average
	faults  []fault
}

// event is a fault at a time, with everything about it that is left to chance.
type event struct {
	at    time.Duration // since the start
	group *group
	fault *fault
	lasts time.Duration
	calls int
	// leader says that it strikes the manager that leads then, not the other.
	leader bool
	zone   int
	seed   uint64
}

func (e event) String() string {
	who := "standby"
	if e.leader {
		who = "leader"
	}
	return fmt.Sprintf("%6.1fs  %-12s %-60s lasts %5.1fs, calls %d, %s, zone %d, seed %d",
		e.at.Seconds(), e.group.name, e.fault.name, e.lasts.Seconds(), e.calls, who, e.zone+1, e.seed)
}

// draw draws the whole schedule. A group's faults are drawn like cards, without
// putting them back before the deck is through, so that a short run has most.
func draw(seed uint64, length time.Duration, groups []*group) (events []event) {
	for i, g := range groups {
		rng := rand.New(rand.NewPCG(seed, uint64(100+i)))
		var deck []*fault
		wait := func() time.Duration { return time.Duration((0.3 + 1.4*rng.Float64()) * float64(g.gap)) }
		for at := wait(); at < length; {
			if len(deck) == 0 {
				for k := range g.faults {
					deck = append(deck, slices.Repeat([]*fault{&g.faults[k]}, g.faults[k].often)...)
				}
				rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
			}
			f := deck[0]
			deck = deck[1:]
			e := event{at: at, group: g, fault: f, lasts: f.least, leader: rng.Float64() < 0.75, zone: rng.IntN(len(zones)), seed: rng.Uint64()}
			if f.most > f.least {
				e.lasts += time.Duration(rng.Int64N(int64(f.most - f.least)))
			}
			if f.calls > 0 {
				e.calls = 1 + rng.IntN(f.calls)
			}
			events = append(events, e)
			at += wait()
			if !g.overlap {
				at += e.lasts
			}
		}
	}
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	return events
}

// injection is an event that took place, by EdgeOne's clock.
type injection struct {
	event
	from, to time.Time
	struck   int
	recovery time.Time // when recovery starts to count
}

// inject carries out the schedule until it is through or ctx ends, and returns
// when every fault is over.
func (c *chaos) inject(ctx context.Context, schedule []event) {
	for _, g := range groups {
		c.group.Go(func() {
			// What takes longer than drawn, as an API server's start on a busy machine,
			// puts off the rest of its group: the pauses between are for recovering.
			late := time.Duration(0)
			for _, e := range schedule {
				if e.group != g {
					continue
				}
				lasting(ctx, time.Until(c.started.Add(e.at+late)))
				if ctx.Err() != nil {
					return
				}
				if g.overlap {
					c.group.Go(func() { c.strike(ctx, e) })
					continue
				}
				c.strike(ctx, e)
				late = max(late, time.Since(c.started)-e.at-e.lasts)
			}
		})
	}
	c.group.Wait()
}

func (c *chaos) strike(ctx context.Context, e event) {
	i := &injection{event: e, from: c.edgeOne.Now()}
	c.mu.Lock()
	c.underWay[i] = true
	c.mu.Unlock()
	i.struck, i.recovery = e.fault.inject(ctx, c, e)
	i.to = c.edgeOne.Now()
	if i.recovery.IsZero() {
		i.recovery = i.to
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.underWay, i)
	c.injections = append(c.injections, i)
}

// faultsUnderWay names what is wrong now.
func (c *chaos) faultsUnderWay() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for i := range c.underWay {
		names = append(names, i.fault.name)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, "; ")
}

// lasting waits, less if ctx ends.
func lasting(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
