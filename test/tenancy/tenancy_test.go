// Package tenancy attacks EdgeOneAccounts: namespaces that do not trust each other share the
// built manager, on a real API server with a simulated EdgeOne. Each attack leaves EdgeOne
// without a single URL that the account did not allow.
//
//   - tenancy: the cluster, and the operators
//   - scene: what a test has for itself: namespaces, zones and accounts, and the judge of
//     what EdgeOne was asked
//   - rules, hosts: namespaces, zones, modes, media segments, hosts, and edits of tasks
//   - budgets: the ways around a budget
//   - changes: changes of accounts and labels while calls wait
//   - restarts: killed operators, and two at once
//   - fallback: the account named default, and accounts that are missing
//   - bench: whether namespaces that share an account are slower
//
// The judge reads the simulator's ledger and the statuses. It does not use the operator's own
// rules for hosts and budgets.
package tenancy

import (
	"context"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

var shared struct {
	cluster  *cluster.Cluster
	program  string // the built manager
	operator *operator

	mu         sync.Mutex
	namespaces []string // of the shared operator that no test has taken
	scenes     int
}

// poolSize is the number of namespaces of the shared operator.
const poolSize = 120

func TestMain(m *testing.M) {
	os.Exit(cluster.RunTests(m, cluster.Options{}, func(c *cluster.Cluster, manager string) error {
		shared.cluster, shared.program = c, manager
		ctx := context.Background()
		for i := range poolSize {
			name := fmt.Sprintf("team-%d", i)
			if err := c.Client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
				return err
			}
			shared.namespaces = append(shared.namespaces, name)
		}
		shared.operator = newOperator(c)
		if err := shared.operator.start(ctx, shared.namespaces); err != nil {
			return err
		}
		c.AroundStop(func() {}, shared.operator.close)
		return flag.Set("test.parallel", "64") // most of the time is waiting
	}))
}

// operator is a manager with its own simulated EdgeOne.
type operator struct {
	cluster *cluster.Cluster
	edgeOne *simulator.Simulator
	server  *httptest.Server
	manager *cluster.Manager

	mu    sync.Mutex
	rules []simulator.Rule
}

// validity is how long EdgeOne accepts signatures. It is short, so that lost calls are
// settled soon.
const validity = 4 * time.Second

// ownKey is the SecretId of the operator's own key.
const ownKey = "AKIDoperator"

// newOperator returns an operator whose manager is not started.
func newOperator(c *cluster.Cluster) *operator {
	o := &operator{cluster: c, edgeOne: simulator.New(simulator.Config{
		JobDuration: -1, Rate: -1, WildcardLookups: true, SignatureValidity: validity,
		Keys: []simulator.Key{{SecretID: ownKey, SecretKey: "the-operator's-own", Account: "operator"}},
	})}
	o.server = httptest.NewServer(o.edgeOne)
	return o
}

// start starts the manager for some namespaces.
func (o *operator) start(ctx context.Context, namespaces []string, flags ...string) error {
	manager, err := o.newManager(ctx, namespaces, flags...)
	if err != nil {
		return err
	}
	o.manager = manager
	return manager.Start(ctx)
}

// newManager returns a manager that is not started.
func (o *operator) newManager(ctx context.Context, namespaces []string, flags ...string) (*cluster.Manager, error) {
	return o.cluster.NewManager(ctx, cluster.ManagerOptions{
		Path: shared.program, EdgeOne: o.server.URL, Env: cluster.Credentials(ownKey, "the-operator's-own"),
		Args: append([]string{
			"--watch-namespaces=" + strings.Join(namespaces, ","), "--leader-elect=false",
			"--recheck-interval=1s", "--poll-interval=1s", "--quota-interval=1s", "--teo-timeout=10s",
			"--signature-validity=" + validity.String(), "--settle-margin=1s", "--zap-log-level=debug",
		}, flags...),
	})
}

// close ends the manager and EdgeOne.
func (o *operator) close() {
	if o.manager != nil {
		o.manager.Kill()
	}
	o.edgeOne.Close() // releases the calls that it holds
	o.server.CloseClientConnections()
	o.server.Close()
}

// addRules adds rules for the URLs of one test.
func (o *operator) addRules(rules ...simulator.Rule) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rules = append(o.rules, rules...)
	o.edgeOne.SetRules(o.rules...)
}
