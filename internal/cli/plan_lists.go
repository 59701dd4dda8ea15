package cli

import (
	"cmp"
	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/plan"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// resolved is a task with its targets, or why there are none.
type resolved struct {
	plan.Task
	err error
}

// resolveAll returns the tasks that can be planned, with their targets. The others get a plan that says why
// not.
func (p *planner) resolveAll(ctx context.Context, tasks []plan.Task) (planned []plan.Task, err error) {
	results, err := readInParallel(tasks, func(task plan.Task) (resolved, error) {
		list, err := p.resolve(ctx, task.PrefetchTask)
		if unusable := (listError{}); errors.As(err, &unusable) || apierrors.IsForbidden(err) {
			return resolved{task, err}, nil
		}
		if err != nil {
			return resolved{}, err
		}
		former := task.Former
		if former == task.PrefetchTask {
			former = list
		} else if former != nil {
			former, err = resolveTargets(ctx, p.client, former)
		}
		if err != nil {
			former = task.Former // its list is unknown
		}
		return resolved{Task: plan.Task{PrefetchTask: list, Former: former}}, nil
	})
	for _, result := range results {
		if result.err != nil {
			p.unplanned = append(p.unplanned, newUnplanned(result.PrefetchTask, result.err))
		} else {
			planned = append(planned, result.Task)
		}
	}
	return planned, err
}

// newUnplanned returns the plan of a task whose list is not usable, or is not known to the user.
func newUnplanned(task *v1alpha1.PrefetchTask, err error) *plan.TaskPlan {
	counts := task.Status.Targets
	p := &plan.TaskPlan{
		Namespace: task.Namespace, Name: task.Name, ZoneID: task.Spec.ZoneID, Account: task.Spec.AccountRef.Name,
		Mode: cmp.Or(task.Spec.Mode, v1alpha1.ModeDefault), Suspended: taskstate.IsSuspended(task),
	}
	if !taskstate.IsNewRun(task) {
		p.Targets, p.Kept = int(ptr.Deref(counts.Total, 0)), int(ptr.Deref(counts.Submitted, 0))
	}
	unusable := listError{}
	if !errors.As(err, &unusable) {
		p.Notes = []string{"not planned: " + err.Error()}
		return p
	}
	p.NotToday, p.Reason, p.Message = p.Targets-p.Kept, unusable.reason, unusable.Error()
	return p
}

// resolve returns a task with its targets, also if they are in a ConfigMap of the files or of the cluster.
// A task with which the operator needs no list stays as it is: its ConfigMap may have another list now.
func (p *planner) resolve(ctx context.Context, task *v1alpha1.PrefetchTask) (*v1alpha1.PrefetchTask, error) {
	if !taskstate.IsFromConfigMap(task) || !task.DeletionTimestamp.IsZero() || taskstate.IsFinished(task) && !taskstate.NeedsTargetList(task) {
		return task, nil
	}
	if configMap := p.configMaps[configMapOf(task)]; configMap != nil {
		return addTargets(task, configMap)
	}
	return resolveTargets(ctx, p.client, task)
}

// countUnread gives the plans of tasks whose lists are not needed the counts of their statuses.
func countUnread(tasks []plan.Task, plans []*plan.TaskPlan) {
	for i, task := range tasks {
		if taskstate.IsUnresolved(task.PrefetchTask) {
			plans[i].Targets = int(ptr.Deref(task.Status.Targets.Total, 0))
			plans[i].Kept = plans[i].Targets
		}
	}
}
