// Package cli tests kubectl teo-prefetch as users run it: the command line in this process, on a
// real API server, and where the operator matters, with the manager and a simulated EdgeOne.
// Tests compare standard output, standard error and the exit code.
package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

var shared struct {
	cluster *cluster.Cluster
	manager string
}

func TestMain(m *testing.M) {
	os.Exit(cluster.RunTests(m, cluster.Options{}, func(c *cluster.Cluster, manager string) error {
		shared.cluster, shared.manager = c, manager
		return os.Setenv("KUBECONFIG", c.Kubeconfig)
	}))
}

const (
	patience = 2 * time.Minute // for what the operator does, on a busy machine
	zoneID   = "zone-2x9examplea"
	// smallZone has a daily quota of 3.
	smallZone = "zone-3smallquota0"
	good      = "https://www.example.com/"
)

// world is the environment of one test: a namespace and, after operate, an EdgeOne and a manager
// that serves the namespace. Without a manager, the statuses are what the test writes.
type world struct {
	client.Client
	t         testing.TB
	cluster   *cluster.Cluster
	namespace string
	edgeOne   *simulator.Simulator
}

// newWorld creates a namespace for a test. Tests run in parallel.
func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	return newSecondWorld(t)
}

// newSecondWorld creates one more namespace for a test.
func newSecondWorld(t *testing.T) *world {
	t.Helper()
	return newWorldIn(t, shared.cluster)
}

// newWorldIn creates a namespace in a cluster.
func newWorldIn(t testing.TB, c *cluster.Cluster) *world {
	t.Helper()
	w := &world{Client: c.Client, t: t, cluster: c}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "cli-"}}
	w.must(w.Create(t.Context(), ns))
	w.namespace = ns.Name
	return w
}

// operate starts a simulated EdgeOne, as simulator.Demo describes it with jobs that end at once,
// and a manager. change, if not nil, changes the EdgeOne.
func (w *world) operate(change func(*simulator.Config), args ...string) {
	w.t.Helper()
	config := simulator.Demo()
	config.JobDuration, config.SignatureValidity = -1, 4*time.Second
	if change != nil {
		change(&config)
	}
	w.edgeOne = simulator.New(config)
	url := w.edgeOne.Start()
	w.t.Cleanup(w.edgeOne.Close)
	w.startManager(url, args...)
}

// startManager starts a manager that serves the namespace of the test, without accounts: these are of no
// namespace, and other tests write their statuses.
func (w *world) startManager(edgeOne string, args ...string) {
	w.t.Helper()
	m := w.newManager(edgeOne, append([]string{"--accounts=false"}, args...)...)
	w.must(m.Start(w.t.Context()))
	w.t.Cleanup(func() {
		m.Kill()
		if w.t.Failed() {
			w.t.Logf("the manager said:\n%s", m.LastLines(40))
		}
	})
}

// newManager returns a manager that serves the namespace of the test, and does not run.
func (w *world) newManager(edgeOne string, args ...string) *cluster.Manager {
	w.t.Helper()
	m, err := w.cluster.NewManager(w.t.Context(), cluster.ManagerOptions{
		Path: shared.manager, EdgeOne: edgeOne, Env: cluster.DemoCredentials(),
		Args: append([]string{
			"--watch-namespaces=" + w.namespace, "--teo-timeout=2s", "--signature-validity=4s", "--settle-margin=1s",
			"--poll-interval=500ms", "--quota-interval=1s", "--recheck-interval=1s", "--shutdown-grace=10s",
		}, args...),
	})
	w.must(err)
	return m
}

// writeKubeconfig writes a kubeconfig file for a way to the API server.
func (w *world) writeKubeconfig(config *rest.Config) string {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "kubeconfig")
	w.must(cluster.WriteKubeconfig(path, config, "default"))
	return path
}

// result is what a command did.
type result struct {
	out, err string
	code     int
}

// run runs a command in the namespace of the test, without a terminal and without input.
func (w *world) run(args ...string) result {
	w.t.Helper()
	return w.start("", args...).wait()
}

// runWith is run with a text on standard input.
func (w *world) runWith(input string, args ...string) result {
	w.t.Helper()
	return w.start(input, args...).wait()
}

