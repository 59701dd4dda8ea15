package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/plan"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/targetlist"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// PlanResult is what plan -o json prints.
type PlanResult struct {
	OutputHeader `json:",inline"`
	// ExitCode is the exit code of the command.
	ExitCode int              `json:"exitCode"`
	Tasks    []*plan.TaskPlan `json:"tasks"`
}

// planner has the flags of plan, and the objects that it reads.
type planner struct {
	*environment
	client     client.Client
	selection  taskSelection
	output     outputFlag
	batch      int
	configMaps map[client.ObjectKey]*corev1.ConfigMap
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
	cmd.Flags().IntVar(&p.batch, "batch", 500, "URLs that a call may have in the plan of the zone")
	return cmd
}

func (p *planner) run(ctx context.Context, files []string) error {
	switch {
	case p.batch < 1:
		return errors.New("--batch must be at least 1")
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
	if err := p.readWorld(ctx, &world); err != nil {
		return err
	}
	return p.report(plan.Make(world))
}

// readTasks reads the tasks of files or of the cluster, with their targets.
func (p *planner) readTasks(ctx context.Context, files []string) (tasks []plan.Task, err error) {
	if len(files) > 0 {
		tasks, err = p.readFiles(ctx, files)
	} else {
		var keys []client.ObjectKey
		keys, err = p.selection.keys(ctx, p.environment, p.client, nil)
		for i := 0; err == nil && i < len(keys); i++ {
			var task *v1alpha1.PrefetchTask
			task, err = getTask(ctx, p.client, keys[i])
			tasks = append(tasks, plan.Task{PrefetchTask: task, Former: task})
		}
	}
	if err != nil {
		return nil, err
	}
	for i := range tasks {
		if tasks[i].PrefetchTask, err = p.resolve(ctx, tasks[i].PrefetchTask); err != nil {
			return nil, err
		}
		if former := tasks[i].Former; former != nil && taskstate.IsFromConfigMap(former) {
			tasks[i].Former = taskstate.WithTargets(former, tasks[i].Spec.Targets)
		}
	}
	return tasks, nil
}

// readFiles reads manifests, and lets the API server check the tasks in them.
func (p *planner) readFiles(ctx context.Context, files []string) ([]plan.Task, error) {
	namespace, err := p.namespace()
	if err != nil {
		return nil, err
	}
	builder := resource.NewBuilder(p.config).Unstructured().Local().NamespaceParam(namespace).DefaultNamespace().Flatten()
	isInput := func(file string) bool { return file == "-" }
	if slices.ContainsFunc(files, isInput) {
		builder.Stream(p.In, "standard input")
	}
	builder.FilenameParam(false, &resource.FilenameOptions{Filenames: slices.DeleteFunc(slices.Clone(files), isInput)})
	infos, err := builder.Do().Infos()
	if err != nil {
		return nil, err
	}
	var tasks []plan.Task
	for _, info := range infos {
		object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(info.Object)
		if err != nil {
			return nil, err
		}
		var into client.Object
		switch kind := info.Object.GetObjectKind().GroupVersionKind(); {
		case kind == v1alpha1.GroupVersion.WithKind("PrefetchTask"):
			into = &v1alpha1.PrefetchTask{}
		case kind == corev1.SchemeGroupVersion.WithKind("ConfigMap"):
			into = &corev1.ConfigMap{}
		default:
			continue
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object, into, true); err != nil {
			return nil, fmt.Errorf("%s: %w", info.Source, err)
		}
		if into.GetNamespace() == "" {
			into.SetNamespace(namespace)
		}
		switch into := into.(type) {
		case *corev1.ConfigMap:
			p.configMaps[client.ObjectKeyFromObject(into)] = into
		case *v1alpha1.PrefetchTask:
			task, err := p.admit(ctx, into)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", info.Source, err)
			}
			tasks = append(tasks, task)
		}
	}
	if len(tasks) == 0 {
		return nil, errors.New("the files have no PrefetchTask")
	}
	return tasks, nil
}

// admit lets the API server check a task. Nothing is created or changed.
func (p *planner) admit(ctx context.Context, task *v1alpha1.PrefetchTask) (plan.Task, error) {
	former := &v1alpha1.PrefetchTask{}
	err := errors.New("no name")
	if task.Name != "" {
		err = p.client.Get(ctx, client.ObjectKeyFromObject(task), former)
	}
	switch {
	case task.Name == "" || isMissingTask(err):
		if err := p.client.Create(ctx, task, client.DryRunAll); err != nil {
			return plan.Task{}, err
		}
		return plan.Task{PrefetchTask: task}, nil
	case err != nil:
		return plan.Task{}, err
	}
	task.ResourceVersion, task.UID, task.Status = former.ResourceVersion, former.UID, former.Status
	err = p.client.Update(ctx, task, client.DryRunAll)
	return plan.Task{PrefetchTask: task, Former: former}, err
}

