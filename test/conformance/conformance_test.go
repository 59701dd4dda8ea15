// Package conformance holds what the tools around a cluster make of a task against
// each other: Argo CD by config/argocd, kstatus (Flux, Helm), Flux's health
// expressions of config/samples/gitops, and kubectl wait. The tasks are those of
// config/argocd, which a test of test/e2e compares with what the operator writes.
package conformance

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/ext"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write what is derived from the scripts")

const (
	root   = "../../"
	argoCD = root + "config/argocd/resource_customizations/teo.prefetch-operator.io/PrefetchTask/"
)

// views is what the tools say of a task, each in its own words.
type views struct {
	argoCD  string
	kstatus status.Status
	waits   string // the conditions that kubectl wait would find True
}

// Suspended is the one state that only Argo CD has a word for: to the others such
// a task is in progress.
var states = map[string]views{
	"new":                 {"Progressing", status.InProgressStatus, ""},
	"stale":               {"Progressing", status.InProgressStatus, ""},
	"waiting":             {"Progressing", status.InProgressStatus, ""},
	"submitting":          {"Progressing", status.InProgressStatus, ""},
	"polling":             {"Progressing", status.InProgressStatus, "Submitted"},
	"quota-held":          {"Progressing", status.InProgressStatus, "QuotaExceeded"},
	"outcome-unknown":     {"Progressing", status.InProgressStatus, ""},
	"suspended":           {"Suspended", status.InProgressStatus, ""},
	"credentials-refused": {"Degraded", status.FailedStatus, "Stalled"},
	"succeeded":           {"Healthy", status.CurrentStatus, "Finished Ready Submitted"},
	"partially-failed":    {"Degraded", status.FailedStatus, "Finished Stalled Submitted"},
	"failed":              {"Degraded", status.FailedStatus, "Finished Stalled Submitted"},
	"unread":              {"Degraded", status.FailedStatus, "Stalled Submitted"},
	"not-followed":        {"Degraded", status.FailedStatus, "Finished Stalled Submitted"},
}

func TestTheToolsAgreeAboutEveryTask(t *testing.T) {
	files, err := filepath.Glob(argoCD + "testdata/*.yaml")
	must(t, err)
	if len(files) != len(states) {
		t.Errorf("%d tasks for %d states", len(files), len(states))
	}
	flux := fluxHealth(t)
	for name, want := range states {
		t.Run(name, func(t *testing.T) {
			task := read(t, argoCD+"testdata/"+name+".yaml")
			result, err := status.Compute(task)
			must(t, err)
			health := runLua(t, "health.lua", task)
			got := views{health["status"].(string), result.Status, strings.Join(found(task), " ")}
			if got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
			if f := flux(t, task); f != want.kstatus {
				t.Errorf("Flux says %s, want %s", f, want.kstatus)
			}
			if message, ok := health["message"].(string); !ok || message == "" {
				t.Error("Argo CD shows no message")
			}
			if degraded := got.argoCD == "Degraded"; degraded != strings.Contains(got.waits, "Stalled") {
				t.Error("degraded is what needs a person, and nothing else")
			}
		})
	}
}

// found are the conditions that kubectl wait --for=condition finds True: none of
// a status that speaks of an earlier generation, or itself does.
func found(task *unstructured.Unstructured) (types []string) {
	conditions, _, _ := unstructured.NestedSlice(task.Object, "status", "conditions")
	behind := func(in map[string]any, path ...string) bool {
		observed, known, _ := unstructured.NestedInt64(in, path...)
		return known && observed < task.GetGeneration()
	}
	for _, c := range conditions {
		condition := c.(map[string]any)
		if condition["status"] == "True" && !behind(condition, "observedGeneration") && !behind(task.Object, "status", "observedGeneration") {
			types = append(types, condition["type"].(string))
		}
	}
	slices.Sort(types)
	return types
}

