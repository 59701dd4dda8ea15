package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

const (
	// flood is the namespace with many tasks. floodURLs is the number of URLs in each of
	// them.
	flood     = "flood"
	floodURLs = 10
	// singleEvery is the interval at which another namespace creates a task.
	singleEvery = time.Second
	// planned is the maximum time from the manager's decision on a call until its claim is
	// seen. The claims of a call are written 20 at a time.
	planned = 100 * time.Millisecond
)

// fairness is scenario (g).
func (b *bench) fairness(ctx context.Context) (*result, error) {
	r := &result{}
	t := r.table("", "the flood", "its tasks waiting at the end", "single tasks", "calls that went before, p50", "most",
		"of those ahead of it, p50", "most", "create → JobId, p50", "p99")
	for _, kind := range []struct {
		name   string
		object func(i int) client.Object
	}{
		{"one lane", func(i int) client.Object { return floodTask(i) }},
		{"lanes of their own", func(i int) client.Object { return unlike(floodTask(i)) }},
	} {
		err := b.inWorld(ctx, "g "+kind.name, options{roundTrip: idleRoundTrip}, func(ctx context.Context, w *world) error {
			return w.singles(ctx, r, t, kind.name, b.scaled(5000, 500), kind.object)
		})
		if err != nil {
			return nil, err
		}
	}
	return r, nil
}

func floodTask(i int) *v1alpha1.PrefetchTask {
	return task(flood, fmt.Sprintf("flood-%06d", i), floodURLs)
}

// singles lets one namespace create a task at intervals while another namespace has n
// waiting tasks. It ends when no task of the flood waits any more.
func (w *world) singles(ctx context.Context, r *result, t *table, name string, n int, object func(int) client.Object) error {
	if err := w.createNamespace(ctx, flood); err != nil {
		return err
	}
	// The tasks are created before the manager starts, so that all of them wait.
	if err := w.createAll(ctx, n, object); err != nil {
		return err
	}
	p, err := w.start(ctx, "manager")
	if err != nil {
		return err
	}
	if err := w.wait(ctx, p.Process, submitted(1)); err != nil {
		return err
	}
	var names []string
	ticker := time.NewTicker(singleEvery)
	defer ticker.Stop()
	waiting := n
	for i := 0; i < 30; i++ {
		name := fmt.Sprintf("single-%03d", i)
		if err := w.create(ctx, task(namespace, name, 1)); err != nil {
			return err
		}
		names = append(names, name)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		lives := w.tasks.lives()
		if waiting = unclaimed(lives, flood); waiting == 0 {
			names = names[:len(names)-1] // the flood may have ended before this task's call
			break
		}
	}
	if err := w.wait(ctx, p.Process, func(counts) bool {
		lives := w.tasks.lives()
		for _, name := range names {
			if lives[name].submitted.IsZero() {
				return false
			}
		}
		return true
	}); err != nil {
		return err
	}
	lives, calls := w.tasks.lives(), w.creations()
	var each series
	var before, ahead []int
	for _, name := range names {
		each = append(each, lives[name].submitted.Sub(lives[name].asked))
		before = append(before, callsBefore(calls, lives, name))
		ahead = append(ahead, callsAhead(calls, lives, name))
	}
	slices.Sort(before)
	slices.Sort(ahead)
	if len(before) == 0 {
		return errors.New("the flood was over before a single task was created")
	}
	last, middle := len(before)-1, (len(before)-1)/2
	most := ahead[last]
	t.row(fmt.Sprintf("%s tasks of %d URLs in %s", number(n), floodURLs, name), number(waiting), number(len(names)), number(before[middle]), number(before[last]),
		number(ahead[middle]), number(most), millis(each.percentile(.5)), millis(each.percentile(.99)))
	r.figure("calls ahead of a single task, beyond those under way; the flood in "+name, "at most 2", number(most), most <= 2)
	return nil
}

func unclaimed(lives map[string]life, prefix string) (n int) {
	for name, l := range lives {
		if strings.HasPrefix(name, prefix) && l.claimed.IsZero() && l.submitted.IsZero() {
			n++
		}
	}
	return n
}

// callsBefore counts the calls that EdgeOne received after a task was created and before
// the task's own call. Calls that were in progress when the task was created do not count:
// a status had shown one of their claims by then.
func callsBefore(calls []simulator.Call, lives map[string]life, name string) (n int) {
	return countCalls(calls, lives, name, lives[name].created, time.Time{})
}

// callsAhead counts the calls of callsBefore that certainly went ahead of the task, and
// not alongside it. EdgeOne received them before the task's own claim was seen, and their
// claims were first seen more than planned after the task's creation.
func callsAhead(calls []simulator.Call, lives map[string]life, name string) (n int) {
	return countCalls(calls, lives, name, lives[name].created.Add(planned), lives[name].claimed)
}

func countCalls(calls []simulator.Call, lives map[string]life, name string, underWay, until time.Time) (n int) {
	for _, c := range calls {
		if !until.IsZero() && c.Time.After(until) {
			return n
		}
		early := false
		for _, url := range c.URLs {
			if taskOf(url) == name {
				return n
			}
			claimed := lives[taskOf(url)].claimed
			early = early || !claimed.IsZero() && claimed.Before(underWay)
		}
		if c.Time.After(lives[name].created) && !early {
			n++
		}
	}
	return n
}
