package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/plan"
)

// PlanResult is what plan -o json prints.
type PlanResult struct {
	OutputHeader `json:",inline"`
	// ExitCode is the exit code of the command.
	ExitCode int              `json:"exitCode"`
	Tasks    []*plan.TaskPlan `json:"tasks"`
	// Notes are what the plan does not know, or leaves out.
	Notes []string `json:"notes,omitempty"`
}

// planner has the flags of plan, and the objects that it reads.
type planner struct {
	*environment
	client     client.Client
	selection  taskSelection
	output     outputFlag
	batch      int
	configMaps map[client.ObjectKey]*corev1.ConfigMap // of the files
	accounts   []*v1alpha1.EdgeOneAccount             // of the files
	unplanned  []*plan.TaskPlan                       // of tasks without a usable list
	notes      []string
}

func newPlanCommand(env *environment) *cobra.Command {
	p := &planner{environment: env, configMaps: map[client.ObjectKey]*corev1.ConfigMap{}}
	cmd := &cobra.Command{
		Use:   "plan (FILE... | - | -l SELECTOR)",
		Short: "Show what the operator will submit, before it does",
		Long: `Show which calls tasks need, what they take of quotas and budgets, and what is wrong with their lists.
The API server checks the manifests; nothing is created. The exit code is 3 if something is not submitted today.`,
		Example: `  # A manifest, a folder, or standard input
  kubectl teo-prefetch plan task.yaml`,
		RunE: func(cmd *cobra.Command, files []string) error { return p.run(cmd.Context(), files) },
	}
	p.selection.addTo(cmd)
	p.output.addTo(cmd)
	cmd.Flags().IntVar(&p.batch, "batch", 0, "URLs that a call has at most (default: what the EdgeOneAccount says of the zone, or 500)")
	return cmd
}

func (p *planner) run(ctx context.Context, files []string) error {
	switch {
	case p.batch < 0:
		return errors.New("--batch must not be negative: 0 takes what the EdgeOneAccount says of the zone, or 500")
	case len(files) == 0 && p.selection.selector == "":
		return errors.New("nothing to plan: give a file, - for standard input, or --selector")
	case len(files) > 0 && (p.selection.selector != "" || p.selection.allNamespaces):
		return errors.New("give files or --selector, not both")
	}
	if err := p.output.validate(); err != nil {
		return err
	}
	var err error
	if p.client, err = p.environment.client(); err != nil {
		return err
	}
	world := plan.World{Batch: p.batch, Now: p.now(), Namespaces: map[string]map[string]string{}}
	if world.Tasks, err = p.readTasks(ctx, files); err != nil {
		return err
	}
	_ = printLine(p.ErrOut, "Reading the tasks that wait for the same zones") // there may be thousands
	if err := p.readWorld(ctx, &world); err != nil {
		return err
	}
	plans, err := plan.Make(ctx, world)
	if err != nil {
		return err
	}
	countUnread(world.Tasks, plans)
	return p.report(append(plans, p.unplanned...))
}

// readTasks reads the tasks of files or of the cluster, with their targets.
func (p *planner) readTasks(ctx context.Context, files []string) (tasks []plan.Task, err error) {
	if len(files) > 0 {
		tasks, err = p.readFiles(ctx, files)
	} else {
		tasks, err = p.readSelected(ctx)
	}
	if err != nil {
		return nil, err
	}
	return p.resolveAll(ctx, tasks)
}

// readSelected reads the selected tasks of the cluster.
func (p *planner) readSelected(ctx context.Context) (tasks []plan.Task, err error) {
	err = p.selection.readTasks(ctx, p.environment, p.client, nil, func(task *v1alpha1.PrefetchTask) {
		tasks = append(tasks, plan.Task{PrefetchTask: task, Former: task})
	})
	return tasks, err
}

// report prints the plans.
func (p *planner) report(plans []*plan.TaskPlan) error {
	result := PlanResult{OutputHeader: newOutputHeader("PlanResult"), Tasks: plans, Notes: p.notes}
	for _, t := range plans {
		if !t.Fits() || t.Reason != "" && !t.Suspended {
			result.ExitCode = ExitUserAction
		}
	}
	var err error
	if p.output.isStructured() {
		err = p.output.print(p.Out, result)
	} else {
		err = p.printPlans(plans)
	}
	if err == nil && result.ExitCode != 0 {
		err = exitError{code: result.ExitCode}
	}
	return err
}

// printPlans prints the plans for people.
func (p *planner) printPlans(plans []*plan.TaskPlan) error {
	t := table{header: []string{"NAMESPACE", "TASK", "ZONE", "TARGETS", "KEPT", "URLS", "LEFT TODAY", "CALLS", "PURGE CALLS", "NOT TODAY"}}
	for _, plan := range plans {
		left := "unknown"
		if plan.Left != nil {
			left = strconv.Itoa(int(*plan.Left))
		}
		t.addRow(plan.Namespace, plan.Name, plan.ZoneID, strconv.Itoa(plan.Targets), strconv.Itoa(plan.Kept), strconv.Itoa(plan.URLs), left,
			strconv.Itoa(plan.Calls), strconv.Itoa(plan.PurgeCalls), strconv.Itoa(plan.NotToday))
	}
	if err := t.print(p.Out, newPainter(p.Out)); err != nil {
		return err
	}
	isOther := func(other *plan.TaskPlan) bool { return other.Namespace != plans[0].Namespace }
	hasNamespaces := slices.ContainsFunc(plans, isOther)
	for _, plan := range plans {
		label := plan.Name
		if hasNamespaces {
			label = plan.Namespace + "/" + plan.Name
		}
		for _, line := range planLines(plan) {
			if err := printLine(p.Out, "%s: %s", label, line); err != nil {
				return err
			}
		}
	}
	return nil
}

// planLines returns what the table does not say.
func planLines(p *plan.TaskPlan) (lines []string) {
	if p.NotToday > 0 || p.Reason != "" {
		line := "not submitted today"
		if p.NotToday > 0 { // otherwise, the list is unknown
			line += fmt.Sprintf(": %d of %d targets", p.NotToday, p.Targets)
		}
		if p.Reason != "" {
			line += ": " + p.Reason + ": " + p.Message
		}
		lines = append(lines, line)
	}
	if p.EdgeURLs > 0 {
		lines = append(lines, fmt.Sprintf("URLs for the edge nodes, which EdgeOne bills: %d", p.EdgeURLs))
	}
	if p.Duplicates > 0 {
		lines = append(lines, fmt.Sprintf("duplicates, which are submitted once: %d", p.Duplicates))
	}
	if n := len(p.SharedWith); n > 0 {
		lines = append(lines, fmt.Sprintf("other tasks in the same calls: %d, for example %s", n, p.SharedWith[0]))
	}
	for _, f := range p.Findings {
		lines = append(lines, fmt.Sprintf("%s: %d, for example %s", f.Code, f.Count, f.URL))
	}
	return append(lines, p.Notes...)
}
