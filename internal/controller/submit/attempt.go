package submit

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/backoff"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// attempt carries one planned call through its steps: claim, wait for a slot, send, record.
// Each step may be the last one of this process. What it leaves behind is settled from
// EdgeOne's history.
type attempt struct {
	*Submitter
	account  *accountQueue
	creds    teo.Credentials
	call     *queue.Call
	claimID  string
	signedAt time.Time     // EdgeOne's time when the claims were written
	parts    []attemptPart // in the order of call.Parts
}

// attemptPart is one task's part of a call.
type attemptPart struct {
	queue.CallPart
	newest    *v1alpha1.PrefetchTask // the newest version known; nil if it is gone
	isClaimed bool                   // the claim is on the task for certain
	err       error                  // why the claim was not written; nil also if it was not tried
}

func (s *Submitter) newAttempt(l *accountQueue, creds teo.Credentials, call *queue.Call, claimID string) *attempt {
	a := &attempt{Submitter: s, account: l, creds: creds, call: call, claimID: claimID}
	for _, part := range call.Parts {
		a.parts = append(a.parts, attemptPart{CallPart: part, newest: part.Task})
	}
	return a
}

// startCall makes a planned call in the background. It returns false if the process is
// stopping: then nothing new starts.
func (s *Submitter) startCall(ctx context.Context, l *accountQueue, creds teo.Credentials, call *queue.Call) bool {
	a := s.newAttempt(l, creds, call, strings.ToLower(rand.Text()[:16]))
	if !s.Calls.Start(a.claimID) {
		l.queue.RecordReleased(call, s.newestVersions(l, call), time.Now())
		return false
	}
	l.queue.ReserveURLs(a.claimID, call.Lane.ZoneID, call.URLs, time.Now())
	l.claiming += len(call.Parts)
	l.unsent[a.claimID] = call.Sequence
	go func() {
		a.run(log.IntoContext(s.Critical, log.FromContext(ctx).WithValues("claim", a.claimID, "zone", call.Lane.ZoneID)))
		s.Calls.End(a.claimID)
		s.EnqueueAfter(l.account, 0)
	}()
	return true
}

// run claims the tasks, calls EdgeOne once and records the answer.
func (a *attempt) run(ctx context.Context) {
	err := a.claimInOrder(ctx)
	urls := a.claimedURLs()
	a.updateQueue(a.account, func() {
		a.account.claiming -= len(a.parts)
		if err == nil {
			err = a.postponeUnclaimed(len(urls) > 0)
		}
	})
	if len(urls) == 0 {
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

// updateQueue changes what the account queue knows of its calls, and enqueues the account: the
// next call may be possible now.
func (s *Submitter) updateQueue(l *accountQueue, what func()) {
	l.mu.Lock()
	what()
	l.mu.Unlock()
	s.EnqueueAfter(l.account, 0)
}

// errNotSent says that a call was not sent, because it got no slot in time or because the failure
// of another call holds it back. Its tasks return to the queue.
var errNotSent = errors.New("not sent")

// send makes the call when it is its turn and there is a slot.
func (a *attempt) send(ctx context.Context, urls []string) (teo.CreatePrefetchTaskResponse, error) {
	slot, err := a.acquireSlot(ctx)
	held := false
	a.updateQueue(a.account, func() {
		delete(a.account.unsent, a.claimID)
		if held = a.account.queue.IsBackedOff(a.call, time.Now()); !held {
			a.account.queue.MarkSent(a.call)
		}
	})
	switch {
	case err != nil:
		return teo.CreatePrefetchTaskResponse{}, fmt.Errorf("%w: %w", errNotSent, err)
	case held:
		slot.Cancel()
		return teo.CreatePrefetchTaskResponse{}, errNotSent
	}
	ctx, cancel := context.WithTimeout(ctx, a.CallTimeout)
	defer cancel()
	response, err := a.EdgeOne.CreatePrefetchTask(slot.For(ctx), a.creds, a.signedAt, createRequest(a.call.Lane, urls))
	slot.Done(teo.KindOf(err) == teo.Throttled)
	log.FromContext(ctx).V(1).Info("Called CreatePrefetchTask",
		"tasks", len(a.parts), "urls", len(urls), "job", response.JobID, "error", teo.Message(err))
	return response, err
}

func (a *attempt) acquireSlot(ctx context.Context) (*teo.Slot, error) {
	ctx, cancel := context.WithTimeout(ctx, slotTimeout)
	defer cancel()
	turn := teo.Turn{Line: a.account.account.String(), Number: a.call.Sequence}
	return a.EdgeOne.Limiter(a.creds, teo.ActionCreatePrefetchTask).Wait(ctx, turn)
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

// endCall ends a call whose outcome is known.
func (l *accountQueue) endCall(claimID string, tell func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue.ReleaseURLs(claimID, time.Now())
	tell()
}
