package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

const good = "https://www.example.com/"

func TestTheExampleOfTheAPIPageGivesItsRequestBody(t *testing.T) {
	w := newWorld(t, config())
	task := w.task("api-page", "http://www.qq.com/a.txt")
	task.Spec.ZoneID, task.Spec.EncodeURL = "zone-ajj243dwrew", ptr.To(true)
	w.create(task)
	w.manager()
	w.untilFinished(task.Name, v1alpha1.ReasonSucceeded)
	const want = `{"Targets":["http://www.qq.com/a.txt"],"ZoneId":"zone-ajj243dwrew","EncodeUrl":true}`
	if got := w.bodies[0]; len(w.bodies) != 1 || got != want {
		t.Errorf("%d calls, the first with body %s, want %s", len(w.bodies), got, want)
	}
}

func TestATaskIsSubmittedFollowedAndCounted(t *testing.T) {
	w := newWorld(t, config())
	w.create(w.task("mixed", good+"a", good+"a", good+"refused/b", good+"broken/c", good+"missing/d", good+"ü"))
	w.manager()
	task := w.untilFinished("mixed", v1alpha1.ReasonPartiallyFailed)
	if got, want := counts(task.Status), "5 submitted, 2 succeeded, 3 failed of 5"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	var failed []string
	for _, f := range task.Status.FailedTargets {
		failed = append(failed, strings.TrimPrefix(f.URL, good)+" "+f.Reason)
	}
	if want := []string{"refused/b Refused", "broken/c Failed", "missing/d Invalid"}; !slices.Equal(failed, want) {
		t.Errorf("failed targets %q, want %q", failed, want)
	}
	if len(task.Status.Jobs) != 1 || task.Status.Submission != nil || task.Status.ObservedGeneration != task.Generation || task.Status.CompletionTime.IsZero() {
		t.Errorf("not as it should be at the end: %+v", task.Status)
	}
	w.once(good+"a", good+"broken/c", good+"missing/d", good+"%C3%BC")
	w.eventually("an event tells of the submission, and one of the end", func() bool {
		var list eventsv1.EventList
		w.must(w.List(t.Context(), &list, client.InNamespace(w.namespace)))
		var reasons []string
		for _, event := range list.Items {
			reasons = append(reasons, event.Reason)
		}
		slices.Sort(reasons)
		return slices.Equal(reasons, []string{v1alpha1.ReasonPartiallyFailed, v1alpha1.ReasonSubmitted})
	})
}

