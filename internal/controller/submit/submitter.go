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
	// lookahead is how much earlier than its slot a call is planned and claimed: an
	// API server that stutters costs no calls then. It is short because what is
	// claimed and not sent when a process is killed has to wait for its settling.
	lookahead = 300 * time.Millisecond
	// claimsAhead is how many claims an account may be about to write when one more
	// call is planned: about as many as are written at once. Who comes now waits for
	// those at most, and then its namespace's turn comes.
	claimsAhead = kube.MaxStatusWriters
	// slotTimeout is how long a claimed call waits for a slot, when there are fewer
	// than there were.
	slotTimeout = 5 * time.Second
)

// Reconcile does all that is due for an account now: it tells tasks why they
// wait, and starts calls while there are a slot and something to submit.
func (s *Submitter) Reconcile(ctx context.Context, a taskstate.AccountKey) (reconcile.Result, error) {
	l := s.queueFor(a)
	l.mu.Lock()
	defer l.mu.Unlock()
	again := s.writeWaitingStatuses(l)
	if l.queue.Len() == 0 {
		return reconcile.Result{}, nil
	}
	if wait := time.Until(l.recheck); wait > 0 {
		return soonerResult(again, wait), nil
	}
	l.mu.Unlock() // reading a Secret takes a while, and the feed of tasks must not wait for it
	creds, err := s.Credentials.GetCredentials(ctx, a)
	l.mu.Lock()
	if err != nil {
		l.recheck = time.Now().Add(s.backOffCall(l, nil, err))
		return soonerResult(s.writeWaitingStatuses(l), time.Until(l.recheck)), nil
	}
	limiter := s.EdgeOne.Limiter(creds, teo.ActionCreatePrefetchTask)
	for {
		if l.claiming >= claimsAhead {
			return soonerResult(again, 0), nil // the line is woken when one is claimed
		}
		wake := func() { s.EnqueueAfter(a, 0) }
		if free, wait := limiter.Free(a.String(), lookahead, wake); len(l.unsent) >= free && !s.isOvertaken(l) {
			return soonerResult(again, wait), nil // 0: the end of a call wakes the line, whosever call it is
		}
		decision := l.queue.PlanNext(time.Now())
		switch {
		case decision.Call != nil && decision.Call.Refusal != "":
			s.startRefusal(l, decision.Call)
		case decision.Call != nil:
			if !s.startCall(ctx, l, creds, decision.Call) {
				return reconcile.Result{}, nil
			}
		case decision.ReadQuota != "":
			go s.readQuota(l, creds, decision.ReadQuota)
		default:
			return soonerResult(again, decision.Wait), nil
		}
	}
}

// soonerResult comes back at the earlier of two times from now; 0 is never.
func soonerResult(a, b time.Duration) reconcile.Result {
	if a == 0 || b != 0 && b < a {
		a = b
	}
	return reconcile.Result{RequeueAfter: a}
}
