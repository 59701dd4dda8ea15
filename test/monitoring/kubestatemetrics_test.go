package monitoring

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

const kubeStateMetrics = "../../config/kube-state-metrics/"

// The tasks of a real manager are in all states that the metrics are about: finished, failed,
// suspended, and waiting for quota. One of them uses an account. kube-state-metrics has the
// role from config/ and no other.
func TestKubeStateMetricsReportsEachTaskAndAccount(t *testing.T) {
	cluster.SilenceClients()
	c := cluster.ForTest(t, cluster.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	url, process := startKubeStateMetrics(ctx, t, c)
	startOperator(ctx, t, c)
	suspended := &v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Name: "suspended"}}
	suspended.Spec = v1alpha1.PrefetchTaskSpec{ZoneID: "zone-ajj243dwrew", Targets: []v1alpha1.Target{"http://www.qq.com/a.txt"}, Suspend: ptr.To(true)}
	refreshed := &v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Name: "refreshed"}}
	refreshed.Spec = v1alpha1.PrefetchTaskSpec{ZoneID: "zone-ajj243dwrew", Targets: []v1alpha1.Target{"http://www.qq.com/b.txt"}, Purge: v1alpha1.Purge{Type: v1alpha1.PurgeURL}}
	createAccount(ctx, t, c)
	charged := readSample(t, "some-bad-urls")
	charged.Spec.AccountRef.Name = "main"
	for _, task := range []*v1alpha1.PrefetchTask{readSample(t, "over-quota"), charged, suspended, refreshed} {
		task.Namespace = "default"
		if err := c.Client.Create(ctx, task); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	want := func() (want []string) {
		for _, name := range []string{"over-quota", "some-bad-urls", "suspended", "refreshed"} {
			want = append(want, expectedSeries(ctx, t, c, name)...)
		}
		want = append(want, expectedAccountSeries(ctx, t, c)...)
		slices.Sort(want)
		return want
	}
	err := wait.PollUntilContextCancel(ctx, 500*time.Millisecond, true, func(context.Context) (bool, error) {
		got = scrapeSeries(ctx, url)
		all := strings.Join(got, "\n")
		isOver := strings.Contains(all, `state="failed"} 3`) && strings.Contains(all, "_next_attempt_") && strings.Contains(all, "_completion_") &&
			strings.Contains(all, `kube_edgeoneaccount_namespace_used_urls{`) &&
			strings.Contains(all, "kube_prefetchtask_purge_succeeded{")
		return isOver && slices.Equal(got, want()), nil
	})
	if err != nil {
		t.Errorf("kube-state-metrics reports\n%s\nand the tasks are\n%s", strings.Join(got, "\n"), strings.Join(want(), "\n"))
	}
	// A task without a status has no counts, which is not worth a line in the log.
	if output := process.Output(); strings.Contains(output, `"err"`) || (strings.Contains(output, "prefetchtask") || strings.Contains(output, "edgeoneaccount")) && strings.Contains(output, "\nE") {
		t.Errorf("kube-state-metrics printed:\n%s", output)
	}
}

// readSample reads a task of the demo.
func readSample(t *testing.T, name string) *v1alpha1.PrefetchTask {
	t.Helper()
	task := &v1alpha1.PrefetchTask{}
	text, err := os.ReadFile("../../hack/demo/tasks/" + name + ".yaml")
	if err = errors.Join(err, yaml.UnmarshalStrict(text, task)); err != nil {
		t.Fatal(err)
	}
	return task
}

