package submit

import (
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// accountQueue is the queue of one account, and the recent experience of its calls.
type accountQueue struct {
	account taskstate.AccountKey

	mu        sync.Mutex
	queue     *queue.Queue
	idle      bool // it was at the last DropIdleQueues, and has had no task since
	gone      bool // it was dropped; another queue may have taken its place
	failures  int  // in a row, for a reason of the account; of calls that overlap only one counts
	failedAt  time.Time
	answered  []answeredCall
	recheck   time.Time        // when missing credentials are read again
	reporting bool             // statuses of waiting tasks are being written
	claiming  int              // tasks of calls that are being claimed
	unsent    map[string]int64 // sequence numbers of calls that are planned and not sent, by claim
	used      map[string]usedZone
}

// isOvertaken says whether the next call goes before one that is already planned. Then it may
// be claimed although there is no slot for both.
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

func (s *Submitter) queueFor(a taskstate.AccountKey) *accountQueue {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.accountQueues[a]
	if l == nil {
		l = &accountQueue{account: a, unsent: map[string]int64{}, used: map[string]usedZone{}, queue: queue.NewQueue(queue.Limits{
			Batch: s.Batch, TasksPerCall: s.TasksPerCall, QuotaInterval: s.QuotaInterval, QuotaReset: s.QuotaReset, QPS: s.QPS,
			StallAfter: 2 * s.RecheckInterval, SettleTime: s.SignatureValidity + s.SettleMargin + answerRetention, Normalize: target.Identity,
		})}
		s.accountQueues[a] = l
	}
	return l
}

// lockQueue returns the queue of an account, locked.
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

// DropIdleQueues drops the queues of accounts that have had no task since it was called last,
// and the keys that were read for them. Anybody can name any number of Secrets.
func (s *Submitter) DropIdleQueues() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a, l := range s.accountQueues {
		l.mu.Lock()
		// IsIdle comes first: in a process that does not lead, nothing else has the queue forget.
		isIdle := l.queue.IsIdle(time.Now()) && !s.Tasks.HasAccount(a) && !l.reporting && l.claiming == 0 && len(l.unsent) == 0
		if isIdle && l.idle {
			l.gone = true
			delete(s.accountQueues, a)
			s.Credentials.ForgetCredentials(a)
		}
		l.idle = isIdle
		l.mu.Unlock()
	}
}

// onChange updates a task in the queues of the accounts that it had and has.
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

// updateTask gives an account's queue the newest version of a task. The task may be gone, or
// may use another account by now.
func (s *Submitter) updateTask(a taskstate.AccountKey, key client.ObjectKey) {
	l := s.lockQueue(a)
	defer l.mu.Unlock()
	l.idle = false
	due := true // tasks that waited for a URL of its claim may go
	if task := s.newestVersion(l, key); task != nil {
		due = l.queue.UpsertTask(task, time.Now())
	} else {
		l.queue.RemoveTask(key, time.Now())
	}
	if due {
		s.EnqueueAfter(a, 0)
	}
}

// newestVersion returns the newest version of a task, nil if it is gone or uses another account.
func (s *Submitter) newestVersion(l *accountQueue, key client.ObjectKey) *v1alpha1.PrefetchTask {
	if task := s.Tasks.NewestVersion(key); task != nil && taskstate.AccountKeyOf(task) == l.account {
		return task
	}
	return nil
}

// newestVersions returns the newest version of each task of a call by part, nil if the task is
// gone or uses another account. The queue must be locked, so that no newer version can come
// between.
func (s *Submitter) newestVersions(l *accountQueue, call *queue.Call) []*v1alpha1.PrefetchTask {
	tasks := make([]*v1alpha1.PrefetchTask, len(call.Parts))
	for i, part := range call.Parts {
		tasks[i] = s.newestVersion(l, client.ObjectKeyFromObject(part.Task))
	}
	return tasks
}
