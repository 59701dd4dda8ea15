package submit

import (
	"context"
	"errors"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/backoff"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/metrics"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// recordOutcome writes the outcome of the call to its tasks and updates the queue. It returns the
// tasks whose status could not be written in a few tries, and the outcome to write to them. No
// other task waits for these writes.
func (a *attempt) recordOutcome(
	ctx context.Context, sent int, response teo.CreateResponse, err error,
) (unsettled []*v1alpha1.PrefetchTask, outcome taskstate.Transition) {
	l, q, call, now := a.account, a.account.queue, a.call, time.Now()
	if !errors.Is(err, errNotSent) && l.kind == v1alpha1.JobPrefetch {
		metrics.ObserveCreate(sent, a.countClaimed())
	}
	settleAll := func(c taskstate.Transition) { unsettled, outcome = a.writeOutcome(ctx, c), c }
	newest := func() []*v1alpha1.PrefetchTask { return a.newestVersions(l, call) }
	a.recordAnswer(l, a.creds, err)
	switch kind := teo.KindOf(err); {
	case errors.Is(err, errNotSent):
		// EdgeOne never got the call: release the claims.
		settleAll(taskstate.ReleaseClaim(taskstate.Cause{}, now))
		l.endCall(a.claimID, func() { q.RecordReleased(call, newest(), time.Now()) })
	case err == nil:
		refused := a.refusedTargets(response)
		settleAll(a.recordJob(response.JobID, refused, now))
		end := l.endCall
		if l.kind == v1alpha1.JobPurge && response.JobID != "" {
			end = func(claimID string, tell func()) {
				l.endPurge(claimID, func() bool { return slices.Contains(newest(), nil) }, tell)
			}
		}
		end(a.claimID, func() {
			l.failures = 0
			l.answered = append(l.answered, answeredCall{call.Lane, response.JobID, urlIdentities(call.URLs), now})
			q.RecordAccepted(call, newest(), max(0, sent-len(refused)), time.Now())
			if l.kind == v1alpha1.JobPrefetch {
				l.countZoneUse(call.Lane.ZoneID, 0, time.Now())
			}
		})
	case kind == teo.Ambiguous:
		// The answer does not show whether EdgeOne executed the call. The claim stays: the
		// Poller finds the outcome in EdgeOne's history.
		metrics.CountLostAnswer()
		if teo.Code(err) != "" {
			settleAll(taskstate.RecordWords(teo.Message(err)))
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		a.backOffCall(l, call, err)
		q.TrackLostCall(call, a.claimID, newest(), time.Now())
	case kind == teo.Rejected && !teo.IsBatchQuota(err) && !teo.IsPlanLacking(err) && len(call.URLs) == 1:
		// The rejection can only concern this URL: record it as the target's outcome.
		a.recordRejection(err)
		refused := map[string]string{}
		for _, u := range call.URLs {
			refused[a.createRequest(nil).Identity(u)] = teo.Message(err)
		}
		settleAll(taskstate.RecordJob("", refused, now))
		l.endCall(a.claimID, func() { q.RecordAccepted(call, newest(), 0, time.Now()) })
	default:
		// EdgeOne did not execute the call: release the claims, and back off or bisect.
		settleAll(taskstate.ReleaseClaim(a.releaseCause(err), now))
		l.endCall(a.claimID, func() { a.backOffReleased(l, call, err) })
	}
	return unsettled, outcome
}

// releaseCause returns why the tasks of a call wait that EdgeOne did not execute, if only a
// user can end it. The write that releases the claims reports it. Other causes may be over
// in a moment.
func (s *Submitter) releaseCause(err error) taskstate.Cause {
	if why := backoff.PlanWait(err, 1, s.RecheckInterval).Cause; why.NeedsUser {
		return why
	}
	return taskstate.Cause{}
}

// refusedTargets returns EdgeOne's reason for each refused target of an accepted call, by the
// target's identity.
func (a *attempt) refusedTargets(response teo.CreateResponse) map[string]string {
	refused, req := map[string]string{}, a.createRequest(nil)
	for _, failed := range response.Failed {
		for _, u := range failed.Targets {
			refused[req.Identity(u)] = failed.Reason
		}
	}
	return refused
}

// recordRejection records in the queue that EdgeOne rejected a call with a single URL.
func (a *attempt) recordRejection(err error) {
	a.account.mu.Lock()
	defer a.account.mu.Unlock()
	q, call := a.account.queue, a.call
	if teo.IsDomainNotFound(err) {
		q.RefuseHost(call.Lane.ZoneID, target.Encode(call.URLs[0]), teo.Message(err), time.Now().Add(refusedHostRetention))
	}
	q.RecordRejection(call, teo.Code(err), teo.Message(err), isAboutTargets(err))
}

// firstClaimed returns the name of the first claimed task of the call.
func (a *attempt) firstClaimed() string {
	for _, part := range a.parts {
		if part.isClaimed {
			return client.ObjectKeyFromObject(part.newest).String()
		}
	}
	return ""
}

// countClaimed returns the number of claimed tasks of the call.
func (a *attempt) countClaimed() (n int) {
	for _, part := range a.parts {
		if part.isClaimed {
			n++
		}
	}
	return n
}

// refusedHostRetention is how long the queue refuses the URLs of a host, without a call, after
// EdgeOne reported that the host is not in the zone.
const refusedHostRetention = 10 * time.Minute

// isAboutTargets reports whether EdgeOne rejected a call because of one of its targets. Other
// rejections may concern something that all targets share, such as a header.
func isAboutTargets(err error) bool {
	switch teo.Code(err) {
	case "InvalidParameter.Target", "InvalidParameter.TaskNotGenerated", "RequestSizeLimitExceeded":
		return true
	}
	return teo.IsDomainNotFound(err)
}

// startRefusal records targets that EdgeOne is known to refuse, without a call. It writes the
// statuses in the background. The queue must be locked.
func (s *Submitter) startRefusal(l *accountQueue, call *queue.Call) {
	a := s.newAttempt(l, teo.Credentials{}, call, "")
	go func() {
		defer s.EnqueueAfter(l.account, 0)
		kube.WriteInParallel(len(a.parts), func(i int) {
			part := &a.parts[i]
			after, err := s.Writer.WriteStatus(s.Critical, part.Task, taskstate.RefuseTargets(l.kind, part.Positions, call.Refusal, time.Now()))
			s.Events.ReportRefusedWrite(part.Task, after, err)
			if part.err = err; err == nil {
				s.Events.ReportChange(part.Task, after)
			} else if !kube.IsRefused(err) {
				_, _ = s.Writer.ReadTask(s.Critical, part.Task) // the task changed or is gone
			}
		})
		l.mu.Lock()
		defer l.mu.Unlock()
		_ = a.postponeUnclaimed(true)
		l.queue.RecordAccepted(call, s.newestVersions(l, call), 0, time.Now())
	}()
}
