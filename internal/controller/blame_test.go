package controller

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// answers makes EdgeOne reply with an error code to every call whose URLs contain the text. It
// does not execute these calls.
func (w *calm) answers(text, code, message string) {
	w.edgeOne.AddFault(simulator.Fault{
		Match:  simulator.Matcher{Action: teo.ActionCreatePrefetchTask, URL: text},
		Effect: simulator.Effect{Code: code, Message: message},
	})
}

// settleRound returns the longest time from a lost call that was not executed to the next call.
func (w *calm) settleRound() time.Duration {
	return w.options.SignatureValidity + w.options.SettleMargin + 20*time.Second
}

func TestACodeOfUnknownOutcomeHoldsItsURLAlone(t *testing.T) {
	const code, words = "InternalError.DomainConfig", "origin config unavailable"
	for _, c := range []struct {
		name             string
		tasks, urls, bad int
		rounds           int
	}{
		{"of twenty tasks that share a call", 20, 1, 17, 6},
		{"of 200 URLs of a task", 1, 200, 130, 9},
	} {
		t.Run(c.name, func(t *testing.T) {
			inCalm(t, simulator.Config{JobDuration: -1}, func(t *testing.T, w *calm) {
				w.answers("/badcfg/", code, words)
				targets := urls("x", c.tasks*c.urls)
				targets[c.bad] = "https://a1.example.com/badcfg/1"
				for i := range c.tasks {
					w.create("n", fmt.Sprint("t", i), targets[i*c.urls:(i+1)*c.urls])
				}
				guilty := client.ObjectKey{Namespace: "n", Name: fmt.Sprint("t", c.bad/c.urls)}
				w.start()
				if !w.await(10*time.Second, func() bool {
					s := w.server.get(guilty).Status
					return s.Submission != nil && s.Submission.Answer == code+": "+words
				}) {
					t.Errorf("EdgeOne's words are not in the status: %+v", w.server.get(guilty).Status)
				}
				if ready := meta.FindStatusCondition(w.server.get(guilty).Status.Conditions, v1alpha1.ConditionReady); !strings.HasPrefix(ready.Message, "EdgeOne answered "+code) {
					t.Errorf("the status says %q", ready.Message)
				}
				good := c.tasks*c.urls - 1
				succeeded := func() (n int) {
					for _, task := range w.server.list() {
						n += int(ptr.Deref(task.Status.Targets.Succeeded, 0))
					}
					return n
				}
				if !w.await(time.Duration(c.rounds)*w.settleRound(), func() bool { return succeeded() == good }) {
					t.Errorf("%d of %d good URLs succeeded after %d calls were settled", succeeded(), good, c.rounds)
				}
				w.await(2*w.settleRound(), func() bool { return controllertest.ConditionOf(w.server.get(guilty), v1alpha1.ConditionStalled) != "" })
				task := w.server.get(guilty)
				if controllertest.ConditionOf(task, v1alpha1.ConditionStalled) != "True/OutcomeUnknown" {
					t.Errorf("the guilty task says %+v", task.Status.Conditions)
				} else if message := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionStalled).Message; !strings.Contains(message, code) || !strings.Contains(message, words) {
					t.Errorf("the guilty task says %q, want EdgeOne's words", message)
				}
				for _, other := range w.server.list() {
					if client.ObjectKeyFromObject(other) != guilty && controllertest.ConditionOf(other, v1alpha1.ConditionStalled) != "" {
						t.Errorf("%s is stalled for its neighbour", other.Name)
					}
				}
				before := len(w.submissions())
				time.Sleep(2 * time.Hour)
				if n := len(w.submissions()) - before; n > 12 {
					t.Errorf("%d more calls in two hours for a URL that EdgeOne cannot take", n)
				}
			})
		})
	}
}

// If the key may not use a mode, only tasks of that mode wait. Tasks of the zone's other mode
// continue.
func TestAModeThatIsNotAllowedDoesNotHoldTheOther(t *testing.T) {
	inCalm(t, simulator.Config{JobDuration: -1}, func(t *testing.T, w *calm) {
		w.answers("/edge/", "UnauthorizedOperation.NoPermission", "edge mode is not enabled")
		w.create("a", "edge", urls("edge", 1), func(spec *v1alpha1.PrefetchTaskSpec) { spec.Mode = v1alpha1.ModeEdge })
		w.start()
		w.await(10*time.Second, func() bool { return len(w.submissions()) > 0 })
		w.createMany("b", 100, ownLane)
		if !w.await(15*time.Second, func() bool { return w.unfinished() == 1 }) {
			t.Errorf("%d tasks of the other mode are not submitted", w.unfinished()-1)
		}
		time.Sleep(time.Hour)
		if got := controllertest.ConditionOf(w.server.get(client.ObjectKey{Namespace: "a", Name: "edge"}), v1alpha1.ConditionReady); got != "False/"+v1alpha1.ReasonPermissionDenied {
			t.Errorf("the task of the refused mode is %s", got)
		}
	})
}

