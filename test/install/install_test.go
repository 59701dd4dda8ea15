// Package install tests the installation: the chart with the real helm, and config/default
// with kustomize, on a cluster whose Deployments get pods that only seem to run. In place
// of the pods, the built manager runs as a separate process. It has the ServiceAccount,
// the arguments, the environment and the Secret of the pods.
//
//   - install: the cluster, pods as processes, and the environment of one test
//   - helm, kustomize: the two ways to install
//   - monitoring: what the chart provides for Prometheus
//   - release: the artifacts of a release
//
// The only thing that the package knows about the operator's function is that a task
// succeeds.
package install

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
	"github.com/prefetch-operator/teo-prefetch-operator/test/judge"
)

const (
	chart      = "charts/teo-prefetch-operator"
	repository = "ghcr.io/prefetch-operator/teo-prefetch-operator" // as config/manager names it
	zoneID     = "zone-2x9examplea"
	good       = "https://www.example.com/"
	patience   = 90 * time.Second
)

var shared struct {
	root, manager string
	cluster       *cluster.Cluster
}

func TestMain(m *testing.M) {
	os.Exit(cluster.RunTests(m, cluster.Options{Bare: true, Workloads: true}, func(c *cluster.Cluster, manager string) (err error) {
		shared.cluster, shared.manager = c, manager
		shared.root, err = cluster.FindRoot()
		return err
	}))
}

// site is the environment of one test: a namespace to install in, and an EdgeOne. The
// tests run sequentially, because the CRD and the ClusterRoles are cluster-scoped.
type site struct {
	client.Client
	t          *testing.T
	namespace  string
	kubeconfig string // the administrator's
	edgeOne    *simulator.Simulator
	url        string
	metrics    string // address of the running manager's metrics
	apiServer  string // host name of the API server for processes, if different from the cluster's
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{Client: shared.cluster.Client, t: t, kubeconfig: filepath.Join(t.TempDir(), "kubeconfig")}
	s.namespace = s.newNamespace("operator-")
	s.must(cluster.WriteKubeconfig(s.kubeconfig, shared.cluster.Admin, s.namespace))
	config := simulator.Demo()
	config.JobDuration = -1
	config.Keys = append(config.Keys, simulator.Key{SecretID: "AKIDcreate", SecretKey: "key", Account: "demo", Actions: []string{"CreatePrefetchTask"}})
	s.edgeOne = simulator.New(config)
	s.url = s.edgeOne.Start()
	t.Cleanup(s.edgeOne.Close)
	return s
}

// newNamespace creates a namespace that enforces the Pod Security Standard "restricted".
func (s *site) newNamespace(prefix string) string {
	s.t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: prefix, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}
	s.must(s.Create(s.t.Context(), ns))
	return ns.Name
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// command runs a tool as the cluster's administrator and returns its output. The chart of
// the source tree names no image, so it gets one.
func (s *site) command(name string, args ...string) (string, error) {
	s.t.Helper()
	path, err := cluster.FindBinary(name)
	s.must(err)
	if slices.Contains(args, chart) {
		args = append(args, "--set=image.repository="+repository)
	}
	cmd := exec.CommandContext(s.t.Context(), path, args...)
	cmd.Dir = shared.root
	cmd.Env = append(os.Environ(), "KUBECONFIG="+s.kubeconfig, "HELM_NAMESPACE="+s.namespace,
		"HELM_CACHE_HOME="+s.t.TempDir(), "HELM_CONFIG_HOME="+s.t.TempDir(), "HELM_DATA_HOME="+s.t.TempDir())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s *site) helm(args ...string) string {
	s.t.Helper()
	out, err := s.command("helm", args...)
	if err != nil {
		s.t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// giveCredentials creates the operator's Secret.
func (s *site) giveCredentials(name, secretID, secretKey string) {
	s.t.Helper()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name},
		Data:       map[string][]byte{"secretId": []byte(secretID), "secretKey": []byte(secretKey)},
	}
	err := s.Create(s.t.Context(), secret)
	if apierrors.IsAlreadyExists(err) {
		err = s.Update(s.t.Context(), secret)
	}
	s.must(err)
}

// deployment returns the operator's Deployment. It fails if the Deployment is not
// available.
func (s *site) deployment(name string) *appsv1.Deployment {
	s.t.Helper()
	d := &appsv1.Deployment{}
	s.must(s.Get(s.t.Context(), client.ObjectKey{Namespace: s.namespace, Name: name}, d))
	if d.Status.AvailableReplicas != *d.Spec.Replicas || d.Status.UpdatedReplicas != *d.Spec.Replicas {
		s.t.Fatalf("the Deployment is not available: %+v", d.Status)
	}
	return d
}

