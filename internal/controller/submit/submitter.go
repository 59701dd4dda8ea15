package submit

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/credentials"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/targetlist"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// Config is what the Submitter needs. See the manager's flags for the meaning and the
// defaults of its limits and intervals.
type Config struct {
	Tasks       *kube.TaskStore
	Writer      kube.StatusWriter
	Events      *kube.EventReporter
	EdgeOne     *teo.Client
	Credentials *credentials.Reader
	Lists       *targetlist.Resolver
	Calls       *InFlightCalls
	Runs        *kube.WriteRate // starts of runs and retries
	Critical    context.Context // of claim, call and record; outlives shutdown

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
}

// Submitter turns the waiting tasks of an account into calls.
type Submitter struct {
	Config
	kube.DelayedQueue[taskstate.AccountKey]
	reports  *kube.WriteRate     // writes that say why a task waits
	claiming *semaphore.Weighted // by claims to write

	mu            sync.Mutex
	accountQueues map[taskstate.AccountKey]*accountQueue

	unrecorded unrecordedCalls
}

// NewSubmitter returns a Submitter of all tasks that the store knows.
func NewSubmitter(config Config) *Submitter {
	s := &Submitter{
		Config:        config,
		reports:       kube.NewWriteRate(kube.NoteRate),
		claiming:      semaphore.NewWeighted(kube.MaxStatusWriters),
		accountQueues: map[taskstate.AccountKey]*accountQueue{},
	}
	config.Tasks.Subscribe(s.onChange)
	return s
}

const (
	// lookahead is how long before its slot a call is planned and claimed, so that an API
	// server that stutters costs no slots. It is short: if the process is killed, what is
	// claimed and not sent has to be settled first.
	lookahead = 300 * time.Millisecond
	// claimsAhead is how many claims an account may still have to write when its next call
	// is planned: about as many as are written at once. A task that comes now waits for
	// these claims at most, and then for its namespace's turn.
	claimsAhead = kube.MaxStatusWriters
	// slotTimeout is how long a claimed call waits for a slot. It matters if EdgeOne
	// throttles, so that there are fewer slots than expected.
	slotTimeout = 5 * time.Second
)

// Reconcile does what is due for an account: waiting tasks say why they wait, and calls start
// while there are a slot and something to submit.
func (s *Submitter) Reconcile(ctx context.Context, a taskstate.AccountKey) (reconcile.Result, error) {
	l := s.queueFor(a)
	again, recheck, hasTasks := s.reportWaiting(l)
	switch {
	case !hasTasks:
		return reconcile.Result{}, nil
	case recheck > 0:
		return soonerResult(again, recheck), nil
	}
	// The queue is not locked here: reading a Secret takes a while, and changes of tasks must
	// not wait for it.
	creds, err := s.Credentials.GetCredentials(ctx, a)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.recheck = time.Now().Add(s.backOffCall(l, nil, err))
		return soonerResult(s.writeWaitingStatuses(l), time.Until(l.recheck)), nil
	}
	return s.startCallsLocked(ctx, l, creds, again), nil
}

// reportWaiting has waiting tasks say why they wait. It returns after how long there is more to
// report (0 is never), how long the account still waits for its credentials, and whether it has
// tasks.
func (s *Submitter) reportWaiting(l *accountQueue) (again, recheck time.Duration, hasTasks bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return s.writeWaitingStatuses(l), time.Until(l.recheck), l.queue.Len() > 0
}

// startCallsLocked starts calls while there are a slot and something to submit. It returns when
// to come back, at the latest after again.
func (s *Submitter) startCallsLocked(ctx context.Context, l *accountQueue, creds teo.Credentials, again time.Duration) reconcile.Result {
	limiter := s.EdgeOne.Limiter(creds, teo.ActionCreatePrefetchTask)
	for {
		if l.claiming >= claimsAhead {
			return soonerResult(again, 0) // the account is enqueued when a call is claimed
		}
		enqueue := func() { s.EnqueueAfter(l.account, 0) }
		if free, wait := limiter.Free(l.account.String(), lookahead, enqueue); len(l.unsent) >= free && !s.isOvertaken(l) {
			return soonerResult(again, wait) // 0: the end of any call enqueues the account
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

// soonerResult comes back after the shorter of two waits; 0 is never.
func soonerResult(a, b time.Duration) reconcile.Result {
	if a == 0 || b != 0 && b < a {
		a = b
	}
	return reconcile.Result{RequeueAfter: a}
}
