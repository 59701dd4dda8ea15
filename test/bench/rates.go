package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

// roundTrips are the simulated round trips to EdgeOne. aim is the share of the limit that
// the operator should use with each.
var roundTrips = []struct {
	time time.Duration
	aim  float64
}{
	{time.Millisecond, .99}, {15 * time.Millisecond, .98}, {60 * time.Millisecond, .94}, {200 * time.Millisecond, .83},
}

// baselineRoundTrip is the round trip for the measurement of the baselines.
const baselineRoundTrip = 15 * time.Millisecond

// rates is scenario (b).
func (b *bench) rates(ctx context.Context) (*result, error) {
	r := &result{}
	t := r.table("The operator:", "round trip", "EdgeOne counts by", "tasks", "calls", "time from the first call to the last", "share of the 20 calls/s used",
		"most calls in a second", "throttled", "JobIds of all", "p99")
	var ours outcome
	for _, counting := range []simulator.RateWindow{simulator.SlidingWindow, simulator.FixedWindow, simulator.TokenBucket} {
		for _, trip := range roundTrips {
			n := b.scaled(2000, 100)
			if counting != simulator.SlidingWindow {
				n = b.scaled(400, 100)
			}
			name := fmt.Sprintf("b %s %s", counting, trip.time)
			out, calls, err := b.unlike(ctx, name, options{roundTrip: trip.time, counting: counting}, n)
			if err != nil {
				return nil, err
			}
			used := share(calls, rate)
			t.row(trip.time.String(), string(counting), number(n), number(out.calls), seconds(span(calls)), percent(used), number(out.peak), number(out.throttled),
				seconds(out.all), seconds(out.each.percentile(.99)))
			r.figure(fmt.Sprintf("share of the limit at a round trip of %s, counting by %s", trip.time, counting), fmt.Sprintf("at least %.0f %%", 100*trip.aim),
				percent(used), used >= trip.aim)
			r.figure(fmt.Sprintf("throttled at a round trip of %s, counting by %s", trip.time, counting), "0", number(out.throttled), out.throttled == 0)
		}
	}
	// The baselines, and the operator for comparison.
	n, o := b.scaled(400, 100), options{roundTrip: baselineRoundTrip}
	ours, _, err := b.unlike(ctx, "b operator", o, n)
	if err != nil {
		return nil, err
	}
	baselines, err := b.baselines(ctx, "b", o, n, false)
	if err != nil {
		return nil, err
	}
	r.compare(fmt.Sprintf("Beside the baselines, with %s tasks at a round trip of %s, counting by sliding window:", number(n), baselineRoundTrip), ours, baselines)
	return r, nil
}

// unlike lets the manager process tasks that cannot share a call.
func (b *bench) unlike(ctx context.Context, name string, o options, n int) (out outcome, calls []simulator.Call, err error) {
	err = b.inWorld(ctx, name, o, func(ctx context.Context, w *world) error {
		out, err = w.work(ctx, "manager", n, func(i int) client.Object { return unlike(task(namespace, taskName(i), 1)) })
		calls = w.creations()
		return err
	})
	out.who, out.follows = "this operator", true
	return out, calls, err
}

// creations returns the calls of CreatePrefetchTask so far, in the order of their arrival.
func (w *world) creations() []simulator.Call {
	var calls []simulator.Call
	for _, c := range w.edgeOne.Calls() {
		if c.Action == create {
			calls = append(calls, c)
		}
	}
	slices.SortFunc(calls, func(a, b simulator.Call) int { return a.Time.Compare(b.Time) })
	return calls
}

// span returns the time from the first call to the last.
func span(calls []simulator.Call) time.Duration {
	if len(calls) == 0 {
		return 0
	}
	return calls[len(calls)-1].Time.Sub(calls[0].Time)
}

// share returns how much of a limit in calls per second was used. If calls always went out
// as fast as the limit allows, each call would come one second after the call that is
// limit positions before it, and share would return 1. share divides one second by the
// average of these distances.
func share(calls []simulator.Call, limit int) float64 {
	var apart time.Duration
	for i := limit; i < len(calls); i++ {
		apart += calls[i].Time.Sub(calls[i-limit].Time)
	}
	return float64(len(calls)-limit) / apart.Seconds()
}
