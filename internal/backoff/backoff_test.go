package backoff

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/credentials"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

func TestPlanWait(t *testing.T) {
	const again = 30 * time.Second
	edge := func(kind teo.Kind, code string) error { return &teo.Error{Kind: kind, Code: code, Message: "m"} }
	for _, c := range []struct {
		name     string
		err      error
		failures int
		scope    Scope
		wait     time.Duration
		reason   string
		person   bool
	}{
		{"credentials missing", fmt.Errorf("%w: no Secret", credentials.ErrMissing), 1, ScopeAccount, again, v1alpha1.ReasonCredentialsMissing, true},
		{"signed too long ago", &teo.Error{Kind: teo.Unavailable, Err: teo.ErrTooOld}, 1, ScopeLane, time.Second, v1alpha1.ReasonUnavailable, false},
		{"the clock is wrong", edge(teo.Denied, "AuthFailure.SignatureExpire"), 1, ScopeAccount, time.Second, v1alpha1.ReasonCredentialsRefused, true},
		{"throttled", edge(teo.Throttled, "RequestLimitExceeded"), 3, ScopeLane, 100 * time.Millisecond, v1alpha1.ReasonThrottled, false},
		{"throttled again and again", edge(teo.Throttled, "RequestLimitExceeded"), 5, ScopeAccount, 2 * time.Second, v1alpha1.ReasonThrottled, false},
		{"the key is refused", edge(teo.Denied, "AuthFailure.SecretIdNotFound"), 1, ScopeAccount, again, v1alpha1.ReasonCredentialsRefused, true},
		{"the zone is refused", edge(teo.Denied, "UnauthorizedOperation.CamUnauthorized"), 1, ScopeBlamed, again, v1alpha1.ReasonPermissionDenied, true},
		{"not reached", edge(teo.Unavailable, ""), 4, ScopeAccount, 8 * time.Second, v1alpha1.ReasonUnavailable, false},
		{"not reached for long", edge(teo.Unavailable, ""), 1000, ScopeAccount, 30 * time.Second, v1alpha1.ReasonUnavailable, false},
		{"rejected", edge(teo.Rejected, "InvalidParameter.Target"), 1, ScopeNone, 0, "", false},
		{"exhausted", edge(teo.Exhausted, "LimitExceeded.DailyQuota"), 1, ScopeNone, 0, "", false},
		{"ambiguous", edge(teo.Ambiguous, "InternalError"), 1, ScopeNone, 0, "", false},
		{"the Secret cannot be read just now", errors.New("x"), 1, ScopeAccount, time.Second, v1alpha1.ReasonUnavailable, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := PlanWait(c.err, c.failures, again)
			if p.Scope != c.scope || p.Duration != c.wait || p.Reason != c.reason || p.NeedsUser != c.person || p.Quota {
				t.Errorf("%+v", p)
			}
		})
	}
}
