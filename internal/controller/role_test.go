package controller

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/credentials"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts/ststest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// stsFails is the fault of an STS that answers with errors.
var stsFails = simulator.Fault{
	Match:  simulator.Matcher{Action: sts.ActionAssumeRoleWithWebIdentity},
	Effect: simulator.Effect{Code: "InternalError.SystemError", Message: "System error."},
}

// withRole runs f in calm with an operator whose own keys are those of a role. They expire
// after half an hour.
func withRole(t *testing.T, f func(t *testing.T, w *calm)) {
	t.Helper()
	issuer := ststest.NewIssuer(t)
	config := issuer.Configure(simulator.Config{}, "a")
	config.Roles[0].Lifetime = 30 * time.Minute
	inCalm(t, config, func(t *testing.T, w *calm) {
		client, err := sts.NewClient(teo.Options{Endpoint: "https://sts.intl.tencentcloudapi.com", Transport: w.edgeOne.RoundTripper()})
		w.must(err)
		token := issuer.WriteToken(issuer.Token(map[string]any{"exp": time.Now().Add(10 * time.Hour).Unix()}))
		source := credentials.RoleSource{STS: client, WebIdentity: &sts.WebIdentity{RoleARN: ststest.RoleARN, ProviderID: ststest.ProviderID, TokenFile: token}}
		w.role = source.NewProvider(t.Context(), func(time.Time, error) {})
		w.start()
		f(t, w)
	})
}

// createEachMinute creates a task with a URL of its own each minute, until a time after
// begin. It returns the names of the tasks.
func (w *calm) createEachMinute(begin time.Time, until time.Duration, each func()) (names []string) {
	for time.Since(begin) < until {
		name := fmt.Sprint("at-", int(time.Since(begin).Minutes()), "-", len(names))
		w.create("n", name, urls(name, 1))
		names = append(names, name)
		time.Sleep(time.Minute)
		each()
	}
	return names
}

// The keys expire every 30 minutes and are refreshed after 20. STS fails for 20 minutes,
// from one minute after a refresh.
func TestTwoHoursOfKeysThatExpireAndAnSTSThatFails(t *testing.T) {
	withRole(t, func(t *testing.T, w *calm) {
		begin := time.Now()
		var limiter *teo.Limiter
		sameLimiter := func() {
			creds, err := w.role.Get(t.Context())
			if err != nil {
				t.Fatalf("after %s: %v", time.Since(begin), err)
			}
			now := w.roleUser.Limiter(creds.Credentials, teo.ActionCreatePrefetchTask)
			if limiter != nil && now != limiter {
				t.Fatalf("after %s, the role has another limiter", time.Since(begin))
			}
			limiter = now
		}
		names := w.createEachMinute(begin, 61*time.Minute, sameLimiter)
		fault := w.edgeOne.AddFault(stsFails)
		names = append(names, w.createEachMinute(begin, 81*time.Minute, sameLimiter)...)
		w.edgeOne.RemoveFault(fault)
		names = append(names, w.createEachMinute(begin, 2*time.Hour, sameLimiter)...)
		w.awaitAll(5 * time.Minute)

		keys, refused := map[string]bool{}, 0
		for _, call := range w.edgeOne.Calls() {
			switch {
			case call.Action == sts.ActionAssumeRoleWithWebIdentity && call.Outcome != "OK":
				refused++
			case call.Outcome != "OK":
				t.Errorf("%s: %s failed: %s", call.Time.Sub(begin), call.Action, call.Outcome)
			case call.Action == teo.ActionCreatePrefetchTask:
				keys[call.SecretID] = true
			}
		}
		if len(keys) < 5 || refused == 0 {
			t.Errorf("%d keys signed calls, and STS failed %d times", len(keys), refused)
		}
		for _, name := range names {
			if n := w.edgeOne.Executed(string(urls(name, 1)[0])); n != 1 {
				t.Errorf("the URL of %s was executed %d times", name, n)
			}
		}
	})
}

func TestKeysThatExpireBeyondReachFailClosedAndHealUntouched(t *testing.T) {
	withRole(t, func(t *testing.T, w *calm) {
		begin := time.Now()
		w.createEachMinute(begin, 5*time.Minute, func() {})
		fault := w.edgeOne.AddFault(stsFails)
		time.Sleep(26 * time.Minute)
		w.create("n", "late", urls("late", 1))
		time.Sleep(3 * time.Minute)
		late := w.server.get(client.ObjectKey{Namespace: "n", Name: "late"})
		stalled := meta.FindStatusCondition(late.Status.Conditions, v1alpha1.ConditionStalled)
		if stalled == nil || stalled.Reason != v1alpha1.ReasonCredentialsRefused || !strings.Contains(stalled.Message, "expired") ||
			!strings.Contains(stalled.Message, "AssumeRoleWithWebIdentity") || !strings.Contains(stalled.Message, "InternalError.SystemError") {
			t.Errorf("the task says %+v", late.Status.Conditions)
		}
		w.edgeOne.RemoveFault(fault)
		w.awaitAll(5 * time.Minute)
		for _, call := range w.edgeOne.Calls() {
			if call.Action != sts.ActionAssumeRoleWithWebIdentity && call.Outcome != "OK" {
				t.Errorf("%s: %s failed: %s", call.Time.Sub(begin), call.Action, call.Outcome)
			}
		}
		if n := w.edgeOne.Executed(string(urls("late", 1)[0])); n != 1 {
			t.Errorf("the late URL was executed %d times", n)
		}
	})
}