func TestBadInputIsRefusedByTheAPIServerWithTheFieldsName(t *testing.T) {
	w := newWorld(t, config())
	tests := []struct {
		name   string
		change func(*v1alpha1.PrefetchTaskSpec)
		want   string
	}{
		{"no targets", func(s *v1alpha1.PrefetchTaskSpec) { s.Targets = nil }, "spec: Invalid value: must have either targets or targetsFrom"},
		{"no scheme", func(s *v1alpha1.PrefetchTaskSpec) { s.Targets[0] = "www.example.com/a" }, "must be a full URL that starts with http:// or https://"},
		{"another scheme", func(s *v1alpha1.PrefetchTaskSpec) { s.Targets[0] = "ftp://www.example.com/a" }, `spec.targets: Invalid value: "ftp://www.example.com/a" must be a full URL`},
		{"no host", func(s *v1alpha1.PrefetchTaskSpec) { s.Targets[0] = "https:///a" }, `"https:///a" must be a valid URL: a host name`},
		{"a space", func(s *v1alpha1.PrefetchTaskSpec) { s.Targets[0] = "https://www.example.com/a b" }, "write a space as %20"},
		{"a line break", func(s *v1alpha1.PrefetchTaskSpec) { s.Targets[0] = "https://www.example.com/a\nb" }, "must not have control"},
		{"a wildcard", func(s *v1alpha1.PrefetchTaskSpec) { s.Targets[0] = "https://www.example.com/*" }, "must not have a wildcard"},
		{"a target that is too long", func(s *v1alpha1.PrefetchTaskSpec) {
			s.Targets[0] = v1alpha1.Target(good + strings.Repeat("x", 2048))
		}, "spec.targets[0]"},
		{"targets of too many bytes", func(s *v1alpha1.PrefetchTaskSpec) {
			s.Targets = slices.Repeat([]v1alpha1.Target{v1alpha1.Target(good + strings.Repeat("x", 1980))}, 775)
		}, "spec.targets: Invalid value: must not take more than 1,550,000 bytes in all"},
		{"too many targets", func(s *v1alpha1.PrefetchTaskSpec) { s.Targets = slices.Repeat(s.Targets, 10001) }, "spec.targets: Too many: 10001: must have at most 10000 items"},
		{"targets of two kinds", func(s *v1alpha1.PrefetchTaskSpec) {
			s.TargetsFrom.ConfigMapKeyRef = v1alpha1.ConfigMapKeyReference{Name: "list", Key: "urls"}
		}, "spec: Invalid value: must have either targets or targetsFrom"},
		{"a ConfigMap without a key", func(s *v1alpha1.PrefetchTaskSpec) {
			s.Targets, s.TargetsFrom.ConfigMapKeyRef.Name = nil, "list"
		}, "spec.targetsFrom.configMapKeyRef.key: Required value"},
		{"a ConfigMap name that cannot be", func(s *v1alpha1.PrefetchTaskSpec) {
			s.Targets, s.TargetsFrom.ConfigMapKeyRef = nil, v1alpha1.ConfigMapKeyReference{Name: "No_Such", Key: "urls"}
		}, "spec.targetsFrom.configMapKeyRef.name"},
		{"a key that cannot be", func(s *v1alpha1.PrefetchTaskSpec) {
			s.Targets, s.TargetsFrom.ConfigMapKeyRef = nil, v1alpha1.ConfigMapKeyReference{Name: "list", Key: "a/b"}
		}, "spec.targetsFrom.configMapKeyRef.key"},
		{"no zone", func(s *v1alpha1.PrefetchTaskSpec) { s.ZoneID = "" }, "spec.zoneID"},
		{"a malformed zone", func(s *v1alpha1.PrefetchTaskSpec) { s.ZoneID = "example.com" }, "must be an EdgeOne zone ID such as zone-ajj243dwrew"},
		{"a header name with a line break", func(s *v1alpha1.PrefetchTaskSpec) {
			s.Headers = []v1alpha1.HTTPHeader{{Name: "X-A\nB", Value: "1"}}
		}, "must be an HTTP header name"},
		{"a header value with a line break", func(s *v1alpha1.PrefetchTaskSpec) {
			s.Headers = []v1alpha1.HTTPHeader{{Name: "X-A", Value: "1\r\nX-B: 2"}}
		}, "spec.headers[0].value"},
		{"the same header twice", func(s *v1alpha1.PrefetchTaskSpec) {
			s.Headers = []v1alpha1.HTTPHeader{{Name: "X-A", Value: "1"}, {Name: "X-A", Value: "2"}}
		}, "spec.headers[1]: Duplicate value"},
		{"header names that differ by case", func(s *v1alpha1.PrefetchTaskSpec) {
			s.Headers = []v1alpha1.HTTPHeader{{Name: "X-A", Value: "1"}, {Name: "x-a", Value: "2"}}
		}, "spec.headers: Invalid value: must not have two names that differ by case only"},
		{"a header of the connection", func(s *v1alpha1.PrefetchTaskSpec) {
			s.Headers = []v1alpha1.HTTPHeader{{Name: "Transfer-encoding", Value: "chunked"}}
		}, "spec.headers[0].name: Invalid value: \"Transfer-encoding\": must not be Host, Content-Length or a header of a single connection"},
		{"a header for a proxy", func(s *v1alpha1.PrefetchTaskSpec) {
			s.Headers = []v1alpha1.HTTPHeader{{Name: "Proxy-Connection", Value: "close"}}
		}, "must not be Host, Content-Length or a header of a single connection"},
		{"a host as header", func(s *v1alpha1.PrefetchTaskSpec) { s.Headers = []v1alpha1.HTTPHeader{{Name: "HOST", Value: "h"}} }, "spec.headers[0].name"},
		{"credentials in a header", func(s *v1alpha1.PrefetchTaskSpec) {
			s.Headers = []v1alpha1.HTTPHeader{{Name: "authorization", Value: "Bearer x"}}
		}, "everybody who reads the task would see the credentials"},
		{"a header value that reads backwards", func(s *v1alpha1.PrefetchTaskSpec) {
			s.Headers = []v1alpha1.HTTPHeader{{Name: "X-A", Value: "a\u202eb"}}
		}, "must not have line breaks, control characters or invisible ones"},
		{"headers of too many bytes", func(s *v1alpha1.PrefetchTaskSpec) {
			for i := range 9 {
				s.Headers = append(s.Headers, v1alpha1.HTTPHeader{Name: fmt.Sprint("X-", i), Value: strings.Repeat("x", 4000)})
			}
		}, "must not take more than 32,768 bytes in all"},
		{"a time to live that no clock reaches", func(s *v1alpha1.PrefetchTaskSpec) { s.TTLSecondsAfterFinished = 315360001 }, "spec.ttlSecondsAfterFinished"},
		{"an unknown mode", func(s *v1alpha1.PrefetchTaskSpec) { s.Mode = "edge" }, `spec.mode: Unsupported value: "edge": supported values: "Default", "Edge"`},
		{"a Secret name that cannot be", func(s *v1alpha1.PrefetchTaskSpec) { s.CredentialsSecretRef.Name = "No_Such" }, "spec.credentialsSecretRef.name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			task := w.task("bad", good+"a")
			tt.change(&task.Spec)
			err := w.Create(t.Context(), task)
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("refused with %q, want %q in it", err, tt.want)
			}
		})
	}
	t.Run("an unknown field", func(t *testing.T) {
		cmd := kubectl(t, "create", "--validate=strict", "-f", "-")
		cmd.Stdin = strings.NewReader("apiVersion: teo.prefetch-operator.io/v1alpha1\nkind: PrefetchTask\nmetadata: {name: bad, namespace: " + w.namespace + "}\nspec: {zoneID: zone-1, targets: [\"https://a/\"], endpoint: x}\n")
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), `unknown field "spec.endpoint"`) {
			t.Errorf("%v: %s", err, out)
		}
	})
}

