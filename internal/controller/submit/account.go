package submit

import (
	"cmp"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// onAccountChange asks the rules again for all waiting tasks of an EdgeOneAccount. An edit of
// the account also ends a wait for its credentials.
func (s *Submitter) onAccountChange(account string) {
	for _, l := range s.queuesOf(account) {
		l.mu.Lock()
		l.recheck = time.Time{}
		s.Credentials.ForgetCredentials(l.account)
		for _, l := range l.queues() {
			l.queue.EndAccountBackOff()
			l.queue.Readmit("", time.Now())
		}
		l.mu.Unlock()
		s.EnqueueAfter(l.account, 0)
	}
}

// onLabelChange asks the rules of all EdgeOneAccounts again for the waiting tasks of a namespace
// whose labels have changed. Accounts without such tasks have nothing to do.
func (s *Submitter) onLabelChange(namespace string) {
	for _, l := range s.queuesOf("") {
		l.mu.Lock()
		isDue := l.prefetches.queue.Readmit(namespace, time.Now())
		isDue = l.purges.queue.Readmit(namespace, time.Now()) || isDue
		l.mu.Unlock()
		if isDue {
			s.EnqueueAfter(l.account, 0)
		}
	}
}

// reportMissing reports in the statuses of the tasks that their EdgeOneAccount is missing. There
// is nothing to call: the account allows nothing.
func (s *Submitter) reportMissing(l *accountQueue) reconcile.Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	// A task is Stalled after a while. Plan nothing: tasks that do not know yet that the account
	// is gone, or that it is back, would wait for an answer that nobody gets.
	again := s.writeWaitingStatuses(l)
	for _, l := range l.queues() {
		again = soonerResult(again, l.queue.RunTimers(time.Now())).RequeueAfter
	}
	return soonerResult(again, s.writeWaitingStatuses(l))
}

// onBudgetChange asks the rules again for the tasks that wait for a budget of an account, which
// has more left than before. The tasks that name none count for the default one.
func (s *Submitter) onBudgetChange(account string) {
	for _, l := range s.queuesOf(cmp.Or(account, v1alpha1.DefaultAccount)) {
		l.mu.Lock()
		for _, l := range l.queues() {
			l.queue.RefreshBudget(time.Now())
		}
		l.mu.Unlock()
		s.EnqueueAfter(l.account, 0)
	}
}

// queuesOf returns the queue of an EdgeOneAccount, or the queues of all if account is "".
func (s *Submitter) queuesOf(account string) (queues []*accountQueue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if account != "" {
		if l := s.accountQueues[taskstate.AccountKey{Account: account}]; l != nil {
			queues = append(queues, l)
		}
		return queues
	}
	for a, l := range s.accountQueues {
		if a.Account != "" {
			queues = append(queues, l)
		}
	}
	return queues
}

// isAllowed reports whether each claimed task of the call still uses the account, and whether the
// account still allows it.
func (a *attempt) isAllowed() bool {
	for _, part := range a.parts {
		if !part.isClaimed {
			continue
		}
		if a.account.kind == v1alpha1.JobPurge && a.account.prefetches.queue.CannotPrefetch(part.Task, time.Now()) {
			return false // what is purged could not be prefetched
		}
		newest := a.Tasks.NewestVersion(client.ObjectKeyFromObject(part.Task))
		if newest != nil && taskstate.AccountKeyOf(newest) != a.account.account || a.Accounts.Admit(part.Task).Reason != "" {
			return false
		}
	}
	return true
}

// recordAnswer records what EdgeOne said about the credentials of an EdgeOneAccount. Errors that
// do not concern the credentials say nothing.
func (s *Submitter) recordAnswer(l *accountQueue, creds teo.Credentials, err error) {
	if l.account.Account != "" && s.Answers != nil && (err == nil || teo.DeniedAccount(err)) {
		s.Answers.RecordAnswer(l.account.Account, creds.PrincipalName(), err)
	}
}

// sharesOf returns which of the claimed tasks of a call counts which URL against the budgets of
// its EdgeOneAccount. Other accounts have no budgets.
func (a *attempt) sharesOf(isCounted func(attemptPart) bool) taskstate.Shares {
	if a.account.account.Account == "" || a.account.kind == v1alpha1.JobPurge {
		return nil
	}
	shares := taskstate.Shares{}
	for _, part := range a.parts {
		if isCounted(part) {
			shares.AddTask(part.Task, part.Positions)
		}
	}
	return shares
}

// recordJob returns the transition that records a job of the call.
func (a *attempt) recordJob(jobID string, refused map[string]string, now time.Time) taskstate.Transition {
	record := taskstate.RecordJob(jobID, refused, now)
	if shares := a.sharesOf(func(part attemptPart) bool { return part.isClaimed }); shares != nil && jobID != "" {
		return shares.RecordShares(record, jobID)
	}
	return record
}

// admitPurge says whether a task may purge now: its account and the prefetch quota of its zone must
// allow it to prefetch what it purges.
func (s *Submitter) admitPurge(state *accountState, task *v1alpha1.PrefetchTask) taskstate.Admission {
	a := taskstate.AdmitAll
	if admit := s.admitFor(state.account); admit != nil {
		a = admit(task)
	} else if purge := task.Spec.Purge.Type; !slices.Contains(s.AllowPurge, purge) {
		a = taskstate.Admission{Cause: taskstate.Cause{
			Reason: v1alpha1.ReasonNotAllowed, NeedsUser: true,
			Message: "Purges of type " + string(purge) + " are not allowed without an EdgeOneAccount that allows them",
			Advice:  "Ask who manages the operator to add the type to --allow-purge, or change the task's purge",
		}}
	}
	if a.Reason != "" {
		return a
	}
	return state.prefetches.queue.LimitPurge(a, task, time.Now())
}

// admitFor returns what queue.Limits.Admit does for an account: only EdgeOneAccounts have rules.
func (s *Submitter) admitFor(a taskstate.AccountKey) queue.AdmitFunc {
	if a.Account == "" {
		return nil
	}
	return s.Accounts.Admit
}
