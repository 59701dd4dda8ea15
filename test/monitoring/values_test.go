package monitoring

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// By default the alerts in the PrometheusRule fire like those in the file. With values,
// they have the thresholds, durations and labels that the values set.
func TestTheAlertsOfTheChartFireAsItsValuesSay(t *testing.T) {
	if testing.Short() {
		t.Skip("needs Helm and promtool; skipped with -short")
	}
	promtool, err := cluster.FindBinary("promtool")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, namespace, tests string
		values                 []string
	}{
		{"by default", "teo-prefetch-system", "alerts_test.yaml", nil},
		{"with values", "games", "testdata/values_test.yaml", []string{"--values=testdata/values.yaml"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			rules, tests := filepath.Join(dir, "alerts.yaml"), filepath.Join(dir, "alerts_test.yaml")
			if err := os.WriteFile(rules, renderAlerts(t, tt.namespace, tt.values...), 0o600); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(tt.tests)
			if err != nil {
				t.Fatal(err)
			}
			text = bytes.ReplaceAll(text, []byte("../../charts/teo-prefetch-operator/files/alerts.yaml"), []byte("alerts.yaml"))
			if err := os.WriteFile(tests, text, 0o600); err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{
				{"check", "rules", "--lint=all", "--lint-fatal", rules},
				{"test", "rules", tests},
			} {
				if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
					t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
				}
			}
		})
	}
}

// renderAlerts returns the rules in the PrometheusRule of the chart.
func renderAlerts(t *testing.T, namespace string, values ...string) []byte {
	t.Helper()
	helm, err := cluster.FindBinary("helm")
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{
		"template", "teo-prefetch-operator", "../../charts/teo-prefetch-operator", "--namespace=" + namespace,
		"--set=image.repository=registry.example/teo-prefetch-operator",
		"--set=metrics.prometheusRule.enabled=true", "--show-only=templates/prometheusrule.yaml",
	}, values...)
	out, err := exec.CommandContext(t.Context(), helm, args...).Output()
	if err != nil {
		t.Fatalf("helm %s: %v", strings.Join(args, " "), err)
	}
	var rule struct {
		Spec map[string]any `json:"spec"`
	}
	if err := yaml.Unmarshal(out, &rule); err != nil {
		t.Fatal(err)
	}
	text, err := yaml.Marshal(rule.Spec)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
