package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/progress"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/taskwatch"
)

// waitOptions are the flags of commands that wait.
type waitOptions struct {
	// timeout is how long to wait, if it is not 0.
	timeout time.Duration
	// stalledGrace is how long a task may be Stalled before the wait ends.
	stalledGrace time.Duration
	output       outputFlag
}

// defaultStalledGrace is the value of --stalled-grace.
const defaultStalledGrace = 10 * time.Second

func (o *waitOptions) addTo(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&o.timeout, "timeout", 0, "How long to wait, for example 45m; 0 waits without a limit")
	cmd.Flags().DurationVar(&o.stalledGrace, "stalled-grace", defaultStalledGrace,
		"How long a task may need a person before the wait ends: what it lacks may be on its way")
}

func (o *waitOptions) validate() error {
	if o.timeout < 0 || o.stalledGrace < 0 {
		return errors.New("--timeout and --stalled-grace must not be negative")
	}
	return o.output.validate()
}

// arguments returns the options as a command line has them.
func (o *waitOptions) arguments() (args []string) {
	if o.timeout > 0 {
		args = append(args, "--timeout="+o.timeout.String())
	}
	if o.stalledGrace != defaultStalledGrace {
		args = append(args, "--stalled-grace="+o.stalledGrace.String())
	}
	if o.output.format != "" {
		args = append(args, "-o", o.output.format)
	}
	return args
}

func newWaitCommand(env *environment) *cobra.Command {
	var selection taskSelection
	var options waitOptions
	cmd := &cobra.Command{
		Use:   "wait (NAME... | -l SELECTOR)",
		Short: "Wait until the runs of tasks are over",
		Long: `Wait until the runs of tasks are over, and report their outcomes.

Progress is on standard error, the outcomes are on standard output. The exit code is
  0   every target of every task is prefetched
  1   any other error, for example because a task was deleted
  2   all runs are over, and some targets failed or have no known outcome
  3   a run needs a person (Stalled), and the others are over
  4   the time of --timeout is over
  130 Ctrl-C; the tasks continue`,
		Example: `  # Wait for two tasks, at most 45 minutes
  kubectl teo-prefetch wait warm-home warm-shop --timeout=45m

  # Wait for all tasks of a release, and print the outcomes as JSON
  kubectl teo-prefetch wait -l release=1.4.0 -o json`,
		ValidArgsFunction: env.completeTasks,
		RunE: func(cmd *cobra.Command, names []string) error {
			if err := cmp.Or(selection.validate(names), options.validate()); err != nil {
				return err
			}
			c, err := env.client()
			if err != nil {
				return err
			}
			keys, err := selection.keys(cmd.Context(), env, c, names)
			if err != nil {
				return err
			}
			w := newWaiter(env, c, selection, keys, options)
			if len(names) > 0 {
				return w.waitForNames(cmd.Context())
			}
			selector, err := labels.Parse(selection.selector)
			if err != nil {
				return err
			}
			return w.waitForSelector(cmd.Context(), selector)
		},
	}
	selection.addTo(cmd)
	options.addTo(cmd)
	options.output.addTo(cmd)
	return cmd
}

// waiter waits until the runs of some tasks are over.
type waiter struct {
	waitOptions
	env    *environment
	client client.WithWatch
	// selection is how the tasks were selected, if it was not by names.
	selection taskSelection
	keys      []client.ObjectKey
	tasks     map[client.ObjectKey]*waitedTask
	events    chan taskwatch.Event
	reporter  waitReporter
	isLost    bool // the watch failed, and was not opened again yet
}

// waitedTask is what is known of a task.
type waitedTask struct {
	progress.Progress
	key          client.ObjectKey
	label        string
	isKnown      bool
	isGone       bool
	stalledSince time.Time
}

func newWaiter(env *environment, c client.WithWatch, selection taskSelection, keys []client.ObjectKey, options waitOptions) *waiter {
	w := &waiter{
		waitOptions: options, env: env, client: c, selection: selection, keys: keys,
		tasks: map[client.ObjectKey]*waitedTask{}, events: make(chan taskwatch.Event),
	}
	for _, key := range keys {
		w.tasks[key] = &waitedTask{key: key, label: label(keys, key)}
	}
	w.reporter = newWaitReporter(env, w)
	return w
}

// label names a task among others: with its namespace, if there are several.
func label(keys []client.ObjectKey, key client.ObjectKey) string {
	if keys[0].Namespace == keys[len(keys)-1].Namespace {
		return key.Name
	}
	return key.String()
}

// waitForNames waits for tasks that must exist.
func (w *waiter) waitForNames(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, key := range w.keys {
		task, err := getTask(ctx, w.client, key)
		if err != nil {
			return err
		}
		w.update(key, progress.Of(task))
	}
	for _, key := range w.keys {
		if err := taskwatch.Follow(ctx, w.client, taskwatch.Scope{Namespace: key.Namespace, Name: key.Name}, w.events); err != nil {
			return err
		}
	}
	return w.wait(ctx)
}