// process returns the only container of a pod as a process on this machine. The process
// has the pod's ServiceAccount, arguments, environment and Secrets. Only addresses and
// paths differ, because the process runs outside of a pod.
func (s *site) process(pod corev1.PodSpec, overrides ...string) *cluster.Process {
	s.t.Helper()
	container, dir := pod.Containers[0], s.t.TempDir()
	cfg, err := shared.cluster.AccountConfig(s.t.Context(), s.namespace, pod.ServiceAccountName)
	s.must(err)
	if s.apiServer != "" {
		cfg.Host = "https://" + s.apiServer + ":6443"
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	s.must(cluster.WriteKubeconfig(kubeconfig, cfg, s.namespace))
	args := append(append([]string{}, container.Args...), "--kubeconfig="+kubeconfig, "--namespace="+s.namespace) // as in the pod
	for _, mount := range container.VolumeMounts {
		mounted := filepath.Join(dir, mount.Name)
		s.must(os.Mkdir(mounted, 0o700))
		for i, arg := range args {
			args[i] = strings.ReplaceAll(arg, mount.MountPath, mounted)
		}
		for _, volume := range pod.Volumes {
			if volume.Name == mount.Name {
				s.mount(volume.Secret, mounted)
			}
		}
	}
	p := &cluster.Process{Name: container.Name, Path: shared.manager, Args: append(args, overrides...)}
	for _, env := range container.Env { // replace what the kubelet replaces in values
		p.Env = append(p.Env, env.Name+"="+strings.ReplaceAll(env.Value, "$(KUBERNETES_SERVICE_HOST)", s.apiServer))
	}
	return p
}

func (s *site) mount(source *corev1.SecretVolumeSource, dir string) {
	s.t.Helper()
	secret := &corev1.Secret{}
	err := s.Get(s.t.Context(), client.ObjectKey{Namespace: s.namespace, Name: source.SecretName}, secret)
	if apierrors.IsNotFound(err) && source.Optional != nil && *source.Optional {
		return
	}
	s.must(err)
	for key, value := range secret.Data {
		s.must(os.WriteFile(filepath.Join(dir, key), value, 0o600))
	}
}

// runManager runs the manager in place of the Deployment's pods. It returns a function
// that stops the manager.
func (s *site) runManager(d *appsv1.Deployment) (stop func()) {
	s.t.Helper()
	health, err := cluster.FreeAddress()
	s.must(err)
	metrics, err := cluster.FreeAddress()
	s.must(err)
	p := s.process(d.Spec.Template.Spec, "--health-probe-bind-address="+health, "--metrics-bind-address="+metrics)
	p.ReadyURL, s.metrics = "http://"+health+"/readyz", "https://"+metrics+"/metrics"
	s.must(p.Start(s.t.Context()))
	s.t.Cleanup(func() {
		p.Kill()
		if s.t.Failed() {
			s.t.Logf("the manager said:\n%s", p.LastLines(75))
		}
	})
	return func() {
		s.t.Helper()
		s.must(p.Stop(s.t.Context(), 30*time.Second))
		if strings.Contains(p.Output(), "forbidden") {
			s.t.Errorf("the manager lacked a permission:\n%s", p.Output())
		}
	}
}

// scrape reads the manager's metrics with a ServiceAccount in the operator's namespace.
func (s *site) scrape(account string) (status int, text string) {
	s.t.Helper()
	cfg, err := shared.cluster.AccountConfig(s.t.Context(), s.namespace, account)
	s.must(err)
	return cluster.Scrape(s.t.Context(), s.metrics, cfg.BearerToken)
}

func (s *site) create(namespace, name string) {
	s.t.Helper()
	task := &v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	task.Spec.ZoneID = zoneID
	task.Spec.Targets = []v1alpha1.Target{v1alpha1.Target(good + name)}
	s.must(s.Create(s.t.Context(), task))
}

func (s *site) eventually(what string, done func() bool) {
	s.t.Helper()
	err := wait.PollUntilContextTimeout(s.t.Context(), 100*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		return done(), nil
	})
	if err != nil {
		s.t.Fatalf("never happened: %s", what)
	}
}

// succeeded fails unless the tasks succeed and EdgeOne executed each exactly once.
func (s *site) succeeded(namespace string, names ...string) {
	s.t.Helper()
	tasks := make([]v1alpha1.PrefetchTask, len(names))
	for i, name := range names {
		s.eventually(name+" succeeds", func() bool {
			s.must(s.Get(s.t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, &tasks[i]))
			return meta.IsStatusConditionTrue(tasks[i].Status.Conditions, v1alpha1.ConditionReady)
		})
	}
	for _, defect := range judge.FindDefects(judge.Evidence{Ledger: s.edgeOne.Ledger(), Tasks: tasks, ReadAt: s.edgeOne.Now()}) {
		s.t.Error(defect)
	}
}