// fluxHealth evaluates the health expressions of the example, in Flux's order and
// with its libraries.
func fluxHealth(t *testing.T) func(*testing.T, *unstructured.Unstructured) status.Status {
	t.Helper()
	var exprs []any
	for _, object := range readAll(t, root+"config/samples/gitops/flux.yaml") {
		if object.GetKind() == "Kustomization" {
			exprs, _, _ = unstructured.NestedSlice(object.Object, "spec", "healthCheckExprs")
		}
	}
	if len(exprs) != 1 {
		t.Fatal("the example has no health expressions")
	}
	env, err := cel.NewEnv(cel.HomogeneousAggregateLiterals(), cel.EagerlyValidateDeclarations(true), cel.DefaultUTCTimeZone(true),
		cel.CrossTypeNumericComparisons(true), cel.OptionalTypes(), ext.Strings(), ext.Sets(), ext.Encoders())
	must(t, err)
	evaluate := func(t *testing.T, expr string, task *unstructured.Unstructured) bool {
		parsed, issues := env.Parse(expr)
		must(t, issues.Err())
		program, err := env.Program(parsed)
		must(t, err)
		value, _, err := program.Eval(task.Object)
		must(t, err)
		return value.Value().(bool)
	}
	return func(t *testing.T, task *unstructured.Unstructured) status.Status {
		if observed, known, _ := unstructured.NestedInt64(task.Object, "status", "observedGeneration"); known && observed != task.GetGeneration() {
			return status.InProgressStatus
		}
		for _, rule := range []struct {
			name   string
			status status.Status
		}{{"inProgress", status.InProgressStatus}, {"failed", status.FailedStatus}, {"current", status.CurrentStatus}} {
			if expr, _ := exprs[0].(map[string]any)[rule.name].(string); expr != "" && evaluate(t, expr, task) {
				return rule.status
			}
		}
		return status.InProgressStatus
	}
}

// Argo CD tries a failed sync again. By default, and with BeforeHookCreation, it
// deletes the hooks of the last try first, and with HookFailed after it: all URLs of
// a task with one failed URL would be submitted again with each try.
func TestASyncThatIsTriedAgainFindsTheExamplesFailedHook(t *testing.T) {
	hooks := 0
	for _, object := range readAll(t, root+"config/samples/gitops/argocd.yaml") {
		if object.GetAnnotations()["argocd.argoproj.io/hook"] == "" {
			continue
		}
		hooks++
		if policy := object.GetAnnotations()["argocd.argoproj.io/hook-delete-policy"]; policy != "HookSucceeded" {
			t.Errorf("delete policy %q, want HookSucceeded alone", policy)
		}
	}
	if hooks == 0 {
		t.Error("the example has no hook")
	}
}

// healthTests is health_test.yaml in Argo CD's format.
type healthTests struct {
	Tests []healthTest `json:"tests"`
}

type healthTest struct {
	HealthStatus struct {
		Status  string `json:"status"`
		Message string `json:"message"`
	} `json:"healthStatus"`
	InputPath string `json:"inputPath"`
}

func TestTheHealthTestsForArgoCDAreWhatTheScriptSays(t *testing.T) {
	var tests healthTests
	for _, name := range slices.Sorted(maps.Keys(states)) {
		health := runLua(t, "health.lua", read(t, argoCD+"testdata/"+name+".yaml"))
		test := healthTest{InputPath: "testdata/" + name + ".yaml"}
		test.HealthStatus.Status, test.HealthStatus.Message = health["status"].(string), health["message"].(string)
		tests.Tests = append(tests.Tests, test)
	}
	text, err := yaml.Marshal(tests)
	must(t, err)
	same(t, argoCD+"health_test.yaml", text)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// same compares a file with what it should be, or writes it.
func same(t *testing.T, path string, want []byte) {
	t.Helper()
	if *update {
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, want, 0o644))
	}
	got, err := os.ReadFile(path)
	must(t, err)
	if string(got) != string(want) {
		t.Errorf("%s is out of date; run go test . -update in test/conformance. It should be\n%s", path, want)
	}
}

func read(t *testing.T, path string) *unstructured.Unstructured {
	t.Helper()
	objects := readAll(t, path)
	if len(objects) != 1 {
		t.Fatalf("%d objects in %s", len(objects), path)
	}
	return objects[0]
}

// readAll reads the objects of a file. Whole numbers are such, as from the API.
func readAll(t *testing.T, path string) (objects []*unstructured.Unstructured) {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	for _, part := range strings.Split("\n"+string(text), "\n---\n") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		raw, err := yaml.YAMLToJSON([]byte(part))
		must(t, err)
		object := &unstructured.Unstructured{}
		must(t, object.UnmarshalJSON(raw))
		objects = append(objects, object)
	}
	return objects
}
