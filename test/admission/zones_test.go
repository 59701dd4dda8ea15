package admission

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

const (
	allowedZone, secondZone = "zone-2x9examplea", "zone-3smallquota0"
	foreignZone             = "zone-4tenant00000"
)

// warnings keeps the texts of the Warning headers.
type warnings struct {
	mu   sync.Mutex
	last []string
}

func (w *warnings) HandleWarningHeaderWithContext(_ context.Context, _ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = append(w.last, text)
}

// take returns the warnings since the last call.
func (w *warnings) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := strings.Join(w.last, "\n")
	w.last = nil
	return text
}

// zonesWorld is a cluster with the policy of docs/howto/zones-per-namespace.md.
type zonesWorld struct {
	client.Client
	page     string
	warnings *warnings
	auditLog string
}

func newZonesWorld(t *testing.T) *zonesWorld {
	t.Helper()
	page, err := os.ReadFile("../../docs/howto/zones-per-namespace.md")
	must(t, err)
	dir := t.TempDir()
	policy, auditLog := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "audit.log")
	must(t, os.WriteFile(policy, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: Metadata\n  resources:\n  - group: teo.prefetch-operator.io\n- level: None\n"), 0o600))
	kube := cluster.ForTest(t, cluster.Options{APIServerArgs: []string{"--audit-policy-file=" + policy, "--audit-log-path=" + auditLog}})
	w := &zonesWorld{page: string(page), warnings: &warnings{}, auditLog: auditLog}
	config := rest.CopyConfig(kube.Admin)
	config.WarningHandlerWithContext = w.warnings
	w.Client, err = client.New(config, client.Options{Scheme: kube.Client.Scheme()})
	must(t, err)
	zones := regexp.MustCompile(`kubectl annotate namespace (\S+) '?example.com/edgeone-zones=([^\s']+)`).FindAllStringSubmatch(w.page, -1)
	if len(zones) != 2 {
		t.Fatalf("the page annotates %d namespaces", len(zones))
	}
	for _, m := range append(zones, []string{"", "team-b", ""}) {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: m[1]}}
		if m[2] != "" {
			ns.Annotations = map[string]string{"example.com/edgeone-zones": m[2]}
		}
		must(t, w.Create(t.Context(), ns))
	}
	_, block, found := strings.Cut(w.page, "```yaml\n# zones.yaml\n")
	block, _, closed := strings.Cut(block, "```")
	if !found || !closed {
		t.Fatal("the page has no zones.yaml")
	}
	file := filepath.Join(dir, "zones.yaml")
	must(t, os.WriteFile(file, []byte(block), 0o600))
	for _, name := range []string{"old", "status", "deleted"} { // from before the policy
		must(t, w.Create(t.Context(), zoneTask("team-b", name, foreignZone)))
	}
	must(t, kube.Apply(t.Context(), file))
	return w
}

// deny patches the binding as step 3 of the page does.
func (w *zonesWorld) deny(t *testing.T) {
	t.Helper()
	_, step, _ := strings.Cut(w.page, "## 3. Deny")
	m := regexp.MustCompile(`--patch '([^']+)'`).FindStringSubmatch(step)
	if m == nil || !json.Valid([]byte(m[1])) {
		t.Fatalf("step 3 has no patch: %q", m)
	}
	binding := &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: "admissionregistration.k8s.io/v1", Kind: "ValidatingAdmissionPolicyBinding"},
		ObjectMeta: metav1.ObjectMeta{Name: "prefetch-zones"},
	}
	must(t, w.Patch(t.Context(), binding, client.RawPatch(types.MergePatchType, []byte(m[1]))))
}

func zoneTask(namespace, name, zone string) *v1alpha1.PrefetchTask {
	task := newTask(name, "https://h/")
	task.Namespace, task.Spec.ZoneID = namespace, zone
	return task
}

func withSecret(task *v1alpha1.PrefetchTask) *v1alpha1.PrefetchTask {
	task.Spec.CredentialsSecretRef.Name = "edgeone"
	return task
}