// expectedSeries returns the series of a task with its present status, once the task has the
// reason that the test waits for.
func expectedSeries(ctx context.Context, t *testing.T, c *cluster.Cluster, name string) (series []string) {
	t.Helper()
	task := &v1alpha1.PrefetchTask{}
	if err := c.Client.Get(ctx, client.ObjectKey{Namespace: "default", Name: name}, task); err != nil {
		t.Fatal(err)
	}
	add := func(metric string, value float64, labels ...string) {
		labels = append(labels, `customresource_group="teo.prefetch-operator.io"`, `customresource_kind="PrefetchTask"`,
			`customresource_version="v1alpha1"`, fmt.Sprintf("name=%q", name), `namespace="default"`)
		slices.Sort(labels)
		series = append(series, fmt.Sprintf("kube_prefetchtask_%s{%s} %s", metric, strings.Join(labels, ","), strconv.FormatFloat(value, 'g', -1, 64)))
	}
	reason := map[string]string{
		"over-quota": v1alpha1.ReasonDailyQuota, "some-bad-urls": v1alpha1.ReasonPartiallyFailed, "suspended": v1alpha1.ReasonSuspended,
		"refreshed": v1alpha1.ReasonSucceeded,
	}[name]
	s := &task.Status
	add("info", 1, fmt.Sprintf("reason=%q", reason), fmt.Sprintf("zone=%q", task.Spec.ZoneID))
	for _, condition := range s.Conditions {
		value := map[metav1.ConditionStatus]float64{metav1.ConditionTrue: 1}[condition.Status]
		add("condition", value, fmt.Sprintf("reason=%q", condition.Reason), fmt.Sprintf("type=%q", condition.Type))
	}
	for state, n := range map[string]*int32{"total": s.Targets.Total, "submitted": s.Targets.Submitted, "succeeded": s.Targets.Succeeded, "failed": s.Targets.Failed} {
		if n != nil {
			add("targets", float64(*n), fmt.Sprintf("state=%q", state))
		}
	}
	for state, n := range map[string]*int32{"submitted": s.Purge.Submitted, "succeeded": s.Purge.Succeeded, "failed": s.Purge.Failed} {
		if n != nil {
			add("purge_"+state, float64(*n))
		}
	}
	add("lost_calls", float64(s.LostCalls))
	for metric, at := range map[string]metav1.Time{"next_attempt": s.NextAttemptTime, "completion": s.CompletionTime} {
		if !at.IsZero() {
			add(metric+"_timestamp_seconds", float64(at.Unix()))
		}
	}
	return series
}

// createAccount creates an account that the namespace default may use.
func createAccount(ctx context.Context, t *testing.T, c *cluster.Cluster) {
	t.Helper()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: cluster.Namespace, Name: "edgeone-main"},
		StringData: map[string]string{"secretId": "AKIDdemo", "secretKey": "demo-secret-key"},
	}
	account := &v1alpha1.EdgeOneAccount{ObjectMeta: metav1.ObjectMeta{Name: "main"}}
	account.Spec.Credentials.SecretRef.Name = secret.Name
	account.Spec.Namespaces.Names = []v1alpha1.NamespaceName{"default"}
	account.Spec.Limits.DailyURLs = ptr.To(int32(100))
	if err := errors.Join(c.Client.Create(ctx, secret), c.Client.Create(ctx, account)); err != nil {
		t.Fatal(err)
	}
}

// expectedAccountSeries returns the series of the account with its present status.
func expectedAccountSeries(ctx context.Context, t *testing.T, c *cluster.Cluster) (series []string) {
	t.Helper()
	account := &v1alpha1.EdgeOneAccount{}
	if err := c.Client.Get(ctx, client.ObjectKey{Name: "main"}, account); err != nil {
		t.Fatal(err)
	}
	add := func(metric string, value int32, labels ...string) {
		labels = append(labels, `customresource_group="teo.prefetch-operator.io"`, `customresource_kind="EdgeOneAccount"`,
			`customresource_version="v1alpha1"`, `name="main"`)
		slices.Sort(labels)
		series = append(series, fmt.Sprintf("kube_edgeoneaccount_%s{%s} %d", metric, strings.Join(labels, ","), value))
	}
	s := &account.Status
	add("info", 1, `principal="AKIDdemo"`, fmt.Sprintf("reason=%q", v1alpha1.ReasonAccepted))
	for _, condition := range s.Conditions {
		value := map[metav1.ConditionStatus]int32{metav1.ConditionTrue: 1}[condition.Status]
		add("condition", value, fmt.Sprintf("reason=%q", condition.Reason), fmt.Sprintf("type=%q", condition.Type))
	}
	add("used_urls", ptr.Deref(s.Used, -1))
	add("left_urls", ptr.Deref(s.Left, -1))
	for _, ns := range s.Namespaces {
		add("namespace_used_urls", ptr.Deref(ns.Used, -1), fmt.Sprintf("namespace=%q", ns.Name))
	}
	return series
}

