package main

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

// rivalRate is how many calls per second the rival makes: half of the limit.
const rivalRate = rate / 2

// rival is scenario (f).
func (b *bench) rival(ctx context.Context) (*result, error) {
	n := b.scaled(1200, 200)
	var calls []simulator.Call
	var out outcome
	err := b.inWorld(ctx, "f", options{roundTrip: idleRoundTrip, rival: rivalRate}, func(ctx context.Context, w *world) (err error) {
		out, err = w.work(ctx, "manager", n, func(i int) client.Object { return unlike(task(namespace, taskName(i), 1)) })
		calls = w.creations()
		return err
	})
	if err != nil {
		return nil, err
	}
	var accepted []simulator.Call
	for _, c := range calls {
		if c.Outcome == "OK" {
			accepted = append(accepted, c)
		}
	}
	r := &result{}
	throttled := float64(out.throttled) / float64(out.calls)
	used := share(accepted, rate-rivalRate)
	t := r.table("", "tasks", "calls", "throttled", "share throttled", "accepted a second", "share of what the rival leaves",
		"most calls in a second", "status writes per task")
	t.row(number(n), number(out.calls), number(out.throttled), percent(throttled), fmt.Sprintf("%.2f", float64(len(accepted))/span(accepted).Seconds()),
		percent(used), number(out.peak), fmt.Sprintf("%.2f", float64(out.writes)/float64(n)))
	r.figure("share of calls throttled", "at most 5 %", percent(throttled), throttled <= .05)
	r.figure("share of what the rival leaves that is used", "at least 90 %", percent(used), used >= .9)
	r.figure("URLs executed twice", "0", number(out.duplicates), out.duplicates == 0)
	return r, nil
}
