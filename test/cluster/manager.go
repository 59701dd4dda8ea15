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

// ManagerOptions configures a manager, or another program with the same flags.
type ManagerOptions struct {
	// Name is the name of the process. Default: manager.
	Name string
	// Path is the path of the program.
	Path string
	// EdgeOne is the URL of EdgeOne's API.
	EdgeOne string
	// Config is how the manager connects to the API server. Default: with the
	// ServiceAccount and the RBAC from config/.
	Config *rest.Config
	// Env is added to the environment of this process. See Credentials.
	Env []string
	// PodArgs are the arguments from a pod. They come first, so that addresses on this
	// machine override the pod's addresses.
	PodArgs []string
	// Args come last and override all others.
	Args []string
	// ServeMetrics serves metrics at Manager.MetricsAddress.
	ServeMetrics bool
	// Unprobed disables the health probes. The manager then counts as ready once it runs.
	Unprobed bool
}

// Manager is a manager process.
type Manager struct {
	*Process
	// MetricsAddress is host:port, or "" if the manager serves no metrics.
	MetricsAddress string
}

// NewManager prepares a manager: its kubeconfig, addresses and arguments. It does not
// start the manager.
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
	health, metrics := "0", "0" // disabled
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

// StartManager starts a manager. It ends with the cluster.
func (c *Cluster) StartManager(ctx context.Context, o ManagerOptions) (*Manager, error) {
	m, err := c.NewManager(ctx, o)
	if err != nil {
		return nil, err
	}
	return m, c.Run(ctx, m.Process)
}

// writeManagerKubeconfig writes a kubeconfig file for one manager only.
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

// Credentials returns environment variables with a key for EdgeOne's API. They override
// the environment of this process, including a session token.
func Credentials(secretID, secretKey string) []string {
	return []string{"TENCENTCLOUD_SECRET_ID=" + secretID, "TENCENTCLOUD_SECRET_KEY=" + secretKey, "TENCENTCLOUD_TOKEN="}
}

// DemoCredentials returns Credentials with the keys of simulator.Demo.
func DemoCredentials() []string { return Credentials("AKIDdemo", "demo-secret-key") }

// FreeAddress returns a free address on 127.0.0.1. See FreePort.
func FreeAddress() (string, error) {
	port, err := FreePort()
	return "127.0.0.1:" + strconv.Itoa(port), err
}
