package submit

import (
	"context"
	"errors"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/metrics"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// recordOutcome writes the outcome of the call to its tasks and tells the queue. It returns the
// tasks whose status has not taken it in a few tries, and what is to be written: they keep
// nobody else waiting.
func (a *attempt) recordOutcome(
	ctx context.Context, sent int, response teo.CreatePrefetchTaskResponse, err error,
) (unsettled []*v1alpha1.PrefetchTask, outcome taskstate.Transition) {
	l, q, call, now := a.account, a.account.queue, a.call, time.Now()
	if !errors.Is(err, errNotSent) {
		metrics.ObserveCreate(sent, a.countClaimed())
	}
	settleAll := func(c taskstate.Transition) { unsettled, outcome = a.writeOutcome(ctx, c), c }
	newest := func() []*v1alpha1.PrefetchTask { return a.newestVersions(l, call) }
	switch kind := teo.KindOf(err); {
	case errors.Is(err, errNotSent):
		settleAll(taskstate.ReleaseClaim(taskstate.Cause{}, now))
		l.endCall(a.claimID, func() { q.RecordReleased(call, newest(), time.Now()) })
	case err == nil:
		refused := refusedTargets(response)
		settleAll(taskstate.RecordJob(response.JobID, refused, now))
		l.endCall(a.claimID, func() {
			l.failures = 0
			l.answered = append(l.answered, answeredCall{call.Lane, response.JobID, urlIdentities(call.URLs), now})
			q.RecordAccepted(call, newest(), max(0, sent-len(refused)), time.Now())
			l.countZoneUse(call.Lane.ZoneID, 0, time.Now())
		})
	case kind == teo.Ambiguous:
		// The claim stays; EdgeOne's history tells the outcome.
		metrics.CountLostAnswer()
		if teo.Code(err) != "" {
			settleAll(taskstate.RecordWords(teo.Message(err)))
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		a.backOffCall(l, call, err)
		q.TrackLostCall(call, a.claimID, newest(), time.Now())
	case kind == teo.Rejected && !teo.IsBatchQuota(err) && len(call.URLs) == 1:
		a.recordRejection(err)
		refused := map[string]string{}
		for _, u := range call.URLs {
			refused[target.Identity(u)] = teo.Message(err)
		}
		settleAll(taskstate.RecordJob("", refused, now))
		l.endCall(a.claimID, func() { q.RecordAccepted(call, newest(), 0, time.Now()) })
	default:
		settleAll(taskstate.ReleaseClaim(taskstate.Cause{}, now))
		l.endCall(a.claimID, func() { a.backOffReleased(l, call, err) })
	}
	return unsettled, outcome
}

// refusedTargets returns EdgeOne's reason for each target of an accepted call that it refused.
func refusedTargets(response teo.CreatePrefetchTaskResponse) map[string]string {
	refused := map[string]string{}
	for _, failed := range response.Failed {
		for _, u := range failed.Targets {
			refused[target.Identity(u)] = failed.Reason
		}
	}
	return refused
}

// recordRejection tells the queue that EdgeOne rejected a call of one URL.
func (a *attempt) recordRejection(err error) {
	a.account.mu.Lock()
	defer a.account.mu.Unlock()
	q, call := a.account.queue, a.call
	if teo.IsDomainNotFound(err) {
		q.RefuseHost(call.Lane.ZoneID, target.Encode(call.URLs[0]), teo.Message(err), time.Now().Add(refusedHostRetention))
	}
	q.RecordRejection(call, teo.Code(err), teo.Message(err), isAboutTargets(err))
}

// countClaimed returns the number of tasks in the call.
func (a *attempt) countClaimed() (n int) {
	for _, part := range a.parts {
		if part.isClaimed {
			n++
		}
	}
	return n
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

// startRefusal records targets that EdgeOne is known to refuse, without a call.
func (s *Submitter) startRefusal(l *accountQueue, call *queue.Call) {
	a := s.newAttempt(l, teo.Credentials{}, call, "")
	go func() {
		defer s.EnqueueAfter(l.account, 0)
		kube.WriteInParallel(len(a.parts), func(i int) {
			part := &a.parts[i]
			after, err := s.Writer.WriteStatus(s.Critical, part.Task, taskstate.RefuseTargets(part.Positions, call.Refusal, time.Now()))
			s.Events.ReportRefusedWrite(part.Task, after, err)
			if part.err = err; err == nil {
				s.Events.ReportFinished(part.Task, after)
			} else if !kube.IsRefused(err) {
				_, _ = s.Writer.ReadTask(s.Critical, part.Task) // it has changed, or is gone
			}
		})
		l.mu.Lock()
		defer l.mu.Unlock()
		_ = a.postponeUnclaimed(true)
		l.queue.RecordAccepted(call, s.newestVersions(l, call), 0, time.Now())
	}()
}
