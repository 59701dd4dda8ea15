package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/progress"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/taskwatch"
)

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
			namespace, err := selection.namespace(env)
			if err != nil {
				return err
			}
			w := newWaiter(env, c, &selection, namespace, options)
			for _, key := range namedKeys(namespace, names) {
				w.addTask(key)
			}
			return w.wait(cmd.Context())
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
	// selection and namespace say which tasks are followed together. Without a selector, each is
	// followed by its name.
	selection *taskSelection
	namespace string
	// keys are the tasks in the order of the output, and tasks has one for each.
	keys  []client.ObjectKey
	tasks map[client.ObjectKey]*waitedTask
	// isComplete says that keys are all tasks to wait for. Without names, the first list has them.
	isComplete bool
	events     chan taskwatch.Event
	reporter   waitReporter
	isLost     bool // the tasks cannot be read now
}

// waitedTask is what is known of a task.
type waitedTask struct {
	progress.Progress
	key   client.ObjectKey
	label string
	// exists says that the task has been there.
	exists bool
	// isNamed says that the task is followed by its name.
	isNamed      bool
	isGone       bool
	stalledSince time.Time
}

// newWaiter returns a waiter for the tasks that addTask adds. If it adds none, they are those that the
// selection selects at the start. Tasks that it selects later are not waited for.
func newWaiter(env *environment, c client.WithWatch, selection *taskSelection, namespace string, options waitOptions) *waiter {
	w := &waiter{
		waitOptions: options, env: env, client: c, selection: selection, namespace: namespace,
		tasks: map[client.ObjectKey]*waitedTask{}, events: make(chan taskwatch.Event),
	}
	w.reporter = newWaitReporter(env, w)
	return w
}

// waitForTasks waits for tasks that this command has read or written, by a selection or by their names.
func (e *environment) waitForTasks(ctx context.Context, c client.WithWatch, selection *taskSelection, keys []client.ObjectKey, options waitOptions) error {
	namespace := keys[0].Namespace
	if selection.allNamespaces {
		namespace = ""
	}
	w := newWaiter(e, c, selection, namespace, options)
	for _, key := range keys {
		w.addTask(key).exists = true
	}
	return w.wait(ctx)
}

// addTask adds a task to wait for, and returns it.
func (w *waiter) addTask(key client.ObjectKey) *waitedTask {
	task := &waitedTask{key: key, label: w.selection.label(key), isNamed: w.selection.selector == ""}
	task.Phase, task.Message = progress.Running, "The cluster has not said yet how far the task is"
	w.keys, w.tasks[key] = append(w.keys, key), task
	return task
}

// wait waits until every task is settled, and reports the outcomes.
func (w *waiter) wait(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if w.timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, w.timeout)
		defer cancel()
	}
	if err := w.follow(ctx); err != nil {
		return err
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
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return w.finish(true)
			}
			w.reporter.end()
			return exitError{ExitInterrupted, fmt.Errorf("interrupted; the tasks continue. To wait again: %s", w.suggestWait())}
		}
	}
	return w.finish(false)
}

// follow starts to follow the tasks.
func (w *waiter) follow(ctx context.Context) error {
	w.isComplete = len(w.keys) > 0
	if w.selection.selector == "" {
		for _, key := range w.keys {
			w.followByName(ctx, w.tasks[key])
		}
		return nil
	}
	selector, err := labels.Parse(w.selection.selector)
	if err != nil {
		return err
	}
	go taskwatch.Follow(ctx, w.client, taskwatch.Scope{Namespace: w.namespace, Selector: selector}, w.events)
	return nil
}

func (w *waiter) followByName(ctx context.Context, task *waitedTask) {
	task.isNamed = true
	go taskwatch.Follow(ctx, w.client, taskwatch.Scope{Namespace: task.key.Namespace, Name: task.key.Name}, w.events)
}

// isSettled reports whether nothing is to be waited for.
func (w *waiter) isSettled() bool {
	for _, task := range w.tasks {
		isStalled := task.Phase == progress.Stalled && w.env.now().Sub(task.stalledSince) >= w.stalledGrace
		if !isStalled && !task.Phase.IsOver() && task.Phase != progress.Deleted {
			return false
		}
	}
	return w.isComplete
}

