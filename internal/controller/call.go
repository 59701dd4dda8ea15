package controller

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/backoff"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/metrics"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// startCall makes a planned call beside the pass. It returns false if the process is
// stopping: then nothing new starts.
func (s *Submitter) startCall(ctx context.Context, l *accountQueue, creds teo.Credentials, call *queue.Call) bool {
	claimID := strings.ToLower(rand.Text()[:16])
	if !s.calls.startCall(claimID) { // stopping: nothing new
		l.queue.RecordReleased(call, s.newestVersions(l, call), time.Now())
		return false
	}
	l.queue.ReserveURLs(claimID, call.Lane.ZoneID, call.URLs, time.Now())
	l.claiming += len(call.Parts)
	l.unsent[claimID] = call.Sequence
	go func() {
		s.makeCall(log.IntoContext(s.critical, log.FromContext(ctx).WithValues("claim", claimID, "zone", call.Lane.ZoneID)), l, creds, call, claimID)
		s.calls.endCall(claimID)
		s.EnqueueAfter(l.account, 0)
	}()
	return true
}

// makeCall claims the tasks, calls EdgeOne once and records the answer. Every step
// may be the last one of this process: what it leaves behind is settled later.
func (s *Submitter) makeCall(ctx context.Context, l *accountQueue, creds teo.Credentials, call *queue.Call, claimID string) {
	signedAt, tasks, claimed, troubles, err := s.claimInOrder(ctx, l, creds, call, claimID)
	urls := claimedURLs(call, claimed)
	s.updateQueue(l, func() {
		l.claiming -= len(call.Parts)
		if err == nil {
			err = s.postponeUnclaimed(l, call, troubles, len(urls) > 0)
		}
	})
	if len(urls) == 0 {
		s.updateQueue(l, func() { delete(l.unsent, claimID) })
		l.endCall(claimID, func() {
			if err != nil {
				s.backOffCall(l, call, fmt.Errorf("%w: %w", backoff.ErrNotClaimed, err))
			}
			l.queue.RecordReleased(call, s.newestVersions(l, call), time.Now())
		})
		return
	}
	response, err := s.sendCall(ctx, l, creds, call, claimID, urls, signedAt)
	unsettled, c := s.recordOutcome(ctx, l, call, claimID, tasks, claimed, len(urls), response, err)
	s.recordInBackground(ctx, claimID, unsettled, c)
}

// errTooSoon: the task has started too many runs within a minute.
var errTooSoon = errors.New("too many runs within a minute")

// postponeUnclaimed keeps tasks waiting that took no claim, if that is their own trouble: it is
// where others were claimed, where there are no others, and where the API server refuses
// the write for what the task is. Else it returns the trouble, which is the API server's.
func (s *Submitter) postponeUnclaimed(l *accountQueue, call *queue.Call, troubles []error, someClaimed bool) (shared error) {
	tried := 0
	for _, err := range troubles {
		if err != nil && !kube.IsRefused(err) && !errors.Is(err, errTooSoon) {
			tried++
		}
	}
	for i, err := range troubles {
		switch {
		case err == nil:
		case errors.Is(err, errTooSoon):
			l.queue.PostponeTaskUntil(call.Parts[i], tooSoon, time.Now().Add(s.runs.WaitTime(call.Parts[i].Task)))
		case kube.IsRefused(err):
			l.queue.PostponeTask(call.Parts[i], kube.RefusalCause(err), time.Now())
		case someClaimed || tried == 1:
			why := backoff.PlanWait(fmt.Errorf("%w: %w", backoff.ErrNotClaimed, err), 1, 0).Cause
			l.queue.PostponeTask(call.Parts[i], why, time.Now())
		default:
			shared = err
		}
	}
	return shared
}

// updateQueue changes what the line knows of its calls, which may let the next one go.
func (s *Submitter) updateQueue(l *accountQueue, what func()) {
	l.mu.Lock()
	what()
	l.mu.Unlock()
	s.EnqueueAfter(l.account, 0)
}

