package submit

import (
	"context"
	"math"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// limiters are the limiters that a call needs a slot of, in the order in which it gets them:
// that of the EdgeOneAccount, if the account has fewer calls per second than the operator,
// and that of the key.
type limiters []*teo.Limiter

// limitersFor returns the limiters of an account's calls that are signed with creds. The
// queue must be locked.
func (s *Submitter) limitersFor(l *accountQueue, creds teo.Credentials) limiters {
	all := limiters{s.EdgeOne.Limiter(creds, l.createAction())}
	if l.kind == v1alpha1.JobPurge {
		return all
	}
	account := s.Accounts.Account(l.account.Account)
	if account == nil || account.Spec.Limits.CallsPerSecond == 0 || int(account.Spec.Limits.CallsPerSecond) >= s.QPS {
		l.ownLimiter = nil
		return all
	}
	if qps := int(account.Spec.Limits.CallsPerSecond); l.ownLimiter == nil || l.ownLimit != qps {
		l.ownLimiter, l.ownLimit = teo.NewLimiter(teo.ActionCreatePrefetchTask, qps), qps
	}
	return append(limiters{l.ownLimiter}, all...)
}

// countFree returns how many slots all limiters have free for an account, and the time until
// there is one more; see teo.Limiter.Free.
func (a limiters) countFree(account string, changed func()) (free int, wait time.Duration) {
	free = math.MaxInt
	for _, limiter := range a {
		if n, more := limiter.Free(account, lookahead, changed); n < free {
			free, wait = n, more
		}
	}
	return free, wait
}

// slots are the slots of one call.
type slots []*teo.Slot

// wait waits for a slot of each limiter.
func (a limiters) wait(ctx context.Context, turn teo.Turn) (slots, error) {
	var got slots
	for _, limiter := range a {
		slot, err := limiter.Wait(ctx, turn)
		if err != nil {
			got.cancel()
			return nil, err
		}
		got = append(got, slot)
	}
	return got, nil
}

// withSlots returns the context for the call of the slots.
func (a slots) withSlots(ctx context.Context) context.Context {
	for _, slot := range a {
		ctx = slot.For(ctx)
	}
	return ctx
}

// done ends the call. EdgeOne throttles a key, so only the key's limiter slows down.
func (a slots) done(throttled bool) {
	for i, slot := range a {
		slot.Done(throttled && i == len(a)-1)
	}
}

// cancel returns the slots unused.
func (a slots) cancel() {
	for _, slot := range a {
		slot.Cancel()
	}
}
