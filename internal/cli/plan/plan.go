// Package plan says what the operator will do with tasks: which calls it makes, and what they take of
// quotas and budgets. It runs the operator's own queue on copies of the tasks.
//
//   - plan.go: the world that is planned, and the plan of each task
//   - run.go: the queue of an account, until it plans nothing more today
//   - start.go: what a task has submitted already
//   - lint.go: mistakes in lists of URLs
package plan

import (
	"cmp"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/account"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// World is what is known when a plan is made.
type World struct {
	// Tasks are planned. Their targets are in their specs, and their statuses are those of the cluster.
	Tasks []Task
	// Waiting are other tasks of the cluster.
	Waiting []*v1alpha1.PrefetchTask
	// Accounts are the EdgeOneAccounts, and Namespaces the labels of namespaces. If Accounts is nil, they
	// cannot be read, and the plan assumes that they allow everything.
	Accounts   []*v1alpha1.EdgeOneAccount
	Namespaces map[string]map[string]string
	// Batch is how many URLs a call has at most. 0 takes what the EdgeOneAccount says of the zone, or
	// the operator's default.
	Batch int
	Now   time.Time
}

// Task is a task to plan. Former is the version in the cluster, or nil for a new task.
type Task struct {
	*v1alpha1.PrefetchTask
	Former *v1alpha1.PrefetchTask
}

// TaskPlan is what happens to a task.
type TaskPlan struct {
	Namespace string                `json:"namespace"`
	Name      string                `json:"name"`
	ZoneID    string                `json:"zoneID"`
	Account   string                `json:"account,omitempty"`
	Mode      v1alpha1.PrefetchMode `json:"mode"`
	// Targets is how many distinct targets the task has, and Duplicates how many more its list has.
	Targets    int `json:"targets"`
	Duplicates int `json:"duplicates"`
	// Kept is how many targets need no new prefetch.
	Kept int `json:"kept"`
	// Calls and PurgeCalls are how many calls have targets of the task.
	Calls      int `json:"calls"`
	PurgeCalls int `json:"purgeCalls"`
	// URLs is how many URLs the task takes from the quota today. A URL that another task brings to the
	// same call is not taken again. EdgeURLs are those of them that are billed.
	URLs     int `json:"urls"`
	EdgeURLs int `json:"edgeURLs"`
	// Left is what the zone's quota leaves today before the plan. It is absent if it is unknown.
	Left *int32 `json:"left,omitempty"`
	// NotToday is how many targets are not submitted today. Reason and Message say why.
	NotToday int    `json:"notToday"`
	Reason   string `json:"reason,omitempty"`
	Message  string `json:"message,omitempty"`
	// Suspended is true for a suspended task. Its plan is what happens when it is resumed.
	Suspended bool `json:"suspended,omitempty"`
	// SharedWith are the other tasks, as namespace/name, that share a call.
	SharedWith []string  `json:"sharedWith,omitempty"`
	Findings   []Finding `json:"findings,omitempty"`
	Notes      []string  `json:"notes,omitempty"`
}

// Fits reports whether everything is submitted today that is not suspended.
func (p *TaskPlan) Fits() bool { return p.NotToday == 0 || p.Suspended }

// Make makes the plan of each task.
func Make(world World) []*TaskPlan {
	for _, task := range world.Tasks { // the API server's clock may be ahead
		if at := task.CreationTimestamp.Time; at.After(world.Now) {
			world.Now = at
		}
	}
	store := newStore(world)
	runs := map[taskstate.AccountKey]*run{}
	plans := make([]*TaskPlan, len(world.Tasks))
	started := make([]*v1alpha1.PrefetchTask, len(world.Tasks))
	planned := map[string]bool{}
	for i, task := range world.Tasks {
		current, plan := startTask(task, store, world.Now)
		plans[i], started[i] = plan, current
		planned[keyOf(current)] = true
		plan.Findings = Lint(task.PrefetchTask)
		a := store.Account(plan.Account)
		plan.noteAccount(a)
		if plan.Mode != v1alpha1.ModeEdge { // its quota cannot be read
			plan.Left = findZone(a, plan.ZoneID).Left
		}
		addRun(runs, current, store, world)
	}
	addWaiting(runs, planned, store, world)
	for _, isHeld := range []bool{false, true} { // what waits for a user takes nothing from the others
		for i, task := range started {
			if waitsForUser(world.Tasks[i].PrefetchTask) == isHeld && task.DeletionTimestamp.IsZero() {
				runs[taskstate.AccountKeyOf(task)].add(task, plans[i])
			}
		}
		for _, r := range runs {
			r.planAll()
		}
	}
	for i, task := range world.Tasks {
		plans[i].noteHeld(task.PrefetchTask)
	}
	return plans
}

// addWaiting adds the other tasks that wait: they are in the operator's queue already.
func addWaiting(runs map[taskstate.AccountKey]*run, planned map[string]bool, store *account.Store, world World) {
	for _, task := range world.Waiting {
		r := runs[taskstate.AccountKeyOf(withAccount(task, store))]
		if r == nil || planned[keyOf(task)] || waitsForUser(task) {
			continue
		}
		if current, _ := startTask(Task{PrefetchTask: task, Former: task}, store, world.Now); taskstate.NeedsCall(current) {
			r.add(current, nil)
		}
	}
}

// newStore returns the accounts with what is used of them today.
func newStore(world World) *account.Store {
	store := account.NewStore(account.NewUsage(resetOf(world.Accounts)))
	for _, a := range world.Accounts {
		store.SetAccount(account.AdvanceDay(a, world.Now))
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

// resetOf returns the time of day at which quotas return: as the operator has written it, or 16:00 UTC.
func resetOf(accounts []*v1alpha1.EdgeOneAccount) time.Duration {
	for _, a := range accounts {
		if day := a.Status.DayStartTime; !day.IsZero() {
			return day.UTC().Sub(day.UTC().Truncate(24 * time.Hour))
		}
	}
	return 16 * time.Hour
}

// noteAccount says that the credentials of the task's account do not work at present.
func (p *TaskPlan) noteAccount(a *v1alpha1.EdgeOneAccount) {
	if a == nil {
		return
	}
	if ready := meta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionReady); ready != nil && ready.Status == metav1.ConditionFalse {
		p.addNote(fmt.Sprintf("EdgeOneAccount %q is not ready (%s), and the plan assumes that it is: %s", a.Name, ready.Reason, ready.Message))
	}
}

// findZone returns what an account says of EdgeOne's limits of a zone.
func findZone(a *v1alpha1.EdgeOneAccount, zoneID string) v1alpha1.AccountZoneStatus {
	if a != nil {
		for _, zone := range a.Status.Zones {
			if zone.ID == zoneID {
				return zone
			}
		}
	}
	return v1alpha1.AccountZoneStatus{}
}

func withAccount(task *v1alpha1.PrefetchTask, store *account.Store) *v1alpha1.PrefetchTask {
	return taskstate.WithDefaultAccount(task, store.Account(v1alpha1.DefaultAccount) != nil)
}

func modeOf(task *v1alpha1.PrefetchTask) v1alpha1.PrefetchMode {
	return cmp.Or(task.Spec.Mode, v1alpha1.ModeDefault)
}

func keyOf(task *v1alpha1.PrefetchTask) string { return task.Namespace + "/" + task.Name }
