package submit

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/backoff"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// attempt carries one planned call through its steps: claim, wait for a slot, send, record.
// The process can die after each step. Calls that it leaves behind are then settled from
// EdgeOne's history.
type attempt struct {
	*Submitter
	account  *accountQueue
	creds    teo.Credentials
	limiters limiters
	call     *queue.Call
	claimID  string
	signedAt time.Time     // EdgeOne's time when the claims were written
	parts    []attemptPart // in the order of call.Parts
}

// attemptPart is one task's part of a call.
type attemptPart struct {
	queue.CallPart
	newest    *v1alpha1.PrefetchTask // the newest known version; nil if the task is gone
	isClaimed bool                   // the task certainly has the claim
	err       error                  // why the claim was not written; nil also if there was no try
}

// newAttempt returns an attempt at a call of which no part is claimed. claimID is "" for a
// refusal, which is not sent. The queue must be locked.
func (s *Submitter) newAttempt(l *accountQueue, creds teo.Credentials, call *queue.Call, claimID string) *attempt {
	a := &attempt{Submitter: s, account: l, creds: creds, call: call, claimID: claimID}
	if claimID != "" {
		a.limiters = s.limitersFor(l, creds)
	}
	for _, part := range call.Parts {
		a.parts = append(a.parts, attemptPart{CallPart: part, newest: part.Task})
	}
	return a
}

// startCall starts a planned call in the background. If the process is stopping, it starts
// nothing and returns false. The queue must be locked.
func (s *Submitter) startCall(ctx context.Context, l *accountQueue, creds teo.Credentials, call *queue.Call) bool {
	a := s.newAttempt(l, creds, call, strings.ToLower(rand.Text()[:16]))
	if !s.Calls.Start(a.claimID) {
		l.queue.RecordReleased(call, s.newestVersions(l, call), time.Now())
		return false
	}
	l.queue.StartCall(call, a.claimID, time.Now())
	if l.kind == v1alpha1.JobPurge { // nobody prefetches meanwhile what it deletes
		l.prefetches.queue.ReservePurge(a.claimID, call.Lane.ZoneID, call.Lane.PurgeType, call.URLs, time.Now())
		l.prefetches.queue.PromisePlanned(call)
	}
	l.claiming += len(call.Parts)
	l.unsent[a.claimID] = call.Sequence
	go func() {
		logger := log.FromContext(ctx).WithValues("account", l.account.String(), "zone", call.Lane.ZoneID, "claim", a.claimID)
		a.run(log.IntoContext(s.Critical, logger))
		s.Calls.End(a.claimID)
		s.EnqueueAfter(l.account, 0)
	}()
	return true
}

// run claims the tasks, calls EdgeOne once and records the answer. If no task was claimed, it
// makes no call.
func (a *attempt) run(ctx context.Context) {
	err := a.claimInOrder(ctx)
	urls := a.claimedURLs()
	a.updateQueue(a.account, func() {
		a.account.claiming -= len(a.parts)
		a.account.queue.EndPlanning(a.call, time.Now())
		a.account.prefetches.queue.EndPromising(a.call, time.Now())
		if err == nil {
			err = a.postponeUnclaimed(len(urls) > 0)
		}
	})
	if len(urls) == 0 { // without claims, no call
		a.updateQueue(a.account, func() { delete(a.account.unsent, a.claimID) })
		a.account.endCall(a.claimID, func() {
			if err != nil {
				a.backOffCall(a.account, a.call, fmt.Errorf("%w: %w", backoff.ErrNotClaimed, err))
			}
			a.account.queue.RecordReleased(a.call, a.newestVersions(a.account, a.call), time.Now())
		})
		return
	}
	response, err := a.send(ctx, urls)
	unsettled, outcome := a.recordOutcome(ctx, len(urls), response, err)
	a.recordInBackground(ctx, a.claimID, unsettled, outcome)
}

// updateQueue calls what with the account queue locked. It then enqueues the account, because
// the next call may be possible now.
func (s *Submitter) updateQueue(l *accountQueue, what func()) {
	l.mu.Lock()
	what()
	l.mu.Unlock()
	s.EnqueueAfter(l.account, 0)
}

// errNotSent means that a call was not sent: it got no slot in time, or a back-off started
// after another call had failed. Its tasks return to the queue.
var errNotSent = errors.New("not sent")