// claimInOrder claims the tasks of a call when it is the call's turn to write, and
// signs the claim then. On a slow API server calls that all claimed at once would
// each take so long that none could be sent in time.
func (s *Submitter) claimInOrder(ctx context.Context, l *accountQueue, creds teo.Credentials, call *queue.Call, claimID string) (
	signedAt time.Time, tasks []*v1alpha1.PrefetchTask, claimed []bool, troubles []error, err error,
) {
	n := int64(min(len(call.Parts), kube.MaxStatusWriters))
	if err := s.claiming.Acquire(ctx, n); err != nil {
		return time.Time{}, tasksOf(call), make([]bool, len(call.Parts)), nil, err
	}
	defer s.claiming.Release(n)
	signedAt = s.edgeOne.ServerTime().Truncate(time.Second)
	tasks, claimed, troubles = s.writeClaims(ctx, l, creds, call, claimID, signedAt)
	return signedAt, tasks, claimed, troubles, nil
}

// writeClaims writes the claim to the tasks of the call and returns their newest
// versions, which of them carry it, and what the Kubernetes API says of the others
// if it did not take it. It takes no longer than the signature or a process that stops can
// wait: what is not claimed by then goes into a later call.
func (s *Submitter) writeClaims(
	ctx context.Context, l *accountQueue, creds teo.Credentials, call *queue.Call, claimID string, signedAt time.Time,
) (tasks []*v1alpha1.PrefetchTask, claimed []bool, troubles []error) {
	tasks, claimed, troubles = tasksOf(call), make([]bool, len(call.Parts)), make([]error, len(call.Parts))
	planned, foreign := taskstate.HashCall(call.URLs), l.jobsAnsweredMeanwhile(call.Lane)
	end := time.Now().Add(min(s.WriteTimeout, s.SignatureValidity/4))
	kube.WriteInParallel(len(call.Parts), func(i int) {
		if time.Now().After(end) || s.calls.stopCalls() {
			return
		}
		part := call.Parts[i]
		newRun := taskstate.IsNewRun(part.Task)
		if newRun && s.runs.WaitTime(part.Task) > 0 {
			troubles[i] = errTooSoon
			return
		}
		if !s.lists.IsFresh(part.Task) {
			return // it comes again when its list is there
		}
		submission := v1alpha1.Submission{
			ClaimID:     claimID,
			ZoneID:      call.Lane.ZoneID,
			AccountHash: creds.Hash(),
			SignedAt:    metav1.NewTime(signedAt),
			Targets:     part.Positions.String(),
			CallHash:    planned,
			Semantics:   taskstate.HashSemantics(part.Task),
			EarlierJobs: append(jobsSince(part.Task, signedAt.Add(-s.SignatureValidity)), foreign(part)...),
		}
		var err error
		tasks[i], err = s.store.WriteClaim(ctx, part.Task, submission, taskstate.ClaimTargets(submission, time.Now()))
		if claimed[i] = err == nil; newRun && claimed[i] {
			s.runs.CountRun(part.Task)
		}
		if err != nil && !errors.Is(err, kube.ErrStale) {
			troubles[i] = err
		}
		if old := part.Task.Status.Submission; claimed[i] && old != nil {
			s.RecordEvent(tasks[i], corev1.EventTypeWarning, "RunSuperseded", "Submit",
				"A new run started while the outcome of call "+old.ClaimID+" of the run before was unknown; what EdgeOne executed of that call is not followed")
		}
	})
	return tasks, claimed, troubles
}

// jobsSince are the jobs that were signed after a time and had the targets that
// are now submitted again: those of the run before, or of this one what a retry is of.
func jobsSince(task *v1alpha1.PrefetchTask, after time.Time) []string {
	newRun := taskstate.IsNewRun(task)
	var ids []string
	for _, job := range slices.Backward(task.Status.Jobs) {
		if (newRun || job.Retried != "") && job.SubmitTime.After(after) && len(ids) < taskstate.MaxEarlierJobs/2 {
			ids = append(ids, job.ID)
		}
	}
	return ids
}

