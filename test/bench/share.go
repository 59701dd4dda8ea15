package main

import (
	"context"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// outcome is the result of one program's work on the tasks.
type outcome struct {
	who                string
	tasks              int
	each               series        // from the request that creates a task to its JobId
	all                time.Duration // from the first request to the last JobId
	calls, peak        int
	throttled          int
	lookups            int
	duplicates         int
	requests, writes   int
	usage              usage
	hasServer, follows bool // whether it uses an API server, and whether it reads outcomes
}

// share is scenario (a).
func (b *bench) share(ctx context.Context) (*result, error) {
	n := b.scaled(5000, 50)
	one := func(i int) client.Object { return task(namespace, taskName(i), 1) }
	ours, err := b.work(ctx, "a operator", options{}, n, one)
	if err != nil {
		return nil, err
	}
	r := &result{}
	baselines, err := b.baselines(ctx, "a", options{}, n, true)
	if err != nil {
		return nil, err
	}
	r.compare("", ours, baselines)
	best := baselines[0]
	for _, o := range baselines {
		if o.all < best.all {
			best = o
		}
	}
	perTask := func(count int) string { return fmt.Sprintf("%.3f", float64(count)/float64(n)) }
	r.figure("all JobIds sooner than the best baseline ("+best.who+")", "at least 5 times",
		fmt.Sprintf("%.1f times", times(best.all, ours.all)), times(best.all, ours.all) >= 5)
	r.figure("calls of CreatePrefetchTask", "at most 60", number(ours.calls), ours.calls <= 60)
	perSecond := float64(n) / ours.all.Seconds()
	r.figure("tasks a second, from the first creation to the last JobId", "at least 100", fmt.Sprintf("%.0f", perSecond), perSecond >= 100)
	r.figure("calls of DescribePrefetchTasks per task until all are finished", "at most 0.05", perTask(ours.lookups), ours.lookups*20 <= n)
	r.figure("status writes per task", "at most 3", perTask(ours.writes), ours.writes <= 3*n)
	r.figure("URLs executed twice", "0", number(ours.duplicates), ours.duplicates == 0)
	return r, nil
}

// work lets the manager process n tasks that are created while it runs.
func (b *bench) work(ctx context.Context, name string, o options, n int, object func(int) client.Object) (out outcome, err error) {
	err = b.inWorld(ctx, name, o, func(ctx context.Context, w *world) error {
		out, err = w.work(ctx, "manager", n, object)
		return err
	})
	out.who, out.follows = "this operator", true
	return out, err
}

// work lets an operator process n objects that are created while it runs.
func (w *world) work(ctx context.Context, program string, n int, object func(int) client.Object) (out outcome, err error) {
	p, err := w.start(ctx, program)
	if err != nil {
		return out, err
	}
	before, err := w.statusWrites(ctx)
	if err != nil {
		return out, err
	}
	if err := w.createAll(ctx, n, object); err != nil {
		return out, err
	}
	if err := w.wait(ctx, p.Process, submitted(n)); err != nil {
		return out, err
	}
	if program == "manager" {
		if err := w.wait(ctx, p.Process, finished(n)); err != nil {
			return out, err
		}
	}
	// This leaves time for what follows the last changes: an Event, or a pass with nothing
	// to do.
	if err := pause(ctx, 2*time.Second); err != nil {
		return out, err
	}
	out = w.outcome(program, n)
	out.hasServer = true
	out.each, out.all = untilJobs(w.tasks.lives())
	if out.requests, err = p.requests(ctx); err != nil {
		return out, err
	}
	if out.writes, err = w.statusWrites(ctx); err != nil {
		return out, err
	}
	out.writes -= before
	out.usage, err = p.usage()
	return out, err
}

// outcome returns the result according to EdgeOne.
func (w *world) outcome(who string, n int) outcome {
	stats := w.edgeOne.Stats()
	return outcome{
		who: who, tasks: n, calls: stats.Calls(create), peak: stats.Peak(create), throttled: stats.Throttled(create),
		lookups: stats.Calls(lookup), duplicates: stats.Duplicates,
	}
}

// compare adds a table that compares the results of several programs.
func (r *result) compare(title string, ours outcome, baselines []outcome) {
	t := r.table(title, "", "JobIds of all", "median", "p99", "calls", "most calls in a second", "throttled", "look-ups", "executed twice",
		"API-server requests per task", "status writes per task", "CPU", "peak memory")
	for _, o := range append([]outcome{ours}, baselines...) {
		perTask := func(count int) string {
			if !o.hasServer {
				return "none"
			}
			return fmt.Sprintf("%.2f", float64(count)/float64(o.tasks))
		}
		lookups := "none"
		if o.follows {
			lookups = number(o.lookups)
		}
		t.row(o.who, seconds(o.all), seconds(o.each.percentile(.5)), seconds(o.each.percentile(.99)), number(o.calls), number(o.peak), number(o.throttled),
			lookups, number(o.duplicates), perTask(o.requests), perTask(o.writes), seconds(o.usage.cpu), fmt.Sprintf("%d MiB", o.usage.peak))
	}
}
