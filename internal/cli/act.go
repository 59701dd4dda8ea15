package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/preview"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// action changes one field of tasks.
type action struct {
	// done says on standard output what was done to a task.
	done string
	// field is what the action sets, for messages.
	field string
	// preview says what the change makes the operator submit.
	preview func(*v1alpha1.PrefetchTask) preview.Preview
	// sentence says that for people.
	sentence func(preview.Preview) string
	// patch returns the change of a task as a merge patch.
	patch func(*v1alpha1.PrefetchTask) map[string]any
	// needsAnswer makes the command ask before it acts.
	needsAnswer bool
	// needsTargets reads the lists of targets in ConfigMaps.
	needsTargets bool
}

// actOptions are the flags of commands that act.
type actOptions struct {
	selection    taskSelection
	confirmation confirmation
	output       outputFlag
	dryRun       string
	wait         bool
	waitOptions  waitOptions
}

func (o *actOptions) addTo(cmd *cobra.Command, canWait bool) {
	o.selection.addTo(cmd)
	o.confirmation.addTo(cmd)
	o.output.addTo(cmd, "name")
	cmd.Flags().StringVar(&o.dryRun, "dry-run", "none", "none, client (only say what would be done) or server (let the API server check it)")
	_ = cmd.RegisterFlagCompletionFunc("dry-run", cobra.FixedCompletions([]string{"none", "client", "server"}, cobra.ShellCompDirectiveNoFileComp))
	if canWait {
		cmd.Flags().BoolVar(&o.wait, "wait", false, "Wait as the command wait does; the output and the exit code are those of wait")
		o.waitOptions.addTo(cmd)
	}
}

func (o *actOptions) validate(names []string) error {
	if !slices.Contains([]string{"none", "client", "server"}, o.dryRun) {
		return fmt.Errorf("unknown value %q of --dry-run: use none, client or server", o.dryRun)
	}
	if o.wait && (o.dryRun != "none" || o.output.format == "name") {
		return errors.New("--wait cannot be used with --dry-run or -o name")
	}
	if err := o.waitOptions.refuse(); err != nil && !o.wait {
		return err
	}
	return cmp.Or(o.selection.validate(names), o.output.validate(), o.waitOptions.validate())
}

// act runs an action.
func (e *environment) act(ctx context.Context, names []string, options *actOptions, a *action) error {
	if err := options.validate(names); err != nil {
		return err
	}
	c, err := e.client()
	if err != nil {
		return err
	}
	targets, err := e.readActTargets(ctx, c, names, &options.selection, a)
	if err != nil {
		return err
	}
	if a.needsAnswer { // it submits
		e.announceQuotas(ctx, newQuotaReader(c, e.now()), targets)
	}
	if a.needsAnswer && options.dryRun == "none" && slices.ContainsFunc(targets, (*actTarget).isToChange) {
		if err := options.confirmation.ask(e, "Continue?"); err != nil {
			return err
		}
	}
	err = e.applyActions(ctx, c, a, targets, options)
	if err != nil || !options.wait {
		return cmp.Or(e.printActions(options, a, targets), err)
	}
	waiting := options.waitOptions
	waiting.output = options.output
	var keys []client.ObjectKey
	for _, t := range targets {
		keys = append(keys, client.ObjectKeyFromObject(t.task))
	}
	return e.waitForTasks(ctx, c, &options.selection, keys, waiting)
}

// actTarget is a task that an action is about.
type actTarget struct {
	task    *v1alpha1.PrefetchTask // without its targets
	label   string
	preview preview.Preview
	changed bool
	err     error // why it is not changed
}

// isToChange reports whether there is something to change.
func (t *actTarget) isToChange() bool { return t.preview.Nothing == "" }

// readActTargets reads all tasks before anything is changed, and says of each what the action does. It
// keeps no targets: they may be many.
func (e *environment) readActTargets(ctx context.Context, c client.Client, names []string, selection *taskSelection, a *action) (targets []*actTarget, err error) {
	err = selection.readTasks(ctx, e, c, names, func(task *v1alpha1.PrefetchTask) {
		if a.needsTargets {
			if resolved, err := resolveTargets(ctx, c, task); err != nil {
				_ = printLine(e.ErrOut, "Warning: %v", err)
			} else {
				task = resolved
			}
		}
		t := &actTarget{task: taskstate.ElideTargets(task), label: selection.label(client.ObjectKeyFromObject(task)), preview: a.preview(task)}
		e.announce(a, t)
		targets = append(targets, t)
	})
	return targets, err
}