// send waits for the call's turn and for a slot, and then makes the call. It returns
// errNotSent if the call may not be sent now.
func (a *attempt) send(ctx context.Context, urls []string) (teo.CreateResponse, error) {
	slots, err := a.acquireSlots(ctx)
	// A back-off may have started while the call waited for its slot, and the account may have
	// changed.
	held := false
	a.updateQueue(a.account, func() {
		delete(a.account.unsent, a.claimID)
		if held = a.account.queue.IsBackedOff(a.call, time.Now()) || !a.isAllowed(); !held {
			a.account.queue.MarkSent(a.call)
		}
	})
	switch {
	case err != nil:
		return teo.CreateResponse{}, fmt.Errorf("%w: %w", errNotSent, err)
	case held:
		slots.cancel()
		return teo.CreateResponse{}, errNotSent
	}
	ctx, cancel := context.WithTimeout(ctx, a.CallTimeout)
	defer cancel()
	start := time.Now()
	response, err := a.EdgeOne.CreateTask(slots.withSlots(ctx), a.creds, a.signedAt, a.createRequest(urls))
	slots.done(teo.KindOf(err) == teo.Throttled)
	a.logCall(ctx, len(urls), response, err, time.Since(start))
	return response, err
}

// logCall writes the one line that each call has in the log. EdgeOne's limit of calls bounds
// their number.
func (a *attempt) logCall(ctx context.Context, urls int, response teo.CreateResponse, err error, took time.Duration) {
	values := []any{"tasks", a.countClaimed(), "firstTask", a.firstClaimed(), "urls", urls, "duration", took.Round(time.Millisecond).String()}
	if id := cmp.Or(response.RequestID, teo.RequestID(err)); id != "" {
		values = append(values, "requestID", id)
	}
	if err != nil {
		log.FromContext(ctx).Info(a.account.createAction()+" failed", append(values, "error", teo.Message(err))...)
		return
	}
	log.FromContext(ctx).Info("Called "+a.account.createAction(), append(values, "job", response.JobID, "refused", len(a.refusedTargets(response)))...)
}

// acquireSlots waits for slots of the account's rate limits, for slotTimeout at most. Calls with
// a lower sequence get their slots first.
func (a *attempt) acquireSlots(ctx context.Context) (slots, error) {
	ctx, cancel := context.WithTimeout(ctx, slotTimeout)
	defer cancel()
	turn := teo.Turn{Line: a.account.account.String(), Number: a.call.Sequence}
	return a.limiters.wait(ctx, turn)
}

// createAction returns EdgeOne's name of the calls of the queue.
func (l *accountQueue) createAction() string {
	if l.kind == v1alpha1.JobPurge {
		return teo.ActionCreatePurgeTask
	}
	return teo.ActionCreatePrefetchTask
}

// createRequest returns the request in the form that EdgeOne expects: values are lower-case,
// and fields that the user left unset are omitted.
func (a *attempt) createRequest(urls []string) teo.CreateRequest {
	if a.account.kind == v1alpha1.JobPurge {
		return purgeRequest(a.call.Lane, urls)
	}
	return prefetchRequest(a.call.Lane, urls)
}

// purgeRequest returns the request of a purge. Purges of prefixes and hosts delete unless the user
// asks for less: without a method, EdgeOne only marks copies as expired.
func purgeRequest(lane queue.BatchKey, targets []string) teo.CreatePurgeTaskRequest {
	req := teo.CreatePurgeTaskRequest{ZoneID: lane.ZoneID, Type: taskstate.PurgeTypeNames[lane.PurgeType], Targets: slices.Clone(targets)}
	switch lane.PurgeType {
	case v1alpha1.PurgePrefix, v1alpha1.PurgeHost:
		if req.Method = teo.MethodDelete; lane.PurgeMethod == v1alpha1.PurgeInvalidate {
			req.Method = teo.MethodInvalidate
		}
	}
	if domains := lane.Domains(); len(domains) > 0 {
		req.CacheTag = &teo.CacheTagScope{Domains: domains}
	}
	if lane.PurgeType == v1alpha1.PurgeURL || lane.PurgeType == v1alpha1.PurgePrefix {
		for i, u := range targets {
			req.Targets[i] = target.Encode(u)
		}
	}
	return req
}

// prefetchRequest returns the request of a prefetch.
func prefetchRequest(lane queue.BatchKey, urls []string) teo.CreatePrefetchTaskRequest {
	req := teo.CreatePrefetchTaskRequest{ZoneID: lane.ZoneID, EncodeURL: lane.EncodeURL(), Targets: make([]string, len(urls))}
	for i, u := range urls {
		if req.Targets[i] = target.Encode(u); req.EncodeURL != nil && *req.EncodeURL {
			req.Targets[i] = target.Literal(u) // EdgeOne encodes it; avoid encoding it twice
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

// endCall ends a call whose outcome is known. It releases the call's URLs, and then calls tell
// with the queue locked.
func (l *accountQueue) endCall(claimID string, tell func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, l := range l.queues() {
		l.queue.ReleaseURLs(claimID, time.Now())
	}
	tell()
}

// endPurge is endCall for a purge that EdgeOne has accepted. Its URLs stay reserved until it ends.
func (l *accountQueue) endPurge(claimID string, isGone func() bool, tell func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	tell()
	gone := isGone()
	for _, l := range l.queues() {
		l.queue.KeepPurge(claimID, gone, time.Now())
	}
}
