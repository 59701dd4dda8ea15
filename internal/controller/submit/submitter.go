package submit

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/account"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/credentials"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/targetlist"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// Config holds the dependencies, limits and intervals of the Submitter. The manager's flags
// document the meaning and the defaults of the limits and intervals.
type Config struct {
	Tasks       *kube.TaskStore
	Writer      kube.StatusWriter
	Events      *kube.EventReporter
	EdgeOne     *teo.Client
	Credentials *credentials.Reader
	Accounts    *account.Store   // nil: no EdgeOneAccounts are used
	Answers     *account.Answers // nil without Accounts
	Lists       *targetlist.Resolver
	Calls       *InFlightCalls
	Runs        *kube.WriteRate // limits starts of runs and retries
	Critical    context.Context // for claim, call and record; outlives shutdown

	Batch             int
	TasksPerCall      int
	QPS               int
	QuotaInterval     time.Duration
	QuotaReset        time.Duration
	RecheckInterval   time.Duration
	SignatureValidity time.Duration
	SettleMargin      time.Duration
	WriteTimeout      time.Duration
	CallTimeout       time.Duration
	AllowPurge        []v1alpha1.PurgeType
	PurgeDeadline     time.Duration
	PurgeSettle       time.Duration
}

// Submitter turns the waiting tasks of an account into calls.
type Submitter struct {
	Config
	kube.DelayedQueue[taskstate.AccountKey]
	reports  *kube.WriteRate     // limits writes that report why a task waits
	claiming *semaphore.Weighted // limits claims that are written at once

	mu            sync.Mutex
	accountQueues map[taskstate.AccountKey]*accountQueue

	unrecorded unrecordedCalls
}

// NewSubmitter returns a Submitter for all tasks of the store.
func NewSubmitter(config Config) *Submitter {
	s := &Submitter{
		Config:        config,
		reports:       kube.NewWriteRate(kube.NoteRate),
		claiming:      semaphore.NewWeighted(kube.MaxStatusWriters),
		accountQueues: map[taskstate.AccountKey]*accountQueue{},
	}
	if config.Accounts != nil {
		config.Tasks.Subscribe(config.Accounts.Usage.OnTaskChange)
		config.Accounts.Usage.Subscribe(s.onBudgetChange)
		config.Accounts.Subscribe(s.onAccountChange)
		config.Accounts.SubscribeLabels(s.onLabelChange)
	}
	config.Tasks.Subscribe(s.onChange)
	return s
}

const (
	// lookahead is how long before its slot a call is planned and claimed. It keeps short
	// delays of the API server from wasting slots. It is short because calls that are
	// claimed and not sent must be settled first if the process is killed.
	lookahead = 300 * time.Millisecond
	// claimsAhead is the number of unwritten claims at which an account plans no further
	// call. It equals the number of claims that are written at once. A new task waits for
	// these claims at most, and then for its namespace's turn.
	claimsAhead = kube.MaxStatusWriters
	// slotTimeout is how long a claimed call waits for a slot. It matters when EdgeOne
	// throttles calls, because then there are fewer slots than expected.
	slotTimeout = 5 * time.Second
)

// Reconcile does what is due for an account. It reports in the statuses of waiting tasks why
// they wait, and starts calls while there is a slot and something to submit.
func (s *Submitter) Reconcile(ctx context.Context, a taskstate.AccountKey) (reconcile.Result, error) {
	l := s.queueFor(a)
	if a.Account != "" && s.Accounts.Account(a.Account) == nil {
		return s.reportMissing(l), nil
	}
	again, recheck, hasTasks := s.reportWaiting(l)
	switch {
	case !hasTasks:
		return reconcile.Result{}, nil
	case recheck > 0:
		return soonerResult(again, recheck), nil
	}
	// Read the Secret without the queue's lock: the read takes time, and task changes must
	// not wait for it.
	creds, err := s.Credentials.GetCredentials(ctx, a)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.recheck = time.Now().Add(s.backOffCall(l, nil, err))
		return soonerResult(s.writeWaitingStatuses(l), time.Until(l.recheck)), nil
	}
	result := reconcile.Result{RequeueAfter: again}
	for _, l := range l.queues() {
		result = soonerResult(result.RequeueAfter, s.startCallsLocked(ctx, l, creds, again).RequeueAfter)
	}
	return result, nil
}

// reportWaiting reports in the statuses of waiting tasks why they wait. It returns the time
// until the next report is due (0 means never), the time until the account's credentials are
// read again (not positive means now), and whether the account has tasks.
func (s *Submitter) reportWaiting(l *accountQueue) (again, recheck time.Duration, hasTasks bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return s.writeWaitingStatuses(l), time.Until(l.recheck), l.hasTasks()
}

// startCallsLocked starts calls while there is a slot and something to submit. It requeues
// the account after again at the latest; 0 means no limit. The caller holds l.mu.
func (s *Submitter) startCallsLocked(ctx context.Context, l *accountQueue, creds teo.Credentials, again time.Duration) reconcile.Result {
	limiters := s.limitersFor(l, creds)
	for {
		if l.claiming >= claimsAhead {
			return soonerResult(again, 0) // a finished claim enqueues the account
		}
		enqueue := func() { s.EnqueueAfter(l.account, 0) }
		if free, wait := limiters.countFree(l.account.String(), enqueue); len(l.unsent) >= free && !s.isOvertaken(l) {
			return soonerResult(again, wait) // if wait is 0, the end of a call enqueues the account
		}
		decision := l.queue.PlanNext(time.Now())
		switch {
		case decision.Call != nil && decision.Call.Refusal != "":
			s.startRefusal(l, decision.Call)
		case decision.Call != nil:
			if !s.startCall(ctx, l, creds, decision.Call) {
				return reconcile.Result{}
			}
		case decision.ReadQuota != "":
			go s.readQuota(l, creds, decision.ReadQuota)
		default:
			return soonerResult(again, decision.Wait)
		}
	}
}

// soonerResult returns a result that requeues after the shorter of two waits. A wait of 0
// means never.
func soonerResult(a, b time.Duration) reconcile.Result {
	if a == 0 || b != 0 && b < a {
		a = b
	}
	return reconcile.Result{RequeueAfter: a}
}