func withAccount(task *v1alpha1.PrefetchTask) *v1alpha1.PrefetchTask {
	task.Spec.AccountRef.Name = "shared"
	return task
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func refusal(namespace, zone, allowed string) string {
	return "spec.zoneID: namespace " + namespace + " may not use " + zone + " with the key of the operator. Allowed: " + allowed +
		" (annotation example.com/edgeone-zones of the namespace). For other zones, name an account in spec.accountRef, or a Secret in spec.credentialsSecretRef"
}

func TestThePolicyOfZonesWarnsFirst(t *testing.T) {
	w := newZonesWorld(t)
	until(t, "the policy warns", func(ctx context.Context) bool {
		must(t, w.Create(ctx, zoneTask("team-b", "any", allowedZone), client.DryRunAll))
		return w.warnings.take() != ""
	})
	must(t, w.Create(t.Context(), zoneTask("team-b", "warned", allowedZone)))
	if got, want := w.warnings.take(), refusal("team-b", allowedZone, "none"); !strings.HasSuffix(got, "binding 'prefetch-zones': "+want) {
		t.Errorf("the warning is %q, want %q", got, want)
	}
	until(t, "the audit log has the task", func(context.Context) bool {
		text, err := os.ReadFile(w.auditLog)
		must(t, err)
		return slices.ContainsFunc(strings.Split(string(text), "\n"), func(line string) bool {
			return strings.Contains(line, `"name":"warned"`) && strings.Contains(line, `"validation.policy.admission.k8s.io/validation_failure":`)
		})
	})
	for _, task := range []*v1alpha1.PrefetchTask{
		zoneTask("team-a", "first", allowedZone), zoneTask("team-a", "second", secondZone),
		zoneTask("platform", "any", foreignZone), zoneTask("platform", "several", "*"), withSecret(zoneTask("team-b", "own", foreignZone)),
	} {
		must(t, w.Create(t.Context(), task))
	}
	old := &v1alpha1.PrefetchTask{}
	must(t, w.Get(t.Context(), client.ObjectKey{Namespace: "team-b", Name: "old"}, old))
	old.Annotations = map[string]string{v1alpha1.RetryAnnotation: "1"}
	must(t, w.Update(t.Context(), old))
	if got := w.warnings.take(); got != "" {
		t.Errorf("warned without need: %q", got)
	}
}

func TestThePolicyOfZonesDeniesForeignZonesAndNothingElse(t *testing.T) {
	w := newZonesWorld(t)
	must(t, w.Create(t.Context(), withSecret(zoneTask("team-a", "own", foreignZone))))
	must(t, w.Create(t.Context(), withAccount(zoneTask("team-a", "account", foreignZone))))
	must(t, w.Create(t.Context(), zoneTask("team-a", "task", allowedZone)))
	w.deny(t)
	until(t, "the policy denies", func(ctx context.Context) bool {
		return w.Create(ctx, zoneTask("team-b", "any", allowedZone), client.DryRunAll) != nil
	})
	const both = allowedZone + ", " + secondZone
	for _, tt := range []struct {
		task *v1alpha1.PrefetchTask
		want string // in the error
	}{
		{zoneTask("team-a", "first", allowedZone), ""},
		{zoneTask("team-a", "second", secondZone), ""},
		{zoneTask("team-a", "foreign", foreignZone), refusal("team-a", foreignZone, both)},
		{zoneTask("team-a", "prefix", "zone-2x9"), refusal("team-a", "zone-2x9", both)},
		{zoneTask("team-a", "several", "*"), refusal("team-a", "*", both)},
		{zoneTask("team-b", "unannotated", allowedZone), refusal("team-b", allowedZone, "none")},
		{zoneTask("platform", "any", foreignZone), ""},
		{zoneTask("platform", "several", "*"), ""},
		{withSecret(zoneTask("team-b", "own", foreignZone)), ""},
		{withAccount(zoneTask("team-b", "account", foreignZone)), ""},
	} {
		expect(t, "create "+tt.task.Namespace+"/"+tt.task.Name, w.Create(t.Context(), tt.task), tt.want)
	}
	for _, tt := range []struct {
		what, namespace, name string
		change                func(*v1alpha1.PrefetchTask)
		want                  string
	}{
		{"retry", "team-b", "old", func(task *v1alpha1.PrefetchTask) { task.Annotations = map[string]string{v1alpha1.RetryAnnotation: "1"} }, ""},
		{"revision", "team-b", "old", func(task *v1alpha1.PrefetchTask) { task.Spec.Revision = "2" }, ""},
		{"targets", "team-b", "old", func(task *v1alpha1.PrefetchTask) { task.Spec.Targets = []v1alpha1.Target{"https://h/2"} }, ""},
		{"suspend", "team-b", "old", func(task *v1alpha1.PrefetchTask) { task.Spec.Suspend = ptr.To(true) }, ""},
		{"label", "team-b", "old", func(task *v1alpha1.PrefetchTask) { task.Labels = map[string]string{"a": "b"} }, ""},
		{"add a finalizer", "team-b", "old", func(task *v1alpha1.PrefetchTask) { task.Finalizers = []string{"example.com/f"} }, ""},
		{"remove the finalizer", "team-b", "old", func(task *v1alpha1.PrefetchTask) { task.Finalizers = nil }, ""},
		{"name a Secret", "team-b", "old", func(task *v1alpha1.PrefetchTask) { withSecret(task) }, ""},
		{"no Secret again", "team-b", "old", func(task *v1alpha1.PrefetchTask) { task.Spec.CredentialsSecretRef.Name = "" }, refusal("team-b", foreignZone, "none")},
		{"no Secret, foreign zone", "team-a", "own", func(task *v1alpha1.PrefetchTask) { task.Spec.CredentialsSecretRef.Name = "" }, refusal("team-a", foreignZone, both)},
		{"no Secret, own zone", "team-a", "own", func(task *v1alpha1.PrefetchTask) {
			task.Spec.CredentialsSecretRef.Name, task.Spec.ZoneID = "", allowedZone
		}, ""},
		{"no account, foreign zone", "team-a", "account", func(task *v1alpha1.PrefetchTask) { task.Spec.AccountRef.Name = "" }, refusal("team-a", foreignZone, both)},
		{"a Secret for an account", "team-a", "account", func(task *v1alpha1.PrefetchTask) { task.Spec.AccountRef.Name = ""; withSecret(task) }, ""},
		{"second zone", "team-a", "task", func(task *v1alpha1.PrefetchTask) { task.Spec.ZoneID = secondZone }, ""},
		{"foreign zone", "team-a", "task", func(task *v1alpha1.PrefetchTask) { task.Spec.ZoneID = foreignZone }, refusal("team-a", foreignZone, both)},
	} {
		task := &v1alpha1.PrefetchTask{}
		must(t, w.Get(t.Context(), client.ObjectKey{Namespace: tt.namespace, Name: tt.name}, task))
		tt.change(task)
		expect(t, tt.what+" of "+tt.namespace+"/"+tt.name, w.Update(t.Context(), task), tt.want)
	}
	status := &v1alpha1.PrefetchTask{}
	must(t, w.Get(t.Context(), client.ObjectKey{Namespace: "team-b", Name: "status"}, status))
	status.Status.Run = "run"
	expect(t, "status", w.Status().Update(t.Context(), status), "")
	expect(t, "deletion", w.Delete(t.Context(), zoneTask("team-b", "deleted", foreignZone)), "")
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team-b"}}
	must(t, w.Patch(t.Context(), ns, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"example.com/edgeone-zones":" `+foreignZone+` , "}}}`))))
	until(t, "an annotation allows the zone", func(ctx context.Context) bool {
		return w.Create(ctx, zoneTask("team-b", "any", foreignZone), client.DryRunAll) == nil
	})
}

// expect reports an error that is not a refusal with the text, or any without a text.
func expect(t *testing.T, what string, err error, text string) {
	t.Helper()
	switch {
	case text == "" && err != nil:
		t.Errorf("%s: %v", what, err)
	case text != "" && (!apierrors.IsForbidden(err) || !strings.HasSuffix(err.Error(), "denied request: "+text)):
		t.Errorf("%s: %v, want a refusal with %q", what, err, text)
	}
}