func kubectl(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd, err := shared.cluster.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestKubectlShowsTheTask(t *testing.T) {
	w := newWorld(t, config())
	w.create(w.task("shown", good+"a"))
	w.manager()
	w.untilFinished("shown", v1alpha1.ReasonSucceeded)
	out, err := kubectl(t, "get", "pft", "-n", w.namespace, "-o", "wide").CombinedOutput()
	w.must(err)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if got := strings.Join(strings.Fields(lines[0]), " "); got != "NAME ZONE TARGETS SUBMITTED SUCCEEDED FAILED READY REASON SINCE AGE MODE PURGED JOBS NEXT ATTEMPT MESSAGE" {
		t.Errorf("columns: %s", got)
	}
	if !strings.Contains(lines[1], "True    Succeeded") || !strings.HasSuffix(lines[1], "The target is prefetched") {
		t.Errorf("row: %s", lines[1])
	}
	out, err = kubectl(t, "wait", "--for=condition=Finished", "pft/shown", "-n", w.namespace).CombinedOutput()
	if err != nil {
		t.Errorf("kubectl wait: %v: %s", err, out)
	}
	out, err = kubectl(t, "explain", "pft.spec", "--recursive=false").CombinedOutput()
	if err != nil || strings.Contains(string(out), "<no description>") {
		t.Errorf("kubectl explain: %v: %s", err, out)
	}
}

func TestAThousandTasksShareCalls(t *testing.T) {
	w := newWorld(t, patient())
	w.manager()
	urls := w.many(1000)
	w.judge()
	if n := w.creates(); n >= 60 {
		t.Errorf("%d calls for %d one-URL tasks, want fewer than 60", n, len(urls))
	} else {
		t.Logf("%d calls of CreatePrefetchTask, %d of DescribePrefetchTasks", n, w.edgeOne.Stats().Calls("DescribePrefetchTasks"))
	}
}

func TestATaskOverTheQuotaWaitsAndGoesOn(t *testing.T) {
	w := newWorld(t, config())
	var urls []string
	for i := range 5 {
		urls = append(urls, fmt.Sprintf("https://small.example.net/%d", i))
	}
	task := w.task("over", urls...)
	task.Spec.ZoneID = "zone-3smallquota0"
	w.create(task)
	w.create(w.task("other", good+"a"))
	w.manager()
	held := w.until("over", "held for quota", func(s v1alpha1.PrefetchTaskStatus) bool {
		return isTrue(s, v1alpha1.ConditionQuotaExceeded, v1alpha1.ReasonDailyQuota)
	})
	if got, want := ptr.Deref(held.Status.Targets.Submitted, 0), int32(3); got != want || held.Status.NextAttemptTime.IsZero() {
		t.Errorf("%d submitted, next attempt %s; want %d and a time", got, held.Status.NextAttemptTime, want)
	}
	w.untilFinished("other", v1alpha1.ReasonSucceeded)
	w.edgeOne.ResetQuota()
	done := w.untilFinished("over", v1alpha1.ReasonSucceeded)
	if meta.FindStatusCondition(done.Status.Conditions, v1alpha1.ConditionQuotaExceeded) != nil || !done.Status.NextAttemptTime.IsZero() {
		t.Errorf("still speaks of quota: %+v", done.Status)
	}
	w.once(urls...)
}

func TestAPlanWithoutPrefetchQuotaIsSaid(t *testing.T) {
	c := config()
	c.Zones[1].Batch, c.Zones[1].NullQuota = -1, true
	w := newWorld(t, c)
	w.create(w.task("none", good+"a", good+"b"))
	w.manager()
	w.until("none", "BatchQuota, stalled", func(s v1alpha1.PrefetchTaskStatus) bool {
		return isTrue(s, v1alpha1.ConditionQuotaExceeded, v1alpha1.ReasonBatchQuota) && isTrue(s, v1alpha1.ConditionStalled, v1alpha1.ReasonBatchQuota)
	})
}

func TestTargetsBeyondABatchGoOutInFurtherCalls(t *testing.T) {
	c := config()
	c.Zones[1].Batch = 10
	w := newWorld(t, c)
	var urls []string
	for i := range 25 {
		urls = append(urls, fmt.Sprintf("%s%d", good, i))
	}
	w.create(w.task("large", urls...))
	w.manager()
	task := w.untilFinished("large", v1alpha1.ReasonSucceeded)
	var targets []string
	for _, job := range task.Status.Jobs {
		targets = append(targets, job.Positions)
	}
	if want := []string{"0-9", "10-19", "20-24"}; !slices.Equal(targets, want) {
		t.Errorf("jobs of %q, want %q", targets, want)
	}
	w.once(urls...)
}

func TestABadURLDoesNotFailItsNeighbours(t *testing.T) {
	w := newWorld(t, config())
	w.create(w.task("foreign", "https://www.elsewhere.test/x"), w.task("one", good+"1"), w.task("two", good+"2"),
		w.task("both", good+"3", "https://www.elsewhere.test/y"))
	w.manager()
	w.untilFinished("one", v1alpha1.ReasonSucceeded)
	w.untilFinished("two", v1alpha1.ReasonSucceeded)
	w.untilFinished("foreign", v1alpha1.ReasonFailed)
	both := w.untilFinished("both", v1alpha1.ReasonPartiallyFailed)
	if f := both.Status.FailedTargets[0]; f.Reason != v1alpha1.FailedRefused || !strings.Contains(f.Message, "DomainNotFound") {
		t.Errorf("failed target: %+v", f)
	}
	w.once(good+"1", good+"2", good+"3")
}

func TestRunsStartWithWhatIsSentAndWithNothingElse(t *testing.T) {
	w := newWorld(t, config())
	w.create(w.task("runs", good+"a"))
	w.manager()
	first := w.untilFinished("runs", v1alpha1.ReasonSucceeded)
	w.edit("runs", func(task *v1alpha1.PrefetchTask) { task.Spec.Suspend = ptr.To(true) })
	w.edit("runs", func(task *v1alpha1.PrefetchTask) { task.Spec.Suspend = ptr.To(false) })
	same := w.until("runs", "the generation is acknowledged", func(s v1alpha1.PrefetchTaskStatus) bool {
		return s.ObservedGeneration == first.Generation+2
	})
	if !isTrue(same.Status, v1alpha1.ConditionFinished, v1alpha1.ReasonSucceeded) || same.Status.Run != first.Status.Run {
		t.Errorf("suspending a finished task changed it: %+v", same.Status)
	}
	w.once(good + "a")
	w.edit("runs", func(task *v1alpha1.PrefetchTask) { task.Spec.Revision = "v2" })
	w.until("runs", "the new run is finished", func(s v1alpha1.PrefetchTaskStatus) bool {
		return s.Run != first.Status.Run && isTrue(s, v1alpha1.ConditionFinished, v1alpha1.ReasonSucceeded)
	})
	if n := w.edgeOne.Executed(good + "a"); n != 2 {
		t.Errorf("executed %d times in two runs", n)
	}
}

func TestASuspendedTaskIsHeldUntilResumed(t *testing.T) {
	w := newWorld(t, config())
	task := w.task("held", good+"a")
	task.Spec.Suspend = ptr.To(true)
	w.create(task)
	w.manager()
	w.untilReason("held", v1alpha1.ReasonSuspended)
	if n := w.creates(); n != 0 {
		t.Errorf("%d calls for a suspended task", n)
	}
	w.edit("held", func(task *v1alpha1.PrefetchTask) { task.Spec.Suspend = nil })
	w.untilFinished("held", v1alpha1.ReasonSucceeded)
	w.once(good + "a")
}

func TestCredentialsAreToldOfAndHealed(t *testing.T) {
	secret := func(w *world, id, key string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "keys"},
			StringData: map[string]string{"secretId": id, "secretKey": key + "\n"}}
	}
	tests := []struct {
		name, reason string
		setUp, heal  func(*world)
	}{
		{"a missing Secret", v1alpha1.ReasonCredentialsMissing,
			func(*world) {},
			func(w *world) { w.must(w.Create(w.t.Context(), secret(w, keyID, keyValue))) }},
		{"a Secret without a key", v1alpha1.ReasonCredentialsMissing,
			func(w *world) { w.must(w.Create(w.t.Context(), secret(w, keyID, ""))) },
			func(w *world) { w.must(w.Update(w.t.Context(), secret(w, keyID, keyValue))) }},
		{"an unknown key", v1alpha1.ReasonCredentialsRefused,
			func(w *world) { w.must(w.Create(w.t.Context(), secret(w, "AKIDold", "old"))) },
			func(w *world) { w.must(w.Update(w.t.Context(), secret(w, keyID, keyValue))) }},
		{"a wrong key", v1alpha1.ReasonCredentialsRefused,
			func(w *world) { w.must(w.Create(w.t.Context(), secret(w, keyID, "wrong"))) },
			func(w *world) { w.must(w.Update(w.t.Context(), secret(w, keyID, keyValue))) }},
		{"no permission", v1alpha1.ReasonPermissionDenied,
			func(w *world) {
				w.edgeOne.SetKey(simulator.Key{SecretID: keyID, SecretKey: keyValue, Account: "demo", Actions: []string{"DescribeContentQuota"}})
				w.must(w.Create(w.t.Context(), secret(w, keyID, keyValue)))
			},
			func(w *world) {
				w.edgeOne.SetKey(simulator.Key{SecretID: keyID, SecretKey: keyValue, Account: "demo"})
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, config())
			tt.setUp(w)
			task := w.task("mine", good+"a")
			task.Spec.CredentialsSecretRef.Name = "keys"
			w.create(task)
			w.managerWith(nil)
			stalled := w.until("mine", "Stalled for "+tt.reason, func(s v1alpha1.PrefetchTaskStatus) bool {
				return isTrue(s, v1alpha1.ConditionStalled, tt.reason)
			})
			t.Log(meta.FindStatusCondition(stalled.Status.Conditions, v1alpha1.ConditionStalled).Message)
			tt.heal(w)
			done := w.untilFinished("mine", v1alpha1.ReasonSucceeded)
			if meta.FindStatusCondition(done.Status.Conditions, v1alpha1.ConditionStalled) != nil {
				t.Error("still Stalled")
			}
			w.once(good + "a")
		})
	}
}

