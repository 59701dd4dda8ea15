package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

const (
	account   = "bench"
	zoneID    = "zone-bench"
	namespace = "bench"
	plenty    = 1 << 30
	// rate is how many calls of an action EdgeOne accepts per second.
	rate = 20
	// batch is how many URLs EdgeOne accepts in a call.
	batch = 2000
	// creators is the number of concurrent requests that create tasks.
	creators = 20
	// calm is how long nothing is sent to an API server that has just started and is busy
	// with its own work.
	calm = 5 * time.Second
	// patience is the maximum time without any progress.
	patience = 10 * time.Minute
)

const create, lookup = "CreatePrefetchTask", "DescribePrefetchTasks"

var key = simulator.Key{SecretID: "AKIDbench", SecretKey: "secret-bench", Account: account}

// world is the environment of one measurement: a new API server and EdgeOne.
type world struct {
	*bench
	name    string
	cluster *cluster.Cluster
	client  client.WithWatch
	edgeOne *simulator.Simulator
	network *httptest.Server
	tasks   *tracker
	started time.Time
	fail    context.CancelCauseFunc // ends the measurement
	group   sync.WaitGroup

	calls     map[string]*atomic.Int64 // finished calls, by action
	throttled atomic.Int64
}

// options configures EdgeOne and the network to it.
type options struct {
	roundTrip time.Duration
	counting  simulator.RateWindow
	rival     int // calls per second
}

// inWorld runs a measurement in its own world.
func (b *bench) inWorld(ctx context.Context, name string, o options, measure func(context.Context, *world) error) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &world{
		bench: b, name: name, fail: cancel, started: time.Now(),
		tasks: &tracker{tasks: map[string]*life{}}, calls: map[string]*atomic.Int64{},
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	w.startEdgeOne(o)
	// As in a real cluster, etcd writes to the disk before it answers.
	if w.cluster, err = cluster.Start(ctx, cluster.Options{EtcdArgs: []string{"--unsafe-no-fsync=false"}}); err != nil {
		return err
	}
	if w.client, err = client.NewWithWatch(w.cluster.Admin, client.Options{Scheme: w.cluster.Client.Scheme()}); err != nil {
		return err
	}
	if err := w.createNamespace(ctx, namespace); err != nil {
		return err
	}
	if err := w.track(ctx, prefetchTasks); err != nil {
		return err
	}
	if err := pause(ctx, calm); err != nil {
		return err
	}
	w.started = time.Now()
	w.group.Go(func() { w.tellProgress(ctx) })
	if err = measure(ctx, w); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		err = fmt.Errorf("%s after %s: %w", name, time.Since(w.started).Round(time.Second), err)
	}
	return err
}

func (w *world) createNamespace(ctx context.Context, name string) error {
	return w.client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
}

func (w *world) startEdgeOne(o options) {
	for _, action := range []string{create, lookup, "DescribeContentQuota"} {
		w.calls[action] = &atomic.Int64{}
	}
	config := simulator.Config{
		Keys: []simulator.Key{key}, RateWindow: o.counting, Rivals: map[string]int{account: o.rival},
		Zones: []simulator.Zone{
			{ID: zoneID, Account: account, Domains: []string{"*.example.com"}, Batch: batch, Daily: plenty},
			{ID: archiveZone, Account: account, Domains: []string{"*.example.org"}, Batch: batch, Daily: plenty},
		},
		OnCall: func(c simulator.Call) {
			if n := w.calls[c.Action]; n != nil {
				n.Add(1)
			}
			if c.Outcome == "RequestLimitExceeded" {
				w.throttled.Add(1)
			}
		},
	}
	w.edgeOne = simulator.New(config)
	w.network = network(w.edgeOne, o.roundTrip)
}

func (w *world) stop() error {
	w.fail(nil)
	var err error
	if w.cluster != nil {
		err = w.cluster.Stop()
	}
	w.edgeOne.Close()
	w.network.Close()
	w.group.Wait()
	return err
}

