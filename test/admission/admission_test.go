// Package admission tests the rules of the CRD on a real API server: what the API server
// accepts, its messages when it refuses, what happens to tasks that were stored under
// other rules, and what the rules cost.
//
//   - admission: the rules
//   - bench: their cost in CPU time of the API server
//
// It runs no manager and knows nothing about EdgeOne.
package admission

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

func newTask(name string, targets ...string) *v1alpha1.PrefetchTask {
	task := &v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	task.Spec.ZoneID = "zone-1"
	for _, u := range targets {
		task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(u))
	}
	return task
}

// The cases are from internal/target.
func TestTheAPIServerTakesTheTargetsThatCheckTakes(t *testing.T) {
	kube := cluster.ForTest(t, cluster.Options{})
	text, err := os.ReadFile("../../internal/target/testdata/check.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name, Problem string
		URLs          []string
	}
	if err := json.Unmarshal(text, &cases); err != nil || len(cases) == 0 {
		t.Fatal(len(cases), err)
	}
	const h = "https://h/"
	longest := h + strings.Repeat("ü", target.MaxLength-len(h))
	for _, tt := range cases {
		t.Run(tt.Name, func(t *testing.T) {
			want := tt.Problem
			if tt.Name == "a percent sign before a letter" {
				want = "should match" // in a query, only the pattern detects it
			}
			for _, u := range tt.URLs {
				err := kube.Client.Create(t.Context(), newTask("any", h, u), client.DryRunAll)
				switch {
				case want == "" && err != nil:
					t.Errorf("%q is refused: %v", u, err)
				case want != "" && err == nil:
					t.Errorf("%q is taken", u)
				case want != "" && !strings.Contains(err.Error(), want):
					t.Errorf("%q is refused with %v, want %q in it", u, err, want)
				case want != "" && !strings.Contains(err.Error(), "spec.targets"):
					t.Errorf("%q is refused with %v, which does not name the field", u, err)
				}
			}
		})
	}
	t.Run("length", func(t *testing.T) {
		if err := kube.Client.Create(t.Context(), newTask("any", longest), client.DryRunAll); err != nil {
			t.Errorf("as long as it may be: %v", err)
		}
		if err := kube.Client.Create(t.Context(), newTask("any", longest+"x"), client.DryRunAll); err == nil || !strings.Contains(err.Error(), "spec.targets[0]: Too long") {
			t.Errorf("too long: %v", err)
		}
	})
}

func TestARefusalNamesTheTarget(t *testing.T) {
	kube := cluster.ForTest(t, cluster.Options{})
	for _, tt := range []struct{ name, url, want string }{
		{"scheme", "www.example.com/a", `"www.example.com/a" must be a full URL that starts with`},
		{"wildcard", "https://h/*.js", `spec.targets[1]: Invalid value: "https://h/*.js"`},
		{"space", "https://h/a\u00a0b", "\"https://h/a\u00a0b\" must not have spaces"},
		{"invisible", "https://h/a\u200bb", "\"https://h/a\u200bb\" must not have control"},
		{"backslash", `https://h/a\b`, `spec.targets[1]: Invalid value: "https://h/a\\b"`},
		{"percent", "https://h/?a=%zz", `spec.targets[1]: Invalid value: "https://h/?a=%zz"`},
		{"host", "https://me@h/", `"https://me@h/" must be a valid URL`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := kube.Client.Create(t.Context(), newTask("any", "https://h/", tt.url), client.DryRunAll)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q in it", err, tt.want)
			}
		})
	}
}

