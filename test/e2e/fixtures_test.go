package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

var update = flag.Bool("update", false, "write the tasks that test/conformance holds the tools' views of")

const fixtures = "../../config/argocd/resource_customizations/teo.prefetch-operator.io/PrefetchTask/testdata"

// The tests of Argo CD, Flux, kstatus and kubectl use task fixtures from the repository.
// This test compares the fixtures with the tasks that the operator writes.
func TestTheTasksThatToolsAreTestedWithAreThoseThatTheOperatorWrites(t *testing.T) {
	c := config()
	c.SignatureValidity = time.Minute
	c.Rules = append(c.Rules, simulator.Rule{URL: "/slow/", Status: simulator.Never},
		simulator.Rule{Action: "CreatePurgeTask", URL: "purging.html", Status: simulator.Never},
		simulator.Rule{Action: "CreatePurgeTask", URL: "kept.html", Status: "failed"})
	w := newWorld(t, c)
	w.must(w.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "edgeone-keys"},
		StringData: map[string]string{"secretId": keyID, "secretKey": "a-wrong-secret-key"},
	}))
	refused := w.task("credentials-refused", good+"refused-key.html")
	refused.Spec.CredentialsSecretRef.Name = "edgeone-keys"
	suspended := w.task("suspended", good+"suspended.html")
	suspended.Spec.Suspend = ptr.To(true)
	quota := w.task("quota-held", "https://small.example.net/a.html", "https://small.example.net/b.html", "https://small.example.net/c.html", "https://small.example.net/d.html")
	quota.Spec.ZoneID = "zone-3smallquota0"
	stale := w.task("stale", good+"stale.html")
	stale.Spec.Revision = "1.0.0"
	purging, unpurged := w.task("purging", good+"purging.html"), w.task("purge-failed", good+"purged.html", good+"kept.html")
	purged(purging)
	purged(unpurged)
	future := w.task("fresh-since-in-future", good+"future.html")
	future.Spec.FreshSince = metav1.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
	w.create(
		w.task("succeeded", good+"index.html", good+"app.js"),
		w.task("partially-failed", good+"found.html", good+"missing/page.html", good+"broken/image.png"),
		w.task("failed", good+"missing/all.html", good+"refused/all.html"),
		w.task("polling", good+"slow/video.mp4"),
		stale, suspended, quota, refused, purging, unpurged, future,
	)
	manager := w.manager("--teo-timeout=30s", "--shutdown-grace=45s")
	w.untilFinished("succeeded", v1alpha1.ReasonSucceeded)
	w.untilFinished("partially-failed", v1alpha1.ReasonPartiallyFailed)
	w.untilFinished("failed", v1alpha1.ReasonFailed)
	w.untilFinished("stale", v1alpha1.ReasonSucceeded)
	w.untilReason("polling", v1alpha1.ReasonSubmitted)
	w.untilReason("suspended", v1alpha1.ReasonSuspended)
	w.until("purging", "purging", func(s v1alpha1.PrefetchTaskStatus) bool {
		return len(s.Jobs) == 1 && meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionReady).Reason == v1alpha1.ReasonPurging
	})
	w.untilFinished("purge-failed", v1alpha1.ReasonPartiallyFailed)
	w.until("fresh-since-in-future", "stalled", func(s v1alpha1.PrefetchTaskStatus) bool {
		return isTrue(s, v1alpha1.ConditionStalled, v1alpha1.ReasonFreshSinceInFuture)
	})
	w.until("quota-held", "held", func(s v1alpha1.PrefetchTaskStatus) bool {
		return isTrue(s, v1alpha1.ConditionQuotaExceeded, v1alpha1.ReasonDailyQuota) && ptr.Deref(s.Targets.Succeeded, 0) == 3
	})
	w.until("credentials-refused", "stalled", func(s v1alpha1.PrefetchTaskStatus) bool {
		return isTrue(s, v1alpha1.ConditionStalled, v1alpha1.ReasonCredentialsRefused)
	})

	w.edgeOne.AddFault(simulator.Fault{
		Match: simulator.Matcher{Action: "CreatePrefetchTask", URL: "lost.html"}, Effect: simulator.Effect{Answer: simulator.ConnectionClosed},
	})
	w.create(w.task("outcome-unknown", good+"lost.html"))
	w.until("outcome-unknown", "claimed", func(s v1alpha1.PrefetchTaskStatus) bool { return s.Submission != nil })
	w.create(w.task("waiting", good+"lost.html", good+"other.html"))
	held := w.edgeOne.HoldAnswer(simulator.Matcher{Action: "CreatePrefetchTask", URL: "submitting.html"})
	defer held.Release()
	submitting := w.task("submitting", good+"submitting.html")
	submitting.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "Accept-Encoding", Value: "br"}} // a separate lane
	w.create(submitting)
	w.untilReason("submitting", v1alpha1.ReasonSubmitting)
	w.untilReason("outcome-unknown", v1alpha1.ReasonOutcomeUnknown)
	w.until("waiting", "says for which call it waits", func(s v1alpha1.PrefetchTaskStatus) bool {
		ready := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionReady)
		return ready != nil && strings.Contains(ready.Message, "of task outcome-unknown")
	})
	var refusedFixture []byte
	w.eventually("credentials-refused: between two tries, of which there is one a second", func() bool {
		refusedFixture = w.fixture(refused.Name)
		return !bytes.Contains(refusedFixture, []byte("submission:"))
	})
	manager.Kill()
	w.create(w.task("new", good+"new.html"))
	w.edit("stale", func(task *v1alpha1.PrefetchTask) { task.Spec.Revision = "1.1.0" })

	for _, task := range w.list() {
		t.Run(task.Name, func(t *testing.T) {
			if task.Name == refused.Name {
				w.isFixture(task.Name, refusedFixture)
			} else {
				w.sameAsFixture(task.Name)
			}
		})
	}
	w.kubectlAgrees([]kubectlWait{
		{"succeeded", "Ready", true},
		{"failed", "Finished", true},
		{"failed", "Ready", false},
		{"credentials-refused", "Stalled", true},
		{"credentials-refused", "Finished", false},
		{"stale", "Finished", false}, // kubectl compares observedGeneration
		{"new", "Finished", false},
	})
}

