package plan

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/account"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// planner runs the queues of all accounts. Their calls take turns by time, because they may share the
// quotas of zones.
type planner struct {
	world  World
	store  *account.Store
	quotas *quotas
	runs   []*run
	runOf  map[taskstate.AccountKey]*run
}

// Make makes the plan of each task. It returns an error only if ctx ends before.
func Make(ctx context.Context, world World) ([]*TaskPlan, error) {
	for _, task := range world.Tasks { // the API server's clock may be ahead
		if at := task.CreationTimestamp.Time; at.After(world.Now) {
			world.Now = at
		}
	}
	store := newStore(world)
	p := &planner{world: world, store: store, quotas: readQuotas(world.Accounts, store), runOf: map[taskstate.AccountKey]*run{}}
	started, plans := p.startTasks()
	p.addWaiting(ctx, started)
	for _, isHeld := range []bool{false, true} { // what waits for a user takes nothing from the others
		for i, task := range started {
			if waitsForUser(world.Tasks[i].PrefetchTask) == isHeld && task.DeletionTimestamp.IsZero() {
				p.findRun(task).add(task, plans[i])
			}
		}
		p.planAll(ctx)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for i, task := range world.Tasks {
		plans[i].noteHeld(task.PrefetchTask)
	}
	return plans, nil
}

// startTasks returns the tasks as they wait for their next calls, and the beginnings of their plans.
func (p *planner) startTasks() (started []*v1alpha1.PrefetchTask, plans []*TaskPlan) {
	for _, task := range p.world.Tasks {
		current, plan := startTask(task, p.store, p.world.Now)
		plan.Findings = Lint(task.PrefetchTask)
		plan.noteAccount(p.store.Account(plan.Account))
		if plan.Mode != v1alpha1.ModeEdge { // its quota cannot be read
			plan.Left = p.quotas.find(plan.ZoneID).Left
		}
		started, plans = append(started, current), append(plans, plan)
	}
	return started, plans
}

// addWaiting adds the other tasks that wait for the accounts or zones of planned tasks: they are in the
// operator's queues already.
func (p *planner) addWaiting(ctx context.Context, started []*v1alpha1.PrefetchTask) {
	accounts, zones, planned := map[taskstate.AccountKey]bool{}, map[string]bool{}, map[string]bool{}
	for _, task := range started {
		accounts[taskstate.AccountKeyOf(task)], zones[task.Spec.ZoneID], planned[keyOf(task)] = true, true, true
	}
	for _, task := range p.world.Waiting {
		isNear := zones[task.Spec.ZoneID] || accounts[taskstate.AccountKeyOf(withAccount(task, p.store))]
		if !isNear || planned[keyOf(task)] || waitsForUser(task) || ctx.Err() != nil {
			continue
		}
		if current, _ := startTask(Task{PrefetchTask: task, Former: task}, p.store, p.world.Now); taskstate.NeedsCall(current) {
			p.findRun(current).add(current, nil)
		}
	}
}

// findRun returns the run of a task's account. It begins one if necessary.
func (p *planner) findRun(task *v1alpha1.PrefetchTask) *run {
	key := taskstate.AccountKeyOf(task)
	if p.runOf[key] == nil {
		p.runOf[key] = newRun(key, p.store, p.quotas, p.world)
		p.runs = append(p.runs, p.runOf[key])
	}
	return p.runOf[key]
}

// planAll makes calls until there is nothing to do today for the planned tasks, and ends their plans.
func (p *planner) planAll(ctx context.Context) {
	for _, r := range p.runs {
		r.idle = 0
	}
	for ctx.Err() == nil && p.hasOpen() {
		p.nextRun().step()
	}
	for _, r := range p.runs {
		r.end()
	}
}

// hasOpen reports whether a planned task may get another call today.
func (p *planner) hasOpen() bool {
	for _, r := range p.runs {
		if r.open > 0 && r.idle < horizon {
			return true
		}
	}
	return false
}

// nextRun returns the run whose next call is due first.
func (p *planner) nextRun() (next *run) {
	for _, r := range p.runs {
		if r.idle < horizon && (next == nil || r.now.Before(next.now)) {
			next = r
		}
	}
	return next
}

// newStore returns the accounts with what is used of them today.
func newStore(world World) *account.Store {
	store := account.NewStore(account.NewUsage(resetOf(world.Accounts)))
	unknown := findUnknownNamespaces(world)
	for _, a := range world.Accounts {
		store.SetAccount(withSelected(account.AdvanceDay(a, world.Now), unknown))
	}
	for name, labels := range world.Namespaces {
		store.SetNamespace(name, labels)
	}
	for _, task := range world.Tasks {
		if task.Former != nil {
			store.Usage.OnTaskChange(nil, withAccount(task.Former, store))
		}
	}
	for _, task := range world.Waiting {
		store.Usage.OnTaskChange(nil, withAccount(task, store))
	}
	store.Usage.Seal()
	return store
}

// findUnknownNamespaces returns the namespaces of tasks whose labels are unknown.
func findUnknownNamespaces(world World) []v1alpha1.NamespaceName {
	unknown := map[v1alpha1.NamespaceName]bool{}
	note := func(namespace string) {
		if _, isKnown := world.Namespaces[namespace]; !isKnown {
			unknown[v1alpha1.NamespaceName(namespace)] = true
		}
	}
	for _, task := range world.Tasks {
		note(task.Namespace)
	}
	for _, task := range world.Waiting {
		note(task.Namespace)
	}
	return slices.Sorted(maps.Keys(unknown))
}

// withSelected returns a copy of an account whose selectors select these namespaces as well.
func withSelected(a *v1alpha1.EdgeOneAccount, namespaces []v1alpha1.NamespaceName) *v1alpha1.EdgeOneAccount {
	a = a.DeepCopy()
	sets := []*v1alpha1.NamespaceSet{&a.Spec.Namespaces}
	for i := range a.Spec.Zones {
		sets = append(sets, &a.Spec.Zones[i].Namespaces)
	}
	for _, set := range sets {
		if set.Selector != nil {
			set.Names = append(set.Names, namespaces...)
		}
	}
	return a
}

// resetOf returns the time of day at which quotas return: as the operator has written it, or 16:00 UTC.
func resetOf(accounts []*v1alpha1.EdgeOneAccount) time.Duration {
	for _, a := range accounts {
		if day := a.Status.DayStartTime; !day.IsZero() {
			return day.UTC().Sub(day.UTC().Truncate(24 * time.Hour))
		}
	}
	return 16 * time.Hour
}