// waitForSelector waits for the tasks that match a selector now. Tasks that match later are not waited
// for.
func (w *waiter) waitForSelector(ctx context.Context, selector labels.Selector) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	namespace := w.keys[0].Namespace
	for _, key := range w.keys {
		if key.Namespace != namespace {
			namespace = ""
			break
		}
	}
	if err := taskwatch.Follow(ctx, w.client, taskwatch.Scope{Namespace: namespace, Selector: selector}, w.events); err != nil {
		return err
	}
	return w.wait(ctx)
}

// wait waits until every task is settled, and reports the outcomes.
func (w *waiter) wait(ctx context.Context) error {
	var timeout <-chan time.Time
	if w.timeout > 0 {
		timer := time.NewTimer(w.timeout)
		defer timer.Stop()
		timeout = timer.C
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for !w.isSettled() {
		select {
		case event := <-w.events:
			if err := w.handle(ctx, event); err != nil {
				w.reporter.end()
				return err
			}
		case <-tick.C:
			w.reporter.tick(w.env.now())
		case <-timeout:
			return w.finish(true)
		case <-ctx.Done():
			w.reporter.end()
			return exitError{ExitInterrupted, fmt.Errorf("interrupted; the tasks continue. To wait again: %s", w.suggestWait())}
		}
	}
	return w.finish(false)
}

// isSettled reports whether nothing is to be waited for.
func (w *waiter) isSettled() bool {
	for _, task := range w.tasks {
		isStalled := task.Phase == progress.Stalled && w.env.now().Sub(task.stalledSince) >= w.stalledGrace
		if !task.isKnown || !isStalled && !task.Phase.IsOver() && task.Phase != progress.Deleted {
			return false
		}
	}
	return true
}

// handle takes in an event of the watch.
func (w *waiter) handle(ctx context.Context, event taskwatch.Event) error {
	switch {
	case event.Err != nil:
		return w.handleError(event.Err)
	case event.IsSynced:
		w.isLost = false
		w.markMissing(event.Scope)
	case w.tasks[event.Key] == nil:
	case event.IsGone && event.Scope.Name == "" && w.isThere(ctx, event):
		// Its labels have changed. It is still one of the tasks to wait for.
		return taskwatch.Follow(ctx, w.client, taskwatch.Scope{Namespace: event.Key.Namespace, Name: event.Key.Name}, w.events)
	case event.IsGone:
		w.remove(event.Key, event.Progress)
	default:
		w.isLost = false
		w.update(event.Key, event.Progress)
	}
	return nil
}

// handleError decides whether an error of the watch ends the wait.
func (w *waiter) handleError(err error) error {
	if isRefused(err) {
		return err
	}
	if !w.isLost && !isEndOfWatch(err) {
		w.isLost = true
		w.reporter.note(fmt.Sprintf("The cluster does not answer (%v); trying again", err))
	}
	return nil
}

// markMissing ends the wait for tasks of a scope that do not exist any more.
func (w *waiter) markMissing(scope taskwatch.Scope) {
	for key, task := range w.tasks {
		isInScope := scope.Name == key.Name && scope.Namespace == key.Namespace || scope.Name == ""
		if isInScope && !task.isKnown {
			w.remove(key, progress.Progress{})
		}
	}
}

// isThere reports whether a task that left the watch still exists.
func (w *waiter) isThere(ctx context.Context, event taskwatch.Event) bool {
	task, err := getTask(ctx, w.client, event.Key)
	return err == nil && task.UID == event.Progress.UID
}

// update takes in the progress of a task. A task of the same name that was created again is another
// one: nobody knows that it asks for the same.
func (w *waiter) update(key client.ObjectKey, p progress.Progress) {
	task := w.tasks[key]
	switch {
	case task.isGone:
		return
	case task.isKnown && task.UID != p.UID:
		w.remove(key, task.Progress)
		return
	case p.Phase != progress.Stalled:
		task.stalledSince = time.Time{}
	case task.stalledSince.IsZero():
		task.stalledSince = w.env.now()
	}
	task.Progress, task.isKnown = p, true
	w.reporter.update(task)
}

// remove takes in that a task was deleted. If its run was over, for example because the ttl controller
// has deleted it, its outcome counts.
func (w *waiter) remove(key client.ObjectKey, last progress.Progress) {
	task := w.tasks[key]
	if task.isGone {
		return
	}
	task.Progress, task.isKnown, task.isGone = last, true, true
	if !last.Phase.IsOver() {
		task.Phase, task.Reason, task.Message = progress.Deleted, "", "The task was deleted before its run was over"
	}
	w.reporter.update(task)
}

// suggestWait returns the command that waits for the same tasks again.
func (w *waiter) suggestWait() string {
	namespace, args := w.keys[0].Namespace, []string(nil)
	switch {
	case w.selection.allNamespaces:
		namespace, args = "", []string{"-l", w.selection.selector, "-A"}
	case w.selection.selector != "":
		args = []string{"-l", w.selection.selector}
	default:
		for _, key := range w.keys {
			args = append(args, key.Name)
		}
	}
	return w.env.suggestCommand("kubectl teo-prefetch wait", namespace, append(args, w.arguments()...)...)
}