func TestAnUnknownZoneHealsWhenItAppears(t *testing.T) {
	w := newWorld(t, config())
	task := w.task("early", "https://new.example.net/a")
	task.Spec.ZoneID = "zone-5notyetthere"
	w.create(task, w.task("other", good+"a"))
	w.manager()
	w.until("early", "Stalled", func(s v1alpha1.PrefetchTaskStatus) bool {
		return isTrue(s, v1alpha1.ConditionStalled, v1alpha1.ReasonZoneNotFound)
	})
	w.untilFinished("other", v1alpha1.ReasonSucceeded)
	w.edgeOne.SetZone(simulator.Zone{ID: "zone-5notyetthere", Account: "demo", Domains: []string{"new.example.net"}})
	w.untilFinished("early", v1alpha1.ReasonSucceeded)
}

func TestTheOperatorWithoutCredentialsSaysSoAndServesOthers(t *testing.T) {
	w := newWorld(t, config())
	w.must(w.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "keys"},
		StringData: map[string]string{"secretId": keyID, "secretKey": keyValue}}))
	own := w.task("own", good+"a")
	own.Spec.CredentialsSecretRef.Name = "keys"
	w.create(own, w.task("bare", good+"b"))
	w.managerWith(nil)
	w.untilFinished("own", v1alpha1.ReasonSucceeded)
	task := w.until("bare", "Stalled", func(s v1alpha1.PrefetchTaskStatus) bool {
		return isTrue(s, v1alpha1.ConditionStalled, v1alpha1.ReasonCredentialsMissing)
	})
	if m := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionStalled).Message; !strings.Contains(m, "spec.credentialsSecretRef") {
		t.Errorf("the message does not say what to do: %s", m)
	}
}