// If the plan of a zone lacks what a call asks for, its tasks wait for a user. No target fails, no
// smaller call is tried, and tasks that ask for something else continue.
func TestAPlanThatLacksWhatATaskAsksForFailsNoTarget(t *testing.T) {
	inCalm(t, simulator.Config{JobDuration: -1}, func(t *testing.T, w *calm) {
		w.answers("/lacking/", "LimitExceeded.PackNotAllow", "not in the plan")
		w.create("a", "lacking", urls("lacking", 50), func(spec *v1alpha1.PrefetchTaskSpec) { ownLane(1000, spec) })
		w.start()
		w.await(10*time.Second, func() bool { return len(w.submissions()) > 0 })
		w.createMany("b", 20, ownLane)
		if !w.await(15*time.Second, func() bool { return w.unfinished() == 1 }) {
			t.Errorf("%d tasks that the plan has are not submitted", w.unfinished()-1)
		}
		time.Sleep(time.Hour)
		task := w.server.get(client.ObjectKey{Namespace: "a", Name: "lacking"})
		for conditionType, want := range map[string]string{
			v1alpha1.ConditionReady: "False/BatchQuota", v1alpha1.ConditionStalled: "True/BatchQuota", v1alpha1.ConditionQuotaExceeded: "True/BatchQuota",
		} {
			if got := controllertest.ConditionOf(task, conditionType); got != want {
				t.Errorf("%s is %s, want %s", conditionType, got, want)
			}
		}
		if len(task.Status.FailedTargets) > 0 {
			t.Errorf("%d targets failed", len(task.Status.FailedTargets))
		}
		for _, call := range w.submissions() {
			if call.Outcome == "LimitExceeded.PackNotAllow" && call.Targets != 50 {
				t.Errorf("a call of %d of the 50 targets", call.Targets)
			}
		}
	})
}

// Keys that never worked do not delay other accounts, however many tasks name them. The operator
// tries one call per account, and the waiting statuses of its tasks have the lowest priority.
func TestBogusSecretsDoNotDelayTheOthers(t *testing.T) {
	const secrets, tasks = 40, 150
	inCalm(t, simulator.Config{JobDuration: -1}, func(t *testing.T, w *calm) {
		for i := range secrets {
			namespace := fmt.Sprint("bogus-", i)
			w.server.setSecret(client.ObjectKey{Namespace: namespace, Name: "key"}, map[string][]byte{
				"secretId": fmt.Append(nil, "AKIDbogus", i), "secretKey": []byte("guessed"),
			})
			w.createMany(namespace, tasks, func(_ int, spec *v1alpha1.PrefetchTaskSpec) { spec.CredentialsSecretRef.Name = "key" })
		}
		w.ways.api = 50 * time.Millisecond // a busy API server
		w.start()
		refused := func(task *v1alpha1.PrefetchTask) bool {
			return taskstate.ReadyReason(task) == v1alpha1.ReasonCredentialsRefused
		}
		worst, own := time.Duration(0), 0
		for began := time.Now(); w.countTasks(refused) < secrets*tasks; own++ {
			key, created := w.create("own", fmt.Sprint("t", own), urls(fmt.Sprint("own/", own), 1)), time.Now()
			if !w.await(time.Minute, func() bool { return len(w.server.get(key).Status.Jobs) > 0 }) {
				t.Fatalf("after a minute task %d is %s", own, statusLine(w.server.get(key)))
			}
			if worst = max(worst, time.Since(created)); time.Since(began) > 5*time.Minute {
				t.Fatalf("%d of %d tasks say that their credentials are refused", w.countTasks(refused), secrets*tasks)
			}
		}
		if worst > 2*time.Second {
			t.Errorf("a task of the operator's own account waited %s for its job", worst)
		}
		if calls := len(w.submissions()); calls > own+20*secrets {
			t.Errorf("%d calls were made, of %d keys that do not work", calls, secrets)
		}
	})
}
