// Package cluster starts what tests, the benchmark and the demo run against: real etcd and
// kube-apiserver processes on this machine, with the CRD, the namespace and the RBAC that
// config/ ships, and the built manager as a process. There are no nodes and no other
// controllers, unless Options.Workloads asks for them.
//
// It does what controller-runtime's envtest does, and two things that envtest does not:
// each process can be killed and started again on its own, and none outlives the test,
// however that ends.
//
//   - cluster: the control plane, and clients for it
//   - tests: a cluster for one test, or for the tests of a package
//   - watch, kubectl: the tasks as they change, and kubectl for the administrator
//   - manager: the manager with what it needs to reach the API server and EdgeOne
//   - workloads: controllers, scheduler and a node, for those who install the operator
//   - apply: what kubectl apply does with files of config/
//   - process, scrape, build: running, asking and building programs
//
// The package does not know what a PrefetchTask means, which tests there are, or how to
// make anything fail: that is test/faults.
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

// Namespace and ServiceAccount are those of the manager in config/.
const (
	Namespace      = "teo-prefetch-system"
	ServiceAccount = "teo-prefetch-operator"
)

const (
	// StartTimeout is for one process on a busy machine; usually it takes a few seconds.
	StartTimeout = 2 * time.Minute
	// stopGrace is how long a process may take to end after SIGTERM.
	stopGrace = 30 * time.Second
	// tokenLifetime of ServiceAccountConfig: longer than any test or benchmark.
	tokenLifetime = 12 * time.Hour
)

// Options of a cluster; the zero value is good for tests.
type Options struct {
	// Tee, if not nil, also gets what etcd and kube-apiserver print.
	Tee io.Writer
	// EtcdArgs are added to etcd's and override them. The benchmark says
	// --unsafe-no-fsync=false, as etcd is faster here than on a real cluster.
	EtcdArgs []string
	// APIServerArgs are added to kube-apiserver's.
	APIServerArgs []string
	// Bare leaves out what config/ ships: CRD, namespace and RBAC.
	Bare bool
	// Workloads adds kube-controller-manager, kube-scheduler and a node that kwok
	// plays: Deployments get pods, which seem to run but run nothing.
	Workloads bool
}

// Cluster is a running control plane.
type Cluster struct {
	// Admin may do everything; no client-side rate limit.
	Admin *rest.Config
	// Client is Admin's, uncached, for PrefetchTasks and for objects of client-go.
	Client client.Client
	// Kubeconfig is a file for Admin, with default as its namespace.
	Kubeconfig string
	// Etcd and APIServer can be killed and started again: same data, same address.
	Etcd, APIServer *Process
	// Dir is a temporary folder, removed by Stop.
	Dir string

	mu                    sync.Mutex
	processes             []*Process // in the order they were started
	beforeStop, afterStop []func()
}

// Start starts etcd and kube-apiserver and installs what config/ ships. ctx
// bounds the start only.
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

// Run starts a process that Stop will stop, before those started earlier.
func (c *Cluster) Run(ctx context.Context, p *Process) error {
	c.mu.Lock()
	c.processes = append(c.processes, p)
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, StartTimeout)
	defer cancel()
	return p.Start(ctx)
}

// AroundStop lets Stop call before ahead of stopping the processes, and after when they
// have ended.
func (c *Cluster) AroundStop(before, after func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.beforeStop, c.afterStop = append(c.beforeStop, before), append(c.afterStop, after)
}

// Stop stops every process, the last started first, and removes Dir.
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
			p.Kill() // nothing of theirs is needed any more, and shutting down takes seconds
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
			"--cert-dir=" + dir, // makes its own certificate there, and finds it again
			"--service-cluster-ip-range=10.0.0.0/24",
			"--endpoint-reconciler-type=none",
			"--authorization-mode=RBAC",
			"--token-auth-file=" + tokens,
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-key-file=" + signer,
			"--service-account-signing-key-file=" + signer,
			"--disable-admission-plugins=ServiceAccount", // no controller makes the default ones
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

// ServingCertificate is the API server's own: whoever serves with it passes for the API
// server.
func (c *Cluster) ServingCertificate() (tls.Certificate, error) {
	dir := c.apiServerDir()
	return tls.LoadX509KeyPair(filepath.Join(dir, "apiserver.crt"), filepath.Join(dir, "apiserver.key"))
}

func (c *Cluster) apiServerDir() string { return filepath.Join(c.Dir, "kube-apiserver") }

// writeSigningKey writes a new key to sign ServiceAccount tokens with.
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

// ServiceAccountConfig is for a client under the ServiceAccount that the
// manager ships with, and so under its RBAC; its token is good for 12 hours.
func (c *Cluster) ServiceAccountConfig(ctx context.Context) (*rest.Config, error) {
	return c.AccountConfig(ctx, Namespace, ServiceAccount)
}

// AccountConfig is for a client under any ServiceAccount.
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

// WriteKubeconfig writes a kubeconfig file that does what cfg does, readable
// by its owner only. namespace is what kubectl takes without -n.
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
