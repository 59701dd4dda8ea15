// Package e2e tests the manager as users run it: the built binary, with the ServiceAccount
// and RBAC that it ships with, on a real etcd and kube-apiserver. The ledger of a
// simulated EdgeOne is the evidence.
//
//   - e2e: the environment of a test: a namespace, an EdgeOne, managers
//   - judge: waits for many tasks, and compares them with the ledger
//   - faults_apiserver, faults_edgeone, faults_process, faults_user: the fault matrix
//   - attack: one namespace against the others
//   - the others: what users see when nothing fails
//
// The package knows the operator only by its flags, logs and statuses. The exception is
// readahead, which tests a transport of the manager on a real API server.
package e2e

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
	"github.com/prefetch-operator/teo-prefetch-operator/test/faults"
)

var shared struct {
	cluster *cluster.Cluster
	manager string
}

func TestMain(m *testing.M) {
	status := cluster.RunTests(m, cluster.Options{}, func(c *cluster.Cluster, manager string) error {
		shared.cluster, shared.manager = c, manager
		parallel := false
		flag.Visit(func(f *flag.Flag) { parallel = parallel || f.Name == "test.parallel" })
		if !parallel {
			return flag.Set("test.parallel", "8") // tests spend most of their time waiting
		}
		return nil
	})
	printReport()
	os.Exit(status)
}

// world is the environment of one test: a namespace, an EdgeOne and managers.
type world struct {
	client.Client
	t         *testing.T
	cluster   *cluster.Cluster
	namespace string
	edgeOne   *simulator.Simulator
	url       string
	validity  time.Duration // of signatures
	api       *faults.Proxy // managers connect to the API server through it, unless it is nil

	mu       sync.Mutex
	bodies   []string // of the CreatePrefetchTask calls
	lookUps  []string // the bodies of the DescribePrefetchTasks calls
	injected int
	struck   time.Time // when the last fault struck, or when it ended
}

const (
	zoneID   = "zone-2x9examplea"
	keyID    = "AKIDdemo"
	keyValue = "demo-secret-key"
)

// config configures an EdgeOne that prefetches almost instantly.
func config() simulator.Config {
	c := simulator.Demo()
	c.JobDuration = -1
	c.SignatureValidity = 4 * time.Second
	return c
}

func newWorld(t *testing.T, c simulator.Config) *world {
	t.Helper()
	t.Parallel()
	return newWorldIn(t, shared.cluster, c)
}

func newWorldIn(t *testing.T, kube *cluster.Cluster, c simulator.Config) *world {
	t.Helper()
	w := &world{Client: kube.Client, t: t, cluster: kube, validity: c.SignatureValidity}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-"}}
	w.must(w.Create(t.Context(), ns))
	w.namespace = ns.Name
	w.edgeOne = simulator.New(c)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		w.mu.Lock()
		switch r.Header.Get("X-TC-Action") {
		case "CreatePrefetchTask":
			w.bodies = append(w.bodies, string(body))
		case "DescribePrefetchTasks":
			w.lookUps = append(w.lookUps, string(body))
		}
		w.mu.Unlock()
		w.edgeOne.ServeHTTP(rw, r)
	}))
	w.url = server.URL
	t.Cleanup(func() {
		w.edgeOne.Close()
		server.CloseClientConnections()
		server.Close()
	})
	return w
}

// newWorldPair returns a world, and a second one with another namespace and the same
// EdgeOne.
func newWorldPair(t *testing.T) (w, other *world) {
	t.Helper()
	return newWorldPairOf(t, config())
}

func newWorldPairOf(t *testing.T, c simulator.Config) (w, other *world) {
	t.Helper()
	w = newWorld(t, c)
	other = &world{Client: w.Client, t: t, cluster: w.cluster, edgeOne: w.edgeOne, url: w.url, validity: w.validity}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-"}}
	w.must(w.Create(t.Context(), ns))
	other.namespace = ns.Name
	return w, other
}

// manager starts a manager for the test's namespace.
func (w *world) manager(args ...string) *cluster.Process {
	w.t.Helper()
	return w.managerWith(cluster.Credentials(keyID, keyValue), args...)
}

