package submit

import (
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// accountQueue is the queue of one account for calls of one kind, with the recent results of
// these calls. accountState.mu guards all fields.
type accountQueue struct {
	*accountState

	kind     v1alpha1.JobKind
	queue    *queue.Queue
	failures int       // consecutive failures that concern the account; overlapping calls count once
	failedAt time.Time // when failures was last increased
	answered []answeredCall
	unsent   map[string]int64 // sequence numbers of planned, unsent calls, by claim ID
}

// accountState is what the queues of an account share. mu guards all fields below it.
type accountState struct {
	account    taskstate.AccountKey
	prefetches *accountQueue
	purges     *accountQueue

	mu        sync.Mutex
	idle      bool                // idle at the last DropIdleQueues, and no task since
	gone      bool                // dropped; another state may have replaced this one
	recheck   time.Time           // when unusable credentials are read again
	reporting bool                // statuses of waiting tasks are being written
	claiming  int                 // tasks of calls that are being claimed
	used      map[string]usedZone // by zone ID

	ownLimiter *teo.Limiter // of spec.limits.callsPerSecond of the EdgeOneAccount; nil if there is no limit
	ownLimit   int          // its calls per second
}

// queues returns the queues of the account. The prefetches of what is purged already go first.
func (a *accountState) queues() [2]*accountQueue {
	return [2]*accountQueue{a.prefetches, a.purges}
}

// hasTasks reports whether a task waits for a call. mu is held.
func (a *accountState) hasTasks() bool { return a.prefetches.queue.Len()+a.purges.queue.Len() > 0 }

// isOvertaken reports whether the next call has priority over a call that is already planned.
// It may then be claimed although there is no slot for both. isOvertaken returns false once
// 2*QPS calls are unsent. The queue must be locked.
func (s *Submitter) isOvertaken(l *accountQueue) bool {
	turn, ok := l.queue.NextSequence()
	if !ok || len(l.unsent) >= 2*s.QPS {
		return false
	}
	for _, other := range l.unsent {
		if turn < other {
			return true
		}
	}
	return false
}

// queueFor returns the queue of an account for prefetches. It creates the queues of the account if
// there are none.
func (s *Submitter) queueFor(a taskstate.AccountKey) *accountQueue {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.accountQueues[a]
	if l == nil {
		state := &accountState{account: a, used: map[string]usedZone{}}
		state.prefetches, state.purges = s.newQueue(state, v1alpha1.JobPrefetch), s.newQueue(state, v1alpha1.JobPurge)
		l = state.prefetches
		s.accountQueues[a] = l
	}
	return l
}

// newQueue returns a queue of an account for calls of a kind.
func (s *Submitter) newQueue(state *accountState, kind v1alpha1.JobKind) *accountQueue {
	limits := queue.Limits{
		Kind: kind, PurgeTime: s.PurgeDeadline + s.PurgeSettle,
		ObserveBackOff: func(e queue.BackOffEvent) { logBackOff(state.account, e) },
		Batch:          s.Batch, TasksPerCall: s.TasksPerCall, QuotaInterval: s.QuotaInterval, QuotaReset: s.QuotaReset, QPS: s.QPS,
		StallAfter: 2 * s.RecheckInterval, SettleTime: s.SignatureValidity + s.SettleMargin + answerRetention, Normalize: target.Identity,
	}
	if limits.Admit = s.admitFor(state.account); kind == v1alpha1.JobPurge {
		limits.Admit = func(task *v1alpha1.PrefetchTask) taskstate.Admission { return s.admitPurge(state, task) }
	}
	return &accountQueue{accountState: state, kind: kind, queue: queue.NewQueue(limits), unsent: map[string]int64{}}
}

// lockQueue returns the queue of an account, locked. It tries again if DropIdleQueues drops
// the queue before it is locked.
func (s *Submitter) lockQueue(a taskstate.AccountKey) *accountQueue {
	for {
		l := s.queueFor(a)
		l.mu.Lock()
		if !l.gone {
			return l
		}
		l.mu.Unlock()
	}
}

// DropIdleQueues drops the queues of accounts that have had no task since the previous call,
// and the credentials that were read for them. Without this, memory could grow without limit,
// because a user can name any number of Secrets.
func (s *Submitter) DropIdleQueues() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a, l := range s.accountQueues {
		l.mu.Lock()
		// Call IsIdle first: it also drops expired entries of the queue. On a replica that
		// does not lead, nothing else drops them.
		isIdle := l.prefetches.queue.IsIdle(time.Now())
		isIdle = l.purges.queue.IsIdle(time.Now()) && isIdle
		isIdle = isIdle && !s.Tasks.HasAccount(a) && !l.reporting && l.claiming == 0 && len(l.prefetches.unsent)+len(l.purges.unsent) == 0
		if isIdle && l.idle {
			l.gone = true
			delete(s.accountQueues, a)
			s.Credentials.ForgetCredentials(a)
		}
		l.idle = isIdle
		l.mu.Unlock()
	}
}

// onChange updates a task in the queues of its previous and its current account.
func (s *Submitter) onChange(before, after *v1alpha1.PrefetchTask) {
	if after != nil {
		s.recordLateOutcome(after)
	}
	switch {
	case before == nil:
		s.updateTask(taskstate.AccountKeyOf(after), client.ObjectKeyFromObject(after))
	case after == nil || taskstate.AccountKeyOf(before) == taskstate.AccountKeyOf(after):
		s.updateTask(taskstate.AccountKeyOf(before), client.ObjectKeyFromObject(before))
	default:
		s.updateTask(taskstate.AccountKeyOf(before), client.ObjectKeyFromObject(before))
		s.updateTask(taskstate.AccountKeyOf(after), client.ObjectKeyFromObject(after))
	}
}

// updateTask updates an account's queue with the newest version of a task. It removes the task
// from the queue if the task is gone or uses another account now.
func (s *Submitter) updateTask(a taskstate.AccountKey, key client.ObjectKey) {
	l := s.lockQueue(a)
	defer l.mu.Unlock()
	l.idle = false
	due := false
	task := s.newestVersion(l, key)
	for _, l := range l.queues() {
		if task != nil {
			due = l.queue.UpsertTask(task, time.Now()) || due
		} else {
			l.queue.RemoveTask(key, time.Now())
			due = true // a removed claim may release URLs that other tasks wait for
		}
	}
	if due {
		s.EnqueueAfter(a, 0)
	}
}

// newestVersion returns the newest version of a task. It returns nil if the task is gone or
// uses another account.
func (s *Submitter) newestVersion(l *accountQueue, key client.ObjectKey) *v1alpha1.PrefetchTask {
	if task := s.Tasks.NewestVersion(key); task != nil && taskstate.AccountKeyOf(task) == l.account {
		return task
	}
	return nil
}

// newestVersions returns the newest version of each task of a call, in the order of the call's
// parts. An entry is nil if the task is gone or uses another account. The queue must be locked,
// so that no newer version can arrive in between.
func (s *Submitter) newestVersions(l *accountQueue, call *queue.Call) []*v1alpha1.PrefetchTask {
	tasks := make([]*v1alpha1.PrefetchTask, len(call.Parts))
	for i, part := range call.Parts {
		tasks[i] = s.newestVersion(l, client.ObjectKeyFromObject(part.Task))
	}
	return tasks
}