func (w *world) tellProgress(ctx context.Context) {
	for ticker := time.NewTicker(progressEvery); ; {
		select {
		case <-ticker.C:
			w.tell(w.tasks.counts().String())
		case <-ctx.Done():
			ticker.Stop()
			return
		}
	}
}

func (w *world) tell(what string) {
	say("%-24s %4.0fs  %s; EdgeOne: %d calls, %d throttled, %d look-ups", w.name, time.Since(w.started).Seconds(), what,
		w.calls[create].Load(), w.throttled.Load(), w.calls[lookup].Load())
}

// program is a running operator: ours or a baseline.
type program struct {
	*cluster.Process
	metrics string
	started time.Time
}

// start starts an operator. The manager runs with its defaults, except for flags that
// connect it.
func (w *world) start(ctx context.Context, name string) (*program, error) {
	config, args := w.cluster.Admin, []string(nil)
	if name == "manager" {
		config, args = nil, append([]string{"--metrics-secure=false"}, w.managerArgs...)
	}
	m, err := w.cluster.NewManager(ctx, cluster.ManagerOptions{
		Name: name, Path: w.programs[name], EdgeOne: w.network.URL, Config: config, Env: credentials, Args: args, ServeMetrics: true,
	})
	if err != nil {
		return nil, err
	}
	p := &program{Process: m.Process, metrics: "http://" + m.MetricsAddress + "/metrics", started: time.Now()}
	return p, w.cluster.Run(ctx, p.Process)
}

var credentials = cluster.Credentials(key.SecretID, key.SecretKey)

// task returns a PrefetchTask with the given number of URLs.
func task(namespace, name string, urls int) *v1alpha1.PrefetchTask {
	t := &v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1alpha1.PrefetchTaskSpec{ZoneID: zoneID}}
	for i := range urls {
		t.Spec.Targets = append(t.Spec.Targets, v1alpha1.Target(targetURL(name, i)))
	}
	return t
}

// targetURL returns a URL of about 100 bytes. It contains the name of its task.
func targetURL(name string, i int) string {
	url := fmt.Sprintf("https://www.example.com/%s/%05d/", name, i)
	return url + strings.Repeat("x", max(0, 96-len(url))) + ".jpg"
}

// taskOf returns the name of the task that a URL belongs to.
func taskOf(url string) string { return strings.Split(url, "/")[3] }

// unlike gives a task a unique header, so that it cannot share a call.
func unlike(t *v1alpha1.PrefetchTask) *v1alpha1.PrefetchTask {
	t.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "X-Task", Value: t.Name}}
	return t
}

// createAll creates n objects, up to creators at a time.
func (w *world) createAll(ctx context.Context, n int, object func(i int) client.Object) error {
	return parallel(ctx, creators, n, func(i int) error { return w.create(ctx, object(i)) })
}

// create creates an object and records the time.
func (w *world) create(ctx context.Context, object client.Object) error {
	t := w.tasks.expect(object.GetName(), time.Now())
	err := w.client.Create(ctx, object)
	w.tasks.created(t, time.Now())
	return err
}

// wait waits until enough returns true for the counts. It fails if a process ends, or if
// there is no progress for patience.
func (w *world) wait(ctx context.Context, p *cluster.Process, enough func(counts) bool) error {
	last, at := w.tasks.counts(), time.Now()
	for {
		now := w.tasks.counts()
		switch {
		case enough(now):
			return nil
		case now != last:
			last, at = now, time.Now()
		case time.Since(at) > patience:
			return fmt.Errorf("nothing has gone on for %s: %s\n%s", patience, now, p.LastLines(30))
		}
		select {
		case <-p.Done():
			return fmt.Errorf("%s ended\n%s", p.Name, p.LastLines(30))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// get reads a page.
func get(ctx context.Context, client *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return string(body), err
}

// raw reads a path of the API server.
func (w *world) raw(ctx context.Context, path string) (string, error) {
	client, err := rest.HTTPClientFor(w.cluster.Admin)
	if err != nil {
		return "", err
	}
	return get(ctx, client, w.cluster.Admin.Host+path)
}
