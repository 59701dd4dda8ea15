// Package plan says what the operator will do with tasks: which calls it makes, and what they take of
// quotas and budgets. It runs the operator's own queue on copies of the tasks.
//
//   - plan.go: the world that is planned, and the plan of each task
//   - planner.go: the runs of all accounts
//   - run.go: the queues of an account, until they plan nothing more today
//   - quotas.go: what EdgeOne leaves of the quotas of zones, which accounts share
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
	// Accounts are the EdgeOneAccounts. If Accounts is nil, they cannot be read, and the plan assumes that
	// they allow everything.
	Accounts []*v1alpha1.EdgeOneAccount
	// Namespaces are the labels of namespaces. The plan assumes that an account that selects by labels
	// allows a namespace that is not here.
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

// noteAccount says that the credentials of the task's account do not work at present.
func (p *TaskPlan) noteAccount(a *v1alpha1.EdgeOneAccount) {
	if a == nil {
		return
	}
	if ready := meta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionReady); ready != nil && ready.Status == metav1.ConditionFalse {
		p.addNote(fmt.Sprintf("EdgeOneAccount %q is not ready (%s), and the plan assumes that it is: %s", a.Name, ready.Reason, ready.Message))
	}
}

func withAccount(task *v1alpha1.PrefetchTask, store *account.Store) *v1alpha1.PrefetchTask {
	return taskstate.WithDefaultAccount(task, store.Account(v1alpha1.DefaultAccount) != nil)
}

func modeOf(task *v1alpha1.PrefetchTask) v1alpha1.PrefetchMode {
	return cmp.Or(task.Spec.Mode, v1alpha1.ModeDefault)
}

func keyOf(task *v1alpha1.PrefetchTask) string { return task.Namespace + "/" + task.Name }
