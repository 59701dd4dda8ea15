package taskstate

import (
	"fmt"
	"math"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
)

// Admission says whether the account of a task allows its targets to be submitted now, and
// how many URLs. The zero value allows nothing.
type Admission struct {
	// Cause is why nothing is allowed; its Reason is "" if something is.
	Cause
	// Left is how many URLs the account may still submit today, and NamespaceLeft how many
	// of them may be of the task's namespace.
	Left, NamespaceLeft int
	// Until is when to ask again; zero if only a change can end the cause.
	Until time.Time
}

// NoLimit is the value of Left and NamespaceLeft if there is no limit.
const NoLimit = math.MaxInt

// AdmitAll allows everything.
var AdmitAll = Admission{Left: NoLimit, NamespaceLeft: NoLimit}

// ChargedURLs returns how many of the URLs at some positions count against the budgets of an
// account. shared of them count for other tasks of the same call.
func ChargedURLs(positions string, shared int32) int {
	charged, err := ParsePositions(positions)
	if err != nil {
		return MaxTargets // the operator did not write it
	}
	return max(0, len(charged)-int(shared))
}

// AccountSuspendField names the field that suspends an EdgeOneAccount, for messages.
func AccountSuspendField(account string) string {
	return fmt.Sprintf("spec.suspend of EdgeOneAccount %q", account)
}

// BudgetCause returns the cause for a task that waits because a budget of its account is
// used up: that of its namespace, or that of the account.
func BudgetCause(task *v1alpha1.PrefetchTask, isNamespaces bool) Cause {
	of := fmt.Sprintf("EdgeOneAccount %q", AccountKeyOf(task).Account)
	if isNamespaces {
		of = fmt.Sprintf("namespace %q in %s", task.Namespace, of)
	}
	return Cause{Reason: v1alpha1.ReasonBudget, Message: "The daily budget of " + of + " is used up", Quota: true}
}

// Shares says which task of a call counts each URL against the budgets of the account: the
// first one that has it. The keys are target.Identity of the URLs.
type Shares map[string]types.NamespacedName

// AddTask adds the URLs at some positions of a task that no earlier task has.
func (s Shares) AddTask(task *v1alpha1.PrefetchTask, positions Positions) {
	targets := DistinctTargets(task)
	for _, i := range positions {
		if identity := target.Identity(targets[i]); s[identity].Name == "" {
			s[identity] = types.NamespacedName{Namespace: task.Namespace, Name: task.Name}
		}
	}
}

// CountShared returns how many of the URLs at some positions of a task other tasks count.
func (s Shares) CountShared(task *v1alpha1.PrefetchTask, positions Positions) (shared int32) {
	targets, own := DistinctTargets(task), types.NamespacedName{Namespace: task.Namespace, Name: task.Name}
	counted := map[string]bool{} // two spellings of a URL count once
	for _, i := range positions {
		if i >= len(targets) {
			return shared // a user edited the status
		}
		identity := target.Identity(targets[i])
		if s[identity] != own || counted[identity] {
			shared++
		}
		counted[identity] = true
	}
	return shared
}

// RecordShares is record, which records a job, and then says in that job how many of its
// URLs other tasks count.
func (s Shares) RecordShares(record Transition, jobID string) Transition {
	return func(task *v1alpha1.PrefetchTask) {
		record(task)
		if !knowsTargets(task) {
			return // the share that the claim says stays
		}
		for i := range task.Status.Jobs {
			if job := &task.Status.Jobs[i]; job.ID == jobID {
				job.SharedURLs = s.CountShared(task, statusPositions(task, job.Positions))
			}
		}
	}
}