func TestMountedCredentialsAreReadAgainWhenTheyChange(t *testing.T) {
	w := newWorld(t, config())
	dir := t.TempDir()
	write := func(id, key string) {
		w.must(os.WriteFile(filepath.Join(dir, "secretId"), []byte(id), 0o600))
		w.must(os.WriteFile(filepath.Join(dir, "secretKey"), []byte(key), 0o600))
	}
	write("AKIDold", "old")
	w.create(w.task("rotated", good+"a"))
	w.managerWith(nil, "--credentials-dir="+dir)
	w.untilReason("rotated", v1alpha1.ReasonCredentialsRefused)
	write(keyID, keyValue)
	w.untilFinished("rotated", v1alpha1.ReasonSucceeded)
}

// While EdgeOne does not let the operator read outcomes, the task says so. After the
// deadline the run ends, but the task is not Ready, because the outcomes are unknown. Both
// recover later.
func TestOutcomesThatCannotBeReadAreNotTakenForSuccesses(t *testing.T) {
	t.Run("the key may not describe", func(t *testing.T) {
		c := config()
		c.Keys[0].Actions = []string{"CreatePrefetchTask", "DescribeContentQuota"}
		w := newWorld(t, c)
		w.create(w.task("unread", good+"unread.html"), w.task("not-followed", good+"not-followed.html"))
		w.manager("--job-deadline=10s")
		w.until("unread", "stalled", func(s v1alpha1.PrefetchTaskStatus) bool {
			return isTrue(s, v1alpha1.ConditionStalled, v1alpha1.ReasonPermissionDenied)
		})
		w.sameAsFixture("unread")
		w.kubectlAgrees([]kubectlWait{{"unread", "Stalled", true}, {"unread", "Finished", false}, {"unread", "Ready", false}})
		task := w.untilFinished("not-followed", v1alpha1.ReasonNotFollowed)
		if ready := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionReady); ready.Status != metav1.ConditionUnknown {
			t.Errorf("Ready is %s", ready.Status)
		}
		w.sameAsFixture("not-followed")
		w.kubectlAgrees([]kubectlWait{{"not-followed", "Finished", true}, {"not-followed", "Ready", false}})
		c.Keys[0].Actions = nil
		w.edgeOne.SetKey(c.Keys[0])
		w.untilFinished("unread", v1alpha1.ReasonSucceeded)
		w.untilFinished("not-followed", v1alpha1.ReasonSucceeded)
	})
	t.Run("zone * is not accepted by look-ups", func(t *testing.T) {
		w := newWorld(t, config())
		task := w.task("all-zones", good+"a", "http://www.qq.com/b")
		task.Spec.ZoneID = "*"
		w.create(task)
		w.manager("--job-deadline=3s")
		w.untilFinished("all-zones", v1alpha1.ReasonNotFollowed)
		w.once(good+"a", "http://www.qq.com/b")
	})
}

