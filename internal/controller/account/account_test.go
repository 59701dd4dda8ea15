package account

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/metrics"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts/ststest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

const ready, stalled = v1alpha1.ConditionReady, v1alpha1.ConditionStalled

func TestAnAnsweredQuotaReadProvesTheCredentials(t *testing.T) {
	inWorld(t, func(w *world) {
		time.Sleep(5 * time.Second)
		w.says(ready, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
		w.says(stalled, "", "")
		status := w.get("main").Status
		if status.Principal != controllertest.Creds.SecretID || len(status.Zones) != 1 {
			w.Fatalf("the status is %+v", status)
		}
		zone := status.Zones[0]
		if zone.ID != controllertest.Zone || ptr.Deref(zone.Daily, 0) == 0 || ptr.Deref(zone.Left, -1) != *zone.Daily || ptr.Deref(zone.Used, -1) != 0 {
			w.Errorf("the zone is %+v", zone)
		}
		w.sent("main Normal Accepted: EdgeOne accepts the credentials")
		if n := w.countWrites(); n != 1 {
			w.Errorf("%d statuses were written", n)
		}
		// The quota is read again every 5 minutes, and nothing is written without a change.
		time.Sleep(time.Hour)
		if n := w.countCalls(teo.ActionDescribeContentQuota); n < 12 || n > 14 {
			w.Errorf("%d quotas were read in an hour", n)
		}
		if n := w.countWrites(); n != 1 {
			w.Errorf("%d statuses were written in an hour without a change", n)
		}
	}, newAccount(controllertest.Zone))
}

func TestTheQuotaOfAUsedZoneIsReadAtTheNextCheck(t *testing.T) {
	inWorld(t, func(w *world) {
		time.Sleep(5 * time.Second)
		w.edgeOne.SetAvailable(controllertest.Zone, 77)
		w.use("shop", controllertest.Zone, 1)
		time.Sleep(recheck + usageInterval)
		if left := w.get("main").Status.Zones[0].Left; ptr.Deref(left, 0) != 77 {
			w.Errorf("after its use, %v is left of the zone", left)
		}
		time.Sleep(3 * time.Minute)
		if n := w.countCalls(teo.ActionDescribeContentQuota); n != 2 {
			w.Errorf("%d quotas were read", n)
		}
	}, newAccount(controllertest.Zone))
}

func TestStatusesHaveTheQuotasOfPurgesThatTheAccountAllows(t *testing.T) {
	account := newAccount(controllertest.Zone)
	account.Spec.Allow.Purge = []v1alpha1.PurgeType{v1alpha1.PurgeHost, v1alpha1.PurgeURL}
	inWorldAfter(t, func(w *world) {
		w.edgeOne.SetQuota(controllertest.Zone, "purge_url", 9000)
		w.edgeOne.SetAvailable(controllertest.Zone, 0)
	}, func(w *world) {
		time.Sleep(5 * time.Second)
		var got []string
		for _, of := range w.get("main").Status.Zones[0].Purges {
			got = append(got, fmt.Sprint(of.Type, " ", *of.Daily, " ", of.Batch, " ", *of.Left))
		}
		if want := []string{"Host 1000 200 1000", "URL 10000 2000 9000"}; !slices.Equal(got, want) {
			w.Errorf("got %q, want %q", got, want)
		}
	}, account)
}

func TestStatusesSayHowManyURLsACallHas(t *testing.T) {
	const denied = "zone-2"
	inWorldAfter(t, func(w *world) {
		w.edgeOne.AddFault(simulator.Fault{Match: simulator.Matcher{ZoneID: denied}, Effect: simulator.Effect{Code: "UnauthorizedOperation.CamUnauthorized", Message: "m"}})
	}, func(w *world) {
		check := func(when string) {
			time.Sleep(5 * time.Second)
			for _, zone := range w.get("main").Status.Zones {
				if want := map[string]int32{controllertest.Zone: 2000, denied: 500, "*": 500}[zone.ID]; zone.Batch != want {
					w.Errorf("%s, a call for zone %s has %d URLs, want %d", when, zone.ID, zone.Batch, want)
				}
			}
		}
		check("at first")
		w.edgeOne.AddFault(simulator.Fault{Effect: simulator.Effect{Code: "InternalError", Message: "m"}})
		time.Sleep(24 * time.Hour)
		check("after a day without an answer")
		w.stop()
		time.Sleep(24 * time.Hour)
		w.start()
		check("after a restart on another day without an answer")
	}, newAccount(controllertest.Zone, denied, "*"))
}

func TestWithoutAnAnswerNobodyKnows(t *testing.T) {
	inWorld(t, func(w *world) {
		time.Sleep(10 * time.Minute)
		w.says(ready, metav1.ConditionUnknown, v1alpha1.ReasonNotVerified, "spec.zones")
		w.says(stalled, "", "")
		w.sent()
		w.answers.RecordAnswer("main", controllertest.Creds.SecretID, nil) // a call of a task
		w.says(ready, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
		w.answers.RecordAnswer("main", controllertest.Creds.SecretID, &teo.Error{Kind: teo.Denied, Code: "AuthFailure.SecretIdNotFound", Message: "m"})
		synctest.Wait()
		time.Sleep(time.Second)
		w.answers.RecordAnswer("main", controllertest.Creds.SecretID, &teo.Error{Kind: teo.Denied, Code: "AuthFailure.SecretIdNotFound", Message: "n"})
		w.says(ready, metav1.ConditionFalse, v1alpha1.ReasonCredentialsRefused, "SecretIdNotFound: n")
	}, newAccount("*"))
}

func TestEdgeOneThatIsDownSaysNothingAboutTheCredentials(t *testing.T) {
	down := simulator.Fault{Effect: simulator.Effect{Code: "InternalError", Message: "m"}}
	inWorld(t, func(w *world) {
		fault := w.edgeOne.AddFault(down)
		w.edit(func(spec *v1alpha1.EdgeOneAccountSpec) {
			spec.Zones = []v1alpha1.AccountZone{{ID: controllertest.Zone}}
		})
		time.Sleep(10 * time.Minute)
		w.says(ready, metav1.ConditionUnknown, v1alpha1.ReasonNotVerified, "InternalError")
		w.says(stalled, "", "")
		w.edgeOne.RemoveFault(fault)
		time.Sleep(recheck + time.Second)
		w.says(ready, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
		w.edgeOne.AddFault(down)
		time.Sleep(10 * time.Minute)
		w.says(ready, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	}, newAccount())
}

// Each problem is reported at once, needs a user after a minute, and ends without a change of
// the account when the user has solved it.
func TestProblemsAreReportedAndHealWithoutATouch(t *testing.T) {
	webIdentity := func(spec *v1alpha1.AccountCredentials) {
		*spec = v1alpha1.AccountCredentials{WebIdentity: v1alpha1.WebIdentity{RoleARN: ststest.RoleARN}}
	}
	assumeRole := func(spec *v1alpha1.AccountCredentials) {
		spec.AssumeRole = v1alpha1.AssumeRole{RoleARN: ststest.OtherARN, ExternalID: ststest.ExternalID}
	}
	fault := func(code string) func(w *world) {
		return func(w *world) {
			w.edgeOne.AddFault(simulator.Fault{Effect: simulator.Effect{Code: code, Message: "m"}})
		}
	}
	setKey := func(key string) func(w *world) { return func(w *world) { w.setKey(key) } }
	writeToken := func(text string) func(w *world) {
		return func(w *world) { w.must(os.WriteFile(w.token, []byte(text), 0o600)) }
	}
	newToken := func(w *world) { writeToken(w.issuer.Token(nil))(w) }
	trust := func(arn string, by simulator.Trust) func(w *world) {
		return func(w *world) {
			w.edgeOne.SetRole(simulator.Role{ARN: arn, Account: "a", Trust: []simulator.Trust{by}})
		}
	}
	endFaults := func(w *world) { w.edgeOne.ClearFaults() }
	for name, c := range map[string]struct {
		of              func(*v1alpha1.AccountCredentials)
		reason          string
		fact, advice    string
		breakIt, healIt func(w *world)
	}{
		"the Secret is missing": {
			nil, v1alpha1.ReasonCredentialsMissing, `Secret "main" does not exist`, "Create it with the keys secretId and secretKey",
			setKey(""), setKey(controllertest.Creds.SecretKey),
		},
		"EdgeOne refuses the key": {
			nil, v1alpha1.ReasonCredentialsRefused, "AuthFailure.SignatureFailure", "Replace the secretId and secretKey",
			setKey("wrong"), setKey(controllertest.Creds.SecretKey),
		},
		"the key has white space": {
			nil, v1alpha1.ReasonCredentialsRefused, "white space", "Replace the secretId and secretKey",
			setKey("wr ong"), setKey(controllertest.Creds.SecretKey),
		},
		"the key may not read the zone": {
			nil, v1alpha1.ReasonPermissionDenied, `EdgeOne refuses zone "zone-1": UnauthorizedOperation`, "teo:DescribeContentQuota",
			fault("UnauthorizedOperation.CamUnauthorized"), endFaults,
		},
		"the zone belongs to somebody else": {
			nil, v1alpha1.ReasonPermissionDenied, "ZoneNotFound", "Check spec.zones",
			fault("InvalidParameter.ZoneNotFound"), endFaults,
		},
		"the token file is missing": {
			webIdentity, v1alpha1.ReasonCredentialsMissing, "no web identity token", "",
			func(w *world) { w.must(os.Remove(w.token)) }, newToken,
		},
		"the token file is empty": {
			webIdentity, v1alpha1.ReasonCredentialsMissing, "is empty", "",
			writeToken(""), newToken,
		},
		"STS refuses the token": {
			webIdentity, v1alpha1.ReasonRoleRefused, "STS refused AssumeRoleWithWebIdentity with InvalidParameter.WebIdentityTokenError", "heck in CAM",
			writeToken("no.token.atall"), newToken,
		},
		"the role does not trust the ServiceAccount": {
			webIdentity, v1alpha1.ReasonRoleRefused, "STS refused AssumeRoleWithWebIdentity with UnauthorizedOperation", "trust policy",
			trust(ststest.RoleARN, simulator.Trust{Provider: ststest.ProviderID, Subjects: []string{"other"}}),
			trust(ststest.RoleARN, simulator.Trust{Provider: ststest.ProviderID, Subjects: []string{ststest.Subject}}),
		},
		"the second role cannot be assumed": {
			assumeRole, v1alpha1.ReasonRoleRefused, "STS refused AssumeRole with ", "external ID",
			trust(ststest.OtherARN, simulator.Trust{Caller: "a", ExternalID: "another"}),
			trust(ststest.OtherARN, simulator.Trust{Caller: "a", ExternalID: ststest.ExternalID}),
		},
		"EdgeOne refuses the keys of the role": {
			webIdentity, v1alpha1.ReasonCredentialsRefused, "AuthFailure.TokenFailure", "Check that the role still exists",
			func(w *world) {
				w.edgeOne.AddFault(simulator.Fault{
					Match: simulator.Matcher{Action: teo.ActionDescribeContentQuota}, Effect: simulator.Effect{Code: "AuthFailure.TokenFailure", Message: "m"},
				})
			}, endFaults,
		},
	} {
		t.Run(name, func(t *testing.T) {
			account := newAccount(controllertest.Zone)
			if c.of != nil {
				c.of(&account.Spec.Credentials)
			}
			inWorldAfter(t, c.breakIt, func(w *world) {
				time.Sleep(10 * time.Second)
				w.says(ready, metav1.ConditionFalse, c.reason, c.fact)
				w.says(stalled, "", "")
				time.Sleep(time.Minute)
				w.says(ready, metav1.ConditionFalse, c.reason, c.fact)
				w.says(stalled, metav1.ConditionTrue, c.reason, c.fact, c.advice)
				writes := w.countWrites()
				time.Sleep(10 * time.Minute)
				if n := w.countWrites(); n != writes {
					w.Errorf("%d statuses were written although nothing changed", n-writes)
				}
				c.healIt(w)
				time.Sleep(2*recheck + time.Second)
				w.says(ready, metav1.ConditionTrue, v1alpha1.ReasonAccepted, "EdgeOne accepts")
				w.says(stalled, "", "")
				w.sent("main Warning "+c.reason+": ", "main Normal Accepted: ")
			}, account)
		})
	}
}

func TestStatusesAreWrittenEveryTenSecondsAtMostForUsageAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		w.edit(func(spec *v1alpha1.EdgeOneAccountSpec) { spec.Limits.DailyURLs = ptr.To[int32](1000) })
		time.Sleep(5 * time.Second)
		writes := w.countWrites()
		for range 600 {
			w.use("shop", controllertest.Zone, 1)
			w.r.EnqueueAfter("main", 0)
			time.Sleep(100 * time.Millisecond)
		}
		if n := w.countWrites() - writes; n < 5 || n > 7 {
			w.Errorf("%d statuses were written in a minute of use", n)
		}
		time.Sleep(usageInterval)
		synctest.Wait()
		status := w.get("main").Status
		if *status.Used != 600 || *status.Left != 400 || *status.Zones[0].Used != 600 || len(status.Namespaces) != 1 || *status.Namespaces[0].Used != 600 {
			w.Errorf("the status is %+v", status)
		}
		if got, want := w.r.Stats()["main"], (metrics.AccountStats{IsReady: true, Reason: v1alpha1.ReasonAccepted, Used: 600, Limit: 1000}); got != want {
			w.Errorf("the metrics say %+v, want %+v", got, want)
		}
		// A change of the credentials' state does not wait.
		w.use("shop", controllertest.Zone, 1)
		time.Sleep(usageInterval)
		w.use("shop", controllertest.Zone, 1)
		w.answers.RecordAnswer("main", controllertest.Creds.SecretID, &teo.Error{Kind: teo.Denied, Code: "AuthFailure", Message: "m"})
		w.says(ready, metav1.ConditionFalse, v1alpha1.ReasonCredentialsRefused)
	}, newAccount(controllertest.Zone))
}

func TestBudgetsSurviveARestart(t *testing.T) {
	inWorld(t, func(w *world) {
		time.Sleep(5 * time.Second)
		w.use("shop", controllertest.Zone, 300)
		time.Sleep(usageInterval)
		w.use("games", controllertest.Zone, 7)
		time.Sleep(time.Second)
		w.stop() // the last usage is written now
		if used := *w.get("main").Status.Used; used != 307 {
			w.Errorf("the status says %d URLs at the end", used)
		}
		w.start() // the tasks are gone
		time.Sleep(time.Minute)
		synctest.Wait()
		status := w.get("main").Status
		if *status.Used != 307 || len(status.Namespaces) != 2 || *status.Zones[0].Used != 307 {
			w.Errorf("after a restart, the status is %+v", status)
		}
		w.sent("main Normal Accepted: ")
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if status := w.get("main").Status; *status.Used != 0 || status.Namespaces != nil || time.Since(status.DayStartTime.Time) >= 24*time.Hour {
			w.Errorf("on the next day, the status is %+v", status)
		}
	}, newAccount(controllertest.Zone))
}

func TestTheUsageIsWrittenAfterTheLastCall(t *testing.T) {
	inWorld(t, func(w *world) {
		time.Sleep(5 * time.Second)
		endCalls, conflicts := w.critical, 2
		done := make(chan struct{})
		ctx, cancel := context.WithCancel(w.Context())
		other, cancelCritical := context.WithCancel(context.Background())
		w.r.Critical = other
		go func() {
			defer close(done)
			w.must(flusher{w.r}.Start(ctx))
		}()
		cancel() // the process stops, and a call is in flight
		time.Sleep(3 * time.Second)
		w.use("shop", controllertest.Zone, 5)
		w.onPut = func() error {
			if conflicts--; conflicts >= 0 {
				return apierrors.NewConflict(controllertest.PrefetchTasks, "main", errors.New("changed"))
			}
			return nil
		}
		cancelCritical()
		<-done
		if used := *w.get("main").Status.Used; used != 5 {
			w.Errorf("the status says %d", used)
		}
		endCalls()
	}, newAccount(controllertest.Zone))
}

func TestAConflictIsRetried(t *testing.T) {
	inWorld(t, func(w *world) {
		synctest.Wait()
		fails := 3
		w.mu.Lock()
		w.onPut = func() error {
			if fails--; fails >= 0 {
				return apierrors.NewConflict(controllertest.PrefetchTasks, "main", errors.New("changed"))
			}
			return nil
		}
		w.mu.Unlock()
		w.answers.RecordAnswer("main", controllertest.Creds.SecretID, nil)
		time.Sleep(5 * time.Second)
		w.says(ready, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
		w.sent("main Normal Accepted")
	}, newAccount())
}

func TestOtherCredentialsAreProvedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		w.answers.RecordAnswer("main", controllertest.Creds.SecretID, nil)
		time.Sleep(5 * time.Second)
		w.says(ready, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
		// In the spec.
		w.setSecret("other", controllertest.Creds.SecretKey)
		w.edit(func(spec *v1alpha1.EdgeOneAccountSpec) { spec.Credentials.SecretRef.Name = "other" })
		w.says(ready, metav1.ConditionUnknown, v1alpha1.ReasonNotVerified)
		w.answers.RecordAnswer("main", controllertest.Creds.SecretID, nil)
		w.says(ready, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
		// Something else in the spec.
		w.edit(func(spec *v1alpha1.EdgeOneAccountSpec) { spec.Suspend = ptr.To(true) })
		w.says(ready, metav1.ConditionTrue, v1alpha1.ReasonAccepted, "suspend")
		w.says(stalled, "", "")
		// In the Secret.
		w.setSecret("other", "another")
		time.Sleep(2*recheck + time.Second)
		w.says(ready, metav1.ConditionUnknown, v1alpha1.ReasonNotVerified)
	}, newAccount())
}

func TestOnlySTSHasAnswered(t *testing.T) {
	account := newAccount()
	account.Spec.Credentials = v1alpha1.AccountCredentials{WebIdentity: v1alpha1.WebIdentity{RoleARN: ststest.RoleARN}}
	inWorld(t, func(w *world) {
		time.Sleep(5 * time.Second)
		w.says(ready, metav1.ConditionTrue, v1alpha1.ReasonAccepted, "STS", "EdgeOne has not been called")
		if principal := w.get("main").Status.Principal; principal != ststest.RoleARN {
			w.Errorf("the principal is %q", principal)
		}
		w.answers.RecordAnswer("main", ststest.RoleARN, nil)
		w.says(ready, metav1.ConditionTrue, v1alpha1.ReasonAccepted, "EdgeOne accepts the credentials")
		writes := w.countWrites()
		time.Sleep(5 * time.Hour) // the keys are refreshed
		if n := w.countWrites(); n != writes {
			w.Errorf("%d statuses were written", n-writes)
		}
		if n := w.countCalls(sts.ActionAssumeRoleWithWebIdentity); n < 3 {
			w.Errorf("%d times keys", n)
		}
	}, account)
}

func TestADeletedAccountLeavesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.answers.RecordAnswer("main", controllertest.Creds.SecretID, nil)
		time.Sleep(5 * time.Second)
		w.must(w.client.Delete(w.Context(), w.get("main")))
		w.watch("main")
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, ok := w.answers.LastAnswer("main"); ok || len(w.r.names()) > 0 || w.queue.Len() > 0 {
			w.Error("the account is still known")
		}
		// Another one of the same name is a stranger.
		stranger := newAccount()
		stranger.UID = "uid-2"
		w.must(w.client.Create(w.Context(), stranger))
		w.watch("main")
		w.says(ready, metav1.ConditionUnknown, v1alpha1.ReasonNotVerified)
	}, newAccount())
}

