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

// fault is an entry of the catalogue: a kind of fault.
type fault struct {
	name string
	// often is the number of its cards in the group's deck.
	often int
	// least and most are the limits of its duration. calls is the maximum number of calls
	// that it strikes; the actual number is drawn from 1 to calls. 0 means no limit.
	least, most time.Duration
	calls       int
	// lost means that the fault suppresses the response to a call. byCalls means that the
	// log of calls shows how often the fault struck.
	lost, byCalls bool
	// inject injects the fault and returns when it has ended. It returns how often the
	// fault struck, and when recovery starts. A zero time means the time of the return.
	inject func(ctx context.Context, c *chaos, e event) (struck int, from time.Time)
}

// group is a group of faults that strike the same component. They strike one after the
// other, unless overlap is set.
type group struct {
	name    string
	overlap bool
	gap     time.Duration // average time from the end of a fault (or from its start, if they overlap) to the next
	faults  []fault
}

// event is a fault at a certain time, with all its random properties.
type event struct {
	at    time.Duration // since the start
	group *group
	fault *fault
	lasts time.Duration
	calls int
	// leader means that the event strikes the leader at that time, and not the standby.
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

// draw draws the complete schedule. The faults of a group are drawn like cards from a
// deck, and the deck is shuffled again only when it is empty. So even a short run has most
// faults.
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

// injection is an event that has taken place, with times on EdgeOne's clock.
type injection struct {
	event
	from, to time.Time
	struck   int
	recovery time.Time // when recovery starts to count
}

// inject carries out the schedule until its end or until ctx is done. It returns when
// every fault has ended.
func (c *chaos) inject(ctx context.Context, schedule []event) {
	for _, g := range groups {
		c.group.Go(func() {
			// A fault may take longer than planned, for example the start of an API server
			// on a busy machine. It then postpones the rest of its group, so that there is
			// time to recover.
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

// faultsUnderWay returns the names of the active faults.
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

// lasting waits for d, or until ctx is done.
func lasting(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
