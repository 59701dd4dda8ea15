// Package install tests what is installed: the chart with the real helm and
// config/default with kustomize, on a cluster whose Deployments get pods that
// seem to run. In the pods' place the built manager runs as a process of its own:
// with the ServiceAccount, the arguments, the environment and the Secret that the
// pods have.
//
//   - install: the cluster, pods as processes, and a site for one test
//   - helm, kustomize: the two ways to install
//   - monitoring: what the chart has for Prometheus
//   - release: the artifacts of a release
//
// It does not know what the operator does but that a task succeeds.
package install

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
	chart    = "charts/teo-prefetch-operator"
	zoneID   = "zone-2x9examplea"
	good     = "https://www.example.com/"
	patience = 90 * time.Second
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

// site is what one test has for itself: a namespace to install in, and an EdgeOne.
// The tests run one after the other, as CRD and ClusterRoles are the cluster's.
type site struct {
	client.Client
	t          *testing.T
	namespace  string
	kubeconfig string // the administrator's
	edgeOne    *simulator.Simulator
	url        string
	metrics    string // where the manager that runs serves them
	apiServer  string // the name that processes have for the API server's host, if not the cluster's
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

// newNamespace makes a namespace in which pods must fit the standard restricted.
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

// command runs a tool as the cluster's administrator and returns what it printed.
func (s *site) command(name string, args ...string) (string, error) {
	s.t.Helper()
	path, err := cluster.FindBinary(name)
	s.must(err)
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

// giveCredentials writes the operator's Secret.
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

// deployment is the operator's, which must be available.
func (s *site) deployment(name string) *appsv1.Deployment {
	s.t.Helper()
	d := &appsv1.Deployment{}
	s.must(s.Get(s.t.Context(), client.ObjectKey{Namespace: s.namespace, Name: name}, d))
	if d.Status.AvailableReplicas != *d.Spec.Replicas || d.Status.UpdatedReplicas != *d.Spec.Replicas {
		s.t.Fatalf("the Deployment is not available: %+v", d.Status)
	}
	return d
}

// process is a pod's only container as a process of this machine: it has the
// pod's ServiceAccount, arguments, environment and Secrets. What differs is what
// a process outside of a pod can't have: addresses and paths.
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
	args := append(append([]string{}, container.Args...), "--kubeconfig="+kubeconfig)
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
	for _, env := range container.Env { // with what kubelet puts into values
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

// runManager runs what the Deployment's pods would run, and returns what stops it.
func (s *site) runManager(d *appsv1.Deployment) (stop func()) {
	s.t.Helper()
	health, err := cluster.FreeAddress()
	s.must(err)
	metrics, err := cluster.FreeAddress()
	s.must(err)
	p := s.process(d.Spec.Template.Spec, "--health-probe-bind-address="+health, "--metrics-bind-address="+metrics, "--leader-election-namespace="+s.namespace)
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

// scrape reads the manager's metrics as a ServiceAccount of the operator's namespace.
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

// succeeded fails unless the tasks succeed and EdgeOne executed each just once.
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

func crd() *unstructured.Unstructured {
	crd := &unstructured.Unstructured{}
	crd.SetAPIVersion("apiextensions.k8s.io/v1")
	crd.SetKind("CustomResourceDefinition")
	crd.SetName("prefetchtasks.teo.prefetch-operator.io")
	return crd
}

// crdExists says whether the CRD is there, and not about to go.
func (s *site) crdExists() bool {
	s.t.Helper()
	crd := crd()
	err := s.Get(s.t.Context(), client.ObjectKeyFromObject(crd), crd)
	if !apierrors.IsNotFound(err) {
		s.must(err)
	}
	return err == nil && crd.GetDeletionTimestamp() == nil
}

// removeCRD makes room for the next test.
func (s *site) removeCRD() {
	s.t.Helper()
	crd := crd()
	ctx := context.Background() // the test's is over
	if err := s.Delete(ctx, crd); err != nil && !apierrors.IsNotFound(err) {
		s.t.Error(err)
	}
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		return apierrors.IsNotFound(s.Get(ctx, client.ObjectKeyFromObject(crd), crd)), nil
	})
	if err != nil {
		s.t.Error("the CRD does not go")
	}
}

// as is a client under the ServiceAccount of the operator.
func (s *site) as(account string) client.Client {
	s.t.Helper()
	cfg, err := shared.cluster.AccountConfig(s.t.Context(), s.namespace, account)
	s.must(err)
	cfg.WarningHandler = rest.NoWarnings{}
	cl, err := client.New(cfg, client.Options{Scheme: s.Scheme(), Mapper: s.RESTMapper()})
	s.must(err)
	return cl
}

// helmTest runs `helm test` and, as nothing runs pods here, in the hook pod's
// place the program with the pod's arguments, and reports how it ended.
func (s *site) helmTest(release string) (said string, passed bool) {
	s.t.Helper()
	type result struct {
		out string
		err error
	}
	tested := make(chan result, 1)
	go func() {
		out, err := s.command("helm", "test", release, "--timeout=3m")
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

// overlay renders config/default as a user adapts it: to a namespace, and with
// further arguments.
func (s *site) overlay(args ...string) string {
	s.t.Helper()
	return s.kustomize("config/default", args...)
}

// kustomize renders a part of config as overlay does.
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