// scrapeSeries returns the series of tasks and accounts at url, with sorted labels.
func scrapeSeries(ctx context.Context, url string) (series []string) {
	_, text := cluster.Scrape(ctx, url, "")
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), "{")
		labels, value, _ := strings.Cut(rest, "} ")
		if ok && (strings.HasPrefix(name, "kube_prefetchtask_") || strings.HasPrefix(name, "kube_edgeoneaccount_")) {
			sorted := strings.Split(labels, ",")
			slices.Sort(sorted)
			series = append(series, name+"{"+strings.Join(sorted, ",")+"} "+value)
		}
	}
	slices.Sort(series)
	return series
}

// startKubeStateMetrics starts kube-state-metrics with the files in config/, and returns the
// URL of its metrics.
func startKubeStateMetrics(ctx context.Context, t *testing.T, c *cluster.Cluster) (url string, process *cluster.Process) {
	t.Helper()
	path, err := cluster.FindBinary("kube-state-metrics")
	if err != nil {
		t.Fatal(err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: cluster.Namespace, Name: "kube-state-metrics"}}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "kube-state-metrics"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: cluster.Namespace, Name: account.Name}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "teo-prefetch-operator-kube-state-metrics"},
	}
	if err := errors.Join(c.Apply(ctx, kubeStateMetrics+"cluster_role.yaml"), c.Client.Create(ctx, account), c.Client.Create(ctx, binding)); err != nil {
		t.Fatal(err)
	}
	cfg, err := c.AccountConfig(ctx, cluster.Namespace, account.Name)
	if err != nil {
		t.Fatal(err)
	}
	port, err := cluster.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	own, err := cluster.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := cluster.WriteKubeconfig(kubeconfig, cfg, cluster.Namespace); err != nil {
		t.Fatal(err)
	}
	process = &cluster.Process{
		Name: "kube-state-metrics", Path: path, ReadyURL: fmt.Sprintf("http://127.0.0.1:%d/healthz", port),
		Args: []string{
			"--kubeconfig=" + kubeconfig, "--host=127.0.0.1", fmt.Sprintf("--port=%d", port), "--telemetry-host=127.0.0.1", fmt.Sprintf("--telemetry-port=%d", own),
			"--custom-resource-state-only", "--custom-resource-state-config-file=" + kubeStateMetrics + "custom-resource-state.yaml",
		},
	}
	if err := c.Run(ctx, process); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("http://127.0.0.1:%d/metrics", port), process
}

// startOperator starts a manager and a simulated EdgeOne.
func startOperator(ctx context.Context, t *testing.T, c *cluster.Cluster) {
	t.Helper()
	manager, err := cluster.BuildManager(ctx)
	if err != nil {
		t.Fatal(err)
	}
	edgeOne := simulator.New(simulator.Demo())
	t.Cleanup(edgeOne.Close)
	if _, err := c.StartManager(ctx, cluster.ManagerOptions{
		Path: manager, EdgeOne: edgeOne.Start(), Env: cluster.DemoCredentials(),
		Args: []string{"--leader-elect=false", "--poll-interval=1s", "--listing-delay=1s", "--quota-interval=5s"},
	}); err != nil {
		t.Fatal(err)
	}
}