// handle takes in an event.
func (w *waiter) handle(ctx context.Context, event taskwatch.Event) error {
	if event.Err != nil {
		return w.handleError(event)
	}
	w.isLost = false
	if event.Listed != nil {
		return w.handleList(ctx, event)
	}
	task := w.tasks[event.Key]
	if task == nil && !w.isComplete {
		task = w.addTask(event.Key)
	}
	switch {
	case task == nil || !task.isOf(event.Scope):
		return nil
	case event.IsGone:
		return w.leave(ctx, task)
	}
	w.update(task, event.Progress)
	return nil
}

// isOf reports whether the events of a scope are about the task. Those of its selector are not any more
// once the task is followed by its name: they may be older.
func (t *waitedTask) isOf(scope taskwatch.Scope) bool {
	return !t.isNamed && scope.Name == "" || t.isNamed && scope.Name == t.key.Name && scope.Namespace == t.key.Namespace
}

// handleList takes in which tasks exist.
func (w *waiter) handleList(ctx context.Context, event taskwatch.Event) error {
	w.isComplete = true
	if len(w.keys) == 0 {
		return w.selection.noMatch(w.namespace)
	}
	for _, key := range w.keys {
		if task := w.tasks[key]; task.isOf(event.Scope) && !event.Listed[key] {
			if err := w.leave(ctx, task); err != nil {
				return err
			}
		}
	}
	return nil
}

// leave takes in that a task is not where it was followed. If that was by a selector, its labels may have
// changed, and it is still one of the tasks to wait for.
func (w *waiter) leave(ctx context.Context, task *waitedTask) error {
	switch {
	case !task.isNamed:
		w.followByName(ctx, task)
	case !task.exists:
		return missingTask(task.key)
	default:
		w.remove(task)
	}
	return nil
}

// maxRefusals is how often in a row the API server may refuse to let tasks be read that it has shown before.
// That are about half a minute.
const maxRefusals = 5

// handleError decides whether an error ends the wait.
func (w *waiter) handleError(event taskwatch.Event) error {
	has := func(is func(*waitedTask) bool) bool {
		return slices.ContainsFunc(w.keys, func(key client.ObjectKey) bool { return is(w.tasks[key]) })
	}
	hasRead := has(func(task *waitedTask) bool { return task.UID != "" })
	hasReached := has(func(task *waitedTask) bool { return task.exists })
	var answer apierrors.APIStatus
	switch {
	case event.Refusals > 0 && !hasRead, event.Refusals >= maxRefusals:
		return event.Err
	case !hasReached && !errors.As(event.Err, &answer): // as in other commands
		return event.Err
	}
	if !w.isLost {
		w.isLost = true
		w.reporter.note(fmt.Sprintf("The tasks cannot be read (%v); trying again", event.Err))
	}
	return nil
}

// update takes in the progress of a task. A task of the same name that was created again is another
// one: nobody knows that it asks for the same.
func (w *waiter) update(task *waitedTask, p progress.Progress) {
	switch {
	case task.isGone:
		return
	case task.UID != "" && task.UID != p.UID:
		w.remove(task)
		return
	case p.Phase != progress.Stalled:
		task.stalledSince = time.Time{}
	case task.stalledSince.IsZero():
		task.stalledSince = w.env.now()
	}
	task.Progress, task.exists = p, true
	w.reporter.update(task)
}

// remove takes in that a task was deleted. If its run was over, for example because the ttl controller
// has deleted it, its outcome counts.
func (w *waiter) remove(task *waitedTask) {
	if task.isGone {
		return
	}
	task.isGone = true
	if !task.Phase.IsOver() {
		task.Phase, task.Reason, task.Message = progress.Deleted, "", "The task was deleted before its run was over"
	}
	w.reporter.update(task)
}

// suggestWait returns the command that waits for the same tasks again.
func (w *waiter) suggestWait() string {
	var args []string
	switch {
	case w.selection.selector == "":
		for _, key := range w.keys {
			args = append(args, key.Name)
		}
	case w.namespace == "":
		args = []string{"-l", w.selection.selector, "-A"}
	default:
		args = []string{"-l", w.selection.selector}
	}
	return w.env.suggestCommand("kubectl teo-prefetch wait", w.namespace, append(args, w.arguments()...)...)
}