func (w *world) managerWith(env []string, args ...string) *cluster.Process {
	w.t.Helper()
	cfg, err := w.cluster.ServiceAccountConfig(w.t.Context())
	w.must(err)
	if w.api != nil {
		cfg = w.api.Config(cfg)
	}
	m, err := w.cluster.NewManager(w.t.Context(), cluster.ManagerOptions{
		Path: shared.manager, EdgeOne: w.url, Config: cfg, Env: env,
		Args: append([]string{
			"--watch-namespaces=" + w.namespace,
			"--teo-timeout=2s", "--signature-validity=" + w.validity.String(), "--settle-margin=1s",
			"--poll-interval=500ms", "--quota-interval=1s", "--recheck-interval=1s",
			"--shutdown-grace=10s",
			"--zap-log-level=debug",
		}, args...),
	})
	w.must(err)
	w.must(m.Start(w.t.Context()))
	w.t.Cleanup(func() {
		m.Kill()
		if w.t.Failed() {
			w.t.Logf("the manager said:\n%s", m.LastLines(150))
		}
	})
	return m.Process
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// task returns a new PrefetchTask with these targets. Edit it before create.
func (w *world) task(name string, targets ...string) *v1alpha1.PrefetchTask {
	task := &v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
	task.Spec.ZoneID = zoneID
	for _, target := range targets {
		task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(target))
	}
	return task
}

func (w *world) create(tasks ...*v1alpha1.PrefetchTask) {
	w.t.Helper()
	for _, task := range tasks {
		err := w.Create(w.t.Context(), task)
		for tries := 0; apierrors.IsTimeout(err) && tries < 3; tries++ { // the API server was overloaded
			if err = w.Create(w.t.Context(), task); apierrors.IsAlreadyExists(err) {
				err = w.Get(w.t.Context(), client.ObjectKeyFromObject(task), task)
			}
		}
		w.must(err)
	}
}

// edit changes a task's spec. It does not conflict with other changes of the task.
func (w *world) edit(name string, change func(*v1alpha1.PrefetchTask)) {
	w.t.Helper()
	task := w.get(name)
	before := task.DeepCopy()
	change(task)
	w.must(w.Patch(w.t.Context(), task, client.MergeFrom(before)))
}

func (w *world) get(name string) *v1alpha1.PrefetchTask {
	w.t.Helper()
	task := &v1alpha1.PrefetchTask{}
	w.must(w.Get(w.t.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, task))
	return task
}

func (w *world) list() []v1alpha1.PrefetchTask {
	w.t.Helper()
	var list v1alpha1.PrefetchTaskList
	w.must(w.List(w.t.Context(), &list, client.InNamespace(w.namespace)))
	return list.Items
}

// eventually polls done, and fails with what if it never returns true.
func (w *world) eventually(what string, done func() bool) {
	w.t.Helper()
	err := wait.PollUntilContextTimeout(w.t.Context(), 50*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		return done(), nil
	})
	if err != nil {
		for _, task := range w.list()[:min(3, len(w.list()))] {
			w.t.Logf("%s: %+v", task.Name, task.Status)
		}
		w.t.Fatalf("never happened: %s", what)
	}
}

// until polls a task until done returns true for its status, and returns the task.
func (w *world) until(name, what string, done func(v1alpha1.PrefetchTaskStatus) bool) *v1alpha1.PrefetchTask {
	w.t.Helper()
	var task *v1alpha1.PrefetchTask
	w.eventually(name+": "+what, func() bool {
		task = w.get(name)
		return done(task.Status)
	})
	return task
}

// isTrue reports whether a condition is True with the given reason.
func isTrue(s v1alpha1.PrefetchTaskStatus, conditionType, reason string) bool {
	c := meta.FindStatusCondition(s.Conditions, conditionType)
	return c != nil && c.Status == metav1.ConditionTrue && c.Reason == reason
}

func (w *world) untilFinished(name, reason string) *v1alpha1.PrefetchTask {
	w.t.Helper()
	return w.until(name, "finished as "+reason, func(s v1alpha1.PrefetchTaskStatus) bool {
		return isTrue(s, v1alpha1.ConditionFinished, reason)
	})
}

func (w *world) untilReason(name, reason string) *v1alpha1.PrefetchTask {
	w.t.Helper()
	return w.until(name, "Ready is False for "+reason, func(s v1alpha1.PrefetchTaskStatus) bool {
		c := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionReady)
		return c != nil && c.Status == metav1.ConditionFalse && c.Reason == reason
	})
}

// once fails unless EdgeOne executed each URL exactly once.
func (w *world) once(urls ...string) {
	w.t.Helper()
	for _, u := range urls {
		if n := w.edgeOne.Executed(u); n != 1 {
			w.t.Errorf("EdgeOne executed %s %d times, want once", u, n)
		}
	}
}

func (w *world) creates() int { return w.edgeOne.Stats().Calls("CreatePrefetchTask") }

func counts(s v1alpha1.PrefetchTaskStatus) string {
	return fmt.Sprintf("%d submitted, %d succeeded, %d failed of %d",
		ptr.Deref(s.Targets.Submitted, -1), ptr.Deref(s.Targets.Succeeded, -1), ptr.Deref(s.Targets.Failed, -1), ptr.Deref(s.Targets.Total, -1))
}
