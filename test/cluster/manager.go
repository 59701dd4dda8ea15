package cluster

import (
	"context"
	"os"
	"slices"
	"strconv"

	"k8s.io/client-go/rest"
)

// BuildManager builds the manager and returns its path.
func BuildManager(ctx context.Context) (path string, err error) {
	return Build(ctx, "manager", "./cmd/manager")
}

// ManagerOptions say how to run a manager, or another program with its flags.
type ManagerOptions struct {
	// Name is that of the process. Default: manager.
	Name string
	// Path is the program.
	Path string
	// EdgeOne is the URL of EdgeOne's API.
	EdgeOne string
	// Config is how the manager reaches the API server. Default: under the ServiceAccount,
	// and so the RBAC, that config/ ships.
	Config *rest.Config
	// Env is added to this process's environment: see Credentials.
	Env []string
	// PodArgs are the arguments of a pod. They come first, so that the addresses of a
	// process on this machine override the pod's.
	PodArgs []string
	// Args come last, and override all others.
	Args []string
	// ServeMetrics serves metrics at Manager.MetricsAddress.
	ServeMetrics bool
	// Unprobed serves no health probes. The manager counts as ready once it runs.
	Unprobed bool
}

// Manager is a manager process.
type Manager struct {
	*Process
	// MetricsAddress is host and port, "" if no metrics are served.
	MetricsAddress string
}

// NewManager makes a manager ready to start: its kubeconfig, addresses and arguments.
func (c *Cluster) NewManager(ctx context.Context, o ManagerOptions) (*Manager, error) {
	name := o.Name
	if name == "" {
		name = "manager"
	}
	kubeconfig, err := c.writeManagerKubeconfig(ctx, name, o.Config)
	if err != nil {
		return nil, err
	}
	m := &Manager{Process: &Process{Name: name, Path: o.Path, Env: o.Env}}
	health, metrics := "0", "0" // none
	if !o.Unprobed {
		if health, err = FreeAddress(); err != nil {
			return nil, err
		}
		m.ReadyURL = "http://" + health + "/readyz"
	}
	if o.ServeMetrics {
		if metrics, err = FreeAddress(); err != nil {
			return nil, err
		}
		m.MetricsAddress = metrics
	}
	m.Args = slices.Concat(o.PodArgs, []string{
		"--kubeconfig=" + kubeconfig, "--teo-endpoint=" + o.EdgeOne,
		"--health-probe-bind-address=" + health, "--metrics-bind-address=" + metrics,
	}, o.Args)
	return m, nil
}

// StartManager starts a manager that ends with the cluster.
func (c *Cluster) StartManager(ctx context.Context, o ManagerOptions) (*Manager, error) {
	m, err := c.NewManager(ctx, o)
	if err != nil {
		return nil, err
	}
	return m, c.Run(ctx, m.Process)
}

// writeManagerKubeconfig writes a kubeconfig file that no other manager has.
func (c *Cluster) writeManagerKubeconfig(ctx context.Context, name string, cfg *rest.Config) (path string, err error) {
	if cfg == nil {
		if cfg, err = c.ServiceAccountConfig(ctx); err != nil {
			return "", err
		}
	}
	f, err := os.CreateTemp(c.Dir, name+"-*.kubeconfig")
	if err != nil {
		return "", err
	}
	if err := f.Close(); err != nil {
		return "", err
	}
	return f.Name(), WriteKubeconfig(f.Name(), cfg, Namespace)
}

// Credentials is the environment that gives a manager a key of EdgeOne's API, whatever
// this process's own environment has.
func Credentials(secretID, secretKey string) []string {
	return []string{"TENCENTCLOUD_SECRET_ID=" + secretID, "TENCENTCLOUD_SECRET_KEY=" + secretKey, "TENCENTCLOUD_TOKEN="}
}

// DemoCredentials are those of simulator.Demo.
func DemoCredentials() []string { return Credentials("AKIDdemo", "demo-secret-key") }

// FreeAddress is an address on this machine with a FreePort.
func FreeAddress() (string, error) {
	port, err := FreePort()
	return "127.0.0.1:" + strconv.Itoa(port), err
}