// The rules must stay within the API server's cost limits for any task that fits into
// etcd, and leave room for a status.
func TestTheLargestTasksAreTakenAndHaveRoomForAStatus(t *testing.T) {
	kube := cluster.ForTest(t, cluster.Options{})
	const limit = 1_550_000 // in bytes, including 3 for each URL
	for _, tt := range []struct {
		name  string
		n     int
		fill  string
		purge v1alpha1.PurgeType
		start string
	}{
		{"10,000 URLs", 10_000, "x", "", "https://www.example.com/"},
		{"755 long URLs", 755, "x", "", "https://www.example.com/"},
		{"10,000 URLs of Chinese characters", 10_000, "页", "", "https://www.example.com/"},
		{"190 long URLs of four-byte characters", 190, "😀", "", "https://www.example.com/"},
		{"10,000 URLs of escapes", 10_000, "%41", "", "https://www.example.com/"},
		{"10,000 URLs, and 100 long prefixes to purge", 10_000, "x", v1alpha1.PurgePrefix, "https://www.example.com/"},
		{"10,000 URLs, and 100 prefixes of four-byte characters", 10_000, "😀", v1alpha1.PurgePrefix, "https://www.example.com/"},
		{"10,000 URLs, and 100 hosts to purge", 10_000, "x", v1alpha1.PurgeHost, "https://www.example.com/"},
		{"10,000 URLs, and 100 tags to purge", 10_000, "x", v1alpha1.PurgeCacheTag, "https://www.example.com/"},
		{"10,000 URLs with a port", 10_000, "x", "", "https://www.example.com:65535/"},
		{"10,000 URLs with a query after the host", 10_000, "x", "", "http://www.example.com?"},
		{"10,000 URLs with a port and a query", 10_000, "x", "", "https://www.example.com:8443?"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			task := newTask("largest")
			task.Spec.Purge.Type = tt.purge
			limit := limit
			for i := range 100 * min(1, len(tt.purge)) {
				target := fmt.Sprintf("https://www.example.com/%05d/%s/", i, strings.Repeat(tt.fill, 993))
				switch tt.purge {
				case v1alpha1.PurgeHost:
					target = fmt.Sprintf("%s%05d.example.com", strings.Repeat("a.", 118), i)
				case v1alpha1.PurgeCacheTag:
					target = fmt.Sprintf("%01024d", i)
				}
				task.Spec.Purge.Targets = append(task.Spec.Purge.Targets, v1alpha1.PurgeTarget(target))
				limit -= 2*len(target) + 20 // once more in managedFields
			}
			for i := range tt.n {
				u := fmt.Sprintf("%s%05d/", tt.start, i)
				room := min(limit/tt.n-3-len(u), (target.MaxLength-len(u))*len(tt.fill))
				task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(u+strings.Repeat(tt.fill, room/len(tt.fill))))
			}
			if larger := task.DeepCopy(); tt.purge != "" {
				for i := range larger.Spec.Targets {
					larger.Spec.Targets[i] += "more"
				}
				if err := kube.Client.Create(t.Context(), larger, client.DryRunAll); err == nil || !strings.Contains(err.Error(), "must not take more than 1,550,000 bytes in all") {
					t.Errorf("larger: %.500s", fmt.Sprint(err))
				}
			}
			if err := kube.Client.Create(t.Context(), task); err != nil {
				t.Fatalf("%.500s", err)
			}
			task.Status.Run = strings.Repeat("r", 64)
			task.Status.FailedTargets = []v1alpha1.FailedTarget{{URL: strings.Repeat("u", 2000), Reason: "Refused"}}
			for range 7 {
				task.Status.FailedTargets = append(task.Status.FailedTargets, task.Status.FailedTargets[0])
			}
			if err := kube.Client.Status().Update(t.Context(), task); err != nil {
				t.Errorf("a status of 16 KB: %.500s", err)
			}
			if err := kube.Client.Delete(t.Context(), task); err != nil {
				t.Fatal(err)
			}
			if log := kube.APIServer.LastLines(10); strings.Contains(log, "request is too large") {
				t.Errorf("the API server stores the task without managedFields:\n%s", log)
			}
		})
	}
}

