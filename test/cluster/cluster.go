// Package cluster starts the environment for tests, the benchmark and the demo. It runs
// real etcd and kube-apiserver processes on this machine, installs the CRD, the namespace
// and the RBAC from config/, and runs the built manager as a process. There are no nodes
// and no other controllers, unless Options.Workloads asks for them.
//
// The package does what controller-runtime's envtest does, and two more things. Each
// process can be killed and restarted separately. No process outlives the test, however
// the test ends.
//
//   - cluster: the control plane, and its clients
//   - tests: a cluster for one test, or for all tests of a package
//   - watch, kubectl: a watch of the tasks, and kubectl as the administrator
//   - manager: the manager, with access to the API server and EdgeOne
//   - workloads: controllers, a scheduler and a node, for tests that install the operator
//   - apply: applies files of config/ as kubectl does
//   - process, scrape, build: run programs, read their metrics, and build them
//
// The package does not know what a PrefetchTask means or which tests exist. Package
// test/faults injects faults.
package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// Namespace and ServiceAccount are the names that config/ gives to the manager.
const (
	Namespace      = "teo-prefetch-system"
	ServiceAccount = "teo-prefetch-operator"
)

const (
	// StartTimeout is how long one process may take to start on a busy machine. Usually a
	// process needs a few seconds.
	StartTimeout = 2 * time.Minute
	// stopGrace is how long a process may take to end after SIGTERM.
	stopGrace = 30 * time.Second
	// tokenLifetime is the lifetime of the token in ServiceAccountConfig. It is longer
	// than any test or benchmark.
	tokenLifetime = 12 * time.Hour
)

// Options configures a cluster. The zero value is suitable for tests.
type Options struct {
	// Tee, if not nil, also receives the output of etcd and kube-apiserver.
	Tee io.Writer
	// EtcdArgs are appended to the arguments of etcd and override them. The benchmark
	// passes --unsafe-no-fsync=false, because by default etcd is faster here than on a
	// real cluster.
	EtcdArgs []string
	// APIServerArgs are appended to the arguments of kube-apiserver and override them.
	APIServerArgs []string
	// Bare omits what config/ ships: the CRD, the namespace and the RBAC.
	Bare bool
	// Workloads adds kube-controller-manager, kube-scheduler and a node that kwok
	// simulates. Deployments get pods that seem to run, but nothing runs in them.
	Workloads bool
}

// Cluster is a running control plane.
type Cluster struct {
	// Admin has all permissions and no client-side rate limit.
	Admin *rest.Config
	// Client uses Admin and has no cache. It knows PrefetchTasks and the types of
	// client-go.
	Client client.Client
	// Kubeconfig is the path of a kubeconfig file for Admin. Its namespace is default.
	Kubeconfig string
	// Etcd and APIServer can be killed and restarted. They keep their data and addresses.
	Etcd, APIServer *Process
	// Dir is a temporary folder. Stop removes it.
	Dir string

	mu                    sync.Mutex
	processes             []*Process // in start order
	beforeStop, afterStop []func()
}

