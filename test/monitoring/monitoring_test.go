// Package monitoring tests the chart's monitoring. It tests the alerts with promtool. It
// also tests the alerts and the dashboard with a real Prometheus that scrapes real
// managers under load. Folder stack runs these processes, and folder dashboard draws the
// picture of the dashboard for the documentation. The package knows the operator only by
// its metrics. The metrics of single tasks are tested with a real kube-state-metrics.
package monitoring

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/yaml"

	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
	"github.com/prefetch-operator/teo-prefetch-operator/test/monitoring/stack"
)

const (
	// loadFor is the duration of the load.
	loadFor = 45 * time.Second
	// patience is the maximum duration of the whole test, on a slow machine.
	patience = 3 * time.Minute
)

func TestEachAlertFiresWhenItShouldAndNotElse(t *testing.T) {
	if testing.Short() {
		t.Skip("needs promtool; skipped with -short")
	}
	promtool, err := cluster.FindBinary("promtool")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", "alerts_test.yaml").CombinedOutput(); err != nil {
		t.Errorf("promtool test rules alerts_test.yaml: %v\n%s", err, out)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", "--lint=all", "--lint-fatal", "../../"+stack.Alerts).CombinedOutput(); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
	fires, silent := testedAlerts(t)
	for _, alert := range alerts(t) {
		if !fires[alert.Alert] || !silent[alert.Alert] {
			t.Errorf("alerts_test.yaml has %s fire: %v, and not fire: %v", alert.Alert, fires[alert.Alert], silent[alert.Alert])
		}
	}
}

