// Package conformance compares how different tools judge a task or an account: Argo CD with
// config/argocd, kstatus (Flux, Helm), Flux's health expressions in config/samples/gitops,
// and kubectl wait. The tasks and accounts are the fixtures in config/argocd. Tests in
// test/e2e compare them with what the operator writes.
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
	argoCD = root + "config/argocd/resource_customizations/teo.prefetch-operator.io/"
	ofTask = "PrefetchTask/"
)

// views are the tools' judgements of an object, each in the tool's own terms.
type views struct {
	argoCD  string
	kstatus status.Status
	waits   string // the conditions that kubectl wait considers True
}

// states are the fixtures by kind. Only Argo CD has a term for Suspended. The other tools
// consider such a task in progress.
var states = map[string]map[string]views{"PrefetchTask": taskStates, "EdgeOneAccount": accountStates}

// A suspended account has good credentials: nothing waits for it but its tasks.
var accountStates = map[string]views{
	"new":                 {"Progressing", status.InProgressStatus, ""},
	"stale":               {"Progressing", status.InProgressStatus, ""},
	"not-verified":        {"Progressing", status.InProgressStatus, ""},
	"accepted":            {"Healthy", status.CurrentStatus, "Ready"},
	"suspended":           {"Healthy", status.CurrentStatus, "Ready"},
	"credentials-missing": {"Degraded", status.FailedStatus, "Stalled"},
	"credentials-refused": {"Degraded", status.FailedStatus, "Stalled"},
	"role-refused":        {"Degraded", status.FailedStatus, "Stalled"},
}

var taskStates = map[string]views{
	"new":                   {"Progressing", status.InProgressStatus, ""},
	"stale":                 {"Progressing", status.InProgressStatus, ""},
	"waiting":               {"Progressing", status.InProgressStatus, ""},
	"submitting":            {"Progressing", status.InProgressStatus, ""},
	"polling":               {"Progressing", status.InProgressStatus, "Submitted"},
	"quota-held":            {"Progressing", status.InProgressStatus, "QuotaExceeded"},
	"outcome-unknown":       {"Progressing", status.InProgressStatus, ""},
	"purging":               {"Progressing", status.InProgressStatus, ""},
	"suspended":             {"Suspended", status.InProgressStatus, ""},
	"account-suspended":     {"Suspended", status.InProgressStatus, ""},
	"budget-held":           {"Progressing", status.InProgressStatus, "QuotaExceeded"},
	"not-allowed":           {"Degraded", status.FailedStatus, "Stalled"},
	"account-missing":       {"Degraded", status.FailedStatus, "Stalled"},
	"credentials-refused":   {"Degraded", status.FailedStatus, "Stalled"},
	"fresh-since-in-future": {"Degraded", status.FailedStatus, "Stalled"},
	"succeeded":             {"Healthy", status.CurrentStatus, "Finished Ready Submitted"},
	"purge-failed":          {"Degraded", status.FailedStatus, "Finished Stalled Submitted"},
	"partially-failed":      {"Degraded", status.FailedStatus, "Finished Stalled Submitted"},
	"failed":                {"Degraded", status.FailedStatus, "Finished Stalled Submitted"},
	"unread":                {"Degraded", status.FailedStatus, "Stalled Submitted"},
	"not-followed":          {"Degraded", status.FailedStatus, "Finished Stalled Submitted"},
}

func TestTheToolsAgreeAboutEveryTaskAndAccount(t *testing.T) {
	flux := fluxHealth(t)
	for kind, states := range states {
		files, err := filepath.Glob(argoCD + kind + "/testdata/*.yaml")
		must(t, err)
		if len(files) != len(states) {
			t.Errorf("%d fixtures of %s for %d states", len(files), kind, len(states))
		}
		for name, want := range states {
			t.Run(kind+" "+name, func(t *testing.T) {
				object := read(t, argoCD+kind+"/testdata/"+name+".yaml")
				result, err := status.Compute(object)
				must(t, err)
				health := runLua(t, kind+"/health.lua", object)
				got := views{health["status"].(string), result.Status, strings.Join(found(object), " ")}
				if got != want {
					t.Errorf("%+v, want %+v", got, want)
				}
				if f := flux(t, object); f != want.kstatus { // the expressions fit accounts too
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
}

// found returns the conditions that kubectl wait --for=condition considers True. A
// condition or status of an earlier generation does not count.
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

// fluxHealth evaluates the health expressions of the example, in Flux's order and with
// Flux's libraries.
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

// Argo CD retries a failed sync. By default, and with BeforeHookCreation, it first deletes
// the hooks of the last attempt; with HookFailed, it deletes them after the attempt. Then
// every attempt would submit all URLs of a task again, even if only one URL has failed.
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
	for kind, states := range states {
		var tests healthTests
		for _, name := range slices.Sorted(maps.Keys(states)) {
			health := runLua(t, kind+"/health.lua", read(t, argoCD+kind+"/testdata/"+name+".yaml"))
			test := healthTest{InputPath: "testdata/" + name + ".yaml"}
			test.HealthStatus.Status, test.HealthStatus.Message = health["status"].(string), health["message"].(string)
			tests.Tests = append(tests.Tests, test)
		}
		text, err := yaml.Marshal(tests)
		must(t, err)
		same(t, argoCD+kind+"/health_test.yaml", text)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// same compares a file with its expected content, or writes the file.
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

// readAll reads the objects of a file. Whole numbers become integers, as in responses of
// the API.
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
