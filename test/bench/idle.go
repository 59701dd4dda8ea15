package main

import (
	"context"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// idleEvery is the interval between two tasks. It is long enough to stay away from all
	// limits.
	idleEvery = 100 * time.Millisecond
	// idleRoundTrip is the round trip of the calls, including EdgeOne's own time: the
	// simulator answers within a millisecond.
	idleRoundTrip = 15 * time.Millisecond
	// warmUp is how many tasks are created before the measured ones.
	warmUp = 30
)

// idle is scenario (d).
func (b *bench) idle(ctx context.Context) (*result, error) {
	r := &result{}
	err := b.inWorld(ctx, "d", options{roundTrip: idleRoundTrip}, func(ctx context.Context, w *world) error {
		p, err := w.start(ctx, "manager")
		if err != nil {
			return err
		}
		each, err := w.trickle(ctx, p, "task", b.scaled(300, 30))
		if err != nil {
			return err
		}
		r.latency(row{"all", each})
		above := each.percentile(.99) - idleRoundTrip
		r.figure("create → JobId in the status, p99 above the round trip", "at most 100 ms", millis(above), above <= 100*time.Millisecond)
		return nil
	})
	return r, err
}

// row is a row of a table of latencies.
type row struct {
	what string
	each series
}

// latency adds a table of the times from the request that creates a task to its JobId.
func (r *result) latency(rows ...row) {
	t := r.table("", "", "tasks", "p50", "p90", "p99", "most")
	for _, row := range rows {
		t.row(row.what, number(len(row.each)), millis(row.each.percentile(.5)), millis(row.each.percentile(.9)),
			millis(row.each.percentile(.99)), millis(row.each.percentile(1)))
	}
}

// trickle creates n tasks one after the other and returns how long each took. It first
// creates warmUp tasks, which open connections and fill caches and are not measured.
func (w *world) trickle(ctx context.Context, p *program, prefix string, n int) (series, error) {
	if _, err := w.trickleOnce(ctx, p, prefix+"-warm-up", warmUp); err != nil {
		return nil, err
	}
	return w.trickleOnce(ctx, p, prefix, n)
}

func (w *world) trickleOnce(ctx context.Context, p *program, prefix string, n int) (series, error) {
	w.tasks.reset()
	ticker := time.NewTicker(idleEvery)
	defer ticker.Stop()
	failed := make(chan error, n)
	for i := range n {
		var object client.Object = task(namespace, fmt.Sprintf("%s-%06d", prefix, i), 1)
		w.group.Go(func() { // a slow response does not delay the next request
			if err := w.create(ctx, object); err != nil {
				failed <- err
			}
		})
		select {
		case <-ticker.C:
		case err := <-failed:
			return nil, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err := w.wait(ctx, p.Process, submitted(n)); err != nil {
		return nil, err
	}
	each, _ := untilJobs(w.tasks.lives())
	// The next measurement must not find unfinished work.
	return each, w.wait(ctx, p.Process, finished(n))
}