// command is a command that runs.
type command struct {
	t        testing.TB
	out, err lockedBuffer
	code     int
	done     chan struct{}
	// interrupt ends the command as Ctrl-C does.
	interrupt context.CancelFunc
}

// start starts a command in the namespace of the test.
func (w *world) start(input string, args ...string) *command {
	w.t.Helper()
	return w.startWith(w.cluster.Admin, input, args...)
}

// startWith is start with another way to the API server, or as another user.
func (w *world) startWith(config *rest.Config, input string, args ...string) *command {
	w.t.Helper()
	return w.startReading(config, strings.NewReader(input), args...)
}

// startReading is startWith with any standard input.
func (w *world) startReading(config *rest.Config, input io.Reader, args ...string) *command {
	w.t.Helper()
	args = append([]string{"--namespace=" + w.namespace}, args...)
	if config != shared.cluster.Admin { // whom KUBECONFIG names
		args = append([]string{"--kubeconfig=" + w.writeKubeconfig(config)}, args...)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	w.t.Cleanup(cancel)
	c := &command{t: w.t, done: make(chan struct{}), interrupt: cancel}
	streams := genericiooptions.IOStreams{In: input, Out: &c.out, ErrOut: &c.err}
	go func() {
		defer close(c.done)
		c.code = cli.Main(ctx, args, streams, "v0.0.0-test")
	}()
	return c
}

// wait waits until the command has ended.
func (c *command) wait() result {
	c.t.Helper()
	select {
	case <-c.done:
	case <-time.After(patience):
		c.t.Fatalf("the command does not end; it printed\n%s\n%s", c.out.String(), c.err.String())
	}
	return result{c.out.String(), c.err.String(), c.code}
}

// waitForErr waits until the command has printed a text on standard error.
func (c *command) waitForErr(text string) {
	c.t.Helper()
	err := wait.PollUntilContextTimeout(c.t.Context(), 20*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		return strings.Contains(c.err.String(), text), nil
	})
	if err != nil {
		c.t.Fatalf("standard error does not have %q:\n%s", text, c.err.String())
	}
}

// is compares a result with what it should be.
func (r result) is(t *testing.T, code int, out, err string) {
	t.Helper()
	if r.code != code || r.out != out || r.err != err {
		t.Errorf("exit code %d, standard output:\n%s\nstandard error:\n%s\nwant exit code %d, standard output:\n%s\nstandard error:\n%s",
			r.code, r.out, r.err, code, out, err)
	}
}

// lockedBuffer is a buffer that a test reads while a command writes.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// task returns a new task. Edit it before create.
func (w *world) task(name string, targets ...string) *v1alpha1.PrefetchTask {
	task := &v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
	task.Spec.ZoneID = zoneID
	for _, target := range targets {
		task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(target))
	}
	return task
}

// create creates objects.
func (w *world) create(objects ...client.Object) {
	w.t.Helper()
	for _, object := range objects {
		w.must(w.Create(w.t.Context(), object))
	}
}

// get reads a task.
func (w *world) get(name string) *v1alpha1.PrefetchTask {
	w.t.Helper()
	task := &v1alpha1.PrefetchTask{}
	w.must(w.Get(w.t.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, task))
	return task
}

// setStatus writes the status of a task, in place of a manager.
func (w *world) setStatus(name string, change func(task *v1alpha1.PrefetchTask)) {
	w.t.Helper()
	task := w.get(name)
	change(task)
	w.must(w.Status().Update(w.t.Context(), task))
}

// eventually waits until something is true.
func (w *world) eventually(what string, is func() bool) {
	w.t.Helper()
	err := wait.PollUntilContextTimeout(w.t.Context(), 20*time.Millisecond, patience, true, func(context.Context) (bool, error) { return is(), nil })
	if err != nil {
		w.t.Fatalf("it does not become true that %s", what)
	}
}

// until waits until a task has a property.
func (w *world) until(name, what string, has func(task *v1alpha1.PrefetchTask) bool) *v1alpha1.PrefetchTask {
	w.t.Helper()
	var task *v1alpha1.PrefetchTask
	err := wait.PollUntilContextTimeout(w.t.Context(), 50*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		task = w.get(name)
		return has(task), nil
	})
	if err != nil {
		w.t.Fatalf("%s: not %s: %+v", name, what, task.Status)
	}
	return task
}
