package controller

import (
	"context"
	"errors"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/backoff"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// Submitter turns the waiting tasks of an account into calls.
type Submitter struct {
	*sharedState
	kube.DelayedQueue[taskstate.AccountKey]

	mu            sync.Mutex
	accountQueues map[taskstate.AccountKey]*accountQueue

	unrecorded unrecordedCalls
}

func newSubmitter(op *sharedState) *Submitter {
	s := &Submitter{sharedState: op, accountQueues: map[taskstate.AccountKey]*accountQueue{}}
	op.versions.Subscribe(s.onChange)
	return s
}

// accountQueue is the queue of an account, and what its calls have met lately.
type accountQueue struct {
	account taskstate.AccountKey

	mu       sync.Mutex
	queue    *queue.Queue
	idle     bool // it was when dropIdleQueues came last, and had no task since
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

// maxStatusWrites is how many waiting tasks are told why in one go. It is small, so
// that claims and records, which go on beside it, do not wait behind it.
const maxStatusWrites = 64

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
	creds, err := s.credentials.GetCredentials(ctx, a)
	l.mu.Lock()
	if err != nil {
		l.recheck = time.Now().Add(s.backOffCall(l, nil, err))
		return soonerResult(s.writeWaitingStatuses(l), time.Until(l.recheck)), nil
	}
	limiter := s.edgeOne.Limiter(creds, teo.ActionCreatePrefetchTask)
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

// soonerResult comes back at the earlier of two times from now; 0 is never.
func soonerResult(a, b time.Duration) reconcile.Result {
	if a == 0 || b != 0 && b < a {
		a = b
	}
	return reconcile.Result{RequeueAfter: a}
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

// dropIdleQueues drops the lines of accounts that have had no task since it was called
// last, with the keys that were read for them: anybody can name any number of Secrets.
func (s *Submitter) dropIdleQueues() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a, l := range s.accountQueues {
		l.mu.Lock()
		// The queue is asked first: where another process leads, nothing else has it forget.
		isIdle := l.queue.IsIdle(time.Now()) && !s.versions.HasAccount(a) && !l.telling && l.claiming == 0 && len(l.unsent) == 0
		if isIdle && l.idle {
			l.gone = true
			delete(s.accountQueues, a)
			s.credentials.ForgetCredentials(a)
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
	if task := s.versions.NewestVersion(key); task != nil && taskstate.AccountKeyOf(task) == l.account {
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

// writeWaitingStatuses writes to waiting tasks why they wait, beside the pass, and returns when
// there is more to tell.
func (s *Submitter) writeWaitingStatuses(l *accountQueue) time.Duration {
	if l.telling {
		return 0
	}
	notes, next := l.queue.WaitingStatuses(maxStatusWrites, time.Now())
	if len(notes) > 0 {
		l.telling = true
		go func() {
			defer s.EnqueueAfter(l.account, 0)
			told := make([]bool, len(notes))
			kube.WriteInParallel(len(notes), func(i int) { told[i] = s.writeWaitingStatus(notes[i]) })
			l.mu.Lock()
			defer l.mu.Unlock()
			l.telling = false
			for i, told := range told {
				if !told {
					l.queue.RequeueStatus(notes[i], time.Now())
				}
			}
		}()
		return 0
	}
	if next.IsZero() {
		return 0
	}
	return max(time.Until(next), time.Millisecond)
}

// writeWaitingStatus writes one note, unless it cannot or may not yet. A conflict means that the
// task has changed, and its event will make the queue think again.
func (s *Submitter) writeWaitingStatus(note taskstate.WaitingStatus) (told bool) {
	if s.notes.WaitTime(note.Task) > 0 {
		return false
	}
	s.notes.CountRun(note.Task)
	var task *v1alpha1.PrefetchTask
	trouble := func(err error) bool {
		return s.critical.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) && !kube.IsRefused(err)
	}
	err := retry.OnError(retry.DefaultBackoff, trouble, func() (err error) {
		task, err = s.store.WithLowPriority().WriteStatus(s.critical, note.Task, taskstate.ReportWaiting(note, time.Now()))
		return err
	})
	if err != nil {
		s.ReportRefusedWrite(note.Task, nil, err)
		return false
	}
	if note.Stalled || note.Quota {
		s.RecordEvent(task, corev1.EventTypeWarning, note.Reason, "Submit", note.Message)
	}
	return true
}

// backOffCall makes those wait whom a failure concerns, and returns how long. A failure
// that was not a call's concerns the account.
func (s *Submitter) backOffCall(l *accountQueue, call *queue.Call, err error) time.Duration {
	now := time.Now()
	reach, failures := s.attributeFailure(l, call, err, now)
	p := backoff.PlanWait(err, failures, s.RecheckInterval)
	if call == nil && p.Scope != backoff.ScopeNone {
		p.Scope = backoff.ScopeAccount
	}
	switch p.Scope {
	case backoff.ScopeAccount:
		l.queue.BackOffAccount(p.Cause, now, now.Add(p.Duration))
	case backoff.ScopeBlamed:
		l.queue.BackOffScope(reach, call, p.Cause, now, now.Add(p.Duration))
	case backoff.ScopeLane:
		l.queue.BackOffLane(call.Lane, p.Cause, now, now.Add(p.Duration))
	case backoff.ScopeNone:
	}
	if p.NeedsUser || teo.DeniedAccount(err) {
		s.credentials.ForgetCredentials(l.account)
	}
	return p.Duration
}

// readQuota tells the queue what a zone may still submit today. Where the key may
// not read it, calls are made without knowing, and learn from refusals. But no
// call is made before EdgeOne has told its time, by which calls are signed and
// looked up: a clock that is off by minutes would have us look where no job is.
func (s *Submitter) readQuota(l *accountQueue, creds teo.Credentials, zoneID string) {
	ctx, cancel := context.WithTimeout(s.critical, 30*time.Second)
	defer cancel()
	quota, err := s.edgeOne.DescribeContentQuota(teo.InLine(ctx, l.account.String()), creds, zoneID)
	if err != nil {
		log.FromContext(ctx).V(1).Info("Could not read the quota", "zone", zoneID, "error", err.Error())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	switch {
	case !s.edgeOne.ServerTimeKnown():
		l.queue.RetryQuotaRead(zoneID, now)
		if err == nil || backoff.PlanWait(err, 1, s.RecheckInterval).Scope == backoff.ScopeNone {
			err = backoff.ErrNoServerTime
		}
		s.backOffCall(l, nil, err)
	case err == nil:
		l.queue.SetQuota(zoneID, quota.Batch, quota.DailyAvailable, now)
		l.countZoneUse(zoneID, quota.Daily, now)
	case teo.DeniedAccount(err): // found out without a claim
		l.queue.RetryQuotaRead(zoneID, now)
		s.backOffCall(l, nil, err)
	case errors.Is(err, teo.ErrZeroQuota):
		l.queue.RecordNoQuota(zoneID, now)
	case isReadRefused(err):
		l.queue.SetQuota(zoneID, 0, -1, now)
	default:
		l.queue.SetQuotaUnknown(zoneID, now)
	}
	s.EnqueueAfter(l.account, 0)
}
