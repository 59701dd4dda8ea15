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

// accountQueue is the queue of an account, and what its calls have met lately.
type accountQueue struct {
	account taskstate.AccountKey

	mu       sync.Mutex
	queue    *queue.Queue
	idle     bool // it was when DropIdleQueues came last, and had no task since
	gone     bool // another line has taken its place
	failures int  // in a row, for a reason of the account's; of calls under way together only one counts
	failedAt time.Time
	answered []answeredCall
	recheck  time.Time        // when missing credentials are looked for again
	telling  bool             // statuses of waiting tasks are being written
	claiming int              // tasks of calls that are being claimed
	unsent   map[string]int64 // the turns of calls that are planned and not sent yet, by claim
	used     map[string]usedZone
}

// isOvertaken says whether the next call would be sent before one that is planned
// already, and may be claimed without a slot for both.
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

// lockQueue returns the line of an account, locked.
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

// DropIdleQueues drops the lines of accounts that have had no task since it was called
// last, with the keys that were read for them: anybody can name any number of Secrets.
func (s *Submitter) DropIdleQueues() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a, l := range s.accountQueues {
		l.mu.Lock()
		// The queue is asked first: where another process leads, nothing else has it forget.
		isIdle := l.queue.IsIdle(time.Now()) && !s.Tasks.HasAccount(a) && !l.telling && l.claiming == 0 && len(l.unsent) == 0
		if isIdle && l.idle {
			l.gone = true
			delete(s.accountQueues, a)
			s.Credentials.ForgetCredentials(a)
		}
		l.idle = isIdle
		l.mu.Unlock()
	}
}

// onChange has the lines of a task's accounts look at its newest version.
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

// updateTask has the line of an account look at the newest version of a task, which may
// be gone, or another account's by now.
func (s *Submitter) updateTask(a taskstate.AccountKey, key client.ObjectKey) {
	l := s.lockQueue(a)
	defer l.mu.Unlock()
	l.idle = false
	due := true // those who waited for a URL of its claim may go
	if task := s.newestVersion(l, key); task != nil {
		due = l.queue.UpsertTask(task, time.Now())
	} else {
		l.queue.RemoveTask(key, time.Now())
	}
	if due {
		s.EnqueueAfter(a, 0)
	}
}

// NewestVersion returns the newest version of a task if it is one of the line's account.
func (s *Submitter) newestVersion(l *accountQueue, key client.ObjectKey) *v1alpha1.PrefetchTask {
	if task := s.Tasks.NewestVersion(key); task != nil && taskstate.AccountKeyOf(task) == l.account {
		return task
	}
	return nil
}

// newestVersions are the newest versions of a call's tasks by part, nil where a task is gone
// or is another account's by now. The line must be locked.
func (s *Submitter) newestVersions(l *accountQueue, call *queue.Call) []*v1alpha1.PrefetchTask {
	tasks := make([]*v1alpha1.PrefetchTask, len(call.Parts))
	for i, part := range call.Parts {
		tasks[i] = s.newestVersion(l, client.ObjectKeyFromObject(part.Task))
	}
	return tasks
}