// resolve returns a task with its targets, also if they are in a ConfigMap of the files or of the cluster.
func (p *planner) resolve(ctx context.Context, task *v1alpha1.PrefetchTask) (*v1alpha1.PrefetchTask, error) {
	ref := task.Spec.TargetsFrom.ConfigMapKeyRef
	configMap := p.configMaps[client.ObjectKey{Namespace: task.Namespace, Name: ref.Name}]
	if configMap == nil || !taskstate.IsFromConfigMap(task) {
		return resolveTargets(ctx, p.client, task)
	}
	text, hasKey := configMap.Data[ref.Key]
	if !hasKey {
		return nil, fmt.Errorf("the ConfigMap %q of task %s has no key %q: add it, or correct spec.targetsFrom", ref.Name, task.Name, ref.Key)
	}
	targets, err := targetlist.ParseTargets(text)
	if err != nil {
		return nil, fmt.Errorf("the list %q in ConfigMap %q: %w", ref.Key, ref.Name, err)
	}
	return taskstate.WithTargets(task, targets), nil
}

// readWorld reads the accounts, the labels of the namespaces, and other tasks of the same zones. What
// the user may not read is said.
func (p *planner) readWorld(ctx context.Context, world *plan.World) error {
	accounts := &v1alpha1.EdgeOneAccountList{}
	if err := p.note(p.client.List(ctx, accounts), "the accounts are not known, and so neither are quotas and budgets"); err != nil {
		return err
	}
	for i := range accounts.Items {
		world.Accounts = append(world.Accounts, &accounts.Items[i])
	}
	zones := map[client.ObjectKey]bool{}
	for _, task := range world.Tasks {
		zone := client.ObjectKey{Namespace: task.Namespace, Name: task.Spec.ZoneID}
		if zones[zone] {
			continue
		}
		zones[zone] = true
		namespace := &corev1.Namespace{}
		if p.client.Get(ctx, client.ObjectKey{Name: task.Namespace}, namespace) == nil {
			world.Namespaces[namespace.Name] = namespace.Labels
		}
		list := &v1alpha1.PrefetchTaskList{}
		err := listPages(ctx, p.client, list, func() {
			for i := range list.Items {
				if other := &list.Items[i]; taskstate.NeedsCall(other) && !taskstate.IsUnresolved(other) {
					world.Waiting = append(world.Waiting, other.DeepCopy())
				}
			}
		}, client.InNamespace(task.Namespace), client.MatchingFields{"spec.zoneID": task.Spec.ZoneID})
		if err := p.note(err, "other tasks of namespace "+task.Namespace+" are not known"); err != nil {
			return err
		}
	}
	return nil
}

// note says on standard error what a missing permission hides. It returns other errors.
func (p *planner) note(err error, hidden string) error {
	if !apierrors.IsForbidden(err) {
		return err
	}
	_, err = fmt.Fprintln(p.ErrOut, "Note:", hidden)
	return err
}

// report prints the plans.
func (p *planner) report(plans []*plan.TaskPlan) error {
	result := PlanResult{OutputHeader: newOutputHeader("PlanResult"), Tasks: plans}
	for _, t := range plans {
		if !t.Fits() {
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
	for _, plan := range plans {
		for _, line := range planLines(plan) {
			if _, err := fmt.Fprintf(p.Out, "%s: %s\n", plan.Name, line); err != nil {
				return err
			}
		}
	}
	return nil
}

// planLines returns what the table does not say.
func planLines(p *plan.TaskPlan) (lines []string) {
	if !p.Fits() {
		lines = append(lines, fmt.Sprintf("%d targets are not submitted today: %s: %s", p.NotToday, p.Reason, p.Message))
	}
	if p.EdgeURLs > 0 {
		lines = append(lines, fmt.Sprintf("%d URLs go to the edge nodes, which EdgeOne bills", p.EdgeURLs))
	}
	if p.Duplicates > 0 {
		lines = append(lines, fmt.Sprintf("%d duplicates are submitted once", p.Duplicates))
	}
	if n := len(p.SharedWith); n > 0 {
		lines = append(lines, fmt.Sprintf("shares calls with %d other tasks, for example %s", n, p.SharedWith[0]))
	}
	for _, f := range p.Findings {
		lines = append(lines, fmt.Sprintf("%s: %d URLs, for example %s", f.Code, f.Count, f.URL))
	}
	return append(lines, p.Notes...)
}