// crd returns the CRD of config/ with a change to its schema.
func crd(t testing.TB, change func(spec map[string]any)) *unstructured.Unstructured {
	t.Helper()
	root, err := cluster.FindRoot()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "config/crd/bases/teo.prefetch-operator.io_prefetchtasks.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	obj := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(text, &obj.Object); err != nil {
		t.Fatal(err)
	}
	versions, _, _ := unstructured.NestedSlice(obj.Object, "spec", "versions")
	spec, found, err := unstructured.NestedMap(versions[0].(map[string]any), "schema", "openAPIV3Schema", "properties", "spec", "properties")
	if err != nil || !found {
		t.Fatal(found, err)
	}
	if change != nil {
		change(spec)
	}
	if err := unstructured.SetNestedMap(versions[0].(map[string]any), spec, "schema", "openAPIV3Schema", "properties", "spec", "properties"); err != nil {
		t.Fatal(err)
	}
	if err := unstructured.SetNestedSlice(obj.Object, versions, "spec", "versions"); err != nil {
		t.Fatal(err)
	}
	return obj
}

// withoutRules removes rules that earlier versions of the CRD may not have had.
func withoutRules(spec map[string]any) {
	delete(spec["targets"].(map[string]any), "x-kubernetes-validations")
	delete(spec["targets"].(map[string]any)["items"].(map[string]any), "pattern")
	headers := spec["headers"].(map[string]any)
	delete(headers, "x-kubernetes-validations")
	for _, property := range headers["items"].(map[string]any)["properties"].(map[string]any) {
		delete(property.(map[string]any), "x-kubernetes-validations")
	}
	delete(spec["ttlSecondsAfterFinished"].(map[string]any), "maximum")
}

func apply(t testing.TB, c client.Client, obj *unstructured.Unstructured) {
	t.Helper()
	if err := c.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(obj), client.FieldOwner("test"), client.ForceOwnership); err != nil {
		t.Fatal(err)
	}
}

// until waits until the API server serves a schema.
func until(t testing.TB, what string, done func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !done(ctx) {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not after a minute", what)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// An upgrade must not block tasks that violate its rules.
func TestATaskFromBeforeTheRulesCanBeFollowedAndEdited(t *testing.T) {
	kube := cluster.ForTest(t, cluster.Options{Bare: true})
	c := kube.Client
	apply(t, c, crd(t, withoutRules))
	const bad = "https://user@h:0/%zz a\u200b"
	old := func(name string) *v1alpha1.PrefetchTask {
		task := newTask(name, bad, "https://h/*")
		task.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "Host", Value: "a\u202eb"}, {Name: "host", Value: "b"}, {Name: "Authorization", Value: strings.Repeat("x", 4000)}}
		task.Spec.TTLSecondsAfterFinished = 2_000_000_000
		return task
	}
	tasks := map[string]*v1alpha1.PrefetchTask{}
	for _, name := range []string{"status", "metadata", "suspend", "targets", "mended"} {
		tasks[name] = old(name)
		until(t, "the old CRD", func(ctx context.Context) bool { return c.Create(ctx, tasks[name]) == nil })
	}
	apply(t, c, crd(t, nil))
	until(t, "the new CRD", func(ctx context.Context) bool { return c.Create(ctx, old("new"), client.DryRunAll) != nil })
	for range 3 {
		task := tasks["status"]
		task.Status.Run += "run"
		task.Status.Targets.Total = ptr.To[int32](2)
		if err := c.Status().Update(t.Context(), task); err != nil {
			t.Errorf("its status cannot be written: %v", err)
		}
	}
	metadata := tasks["metadata"]
	metadata.Annotations = map[string]string{v1alpha1.RetryAnnotation: "1"}
	if err := c.Update(t.Context(), metadata); err != nil {
		t.Errorf("it cannot be annotated: %v", err)
	}
	suspend := tasks["suspend"]
	suspend.Spec.Suspend = ptr.To(true)
	if err := c.Update(t.Context(), suspend); err != nil {
		t.Errorf("it cannot be suspended: %v", err)
	}
	targets := tasks["targets"]
	targets.Spec.Targets = append(targets.Spec.Targets, "https://h/b")
	if err := c.Update(t.Context(), targets); err == nil {
		t.Error("a changed list keeps a bad URL")
	}
	mended := tasks["mended"]
	mended.Spec.Targets = []v1alpha1.Target{"https://h/b"}
	if err := c.Update(t.Context(), mended); err != nil {
		t.Errorf("its targets cannot be set right: %v", err)
	}
}
