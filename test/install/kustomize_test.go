package install

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

func TestKustomizeInstallsAnOperatorThatWorks(t *testing.T) {
	s := newSite(t)
	t.Cleanup(s.removeCRDs)
	s.giveCredentials("teo-credentials", "AKIDdemo", "demo-secret-key")
	all := filepath.Join(t.TempDir(), "all.yaml")
	s.must(os.WriteFile(all, []byte(s.overlay("--teo-endpoint="+s.url, "--poll-interval=500ms")), 0o600))
	for _, args := range [][]string{
		{"apply", "--server-side", "-f", all},
		{"rollout", "status", "deployment/teo-prefetch-operator", "--timeout=90s"},
	} {
		if out, err := s.command("kubectl", args...); err != nil {
			t.Fatalf("kubectl %v: %v\n%s", args, err, out)
		}
	}
	stop := s.runManager(s.deployment("teo-prefetch-operator"))
	s.create(s.namespace, "kustomized")
	s.succeeded(s.namespace, "kustomized")
	stop()
	if out, err := s.command("kubectl", "delete", "--wait", "-f", all); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if s.hasCRD() {
		t.Error("the CRD is left")
	}
}

// As described in docs/install.md: everything that was installed with Kustomize is removed
// except the CRD. Helm takes over the CRD when it is told to, also for a release with
// another name.
func TestHelmGoesOnWithTheTasksOfAnotherInstallation(t *testing.T) {
	s := newSite(t)
	t.Cleanup(s.removeCRDs)
	s.giveCredentials("teo-credentials", "AKIDdemo", "demo-secret-key")
	kubectl := func(manifests string, args ...string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "manifests.yaml")
		s.must(os.WriteFile(file, []byte(manifests), 0o600))
		if out, err := s.command("kubectl", append(args, "-f", file)...); err != nil {
			t.Fatalf("kubectl %v: %v\n%s", args, err, out)
		}
	}
	kubectl(s.overlay("--teo-endpoint="+s.url, "--poll-interval=500ms"), "apply", "--server-side")
	if out, err := s.command("kubectl", "rollout", "status", "deployment/"+release, "--timeout=90s"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	stop := s.runManager(s.deployment(release))
	s.create(s.namespace, "kustomized")
	s.succeeded(s.namespace, "kustomized")
	stop()

	kubectl(s.kustomize("config/manager"), "delete", "--wait")
	kubectl(s.kustomize("config/rbac"), "delete", "--wait")
	tasks := []string{"kustomized"}
	for i, name := range []string{release, "games-" + release} {
		install := []string{"install", name, chart, "--wait", "--timeout=90s", "--set=edgeone.endpoint=" + s.url, "--set=extraArgs={--poll-interval=500ms}"}
		if out, err := s.command("helm", install...); err == nil || !strings.Contains(out, "exists and cannot be imported") {
			t.Errorf("helm takes over another's CRD without being told to: %v\n%s", err, out)
		}
		s.helm(append(install, "--take-ownership")...)
		stop = s.runManager(s.deployment(name))
		task := fmt.Sprintf("helm-%d", i)
		s.create(s.namespace, task)
		tasks = append(tasks, task)
		s.succeeded(s.namespace, tasks...)
		stop()
		s.helm("uninstall", name, "--wait", "--timeout=90s")
	}
}

// config/default installs the same as the chart with its default values. They differ in
// labels, and in arguments for which the chart sets the default explicitly.
func TestKustomizeInstallsTheSameAsTheChart(t *testing.T) {
	s := newSite(t)
	chart := objects(t, s.helm("template", release, chart))
	config := objects(t, s.overlay())
	delete(chart, "Pod/"+release+"-check")
	delete(config, "Namespace/"+s.namespace)
	if a, b := slices.Sorted(maps.Keys(chart)), slices.Sorted(maps.Keys(config)); !slices.Equal(a, b) {
		t.Errorf("the chart installs\n%s\nand config/default\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"))
	}
	for name, a := range chart {
		b, ok := config[name]
		if !ok {
			continue
		}
		for _, o := range []map[string]any{a, b} {
			for _, path := range [][]string{
				{"metadata", "labels"},
				{"metadata", "annotations", "helm.sh/resource-policy"},
				{"spec", "selector"},
				{"spec", "podSelector"},
				{"spec", "template", "metadata", "labels"},
				{"spec", "revisionHistoryLimit"},
			} {
				unstructured.RemoveNestedField(o, path...)
			}
		}
		if strings.HasPrefix(name, "Deployment/") {
			simplify(t, a)
			simplify(t, b)
		}
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s differs. The chart has\n%v\nand config/default\n%v", name, a, b)
		}
	}
}