// Start starts etcd and kube-apiserver and installs what config/ ships. ctx applies to the
// start only.
func Start(ctx context.Context, opts Options) (_ *Cluster, err error) {
	c := &Cluster{}
	if c.Dir, err = os.MkdirTemp("", "test-cluster-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	if err := c.startEtcd(ctx, opts); err != nil {
		return nil, err
	}
	if err := c.startAPIServer(ctx, opts); err != nil {
		return nil, err
	}
	if opts.Workloads {
		if err := c.startWorkloads(ctx, opts); err != nil {
			return nil, err
		}
	}
	if opts.Bare {
		return c, nil
	}
	root, err := FindRoot()
	if err != nil {
		return nil, err
	}
	for _, path := range []string{"crd", "default/namespace.yaml", "rbac"} {
		if err := c.Apply(ctx, filepath.Join(root, "config", path)); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Run starts a process. Stop stops it before the processes that were started earlier.
func (c *Cluster) Run(ctx context.Context, p *Process) error {
	c.mu.Lock()
	c.processes = append(c.processes, p)
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, StartTimeout)
	defer cancel()
	return p.Start(ctx)
}

// AroundStop registers two functions. Stop calls before ahead of stopping the processes,
// and after once they have ended.
func (c *Cluster) AroundStop(before, after func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.beforeStop, c.afterStop = append(c.beforeStop, before), append(c.afterStop, after)
}

// Stop stops every process, the most recently started first, and removes Dir.
func (c *Cluster) Stop() error {
	c.mu.Lock()
	processes, beforeStop, afterStop := c.processes, c.beforeStop, c.afterStop
	c.processes, c.beforeStop, c.afterStop = nil, nil, nil
	c.mu.Unlock()
	for _, do := range beforeStop {
		do()
	}
	var errs []error
	for _, p := range slices.Backward(processes) {
		if p == c.Etcd || p == c.APIServer {
			p.Kill() // their state is no longer needed, and a graceful shutdown takes seconds
			continue
		}
		errs = append(errs, p.Stop(context.Background(), stopGrace))
	}
	for _, do := range afterStop {
		do()
	}
	return errors.Join(append(errs, os.RemoveAll(c.Dir))...)
}

func (c *Cluster) startEtcd(ctx context.Context, opts Options) error {
	path, err := FindBinary("etcd")
	if err != nil {
		return err
	}
	port, err := FreePort()
	if err != nil {
		return err
	}
	url := "http://127.0.0.1:" + strconv.Itoa(port)
	c.Etcd = &Process{
		Name: "etcd", Path: path, Tee: opts.Tee, ReadyURL: url + "/readyz",
		Args: append([]string{
			"--data-dir=" + filepath.Join(c.Dir, "etcd"),
			"--listen-client-urls=" + url,
			"--advertise-client-urls=" + url,
			"--listen-peer-urls=http://127.0.0.1:0",
			"--quota-backend-bytes=8589934592",
			"--unsafe-no-fsync",
			"--log-level=warn",
		}, opts.EtcdArgs...),
	}
	return c.Run(ctx, c.Etcd)
}

func (c *Cluster) startAPIServer(ctx context.Context, opts Options) error {
	path, err := FindBinary("kube-apiserver")
	if err != nil {
		return err
	}
	port, err := FreePort()
	if err != nil {
		return err
	}
	dir := c.apiServerDir()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	signer, tokens := filepath.Join(dir, "service-accounts.key"), filepath.Join(dir, "tokens.csv")
	if err := writeSigningKey(signer); err != nil {
		return err
	}
	token := rand.Text()
	if err := os.WriteFile(tokens, []byte(token+",admin,admin,system:masters\n"), 0o600); err != nil {
		return err
	}
	host := "https://127.0.0.1:" + strconv.Itoa(port)
	c.APIServer = &Process{
		Name: "kube-apiserver", Path: path, Tee: opts.Tee, ReadyURL: host + "/readyz",
		Args: append([]string{
			"--etcd-servers=" + c.Etcd.ReadyURL[:len(c.Etcd.ReadyURL)-len("/readyz")],
			"--bind-address=127.0.0.1",
			"--advertise-address=127.0.0.1",
			"--secure-port=" + strconv.Itoa(port),
			"--cert-dir=" + dir, // stores its self-signed certificate here, and reuses it after a restart
			"--service-cluster-ip-range=10.0.0.0/24",
			"--endpoint-reconciler-type=none",
			"--authorization-mode=RBAC",
			"--token-auth-file=" + tokens,
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-key-file=" + signer,
			"--service-account-signing-key-file=" + signer,
			"--disable-admission-plugins=ServiceAccount", // no controller creates the default ServiceAccounts
		}, opts.APIServerArgs...),
	}
	if err := c.Run(ctx, c.APIServer); err != nil {
		return err
	}
	ca, err := os.ReadFile(filepath.Join(dir, "apiserver.crt"))
	if err != nil {
		return err
	}
	c.Admin = &rest.Config{
		Host: host, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAData: ca},
		QPS:            -1,
		WarningHandler: rest.NoWarnings{},
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	if c.Client, err = client.New(c.Admin, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	c.Kubeconfig = filepath.Join(c.Dir, "admin.kubeconfig")
	return WriteKubeconfig(c.Kubeconfig, c.Admin, "default")
}

// ServingCertificate returns the API server's own certificate. A server that uses it
// passes for the API server.
func (c *Cluster) ServingCertificate() (tls.Certificate, error) {
	dir := c.apiServerDir()
	return tls.LoadX509KeyPair(filepath.Join(dir, "apiserver.crt"), filepath.Join(dir, "apiserver.key"))
}

func (c *Cluster) apiServerDir() string { return filepath.Join(c.Dir, "kube-apiserver") }

// writeSigningKey writes a new key that signs ServiceAccount tokens.
func writeSigningKey(path string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

// ServiceAccountConfig returns the configuration of a client that uses the manager's
// ServiceAccount, with the RBAC from config/. Its token is valid for 12 hours.
func (c *Cluster) ServiceAccountConfig(ctx context.Context) (*rest.Config, error) {
	return c.AccountConfig(ctx, Namespace, ServiceAccount)
}

// AccountConfig returns the configuration of a client that uses the given ServiceAccount.
func (c *Cluster) AccountConfig(ctx context.Context, namespace, name string) (*rest.Config, error) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}}
	seconds := int64(tokenLifetime / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	if err := c.Client.SubResource("token").Create(ctx, account, request); err != nil {
		return nil, fmt.Errorf("token for ServiceAccount %s/%s: %w", namespace, name, err)
	}
	cfg := rest.CopyConfig(c.Admin)
	cfg.BearerToken = request.Status.Token
	return cfg, nil
}

// WriteKubeconfig writes cfg as a kubeconfig file that only its owner can read. namespace
// is what kubectl uses without -n.
func WriteKubeconfig(path string, cfg *rest.Config, namespace string) error {
	const name = "test-cluster"
	kubeconfig := clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{
			name: {Server: cfg.Host, CertificateAuthorityData: cfg.CAData},
		},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {Token: cfg.BearerToken}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name, Namespace: namespace}},
		CurrentContext: name,
	}
	return clientcmd.WriteToFile(kubeconfig, path)
}
