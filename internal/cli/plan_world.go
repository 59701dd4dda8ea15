package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/plan"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// readWorld reads the accounts, the other tasks that wait, and the labels of the namespaces. What the
// user may not read becomes a note.
func (p *planner) readWorld(ctx context.Context, world *plan.World) error {
	accounts := &v1alpha1.EdgeOneAccountList{}
	err := p.client.List(ctx, accounts)
	if err == nil {
		world.Accounts = []*v1alpha1.EdgeOneAccount{}
	}
	for i := range accounts.Items {
		world.Accounts = append(world.Accounts, &accounts.Items[i])
	}
	if world.Accounts != nil {
		p.takeAccounts(world)
	}
	if err := p.noteForbidden(err, "the accounts are not known, and so neither are their rules, budgets and quotas"); err != nil {
		return err
	}
	waiting, err := p.findWaiting(ctx, world)
	if err != nil {
		return err
	}
	if world.Waiting, err = p.readWaiting(ctx, waiting); err != nil {
		return err
	}
	return p.readNamespaces(ctx, world)
}

// takeAccounts takes what the files say of accounts in place of what the cluster says.
func (p *planner) takeAccounts(world *plan.World) {
	for _, account := range p.accounts {
		i := slices.IndexFunc(world.Accounts, func(other *v1alpha1.EdgeOneAccount) bool { return other.Name == account.Name })
		if i >= 0 {
			world.Accounts[i].Spec = account.Spec
			continue
		}
		world.Accounts = append(world.Accounts, account)
		p.addNote(fmt.Sprintf("the cluster does not have EdgeOneAccount %q yet: what is left of its quotas, and how many URLs a call has, is not known", account.Name))
	}
}

// findWaiting returns the names of the tasks that may wait for the zones of the planned tasks, in all
// namespaces. Tasks of other zones count only if they may use up a budget.
func (p *planner) findWaiting(ctx context.Context, world *plan.World) (waiting []client.ObjectKey, err error) {
	namespaces := map[string]map[string]bool{} // of the planned tasks, by zone
	planned := map[client.ObjectKey]bool{}
	for _, task := range world.Tasks {
		zone := task.Spec.ZoneID
		if slices.ContainsFunc(world.Accounts, hasBudget) {
			zone = ""
		}
		if namespaces[zone] == nil {
			namespaces[zone] = map[string]bool{}
		}
		namespaces[zone][task.Namespace] = true
		planned[client.ObjectKeyFromObject(task.PrefetchTask)] = true
	}
	for _, task := range p.unplanned {
		planned[client.ObjectKey{Namespace: task.Namespace, Name: task.Name}] = true
	}
	onRow := func(row taskRow) error {
		key, mayWait, err := findWaitingTask(row)
		if mayWait && !planned[key] {
			waiting = append(waiting, key)
		}
		return err
	}
	for zone, names := range namespaces {
		err := p.readTaskRows(ctx, "", zone, onRow)
		if err == nil {
			continue
		}
		if err = p.noteForbidden(err, "tasks that wait in other namespaces are not known"); err != nil {
			return nil, err
		}
		for name := range names {
			err := p.noteForbidden(p.readTaskRows(ctx, name, zone, onRow), "other tasks of namespace "+name+" are not known")
			if err != nil {
				return nil, err
			}
		}
	}
	return waiting, nil
}

func hasBudget(account *v1alpha1.EdgeOneAccount) bool {
	return account.Spec.Limits.DailyURLs != nil || account.Spec.Limits.DailyURLsPerNamespace != nil
}

// findWaitingTask returns the name of the task of a row, if it may wait for a call.
func findWaitingTask(row taskRow) (key client.ObjectKey, mayWait bool, err error) {
	reason := row.text("Reason")
	switch {
	case slices.Contains([]string{v1alpha1.ReasonSucceeded, v1alpha1.ReasonNotFollowed, v1alpha1.ReasonSuspended}, reason):
		return key, false, nil
	case reason == v1alpha1.ReasonSubmitted && row.number("Submitted") >= row.number("Targets"):
		return key, false, nil
	}
	object, err := row.metadata()
	if err != nil {
		return key, false, err
	}
	hasFailed := reason == v1alpha1.ReasonFailed || reason == v1alpha1.ReasonPartiallyFailed
	mayWait = object.DeletionTimestamp.IsZero() && (!hasFailed || object.Annotations[v1alpha1.RetryAnnotation] != "")
	return client.ObjectKeyFromObject(object), mayWait, nil
}

// readWaiting reads tasks that may wait, with their targets.
func (p *planner) readWaiting(ctx context.Context, keys []client.ObjectKey) (waiting []*v1alpha1.PrefetchTask, err error) {
	tasks, err := readInParallel(keys, func(key client.ObjectKey) (*v1alpha1.PrefetchTask, error) {
		task := &v1alpha1.PrefetchTask{}
		if err := p.client.Get(ctx, key, task); err != nil {
			return nil, client.IgnoreNotFound(err)
		}
		if resolved, err := p.resolve(ctx, task); err == nil {
			task = resolved
		}
		return task, nil
	})
	unread := 0
	for _, task := range tasks {
		switch {
		case task == nil: // deleted meanwhile
		case taskstate.IsUnresolved(task):
			unread++
		default:
			waiting = append(waiting, task)
		}
	}
	if unread > 0 {
		p.addNote(fmt.Sprintf("tasks that may wait, and are not in the plan because their ConfigMaps cannot be read: %d", unread))
	}
	return waiting, p.noteForbidden(err, "tasks that wait cannot be read")
}

// readNamespaces reads the labels of the namespaces of all tasks. The rules of accounts may need them.
func (p *planner) readNamespaces(ctx context.Context, world *plan.World) error {
	names := map[string]bool{}
	for _, task := range world.Tasks {
		names[task.Namespace] = true
	}
	for _, task := range world.Waiting {
		names[task.Namespace] = true
	}
	namespaces, err := readInParallel(slices.Sorted(maps.Keys(names)), func(name string) (*corev1.Namespace, error) {
		namespace := &corev1.Namespace{}
		return namespace, client.IgnoreNotFound(p.client.Get(ctx, client.ObjectKey{Name: name}, namespace))
	})
	for _, namespace := range namespaces {
		if namespace.Name != "" {
			world.Namespaces[namespace.Name] = namespace.Labels
		}
	}
	return p.noteForbidden(err, "the labels of namespaces are not known: the plan assumes that an account that selects by labels allows them")
}

// parallelReads is how many requests readInParallel makes at once.
const parallelReads = 16

// readInParallel calls read for each key, and returns the results in the same order. An error does not
// stop it: it reads as much as it can, and returns the first error.
func readInParallel[K, V any](keys []K, read func(K) (V, error)) ([]V, error) {
	results := make([]V, len(keys))
	group := errgroup.Group{}
	group.SetLimit(parallelReads)
	for i, key := range keys {
		group.Go(func() (err error) {
			results[i], err = read(key)
			return err
		})
	}
	return results, group.Wait()
}

// noteForbidden notes what a missing permission hides. It returns other errors.
func (p *planner) noteForbidden(err error, hidden string) error {
	if !apierrors.IsForbidden(err) {
		return err
	}
	p.addNote(hidden)
	return nil
}

// addNote notes what the plan does not know, once.
func (p *planner) addNote(note string) {
	if !slices.Contains(p.notes, note) {
		p.notes = append(p.notes, note)
		_ = printLine(p.ErrOut, "Note: %s", note)
	}
}