// answeredCall is a call that EdgeOne answered just now.
type answeredCall struct {
	lane  queue.BatchKey
	jobID string
	urls  map[string]bool
	at    time.Time
}

// answerRetention is how long after a call was answered its job may be in the window of a
// claim that was signed later: that begins ClockSkew before its signature, which is
// truncated to the second, as EdgeOne's times are.
const answerRetention = taskstate.ClockSkew + 2*time.Second

// jobsAnsweredMeanwhile returns a function that names the jobs that other calls got for a
// task's URLs just now: they were made before the claim, so they are not its own. Those
// of other lanes fetched the URLs in another way, and the history does not tell in which.
func (l *accountQueue) jobsAnsweredMeanwhile(lane queue.BatchKey) func(queue.CallPart) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answered = slices.DeleteFunc(l.answered, func(a answeredCall) bool { return time.Since(a.at) > answerRetention })
	beside := slices.DeleteFunc(slices.Clone(l.answered), func(a answeredCall) bool { return !a.lane.SharesZone(lane) })
	return func(part queue.CallPart) (ids []string) {
		if len(beside) == 0 {
			return nil
		}
		targets := taskstate.DistinctTargets(part.Task)
		for _, a := range beside {
			if len(ids) < taskstate.MaxEarlierJobs/2 && slices.ContainsFunc(part.Positions, func(i int) bool { return a.urls[target.Identity(targets[i])] }) {
				ids = append(ids, a.jobID)
			}
		}
		return ids
	}
}

func urlIdentities(urls []string) map[string]bool {
	set := make(map[string]bool, len(urls))
	for _, u := range urls {
		set[target.Identity(u)] = true
	}
	return set
}

// claimedURLs are the distinct URLs of the tasks that are claimed for certain, in
// their first spelling.
// No others may be sent: nobody would look for them.
func claimedURLs(call *queue.Call, claimed []bool) []string {
	seen := make(map[string]bool, len(call.URLs))
	var urls []string
	for i, part := range call.Parts {
		if !claimed[i] {
			continue
		}
		targets := taskstate.DistinctTargets(part.Task)
		for _, p := range part.Positions {
			if u := targets[p]; !seen[target.Identity(u)] {
				seen[target.Identity(u)] = true
				urls = append(urls, u)
			}
		}
	}
	return urls
}

// errNotSent is of a call that was not sent, and whose tasks go back into the line:
// there was no slot in time, or what other calls have met keeps it from being sent.
var errNotSent = errors.New("not sent")

// sendCall makes the call when it is its turn and there is a slot.
func (s *Submitter) sendCall(
	ctx context.Context, l *accountQueue, creds teo.Credentials, call *queue.Call, claimID string, urls []string, signedAt time.Time,
) (teo.CreatePrefetchTaskResponse, error) {
	slot, err := s.acquireSlot(ctx, creds, teo.Turn{Line: l.account.String(), Number: call.Sequence})
	held := false
	s.updateQueue(l, func() {
		delete(l.unsent, claimID)
		if held = l.queue.IsBackedOff(call, time.Now()); !held {
			l.queue.MarkSent(call)
		}
	})
	switch {
	case err != nil:
		return teo.CreatePrefetchTaskResponse{}, fmt.Errorf("%w: %w", errNotSent, err)
	case held:
		slot.Cancel()
		return teo.CreatePrefetchTaskResponse{}, errNotSent
	}
	ctx, cancel := context.WithTimeout(ctx, s.CallTimeout)
	defer cancel()
	response, err := s.edgeOne.CreatePrefetchTask(slot.For(ctx), creds, signedAt, createRequest(call.Lane, urls))
	slot.Done(teo.KindOf(err) == teo.Throttled)
	log.FromContext(ctx).V(1).Info("Called CreatePrefetchTask",
		"tasks", len(call.Parts), "urls", len(urls), "job", response.JobID, "error", teo.Message(err))
	return response, err
}