// testedAlerts returns the alerts that fire in some test, and those that stay silent in
// some test.
func testedAlerts(t *testing.T) (fires, silent map[string]bool) {
	t.Helper()
	text, err := os.ReadFile("alerts_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Tests []struct {
			Cases []struct {
				Alert    string `json:"alertname"`
				Expected []any  `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	fires, silent = map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		for _, c := range test.Cases {
			if len(c.Expected) > 0 {
				fires[c.Alert] = true
			} else {
				silent[c.Alert] = true
			}
		}
	}
	return fires, silent
}

func TestEachAlertSaysWhatToDoAndHasARunbook(t *testing.T) {
	const pages = "https://github.com/prefetch-operator/teo-prefetch-operator/blob/main/"
	var names []string
	for _, alert := range alerts(t) {
		names = append(names, alert.Alert+".md")
		if !slices.Contains([]string{"critical", "warning"}, alert.Labels["severity"]) {
			t.Errorf("%s has the severity %q", alert.Alert, alert.Labels["severity"])
		}
		for _, annotation := range []string{"summary", "description"} {
			if alert.Annotations[annotation] == "" {
				t.Errorf("%s has no %s", alert.Alert, annotation)
			}
		}
		page := "docs/runbooks/" + alert.Alert + ".md"
		if alert.Annotations["runbook_url"] != pages+page {
			t.Errorf("the runbook of %s is %q, want %s", alert.Alert, alert.Annotations["runbook_url"], pages+page)
		}
		text, err := os.ReadFile("../../" + page)
		if err != nil {
			t.Error(err)
		}
		for _, part := range []string{"# " + alert.Alert + "\n", "**Meaning.**", "**Impact.**", "**Diagnosis.**", "**Mitigation.**"} {
			if !strings.Contains(string(text), part) {
				t.Errorf("%s lacks %q", page, part)
			}
		}
	}
	slices.Sort(names)
	found, err := filepath.Glob("../../docs/runbooks/*.md")
	for i, path := range found {
		found[i] = filepath.Base(path)
	}
	if err != nil || !slices.Equal(found, names) {
		t.Errorf("docs/runbooks has %v, and the alerts are %v (%v)", found, names, err)
	}
}

func TestEachQueryShowsSomethingOfManagersUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("needs an API server and Prometheus; skipped with -short")
	}
	cluster.SilenceClients()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	w, err := stack.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	loaded := make(chan error, 1)
	go func() { loaded <- w.GenerateLoad(ctx, loadFor) }()
	defer func() {
		cancel()
		if err := <-loaded; err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(w.LastOutput())
		}
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
	}()
	t.Run("each query of the dashboard returns data", func(t *testing.T) {
		dashboard, err := stack.ReadDashboard()
		if err != nil {
			t.Fatal(err)
		}
		eventually(ctx, t, map[string]string{`up{job="prometheus"} == 1`: "another program"}, func(query string) bool {
			series, err := w.Query(ctx, query)
			return err == nil && len(series) == 1
		})
		var job string
		eventually(ctx, t, map[string]string{"job": "a value"}, func(string) bool {
			if job, err = w.Job(ctx, dashboard); err != nil && ctx.Err() == nil {
				t.Fatal(err)
			}
			return job != ""
		})
		pending := map[string]string{}
		for _, panel := range dashboard.Panels {
			for _, target := range panel.Targets {
				pending[target.Query(job)] = panel.Title
			}
		}
		if len(pending) < 20 {
			t.Fatalf("the dashboard has %d queries only", len(pending))
		}
		eventually(ctx, t, pending, func(query string) bool {
			series, err := w.Query(ctx, query)
			if err != nil && ctx.Err() == nil {
				t.Fatal(err)
			}
			for _, s := range series {
				if of := s.Labels["job"]; of != "" && of != "teo-prefetch-operator" {
					t.Fatalf("%s shows another program, %s: %s", pending[query], of, query)
				}
			}
			return slices.ContainsFunc(series, stack.Series.HasNumber)
		})
	})
	t.Run("each metric that an alert asks for is there", func(t *testing.T) {
		pending := map[string]string{}
		for _, alert := range alerts(t) {
			for _, match := range metric.FindAllString(alert.Expr, -1) {
				if match != "teo_prefetch_credentials_expiry_seconds" { // of a role, which these managers do not have
					pending["count("+match+")"] = alert.Alert
				}
			}
		}
		eventually(ctx, t, pending, func(query string) bool {
			series, err := w.Query(ctx, query)
			return err == nil && len(series) == 1 && series[0].Points[0].Value > 0
		})
	})
	t.Run("each alert is evaluated", func(t *testing.T) {
		pending := map[string]string{}
		for _, alert := range alerts(t) {
			pending[alert.Alert] = "alert"
		}
		eventually(ctx, t, pending, func(name string) bool {
			health, err := w.RuleHealth(ctx)
			if err == nil && health[name] != "ok" && health[name] != "unknown" {
				t.Fatalf("%s: %q", name, health[name])
			}
			return err == nil && health[name] == "ok"
		})
	})
	t.Run("one of two replicas leads, and it alone tells of tasks", func(t *testing.T) {
		pending := map[string]string{
			"sum(teo_prefetch_leader) == 1 and count(teo_prefetch_leader) == 2": "leader",
			"count(count by (instance) (teo_prefetch_tasks)) == 1":              "tasks",
		}
		eventually(ctx, t, pending, func(query string) bool {
			series, err := w.Query(ctx, query)
			return err == nil && len(series) == 1
		})
	})
}

var metric = regexp.MustCompile(`teo_prefetch_[a-z_]+`)

func alerts(t *testing.T) []stack.Alert {
	t.Helper()
	alerts, err := stack.ReadAlerts()
	if err != nil || len(alerts) < 6 {
		t.Fatalf("%d alerts, %v", len(alerts), err)
	}
	return alerts
}

// eventually polls everything in pending until each item has been true once.
func eventually(ctx context.Context, t *testing.T, pending map[string]string, isTrue func(what string) bool) {
	t.Helper()
	err := wait.PollUntilContextCancel(ctx, time.Second, true, func(context.Context) (bool, error) {
		for what := range pending {
			if isTrue(what) {
				delete(pending, what)
			}
		}
		return len(pending) == 0, nil
	})
	if err != nil {
		t.Errorf("never true: %v", pending)
	}
}
