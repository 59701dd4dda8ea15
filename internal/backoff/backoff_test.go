package backoff

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/credentials"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts"
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
		{"the plan lacks it", edge(teo.Denied, "LimitExceeded.PackNotAllow"), 1, ScopeLane, again, v1alpha1.ReasonBatchQuota, true},
		{"the plan lacks it still", edge(teo.Denied, "LimitExceeded.PackNotAllow"), 99, ScopeLane, maxRecheck, v1alpha1.ReasonBatchQuota, true},
		{"not reached", edge(teo.Unavailable, ""), 4, ScopeAccount, 8 * time.Second, v1alpha1.ReasonUnavailable, false},
		{"not reached for long", edge(teo.Unavailable, ""), 1000, ScopeAccount, 30 * time.Second, v1alpha1.ReasonUnavailable, false},
		{"no keys from STS", &teo.Error{Kind: teo.Unavailable, Message: "m", Err: sts.ErrRole}, 1, ScopeAccount, time.Second, v1alpha1.ReasonUnavailable, false},
		{"STS refuses", &teo.Error{Kind: teo.Denied, Message: "m", Err: sts.ErrRole}, 1, ScopeAccount, again, v1alpha1.ReasonCredentialsRefused, true},
		{"rejected", edge(teo.Rejected, "InvalidParameter.Target"), 1, ScopeNone, 0, "", false},
		{"exhausted", edge(teo.Exhausted, "LimitExceeded.DailyQuota"), 1, ScopeNone, 0, "", false},
		{"ambiguous", edge(teo.Ambiguous, "InternalError"), 1, ScopeNone, 0, "", false},
		{"the Secret cannot be read just now", errors.New("x"), 1, ScopeAccount, time.Second, v1alpha1.ReasonUnavailable, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := PlanWait(c.err, c.failures, again)
			if errors.Is(c.err, sts.ErrRole) && p.FullMessage() != "m" {
				t.Errorf("the message %q has advice about EdgeOne's keys", p.FullMessage())
			}
			if p.Scope != c.scope || p.Duration != c.wait || p.Reason != c.reason || p.NeedsUser != c.person || p.Quota != teo.IsPlanLacking(c.err) {
				t.Errorf("%+v", p)
			}
		})
	}
}

func TestADeniedCallNamesTheActionThatThePolicyLacks(t *testing.T) {
	for action, want := range map[string]string{
		teo.ActionCreatePrefetchTask: "Let the key call teo:CreatePrefetchTask in this zone; the operator also needs teo:DescribePrefetchTasks and teo:DescribeContentQuota",
		teo.ActionDescribePurgeTasks: "Let the key call teo:DescribePurgeTasks in this zone; the operator also needs " +
			"teo:CreatePrefetchTask, teo:DescribePrefetchTasks, teo:CreatePurgeTask and teo:DescribeContentQuota",
		"": "Let the key call teo:CreatePrefetchTask, teo:DescribePrefetchTasks and teo:DescribeContentQuota in this zone",
	} {
		err := fmt.Errorf("wrapped: %w", &teo.Error{Action: action, Kind: teo.Denied, Code: "UnauthorizedOperation.CamUnauthorized", Message: "m"})
		if p := PlanWait(err, 1, time.Minute); p.Advice != want {
			t.Errorf("%q: %q, want %q", action, p.Advice, want)
		}
	}
}

func TestAPlanThatLacksATypeIsReportedInEdgeOnesWords(t *testing.T) {
	err := &teo.Error{Action: teo.ActionCreatePurgeTask, Kind: teo.Denied, Code: "LimitExceeded.PackNotAllow", Message: "not in the plan"}
	const want = "LimitExceeded.PackNotAllow: not in the plan. Choose a plan for the zone that includes this, or correct the task"
	if p := PlanWait(err, 1, time.Minute); p.FullMessage() != want {
		t.Errorf("%q, want %q", p.FullMessage(), want)
	}
}

// gone is a transport without a server.
type gone struct{}

func (gone) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("no route to host")
}

func TestAStatusSaysWhatToCheckWhileThereAreNoKeys(t *testing.T) {
	_, err := sts.NewCVM(sts.CVMOptions{Transport: gone{}}).Keys(t.Context(), "prefetch")
	const want = "The CVM metadata service gave no keys: it did not answer (the operator retries; check that the operator runs on a CVM instance, " +
		"and that no NetworkPolicy keeps it from the metadata service)"
	if p := PlanWait(err, 1, time.Minute); p.Message != want || p.Advice != "" || p.NeedsUser || p.Reason != v1alpha1.ReasonUnavailable || p.Scope != ScopeAccount {
		t.Errorf("%+v", p)
	}
}
