package install

import (
	"fmt"
	"maps"
	"net/http"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// An API server that knows the kinds of the Prometheus operator accepts every field of the
// chart's objects, and the ServiceMonitor leads to the manager's pods.
func TestThePrometheusOperatorGetsWhatItCanUse(t *testing.T) {
	s := newSite(t)
	t.Cleanup(s.removeCRDs)
	s.teachMonitoring()
	defer s.helm("uninstall", release, "--wait", "--timeout=90s")
	enabled := []string{"--wait", "--timeout=90s", "--set=metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true"}
	for _, tt := range []struct {
		name, command string
		values        []string
	}{
		{"by default", "install", []string{"--set=metrics.serviceMonitor.enabled=true"}},
		{"with every value of them set", "upgrade", []string{
			"--set=metrics.secure=false,metrics.service.labels.team=web,metrics.service.annotations.team=web",
			"--set=metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.scrapeClass=own",
			"--set=metrics.prometheusRule.alerts.TEOPrefetchThrottled.threshold=0.5,metrics.prometheusRule.alerts.TEOPrefetchNoLeader.enabled=false",
			"--set=metrics.prometheusRule.extraRules[0].alert=TooMany,metrics.prometheusRule.extraRules[0].expr=sum(teo_prefetch_tasks) > 1000",
			"--set=metrics.serviceMonitor.labels.release=prometheus,metrics.serviceMonitor.interval=1m,metrics.serviceMonitor.scrapeTimeout=20s",
			"--set=metrics.serviceMonitor.relabelings[0].action=labeldrop,metrics.serviceMonitor.relabelings[0].regex=pod",
			"--set=metrics.serviceMonitor.metricRelabelings[0].action=drop,metrics.serviceMonitor.metricRelabelings[0].regex=go_.*",
			"--set=metrics.serviceMonitor.metricRelabelings[0].sourceLabels={__name__}",
			"--set=metrics.prometheusRule.labels.release=prometheus,metrics.dashboard.annotations.folder=TEO",
		}},
		{"with a token of the user's own", "upgrade", []string{
			"--set=metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.authorization.credentials.name=prometheus",
		}},
		{"with a PodMonitor", "upgrade", []string{"--set=metrics.podMonitor.enabled=true"}},
		{"with every value of the PodMonitor set", "upgrade", []string{
			"--set=metrics.podMonitor.enabled=true,metrics.podMonitor.scrapeClass=own,metrics.podMonitor.labels.release=prometheus",
			"--set=metrics.podMonitor.interval=1m,metrics.podMonitor.scrapeTimeout=20s",
			"--set=metrics.podMonitor.relabelings[0].action=labeldrop,metrics.podMonitor.relabelings[0].regex=pod",
			"--set=metrics.podMonitor.metricRelabelings[0].action=drop,metrics.podMonitor.metricRelabelings[0].regex=go_.*",
			"--set=metrics.podMonitor.authorization.credentials.name=prometheus,metrics.podMonitor.authorization.credentials.key=bearer",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := *s
			s.t = t
			s.helm(slices.Concat([]string{tt.command, release, chart}, enabled, tt.values)...)
			manifest := s.helm("get", "manifest", release)
			s.kept(manifest)
			if strings.Contains(manifest, "kind: PodMonitor") {
				s.selectsPods(2)
			} else {
				s.leadsToPods(2)
			}
		})
	}
}

// The token that the chart makes for a monitor reads the metrics, and nothing else.
func TestTheTokenOfTheChartReadsTheMetrics(t *testing.T) {
	s := newSite(t)
	t.Cleanup(s.removeCRDs)
	s.teachMonitoring()
	notes := s.helm("install", release, chart, "--wait", "--timeout=90s", "--set=metrics.podMonitor.enabled=true")
	defer s.helm("uninstall", release, "--wait", "--timeout=90s")
	if strings.Contains(notes, "WARNING") {
		t.Errorf("the notes warn:\n%s", notes)
	}
	defer s.runManager(s.deployment(release))()
	s.eventually("the Secret has a token that may read the metrics", func() bool {
		secret := &corev1.Secret{}
		s.must(s.Get(t.Context(), client.ObjectKey{Namespace: s.namespace, Name: release + "-metrics-reader"}, secret))
		status, _ := cluster.Scrape(t.Context(), s.metrics, string(secret.Data["token"]))
		return status == http.StatusOK
	})
	if err := s.as(release+"-metrics-reader").List(t.Context(), &corev1.SecretList{}, client.InNamespace(s.namespace)); !apierrors.IsForbidden(err) {
		t.Errorf("it may list Secrets: %v", err)
	}
}

func TestKustomizeGivesThePrometheusOperatorWhatItCanUse(t *testing.T) {
	s := newSite(t)
	t.Cleanup(s.removeCRDs)
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

// teachMonitoring installs the CRDs of the Prometheus operator's kinds in the cluster.
func (s *site) teachMonitoring() {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), "go", "list", "-f={{.Dir}}", "github.com/prometheus-operator/prometheus-operator/example")
	cmd.Dir = filepath.Join(shared.root, "hack", "prometheus")
	dir, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("the Prometheus operator's CRDs are not here, and cannot be downloaded: %v", err)
	}
	for _, name := range []string{"servicemonitors", "podmonitors", "prometheusrules"} {
		s.must(shared.cluster.Apply(s.t.Context(), filepath.Join(strings.TrimSpace(string(dir)), "prometheus-operator-crd", "monitoring.coreos.com_"+name+".yaml")))
	}
}