// sameAsFixture compares a task in its current state with the fixture in the repository.
func (w *world) sameAsFixture(name string) {
	w.t.Helper()
	w.isFixture(name, w.fixture(name))
}

func (w *world) isFixture(name string, got []byte) {
	w.t.Helper()
	w.isFile(filepath.Join(fixtures, name+".yaml"), got)
}

// isFile compares a file with what the operator writes.
func (w *world) isFile(path string, got []byte) {
	w.t.Helper()
	if *update {
		w.must(os.MkdirAll(filepath.Dir(path), 0o755))
		w.must(os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	w.must(err)
	if string(got) != string(want) {
		w.t.Errorf("%s is no longer what the operator writes; run go test -run 'TestTheTasksThatTools|TestTheAccountsThatTools|TestOutcomesThatCannot' ./test/e2e -update. It writes\n%s", path, got)
	}
}

// fixture returns a task in its current state, without the parts that differ in each run.
func (w *world) fixture(name string) []byte {
	w.t.Helper()
	return w.fixtureOf("PrefetchTask", client.ObjectKey{Namespace: w.namespace, Name: name})
}

// fixtureOf returns an object in its current state, without the parts that differ in each
// run.
func (w *world) fixtureOf(kind string, key client.ObjectKey) []byte {
	w.t.Helper()
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
	w.must(w.Get(w.t.Context(), key, object))
	object.SetManagedFields(nil)
	object.SetUID("7f0c2a52-3c52-4d0c-8d0e-2f8a3c1b6e4d")
	object.SetResourceVersion("48151623")
	text, err := yaml.Marshal(object.Object)
	w.must(err)
	text = bytes.ReplaceAll(text, []byte(w.namespace), []byte("shop"))
	text = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`).ReplaceAll(text, []byte("2026-11-24T08:00:00Z"))
	text = regexp.MustCompile(`(claimID: )\S+`).ReplaceAll(text, []byte("${1}mfrggzdfmztwq2lk"))
	text = regexp.MustCompile(`(callHash: )\S+`).ReplaceAll(text, []byte("${1}5f0d6a9c1be27a4488d1"))
	n := 0
	return regexp.MustCompile(`(?m)(^ +(?:- )?id: )[a-z0-9]+$`).ReplaceAllFunc(text, func(id []byte) []byte {
		n++
		return fmt.Appendf(nil, "%sjob-%d", id[:strings.Index(string(id), "id: ")+len("id: ")], n)
	})
}

// kubectlWait is a condition of a task that kubectl waits for, and whether kubectl should
// find it True.
type kubectlWait struct {
	task, condition string
	want            bool
}

// kubectlAgrees runs kubectl wait for conditions that the tasks have, and for conditions
// that they do not have.
func (w *world) kubectlAgrees(waits []kubectlWait) {
	w.t.Helper()
	for _, c := range waits {
		timeout := map[bool]string{true: "1m", false: "1s"}[c.want]
		cmd := kubectl(w.t, "-n", w.namespace, "wait", "--for=condition="+c.condition, "--timeout="+timeout, "pft/"+c.task)
		if got := cmd.Run() == nil; got != c.want {
			w.t.Errorf("kubectl wait --for=condition=%s pft/%s: %v, want %v", c.condition, c.task, got, c.want)
		}
	}
}
