package install

import (
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// An API server that knows the Prometheus operator's kinds accepts what the chart has
// for it, to the last field, and the ServiceMonitor leads to the manager's pods.
func TestThePrometheusOperatorGetsWhatItCanUse(t *testing.T) {
	s := newSite(t)
	t.Cleanup(s.removeCRD)
	s.teachMonitoring()
	defer s.helm("uninstall", release, "--wait", "--timeout=90s")
	enabled := []string{"--wait", "--timeout=90s", "--set=metrics.serviceMonitor.enabled=true,metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true"}
	for _, tt := range []struct {
		name, command string
		values        []string
	}{
		{"by default", "install", nil},
		{"with every value of them set", "upgrade", []string{
			"--set=metrics.secure=false,metrics.service.labels.team=web,metrics.service.annotations.team=web",
			"--set=metrics.serviceMonitor.labels.release=prometheus,metrics.serviceMonitor.interval=1m,metrics.serviceMonitor.scrapeTimeout=20s",
			"--set=metrics.serviceMonitor.relabelings[0].action=labeldrop,metrics.serviceMonitor.relabelings[0].regex=pod",
			"--set=metrics.serviceMonitor.metricRelabelings[0].action=drop,metrics.serviceMonitor.metricRelabelings[0].regex=go_.*",
			"--set=metrics.serviceMonitor.metricRelabelings[0].sourceLabels={__name__}",
			"--set=metrics.prometheusRule.labels.release=prometheus,metrics.dashboard.annotations.folder=TEO",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := *s
			s.t = t
			s.helm(slices.Concat([]string{tt.command, release, chart}, enabled, tt.values)...)
			s.kept(s.helm("get", "manifest", release))
			s.leadsToPods(2)
		})
	}
}

func TestKustomizeGivesThePrometheusOperatorWhatItCanUse(t *testing.T) {
	s := newSite(t)
	t.Cleanup(s.removeCRD)
	s.teachMonitoring()
	own := *s
	own.namespace = cluster.Namespace
	for _, folder := range []string{"config/default", "config/prometheus"} {
		if out, err := s.command("kubectl", "apply", "--server-side", "--validate=strict", "-k", folder); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if out, err := s.command("kubectl", "-n", own.namespace, "rollout", "status", "deployment/"+release, "--timeout=90s"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := s.command("kubectl", "kustomize", "config/prometheus")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	own.kept(out)
	own.leadsToPods(2)
	if out, err := s.command("kubectl", "delete", "--wait", "-k", "config/prometheus", "-k", "config/default"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// teachMonitoring has the cluster know a ServiceMonitor and a PrometheusRule.
func (s *site) teachMonitoring() {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), "go", "list", "-f={{.Dir}}", "github.com/prometheus-operator/prometheus-operator/example")
	cmd.Dir = filepath.Join(shared.root, "hack", "prometheus")
	dir, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("the Prometheus operator's CRDs are not here, and cannot be downloaded: %v", err)
	}
	for _, name := range []string{"servicemonitors", "prometheusrules"} {
		s.must(shared.cluster.Apply(s.t.Context(), filepath.Join(strings.TrimSpace(string(dir)), "prometheus-operator-crd", "monitoring.coreos.com_"+name+".yaml")))
	}
}

// kept fails unless the API server has every field of the objects that it was given.
// Applied by the server, as helm does it, an unknown one is an error already.
func (s *site) kept(manifest string) {
	s.t.Helper()
	given := objects(s.t, manifest)
	for _, name := range []string{"ServiceMonitor/" + release, "PrometheusRule/" + release, "ConfigMap/" + release + "-dashboard"} {
		if given[name] == nil {
			s.t.Errorf("there is no %s among %s", name, strings.Join(slices.Sorted(maps.Keys(given)), ", "))
		}
	}
	for name, object := range given {
		o := &unstructured.Unstructured{Object: object}
		has := &unstructured.Unstructured{}
		has.SetGroupVersionKind(o.GroupVersionKind())
		s.must(s.Get(s.t.Context(), client.ObjectKeyFromObject(o), has))
		if lost := missing(o.Object, has.Object, name); lost != "" {
			s.t.Errorf("the API server has another %s", lost)
		}
	}
}

// number returns a number as text in one notation, whichever type a decoder gave it,
// and anything else as it prints.
func number(value any) string {
	v := reflect.ValueOf(value)
	switch {
	case v.CanInt():
		return strconv.FormatFloat(float64(v.Int()), 'f', -1, 64)
	case v.CanFloat():
		return strconv.FormatFloat(v.Float(), 'f', -1, 64)
	}
	return fmt.Sprint(value)
}

// missing returns the path of something that was given and not kept, "" if all was.
func missing(given, kept any, path string) string {
	switch given := given.(type) {
	case map[string]any:
		has, _ := kept.(map[string]any)
		for key, value := range given {
			if lost := missing(value, has[key], path+"."+key); lost != "" {
				return lost
			}
		}
	case []any:
		has, _ := kept.([]any)
		for i, value := range given {
			if i >= len(has) {
				return fmt.Sprintf("%s[%d]", path, i)
			}
			if lost := missing(value, has[i], fmt.Sprintf("%s[%d]", path, i)); lost != "" {
				return lost
			}
		}
	default:
		if number(given) != number(kept) {
			return path
		}
	}
	return ""
}

// leadsToPods fails unless the ServiceMonitor selects one Service, each of its
// endpoints is a port of that, and the port is one of so many pods.
func (s *site) leadsToPods(want int) {
	s.t.Helper()
	monitor := &unstructured.Unstructured{}
	monitor.SetAPIVersion("monitoring.coreos.com/v1")
	monitor.SetKind("ServiceMonitor")
	s.must(s.Get(s.t.Context(), client.ObjectKey{Namespace: s.namespace, Name: release}, monitor))
	var spec struct {
		Selector          metav1.LabelSelector `json:"selector"`
		NamespaceSelector struct {
			MatchNames []string `json:"matchNames"`
		} `json:"namespaceSelector"`
		Endpoints []struct {
			Port string `json:"port"`
		} `json:"endpoints"`
	}
	s.must(runtime.DefaultUnstructuredConverter.FromUnstructured(monitor.Object["spec"].(map[string]any), &spec))
	if names := spec.NamespaceSelector.MatchNames; len(names) > 0 && !slices.Equal(names, []string{s.namespace}) {
		s.t.Errorf("the ServiceMonitor looks into the namespaces %q", names)
	}
	selector, err := metav1.LabelSelectorAsSelector(&spec.Selector)
	s.must(err)
	services, pods := &corev1.ServiceList{}, &corev1.PodList{}
	s.must(s.List(s.t.Context(), services, client.InNamespace(s.namespace), client.MatchingLabelsSelector{Selector: selector}))
	if len(services.Items) != 1 {
		s.t.Fatalf("the ServiceMonitor selects %d Services", len(services.Items))
	}
	service := services.Items[0]
	s.must(s.List(s.t.Context(), pods, client.InNamespace(s.namespace), client.MatchingLabels(service.Spec.Selector)))
	found := 0
	for _, endpoint := range spec.Endpoints {
		for _, port := range service.Spec.Ports {
			for _, pod := range pods.Items {
				if port.Name == endpoint.Port && slices.ContainsFunc(pod.Spec.Containers[0].Ports, func(p corev1.ContainerPort) bool { return p.Name == port.TargetPort.StrVal }) {
					found++
				}
			}
		}
	}
	if found != want {
		s.t.Errorf("the ServiceMonitor's endpoints %v lead to %d pods of %d, want %d", spec.Endpoints, found, len(pods.Items), want)
	}
}