// crds are the plural names of the operator's kinds.
var crds = []string{"prefetchtasks", "edgeoneaccounts"}

// newCRD returns the CRD of a kind, to read or delete it.
func newCRD(plural string) *unstructured.Unstructured {
	crd := &unstructured.Unstructured{}
	crd.SetAPIVersion("apiextensions.k8s.io/v1")
	crd.SetKind("CustomResourceDefinition")
	crd.SetName(plural + ".teo.prefetch-operator.io")
	return crd
}

// hasCRD reports whether a CRD of the operator exists and is not being deleted.
func (s *site) hasCRD() bool {
	s.t.Helper()
	return slices.ContainsFunc(crds, func(plural string) bool {
		crd := newCRD(plural)
		err := s.Get(s.t.Context(), client.ObjectKeyFromObject(crd), crd)
		if !apierrors.IsNotFound(err) {
			s.must(err)
		}
		return err == nil && crd.GetDeletionTimestamp() == nil
	})
}

// removeCRDs removes the CRDs for the next test.
func (s *site) removeCRDs() {
	s.t.Helper()
	ctx := context.Background() // the test's context is already done
	for _, plural := range crds {
		crd := newCRD(plural)
		if err := s.Delete(ctx, crd); err != nil && !apierrors.IsNotFound(err) {
			s.t.Error(err)
		}
		err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
			return apierrors.IsNotFound(s.Get(ctx, client.ObjectKeyFromObject(crd), crd)), nil
		})
		if err != nil {
			s.t.Errorf("the CRD of %s does not go", plural)
		}
	}
}

// as returns a client that uses a ServiceAccount in the operator's namespace.
func (s *site) as(account string) client.Client {
	s.t.Helper()
	cfg, err := shared.cluster.AccountConfig(s.t.Context(), s.namespace, account)
	s.must(err)
	cfg.WarningHandler = rest.NoWarnings{}
	cl, err := client.New(cfg, client.Options{Scheme: s.Scheme(), Mapper: s.RESTMapper()})
	s.must(err)
	return cl
}

// helmTest runs `helm test` and reports its result. Pods do not run here, so in place of
// the hook pod it runs the program with the pod's arguments.
func (s *site) helmTest(release string, args ...string) (said string, passed bool) {
	s.t.Helper()
	type result struct {
		out string
		err error
	}
	tested := make(chan result, 1)
	go func() {
		out, err := s.command("helm", append([]string{"test", release, "--timeout=3m"}, args...)...)
		tested <- result{out, err}
	}()
	pod := &corev1.Pod{}
	key := client.ObjectKey{Namespace: s.namespace, Name: release + "-check"}
	s.eventually("helm makes the check's pod and it is scheduled", func() bool {
		select {
		case r := <-tested:
			s.t.Fatalf("helm test has ended before there was a pod: %v\n%s", r.err, r.out)
		default:
		}
		return s.Get(s.t.Context(), key, pod) == nil && pod.DeletionTimestamp == nil && pod.Status.Phase == corev1.PodPending && pod.Spec.NodeName != ""
	})
	p := s.process(pod.Spec)
	s.must(p.Start(s.t.Context()))
	pod.Status.Phase = corev1.PodSucceeded
	if err := p.Wait(s.t.Context()); err != nil {
		pod.Status.Phase = corev1.PodFailed
	}
	s.must(s.Status().Update(s.t.Context(), pod))
	r := <-tested
	if (r.err == nil) != (pod.Status.Phase == corev1.PodSucceeded) {
		s.t.Errorf("the check's pod %s, and helm test says: %v\n%s", pod.Status.Phase, r.err, r.out)
	}
	return p.Output(), r.err == nil
}

// overlay renders config/default with the changes that a user makes: another namespace,
// and additional arguments.
func (s *site) overlay(args ...string) string {
	s.t.Helper()
	return s.kustomize("config/default", args...)
}

// kustomize renders a part of config in the same way as overlay.
func (s *site) kustomize(part string, args ...string) string {
	s.t.Helper()
	dir := s.t.TempDir()
	base, err := filepath.Rel(dir, filepath.Join(shared.root, part))
	s.must(err)
	text := fmt.Sprintf("namespace: %s\nresources: [%s]\npatches:\n", s.namespace, base)
	for _, arg := range args {
		text += fmt.Sprintf("- target: {kind: Deployment}\n  patch: |-\n"+
			"    - {op: add, path: /spec/template/spec/containers/0/args/-, value: %q}\n", arg)
	}
	s.must(os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600))
	out, err := s.command("kubectl", "kustomize", dir)
	if err != nil {
		s.t.Fatalf("kubectl kustomize: %v\n%s", err, out)
	}
	return out
}
