// Package stack starts a monitored operator: two managers, one of which leads, with a real
// API server, a simulated EdgeOne, and a real Prometheus. As docs/monitoring.md describes,
// Prometheus scrapes the managers with a token and loads the chart's alerts. It also
// scrapes itself; no panel of the dashboard may show these metrics.
//
//   - stack: the processes
//   - load: what users, other programs and networks do while it runs
//   - query: responses from Prometheus, and the queries of the chart's dashboard and alerts
//
// test/monitoring checks the queries, and test/monitoring/dashboard draws them. The
// package does not know which results are right.
package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// The paths of the chart's alerts and dashboard.
const (
	Alerts        = "charts/teo-prefetch-operator/files/alerts.yaml"
	DashboardFile = "charts/teo-prefetch-operator/files/dashboard.json"
)

// ScrapeInterval is short, so that there is data soon.
const ScrapeInterval = 2 * time.Second

// Stack is a running environment.
type Stack struct {
	client.Client
	EdgeOne *simulator.Simulator

	managers   []*cluster.Manager
	cluster    *cluster.Cluster
	prometheus *cluster.Process
	url        string // of Prometheus
	root       string
}

// signatureValidity is the shortest time until a lost call counts as not executed.
// EdgeOne's own validity of five minutes would take too long here.
const signatureValidity = 20 * time.Second

// Start starts everything except the load. ctx applies to the start only.
func Start(ctx context.Context) (_ *Stack, err error) {
	w := &Stack{}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Stop())
		}
	}()
	if w.root, err = cluster.FindRoot(); err != nil {
		return nil, err
	}
	manager, err := cluster.BuildManager(ctx)
	if err != nil {
		return nil, err
	}
	prometheus, err := cluster.FindBinary("prometheus")
	if err != nil {
		return nil, err
	}
	if w.cluster, err = cluster.Start(ctx, cluster.Options{}); err != nil {
		return nil, err
	}
	w.Client = w.cluster.Client
	w.EdgeOne = simulator.New(edgeOne())
	endpoint := w.EdgeOne.Start()
	w.EdgeOne.AddFault(simulator.Fault{Effect: simulator.Effect{Delay: 40 * time.Millisecond}}) // network delay
	var targets []string
	for i := range 2 {
		address, err := w.startManager(ctx, manager, fmt.Sprintf("manager-%d", i+1), endpoint)
		if err != nil {
			return nil, err
		}
		targets = append(targets, address)
	}
	return w, w.startPrometheus(ctx, prometheus, targets)
}

// Stop stops everything.
func (w *Stack) Stop() error {
	var err error
	if w.cluster != nil {
		err = w.cluster.Stop()
	}
	if w.EdgeOne != nil {
		w.EdgeOne.Close()
	}
	return err
}

// LastOutput returns the last output of the processes, for test failures.
func (w *Stack) LastOutput() string {
	var said strings.Builder
	processes := []*cluster.Process{w.prometheus}
	for _, m := range w.managers {
		processes = append(processes, m.Process)
	}
	for _, p := range processes {
		if p != nil {
			fmt.Fprintf(&said, "%s said:\n%s\n", p.Name, p.LastLines(60))
		}
	}
	return said.String()
}

func (w *Stack) startManager(ctx context.Context, path, name, endpoint string) (metricsAddress string, err error) {
	m, err := w.cluster.StartManager(ctx, cluster.ManagerOptions{
		Name: name, Path: path, EdgeOne: endpoint, Env: cluster.DemoCredentials(), ServeMetrics: true,
		Args: []string{
			"--leader-elect", "--leader-election-namespace=" + cluster.Namespace,
			"--signature-validity=" + signatureValidity.String(), "--listing-delay=1s", "--settle-margin=2s",
			"--poll-interval=1s", "--quota-interval=10s", "--recheck-interval=5s",
			"--quota-reset=" + time.Now().UTC().Add(12*time.Hour).Format("15:04"), // not during the run
		},
	})
	if err != nil {
		return "", err
	}
	w.managers = append(w.managers, m)
	return m.MetricsAddress, nil
}

// startPrometheus starts a Prometheus that may read the metrics as in a cluster: with the
// token of a ServiceAccount that is bound to the reader's role.
func (w *Stack) startPrometheus(ctx context.Context, path string, targets []string) error {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: cluster.Namespace, Name: "prometheus"}}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "prometheus"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: cluster.Namespace, Name: account.Name}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "teo-prefetch-operator-metrics-reader"},
	}
	if err := errors.Join(w.Create(ctx, account), w.Create(ctx, binding)); err != nil {
		return err
	}
	cfg, err := w.cluster.AccountConfig(ctx, cluster.Namespace, account.Name)
	if err != nil {
		return err
	}
	address, err := cluster.FreeAddress()
	if err != nil {
		return err
	}
	dir := filepath.Join(w.cluster.Dir, "prometheus")
	token, config := filepath.Join(dir, "token"), filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf(`global: {scrape_interval: %[1]s, scrape_timeout: %[1]s, evaluation_interval: %[1]s}
rule_files: [%[2]s]
scrape_configs:
- job_name: teo-prefetch-operator
  scheme: https
  authorization: {credentials_file: %[3]s}
  tls_config: {insecure_skip_verify: true}
  static_configs:
  - targets: [%[4]s]
    labels: {namespace: %[5]s}
- job_name: prometheus
  static_configs:
  - targets: [%[6]s]
`, ScrapeInterval, filepath.Join(w.root, Alerts), token, strings.Join(targets, ", "), cluster.Namespace, address)
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(token, []byte(cfg.BearerToken), 0o600), os.WriteFile(config, []byte(text), 0o600)); err != nil {
		return err
	}
	w.url = "http://" + address
	w.prometheus = &cluster.Process{
		Name: "prometheus", Path: path, ReadyURL: w.url + "/-/ready",
		Args: []string{"--config.file=" + config, "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + address, "--log.level=warn"},
	}
	return w.cluster.Run(ctx, w.prometheus)
}