func TestAJobWithoutOutcomeIsGivenUpAfterTheDeadline(t *testing.T) {
	c := config()
	c.Rules = append([]simulator.Rule{{URL: "/never/", Status: simulator.Never}, {URL: "/odd/", Status: "resting"}}, c.Rules...)
	w := newWorld(t, c)
	w.create(w.task("slow", good+"never/a", good+"odd/b", good+"c"))
	w.manager("--job-deadline=3s")
	task := w.untilFinished("slow", v1alpha1.ReasonPartiallyFailed)
	if got, want := counts(task.Status), "3 submitted, 1 succeeded, 2 failed of 3"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, f := range task.Status.FailedTargets {
		if f.Reason != v1alpha1.FailedNoOutcome {
			t.Errorf("%+v, want reason %s", f, v1alpha1.FailedNoOutcome)
		}
	}
}

func TestWrongFlagsEndTheManagerWithASentence(t *testing.T) {
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"--teo-endpoint=http://example.com"}, "--teo-endpoint"},
		{[]string{"--teo-endpoint=teo.tencentcloudapi.com"}, "--teo-endpoint"},
		{[]string{"--teo-qps=0"}, "--teo-qps is 0; it must be at least 1"},
		{[]string{"--signature-validity=-1s"}, "--signature-validity is -1s; it must be more than 0"},
		{[]string{"--watch-namespaces=a,B"}, `--watch-namespaces: "B" is not a namespace`},
		{[]string{"--no-such-flag"}, "flag provided but not defined: -no-such-flag"},
		{[]string{"extra"}, `"extra" is not a flag`},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			out, err := exec.CommandContext(ctx, shared.manager, tt.args...).CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), tt.want) {
				t.Errorf("%v: %s; want exit status 2 and %q", err, out, tt.want)
			}
		})
	}
}
