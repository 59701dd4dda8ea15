package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/progress"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// FailedResult is what failed -o json prints.
type FailedResult struct {
	OutputHeader `json:",inline"`
	Namespace    string `json:"namespace"`
	Name         string `json:"name"`
	// Failed is how many targets of the run have failed.
	Failed int `json:"failed"`
	// Unnamed is how many of them are not in FailedTargets, because the status does not name them.
	Unnamed int `json:"unnamed"`
	// IsFormerRun says that the spec asks for another run, which the operator has not started.
	IsFormerRun bool `json:"isFormerRun,omitempty"`
	// FailedTargets are the targets that are known to have failed.
	FailedTargets []FailedTarget `json:"failedTargets"`
}

func newFailedCommand(env *environment) *cobra.Command {
	var output outputFlag
	cmd := &cobra.Command{
		Use:   "failed NAME",
		Short: "List the failed URLs of a task",
		Long: `List the failed URLs of a task, with the reasons.

A status names at most 100 failed URLs with their reasons. Others are named if they can be derived from
the status. How many are not named is on standard error. The command retry submits all of them.`,
		Example: `  # Show what failed and why
  kubectl teo-prefetch failed warm-home

  # One URL a line, for another program
  kubectl teo-prefetch failed warm-home -o urls`,
		Args:              requireTask,
		ValidArgsFunction: env.completeTask,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := output.validate(); err != nil {
				return err
			}
			task, c, err := env.readTask(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			result := newFailedResult(env.knownTargets(cmd.Context(), c, task))
			if err := env.printFailed(&output, &result); err != nil {
				return err
			}
			env.explainFailed(&result, progress.Of(task))
			return nil
		},
	}
	output.addTo(cmd, "urls")
	return cmd
}

// knownTargets returns the task with its targets. If they cannot be read, less can be named.
func (e *environment) knownTargets(ctx context.Context, c client.Client, task *v1alpha1.PrefetchTask) *v1alpha1.PrefetchTask {
	if taskstate.CountFailures(task) <= len(task.Status.FailedTargets) {
		return task
	}
	resolved, err := resolveTargets(ctx, c, task)
	if err != nil {
		_ = printLine(e.ErrOut, "Fewer URLs can be named: %v", err)
		return task
	}
	return resolved
}

func newFailedResult(task *v1alpha1.PrefetchTask) FailedResult {
	failed, unnamed := taskstate.KnownFailures(task)
	return FailedResult{
		OutputHeader: newOutputHeader("FailedResult"), Namespace: task.Namespace, Name: task.Name,
		Failed: taskstate.CountFailures(task), Unnamed: unnamed, FailedTargets: append([]FailedTarget{}, failedTargets(failed)...),
		IsFormerRun: task.Status.ObservedGeneration > 0 && task.Status.Run != "" && taskstate.IsNewRun(task),
	}
}

// printFailed prints the failed targets on standard output.
func (e *environment) printFailed(output *outputFlag, result *FailedResult) error {
	switch {
	case output.isStructured():
		return output.print(e.Out, result)
	case output.format == "urls":
		for _, f := range result.FailedTargets {
			if _, err := fmt.Fprintln(e.Out, f.URL); err != nil {
				return err
			}
		}
		return nil
	case len(result.FailedTargets) == 0:
		return nil
	}
	failed := table{header: []string{"URL", "REASON", "MESSAGE"}}
	for _, f := range result.FailedTargets {
		failed.addRow(f.URL, f.Reason, f.Message)
	}
	return failed.print(e.Out, newPainter(e.Out))
}

// explainFailed says on standard error what the list does not.
func (e *environment) explainFailed(result *FailedResult, now progress.Progress) {
	say := func(format string, args ...any) { _ = printLine(e.ErrOut, format, args...) }
	if result.IsFormerRun {
		say("The spec of %s asks for a new run, which has not started. This is about the run before.", result.Name)
	}
	switch {
	case result.Unnamed > 0:
		say("%d of %d failed targets are not named: the status of a task has no room for all. They are retried with the others: %s",
			result.Unnamed, result.Failed, e.suggestCommand("kubectl teo-prefetch retry", result.Namespace, result.Name))
	case now.Phase == progress.NotFollowed:
		say("The outcomes of %d targets of %s cannot be known. %s", now.Total-now.Succeeded-now.Failed, result.Name, now.Message)
	case result.Failed == 0 && (now.Phase.IsOver() || result.IsFormerRun):
		say("No target of %s has failed.", result.Name)
	case result.Failed == 0:
		say("No target of %s has failed so far. Its run is not over.", result.Name)
	case !now.Phase.IsOver() && !result.IsFormerRun:
		say("The run of %s is not over: more targets may fail.", result.Name)
	}
}
