// Package situations shows what a user sees of a task in each situation that it can be in:
// kubectl get, the plugin's why, the status, the Events and the operator's log. It generates
// docs/situations.md from a run of the built manager on a real API server with a simulated
// EdgeOne, and fails if the page differs from a run:
//
//		go test ./test/situations -args -update
//
//	  - situations: the operators, and the test
//	  - list: the situations, and how a task gets into each of them
//	  - scene: what a situation has for itself: a namespace, an account and a zone
//	  - record: what a task shows, without what differs from run to run
//	  - page: the page
package situations

import (
	"context"
	"flag"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

var update = flag.Bool("update", false, "write docs/situations.md")

const pagePath = "docs/situations.md"

// An operator is a manager with its own simulated EdgeOne. A situation names the one that
// it needs.
type operator struct {
	edgeOne *simulator.Simulator
	manager *cluster.Manager
	options cluster.ManagerOptions

	mu    sync.Mutex
	rules []simulator.Rule
}

// The operators.
const (
	usual    = ""         // the times of EdgeOne and of the chart, except that it looks more often
	hasty    = "hasty"    // signatures expire after seconds, so that lost calls are settled soon
	offline  = "offline"  // EdgeOne's address refuses connections
	absent   = "absent"   // there is no operator
	own      = "own"      // the situation starts it
	deadline = "deadline" // jobs get no outcome after seconds
)

// addRules adds rules for the URLs of one situation.
func (o *operator) addRules(rules ...simulator.Rule) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rules = append(o.rules, rules...)
	o.edgeOne.SetRules(o.rules...)
}

// removeRules removes the rules whose URL contains a text.
func (o *operator) removeRules(url string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rules = slices.DeleteFunc(o.rules, func(r simulator.Rule) bool { return strings.Contains(r.URL, url) })
	o.edgeOne.SetRules(o.rules...)
}

// world is what the situations share.
type world struct {
	cluster   *cluster.Cluster
	program   string // the built manager
	operators map[string]*operator
}

// flagsOf returns the flags of an operator. The intervals are short, so that a status that
// an operator with the default intervals writes after minutes is there after seconds. No
// call times out.
func flagsOf(name string) []string {
	flags := []string{"--recheck-interval=1s", "--poll-interval=1s", "--teo-timeout=2m", "--leader-elect=false"}
	if name == hasty {
		flags = append(flags, "--signature-validity=8s", "--settle-margin=1s", "--teo-timeout=2s")
	}
	if name == deadline {
		flags = append(flags, "--job-deadline=5s")
	}
	return flags
}

func newOperator(t *testing.T, name string) *operator {
	t.Helper()
	config := simulator.Config{JobDuration: -1, Rate: -1}
	if name == hasty {
		config.SignatureValidity = 8 * time.Second
	}
	o := &operator{edgeOne: simulator.New(config)}
	server := httptest.NewServer(o.edgeOne)
	t.Cleanup(func() {
		o.edgeOne.Close() // releases the calls that it holds
		server.CloseClientConnections()
		server.Close()
	})
	o.options = cluster.ManagerOptions{EdgeOne: server.URL, Args: flagsOf(name), Env: cluster.Credentials("", "")}
	if name == offline {
		o.options.EdgeOne = "http://127.0.0.1:1"
	}
	return o
}

// start starts an operator for some namespaces.
func (w *world) start(t *testing.T, o *operator, namespaces ...string) {
	t.Helper()
	options := o.options
	options.Path = w.program
	options.Args = append(slices.Clone(options.Args), "--watch-namespaces="+strings.Join(namespaces, ","))
	var err error
	if o.manager, err = w.cluster.NewManager(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	if err := o.manager.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.manager.Kill)
}

var shared world

func TestMain(m *testing.M) {
	os.Exit(cluster.RunTests(m, cluster.Options{}, func(c *cluster.Cluster, manager string) error {
		shared.cluster, shared.program = c, manager
		if err := os.Setenv("KUBECONFIG", c.Kubeconfig); err != nil { // for the plugin
			return err
		}
		return flag.Set("test.parallel", "64") // most of the time is waiting
	}))
}

func TestThePageSaysWhatAUserSeesInEachSituation(t *testing.T) {
	scenes := shared.prepare(t)
	root, err := cluster.FindRoot()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, pagePath)
	old, err := os.ReadFile(path)
	if err != nil && !*update {
		t.Fatal(err)
	}
	sections := make([]string, len(situations))
	rows := make([]indexRow, len(situations))
	t.Run("situations", func(t *testing.T) {
		for i, s := range scenes {
			t.Run(s.slug, func(t *testing.T) {
				t.Parallel()
				s.T = t
				s.bring(s)
				sections[i], rows[i] = s.settle(sectionOf(string(old), s.title))
			})
		}
	})
	page := renderPage(rows, sections)
	switch {
	case t.Failed():
	case *update:
		if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	case page != string(old):
		t.Errorf("%s differs from a run outside the sections; run go test ./test/situations -args -update", pagePath)
	}
}

// prepare makes the namespaces, zones and keys of all situations, and starts the operators.
func (w *world) prepare(t *testing.T) (scenes []*scene) {
	t.Helper()
	namespaces := map[string][]string{}
	w.operators = map[string]*operator{}
	for _, s := range situations {
		o := w.operators[s.operator]
		if o == nil {
			o = newOperator(t, s.operator)
			w.operators[s.operator] = o
		}
		scene := &scene{T: t, situation: s, world: w, operator: o, namespace: "ns-" + s.slug, zoneID: "zone-" + strings.ReplaceAll(s.slug, "-", "")}
		if err := w.cluster.Client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: scene.namespace}}); err != nil {
			t.Fatal(err)
		}
		scene.prepareAccount()
		namespaces[s.operator] = append(namespaces[s.operator], scene.namespace)
		scenes = append(scenes, scene)
	}
	var starting sync.WaitGroup
	for name, o := range w.operators {
		if name != absent && name != own {
			starting.Go(func() { w.start(t, o, namespaces[name]...) })
		}
	}
	starting.Wait()
	return scenes
}

// poll is the time between two looks at a task. A look starts kubectl.
const poll = 300 * time.Millisecond

// eventually polls until done.
func eventually(ctx context.Context, timeout time.Duration, done func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for !done() {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(poll):
		}
	}
	return true
}
