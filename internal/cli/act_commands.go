package cli

import (
	"cmp"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/preview"
)

// newActCommand returns a command that runs an action.
func newActCommand(env *environment, cmd *cobra.Command, a *action) *cobra.Command {
	options := &actOptions{}
	cmd.ValidArgsFunction = env.completeTasks
	cmd.RunE = func(cmd *cobra.Command, names []string) error { return env.act(cmd.Context(), names, options, a) }
	options.addTo(cmd, a.needsAnswer)
	return cmd
}

func newRetryCommand(env *environment) *cobra.Command {
	return newActCommand(env, &cobra.Command{
		Use:   "retry (NAME... | -l SELECTOR)",
		Short: "Submit the failed URLs of tasks again",
		Long: `Submit the failed URLs of tasks again, and nothing else. In a run that is not over, the retry starts
when it ends. The command says what it submits, and asks before it acts.`,
		Example: `  # Retry what failed, and wait for the outcome
  kubectl teo-prefetch retry warm-home --wait

  # In a pipeline
  kubectl teo-prefetch retry -l release=1.4.0 --yes`,
	}, &action{
		done: "retry requested", field: "the annotation " + v1alpha1.RetryAnnotation,
		preview: preview.Retry, sentence: submits, needsAnswer: true,
		patch: func(*v1alpha1.PrefetchTask) map[string]any {
			now := env.now().UTC().Format(time.RFC3339Nano)
			return map[string]any{"metadata": map[string]any{"annotations": map[string]any{v1alpha1.RetryAnnotation: now}}}
		},
	})
}

func newSuspendCommand(env *environment) *cobra.Command {
	return newActCommand(env, &cobra.Command{
		Use:   "suspend (NAME... | -l SELECTOR)",
		Short: "Stop tasks before their next call",
		Long: `Stop tasks before their next call. EdgeOne still prefetches what it has accepted, and its outcomes count.
As nothing is submitted, the command does not ask.`,
		Example: `  # Stop all tasks of a release in all namespaces
  kubectl teo-prefetch suspend -l release=1.4.0 -A`,
	}, &action{
		done: "suspended", field: "spec.suspend", preview: preview.Suspend,
		sentence: func(p preview.Preview) string {
			if p.URLs == 0 {
				return "stops; every target is submitted already"
			}
			return fmt.Sprintf("stops; %s are not submitted until it is resumed", countURLs(p))
		},
		patch: func(*v1alpha1.PrefetchTask) map[string]any { return suspendPatch(true) },
	})
}

func newResumeCommand(env *environment) *cobra.Command {
	return newActCommand(env, &cobra.Command{
		Use:   "resume (NAME... | -l SELECTOR)",
		Short: "Continue suspended tasks",
		Long: `Continue suspended tasks. They submit what they have not submitted, and nothing twice. The command says
what that is, and asks before it acts.`,
		Example: `  kubectl teo-prefetch resume warm-home`,
	}, &action{
		done: "resumed", field: "spec.suspend", preview: preview.Resume, sentence: submits, needsAnswer: true, needsTargets: true,
		patch: func(*v1alpha1.PrefetchTask) map[string]any { return suspendPatch(false) },
	})
}

// suspendPatch sets spec.suspend. It is false and not absent after resume, as an absent field would
// differ from a source that has it.
func suspendPatch(suspend bool) map[string]any {
	return map[string]any{"spec": map[string]any{"suspend": suspend}}
}

func newRerunCommand(env *environment) *cobra.Command {
	var asked string
	revisionOf := func(task *v1alpha1.PrefetchTask) string { return cmp.Or(asked, newRevision(task, env.now())) }
	cmd := newActCommand(env, &cobra.Command{
		Use:   "rerun (NAME... | -l SELECTOR)",
		Short: "Submit every URL of tasks again",
		Long: `Submit every URL of tasks again, by a new spec.revision. With targetsFrom, the list is read again.
A task that has the revision already stays as it is. The command says what it submits, and asks
before it acts.`,
		Example: `  # Submit everything again, and wait for the outcome
  kubectl teo-prefetch rerun warm-home --wait

  # After a release
  kubectl teo-prefetch rerun warm-home --revision=1.4.0 --yes`,
	}, &action{
		done: "rerun requested", field: "spec.revision", sentence: submits, needsAnswer: true, needsTargets: true,
		preview: func(task *v1alpha1.PrefetchTask) preview.Preview { return preview.Rerun(task, revisionOf(task)) },
		patch: func(task *v1alpha1.PrefetchTask) map[string]any {
			return map[string]any{"spec": map[string]any{"revision": revisionOf(task)}}
		},
	})
	cmd.Flags().StringVar(&asked, "revision", "", "New spec.revision, for example a release version (default: the current time)")
	return cmd
}

// newRevision returns another revision than the task has: the current time.
func newRevision(task *v1alpha1.PrefetchTask, now time.Time) string {
	revision := now.UTC().Format(time.RFC3339)
	if revision == task.Spec.Revision {
		revision = now.UTC().Format(time.RFC3339Nano)
	}
	return revision
}
