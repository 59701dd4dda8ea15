package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// fieldManager names this program as the owner of the fields that it sets. The names that begin with
// kubectl are not usable: Flux takes away what these own.
const fieldManager = "teo-prefetch"

// applyActions changes the tasks. A task that cannot be changed does not keep it from the others, but
// Ctrl-C does.
func (e *environment) applyActions(ctx context.Context, c client.Client, a *action, targets []*actTarget, options *actOptions) error {
	changed, all := 0, 0
	for _, t := range targets {
		if !t.isToChange() {
			continue
		}
		all++
		if ctx.Err() != nil {
			t.err = errors.New("not tried, because the command was interrupted")
			continue
		}
		if options.dryRun != "client" {
			t.err = applyAction(ctx, c, a, t.task, options)
		}
		if t.changed = t.err == nil; t.changed {
			changed++
		} else if len(targets) > 1 || ctx.Err() != nil {
			_ = printLine(e.ErrOut, "%s: failed: %v", t.label, explain(t.err))
		}
	}
	switch {
	case changed == all:
		return nil
	case ctx.Err() != nil:
		return exitError{ExitInterrupted, fmt.Errorf("interrupted; %d of %d tasks are changed", changed, all)}
	case len(targets) == 1:
		return fmt.Errorf("%s: %w", targets[0].label, targets[0].err)
	}
	return fmt.Errorf("only %d of %d tasks are changed: repeat the command for the others", changed, all)
}

// errChanged says that what was announced is not what would happen now.
var errChanged = errors.New("somebody else has changed the task since it was read: run the command again")

// applyAction sends the patch of a task. After a question, the task must be as it was then, but for its
// status: the operator may write that at any time.
func applyAction(ctx context.Context, c client.Client, a *action, task *v1alpha1.PrefetchTask, options *actOptions) error {
	opts := []client.PatchOption{client.FieldOwner(fieldManager)}
	if options.dryRun == "server" {
		opts = append(opts, client.DryRunAll)
	}
	version := ""
	if a.needsAnswer && !options.confirmation.yes {
		version = task.ResourceVersion
	}
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		patch, err := newPatch(task, a, version)
		if err != nil {
			return err
		}
		object := &v1alpha1.PrefetchTask{}
		object.Namespace, object.Name = task.Namespace, task.Name
		err = c.Patch(ctx, object, client.RawPatch(types.MergePatchType, patch), opts...)
		switch {
		case err == nil:
			return nil
		case !isAnswer(err):
			return fmt.Errorf("no answer, so it is not known whether the task is changed: %w", err)
		case !apierrors.IsConflict(err):
			return err
		}
		current, readErr := getTask(ctx, c, client.ObjectKeyFromObject(task))
		switch {
		case readErr != nil:
			return readErr
		case !asksForSame(current, task):
			return errChanged
		case version != "":
			version = current.ResourceVersion
		}
		return err // and so try again
	})
}

// newPatch returns the merge patch of a task. Its uid makes the API server refuse it for a task that was
// deleted and created again, and so does version, if it is not "", for another version of the task.
func newPatch(task *v1alpha1.PrefetchTask, a *action, version string) ([]byte, error) {
	patch := a.patch(task)
	metadata, _ := patch["metadata"].(map[string]any)
	if metadata == nil {
		metadata = map[string]any{}
	}
	metadata["uid"] = task.UID
	if version != "" {
		metadata["resourceVersion"] = version
	}
	patch["metadata"] = metadata
	return json.Marshal(patch)
}

// asksForSame reports whether two versions of a task ask the operator for the same.
func asksForSame(a, b *v1alpha1.PrefetchTask) bool {
	return a.UID == b.UID && a.Generation == b.Generation && taskstate.RequestedRetry(a) == taskstate.RequestedRetry(b)
}

// isAnswer reports whether an error is the API server's answer that it has not executed a request.
func isAnswer(err error) bool {
	status := apierrors.APIStatus(nil)
	return errors.As(err, &status) && status.Status().Code < 500
}