// kept fails unless the API server has stored every field of the given objects. With
// server-side apply, which helm uses, an unknown field is already an error.
func (s *site) kept(manifest string) {
	s.t.Helper()
	given := objects(s.t, manifest)
	if given["PodMonitor/"+release] == nil && given["ServiceMonitor/"+release] == nil {
		s.t.Error("there is no monitor")
	}
	for _, name := range []string{"PrometheusRule/" + release, "ConfigMap/" + release + "-dashboard"} {
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

// number formats a number in one notation, whatever type a decoder has chosen for it. It
// prints any other value as is.
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

// missing returns the path of a value that was given but not stored, or "".
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

// leadsToPods fails unless the ServiceMonitor selects exactly one Service, all its
// endpoints are ports of this Service, and the given number of pods have the port.
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

// selectsPods fails unless the PodMonitor selects want pods, which have the port that it
// scrapes.
func (s *site) selectsPods(want int) {
	s.t.Helper()
	monitor := &unstructured.Unstructured{}
	monitor.SetAPIVersion("monitoring.coreos.com/v1")
	monitor.SetKind("PodMonitor")
	s.must(s.Get(s.t.Context(), client.ObjectKey{Namespace: s.namespace, Name: release}, monitor))
	var spec struct {
		Selector  metav1.LabelSelector `json:"selector"`
		Endpoints []struct {
			Port string `json:"port"`
		} `json:"podMetricsEndpoints"`
	}
	s.must(runtime.DefaultUnstructuredConverter.FromUnstructured(monitor.Object["spec"].(map[string]any), &spec))
	selector, err := metav1.LabelSelectorAsSelector(&spec.Selector)
	s.must(err)
	pods := &corev1.PodList{}
	s.must(s.List(s.t.Context(), pods, client.InNamespace(s.namespace), client.MatchingLabelsSelector{Selector: selector}))
	found := 0
	for _, pod := range pods.Items {
		if slices.ContainsFunc(pod.Spec.Containers[0].Ports, func(p corev1.ContainerPort) bool { return p.Name == spec.Endpoints[0].Port }) {
			found++
		}
	}
	if found != want {
		s.t.Errorf("the PodMonitor leads to %d pods of %d, want %d", found, len(pods.Items), want)
	}
}
