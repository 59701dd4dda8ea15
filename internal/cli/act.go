package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/preview"
)

// fieldManager names this program as the owner of the fields that it sets. The names that begin with
// kubectl are not usable: Flux takes away what these own.
const fieldManager = "teo-prefetch"

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
	keys, err := options.selection.keys(ctx, e, c, names)
	if err != nil {
		return err
	}
	targets, err := e.readActTargets(ctx, c, keys, a)
	if err != nil {
		return err
	}
	quotas := newQuotaReader(c, e.now())
	for _, t := range targets {
		e.announce(ctx, quotas, a, t)
	}
	if slices.ContainsFunc(targets, func(t *actTarget) bool { return t.preview.Nothing == "" }) && a.needsAnswer && options.dryRun == "none" {
		if err := options.confirmation.ask(e, "Continue?"); err != nil {
			return err
		}
	}
	if err := e.applyActions(ctx, c, targets, options); err != nil {
		return err
	}
	if !options.wait {
		return e.printActions(options, a, targets)
	}
	waiting := options.waitOptions
	waiting.output = options.output
	return newWaiter(e, c, options.selection, keys, waiting).waitForNames(ctx)
}

// actTarget is a task that an action is about.
type actTarget struct {
	task    *v1alpha1.PrefetchTask
	label   string
	preview preview.Preview
	patch   []byte
	changed bool
}

// readActTargets reads all tasks, and prepares their patches, before anything is changed.
func (e *environment) readActTargets(ctx context.Context, c client.Client, keys []client.ObjectKey, a *action) (targets []*actTarget, err error) {
	for _, key := range keys {
		task, err := getTask(ctx, c, key)
		if err != nil {
			return nil, err
		}
		if a.needsTargets {
			resolved, err := resolveTargets(ctx, c, task)
			if err != nil {
				_ = printLine(e.ErrOut, "Warning: %v", err)
			} else {
				task = resolved
			}
		}
		t := &actTarget{task: task, label: label(keys, key), preview: a.preview(task)}
		if t.preview.Nothing == "" {
			if t.patch, err = newPatch(task, a); err != nil {
				return nil, err
			}
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// newPatch returns the merge patch of a task. Its uid makes the API server refuse it for a task that
// was deleted and created again since the preview.
func newPatch(task *v1alpha1.PrefetchTask, a *action) ([]byte, error) {
	patch := a.patch(task)
	metadata, _ := patch["metadata"].(map[string]any)
	if metadata == nil {
		metadata = map[string]any{}
	}
	metadata["uid"] = task.UID
	patch["metadata"] = metadata
	return json.Marshal(patch)
}

// applyActions sends the patches.
func (e *environment) applyActions(ctx context.Context, c client.Client, targets []*actTarget, options *actOptions) error {
	for _, t := range targets {
		if t.preview.Nothing != "" {
			continue
		}
		t.changed = true
		if options.dryRun == "client" {
			continue
		}
		opts := []client.PatchOption{client.FieldOwner(fieldManager)}
		if options.dryRun == "server" {
			opts = append(opts, client.DryRunAll)
		}
		object := &v1alpha1.PrefetchTask{}
		object.Namespace, object.Name = t.task.Namespace, t.task.Name
		if err := c.Patch(ctx, object, client.RawPatch(types.MergePatchType, t.patch), opts...); err != nil {
			return fmt.Errorf("%s: %w", t.label, err)
		}
	}
	return nil
}