func (s *Submitter) acquireSlot(ctx context.Context, creds teo.Credentials, turn teo.Turn) (*teo.Slot, error) {
	ctx, cancel := context.WithTimeout(ctx, slotTimeout)
	defer cancel()
	return s.edgeOne.Limiter(creds, teo.ActionCreatePrefetchTask).Wait(ctx, turn)
}

// createRequest is the call as EdgeOne wants it: lower-case values, and nothing that
// the user left unset.
func createRequest(lane queue.BatchKey, urls []string) teo.CreatePrefetchTaskRequest {
	req := teo.CreatePrefetchTaskRequest{ZoneID: lane.ZoneID, EncodeURL: lane.EncodeURL(), Targets: make([]string, len(urls))}
	for i, u := range urls {
		if req.Targets[i] = target.Encode(u); req.EncodeURL != nil && *req.EncodeURL {
			req.Targets[i] = target.Literal(u) // EdgeOne encodes it: not twice
		}
	}
	if lane.Edge {
		req.Mode = "edge"
	}
	if lane.MediaSegments {
		req.PrefetchMediaSegments = "on"
	}
	for _, header := range lane.Headers() {
		req.Headers = append(req.Headers, teo.Header{Name: header.Name, Value: header.Value})
	}
	return req
}

// recordOutcome writes the outcome of a call to its tasks and tells the queue. It returns the
// tasks whose status has not taken it in a few tries, and what is to be written: they
// keep nobody else waiting.
func (s *Submitter) recordOutcome(
	ctx context.Context, l *accountQueue, call *queue.Call, claimID string,
	tasks []*v1alpha1.PrefetchTask, claimed []bool, sent int, response teo.CreatePrefetchTaskResponse, err error,
) (unsettled []*v1alpha1.PrefetchTask, outcome taskstate.Transition) {
	q, now := l.queue, time.Now()
	if !errors.Is(err, errNotSent) {
		metrics.ObserveCreate(sent, claimed)
	}
	settleAll := func(c taskstate.Transition) {
		unsettled, outcome = s.recordOutcomes(ctx, claimID, tasks, claimed, c), c
	}
	switch kind := teo.KindOf(err); {
	case errors.Is(err, errNotSent):
		settleAll(taskstate.ReleaseClaim(taskstate.Cause{}, now))
		l.endCall(claimID, func() { q.RecordReleased(call, s.newestVersions(l, call), time.Now()) })
	case err == nil:
		refused := map[string]string{}
		for _, failed := range response.Failed {
			for _, u := range failed.Targets {
				refused[target.Identity(u)] = failed.Reason
			}
		}
		settleAll(taskstate.RecordJob(response.JobID, refused, now))
		l.endCall(claimID, func() {
			l.failures = 0
			l.answered = append(l.answered, answeredCall{call.Lane, response.JobID, urlIdentities(call.URLs), now})
			q.RecordAccepted(call, s.newestVersions(l, call), max(0, sent-len(refused)), time.Now())
			l.countZoneUse(call.Lane.ZoneID, 0, time.Now())
		})
	case kind == teo.Ambiguous:
		// The claim stays; the Poller finds out.
		metrics.CountLostAnswer()
		if teo.Code(err) != "" {
			settleAll(taskstate.RecordWords(teo.Message(err)))
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		s.backOffCall(l, call, err)
		q.TrackLostCall(call, claimID, s.newestVersions(l, call), time.Now())
	case kind == teo.Rejected && !teo.IsBatchQuota(err) && len(call.URLs) == 1:
		l.mu.Lock()
		if teo.IsDomainNotFound(err) {
			q.RefuseHost(call.Lane.ZoneID, target.Encode(call.URLs[0]), teo.Message(err), now.Add(refusedHostRetention))
		}
		q.RecordRejection(call, teo.Code(err), teo.Message(err), isAboutTargets(err))
		l.mu.Unlock()
		refused := map[string]string{}
		for _, u := range call.URLs {
			refused[target.Identity(u)] = teo.Message(err)
		}
		settleAll(taskstate.RecordJob("", refused, now))
		l.endCall(claimID, func() { q.RecordAccepted(call, s.newestVersions(l, call), 0, time.Now()) })
	default:
		settleAll(taskstate.ReleaseClaim(taskstate.Cause{}, now))
		l.endCall(claimID, func() { s.backOffReleased(l, call, err) })
	}
	return unsettled, outcome
}

// refusedHostRetention is how long a host that EdgeOne does not know in a zone is not
// asked for again.
const refusedHostRetention = 10 * time.Minute

// isAboutTargets says whether EdgeOne rejected a call for one of its targets, and not
// perhaps for what all of them share, such as a header.
func isAboutTargets(err error) bool {
	switch teo.Code(err) {
	case "InvalidParameter.Target", "InvalidParameter.TaskNotGenerated", "RequestSizeLimitExceeded":
		return true
	}
	return teo.IsDomainNotFound(err)
}

// backOffReleased tells the queue why a call was not executed.
func (s *Submitter) backOffReleased(l *accountQueue, call *queue.Call, err error) {
	q, tasks, now := l.queue, s.newestVersions(l, call), time.Now()
	switch {
	case teo.IsBatchQuota(err):
		q.RecordTooLarge(call, now)
		q.RecordReleased(call, tasks, now)
	case teo.KindOf(err) == teo.Rejected:
		q.BisectRejected(call, tasks, now)
	case teo.KindOf(err) == teo.Exhausted:
		q.RecordQuotaExhausted(call, now)
		q.RecordReleased(call, tasks, now)
	case errors.Is(err, teo.ErrCutOff):
		reach, failures := q.AttributeFailure(call, "cut off", now)
		p := backoff.PlanWait(err, failures, s.RecheckInterval)
		if reach == queue.ScopeAccount {
			q.BackOffAccount(p.Cause, now, now.Add(p.Duration))
		}
		q.BisectCutOff(call, tasks, p.Cause, now)
	default:
		if errors.Is(err, teo.ErrTooOld) {
			q.LimitTasksPerCall(call)
		}
		s.backOffCall(l, call, err)
		q.RecordReleased(call, tasks, now)
	}
}

// endCall ends a call whose outcome is known.
func (l *accountQueue) endCall(claimID string, tell func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue.ReleaseURLs(claimID, time.Now())
	tell()
}

// startRefusal records targets of which it is known that EdgeOne refuses them.
func (s *Submitter) startRefusal(l *accountQueue, call *queue.Call) {
	go func() {
		defer s.EnqueueAfter(l.account, 0)
		tasks, troubles := tasksOf(call), make([]error, len(call.Parts))
		kube.WriteInParallel(len(tasks), func(i int) {
			before := tasks[i]
			after, err := s.store.WriteStatus(s.critical, before, taskstate.RefuseTargets(call.Parts[i].Positions, call.Refusal, time.Now()))
			s.ReportRefusedWrite(before, after, err)
			if troubles[i] = err; err == nil {
				s.ReportFinished(before, after)
			} else if !kube.IsRefused(err) {
				_, _ = s.store.ReadTask(s.critical, before) // it has changed, or is gone
			}
		})
		l.mu.Lock()
		defer l.mu.Unlock()
		_ = s.postponeUnclaimed(l, call, troubles, true)
		l.queue.RecordAccepted(call, s.newestVersions(l, call), 0, time.Now())
	}()
}

func tasksOf(call *queue.Call) []*v1alpha1.PrefetchTask {
	tasks := make([]*v1alpha1.PrefetchTask, len(call.Parts))
	for i, part := range call.Parts {
		tasks[i] = part.Task
	}
	return tasks
}