func TestKeysThatAreBackAreNotProved(t *testing.T) {
	inWorldAfter(t, func(w *world) { w.setKey("") }, func(w *world) {
		time.Sleep(5 * time.Second)
		w.says(ready, metav1.ConditionFalse, v1alpha1.ReasonCredentialsMissing)
		w.setKey(controllertest.Creds.SecretKey)
		time.Sleep(recheck)
		w.says(ready, metav1.ConditionUnknown, v1alpha1.ReasonNotVerified)
	}, newAccount())
}

func TestAnotherKeyIsNotAcceptedForWhatTheOldOneCould(t *testing.T) {
	inWorld(t, func(w *world) {
		time.Sleep(5 * time.Second)
		w.says(ready, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
		w.edgeOne.AddFault(simulator.Fault{Effect: simulator.Effect{Code: "InternalError", Message: "m"}})
		w.setKey("another")
		time.Sleep(2*recheck + time.Second)
		w.says(ready, metav1.ConditionUnknown, v1alpha1.ReasonNotVerified)
		w.edgeOne.ClearFaults()
		time.Sleep(recheck + time.Second)
		w.says(ready, metav1.ConditionFalse, v1alpha1.ReasonCredentialsRefused)
	}, newAccount(controllertest.Zone))
}

// A new process has no answers. Until there is one, what the status says counts.
func TestARestartForgetsNoAnswer(t *testing.T) {
	refused := &teo.Error{Kind: teo.Denied, Code: "AuthFailure.SecretIdNotFound", Message: "m"}
	for reason, err := range map[string]error{v1alpha1.ReasonAccepted: nil, v1alpha1.ReasonCredentialsRefused: refused} {
		t.Run(reason, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.answers.RecordAnswer("main", controllertest.Creds.SecretID, err)
				time.Sleep(2 * time.Minute)
				before := w.get("main").Status
				w.stop()
				w.start()
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				if after := w.get("main").Status; !equality.Semantic.DeepEqual(before, after) {
					w.Errorf("after a restart, the status is %+v, and was %+v", after, before)
				}
				if n := len(w.events); n != 1 {
					w.Errorf("there are %d Events: %q", n, w.events)
				}
			}, newAccount())
		})
	}
}

func TestAnAccountOfTheSameNameIsAnotherOne(t *testing.T) {
	inWorld(t, func(w *world) {
		w.answers.RecordAnswer("main", controllertest.Creds.SecretID, nil)
		time.Sleep(5 * time.Second)
		w.says(ready, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
		w.must(w.client.Delete(w.Context(), w.get("main")))
		stranger := newAccount()
		stranger.UID = "uid-2"
		w.must(w.client.Create(w.Context(), stranger))
		w.watch("main") // the deletion is not seen
		w.says(ready, metav1.ConditionUnknown, v1alpha1.ReasonNotVerified)
	}, newAccount())
}