// The policy is optional in both, and it is the same.
func TestKustomizeHasThePolicyOfTheChart(t *testing.T) {
	s := newSite(t)
	chart := objects(t, s.helm("template", release, chart, "--set=accounts.policy.enabled=true", "--show-only=templates/accounts-policy.yaml"))
	out, err := s.command("kubectl", "kustomize", "config/policy")
	s.must(err)
	config := objects(t, out)
	for _, kind := range []string{"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"} {
		name := kind + "/" + release + "-accounts"
		if a, b := chart[name]["spec"], config[name]["spec"]; a == nil || !reflect.DeepEqual(a, b) {
			t.Errorf("%s of the chart has\n%v\nand that of config/policy\n%v\nrun make manifests", name, a, b)
		}
	}
	if len(chart) != 2 || len(config) != 2 {
		t.Errorf("the chart has %d objects, and config/policy %d", len(chart), len(config))
	}
}

// The alerts and the dashboard are the same as in the chart, and the ServiceMonitor finds
// the Service.
func TestKustomizeWatchesTheSameAsTheChart(t *testing.T) {
	s := newSite(t)
	chart := objects(t, s.helm("template", release, chart, "--namespace="+cluster.Namespace, "--set=metrics.serviceMonitor.enabled=true,metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true"))
	out, err := s.command("kubectl", "kustomize", "config/prometheus")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	config := objects(t, out)
	rule, dashboard := "PrometheusRule/"+release, "ConfigMap/"+release+"-dashboard"
	if a, b := chart[rule]["spec"], config[rule]["spec"]; a == nil || !reflect.DeepEqual(a, b) {
		t.Errorf("the chart's alerts are\n%v\nand those of config/prometheus\n%v\nrun make manifests", a, b)
	}
	text := func(objects map[string]map[string]any) string {
		text, _, _ := unstructured.NestedString(objects[dashboard], "data", "teo-prefetch-operator.json")
		return strings.TrimSpace(text)
	}
	if text(chart) == "" || text(chart) != text(config) {
		t.Error("the chart's dashboard is not that of config/prometheus; run make manifests")
	}
	endpoints := func(objects map[string]map[string]any) map[string]any {
		list, _, _ := unstructured.NestedSlice(objects["ServiceMonitor/"+release], "spec", "endpoints")
		if len(list) != 1 {
			t.Fatalf("the ServiceMonitor has %d endpoints", len(list))
		}
		endpoint := list[0].(map[string]any)
		delete(endpoint, "scrapeTimeout") // Prometheus's default
		return endpoint
	}
	if a, b := endpoints(chart), endpoints(config); !reflect.DeepEqual(a, b) {
		t.Errorf("the chart scrapes %v, and config/prometheus %v", a, b)
	}
	service := objects(t, s.overlay())["Service/"+release+"-metrics"]
	wanted, _, _ := unstructured.NestedStringMap(config["ServiceMonitor/"+release], "spec", "selector", "matchLabels")
	labels, _, _ := unstructured.NestedStringMap(service, "metadata", "labels")
	for name, value := range wanted {
		if labels[name] != value {
			t.Errorf("the ServiceMonitor wants the label %s=%s, and the Service has %v", name, value, labels)
		}
	}
}

// simplify removes the fields of a Deployment that the chart sets to their defaults.
func simplify(t *testing.T, deployment map[string]any) {
	t.Helper()
	spec := deployment["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
	for _, constraint := range spec["topologySpreadConstraints"].([]any) {
		delete(constraint.(map[string]any), "labelSelector")
	}
	container := spec["containers"].([]any)[0].(map[string]any)
	delete(container, "imagePullPolicy")
	var args []string
	for _, arg := range container["args"].([]any) {
		name, _, _ := strings.Cut(arg.(string), "=")
		if !slices.Contains([]string{"--teo-endpoint", "--teo-qps", "--leader-election-namespace", "--zap-log-level", "--zap-encoder"}, name) {
			args = append(args, arg.(string))
		}
	}
	slices.Sort(args)
	container["args"] = args
}

// objects returns the objects of a YAML stream, keyed by kind and name.
func objects(t *testing.T, text string) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{}
	for docs := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096); ; {
		o := &unstructured.Unstructured{}
		if err := docs.Decode(&o.Object); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if len(o.Object) > 0 {
			all[o.GetKind()+"/"+o.GetName()] = o.Object
		}
	}
}
