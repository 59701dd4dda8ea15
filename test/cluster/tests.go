package cluster

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
)

// prepareTimeout limits the start of a package's shared cluster, and the builds for it.
const prepareTimeout = 5 * time.Minute

// ForTest starts a cluster that ends with the test. It skips the test under -short. If the
// test fails, ForTest logs the last output of etcd and kube-apiserver.
func ForTest(t testing.TB, opts Options) *Cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a Kubernetes API server; skipped with -short")
	}
	c, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("etcd:\n%s\nkube-apiserver:\n%s", c.Etcd.LastLines(5), c.APIServer.LastLines(15))
		}
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// RunTests runs the tests of a package, which share a cluster, and returns the exit status
// for TestMain. Before the first test, it calls prepare with the cluster and the path of
// the built manager. Under -short it runs no test.
func RunTests(m *testing.M, opts Options, prepare func(c *Cluster, manager string) error) (status int) {
	flag.Parse()
	if testing.Short() {
		fmt.Println("skipping the tests that need a Kubernetes API server: -short")
		return 0
	}
	SilenceClients()
	ctx, cancel := context.WithTimeout(context.Background(), prepareTimeout)
	defer cancel()
	manager, err := BuildManager(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	c, err := Start(ctx, opts)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = c.Stop() }()
	if err := prepare(c, manager); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// SilenceClients discards the logs of this process's Kubernetes clients. They would log
// errors about an API server that a test stops.
func SilenceClients() {
	silent := zap.New(zap.WriteTo(io.Discard))
	log.SetLogger(silent)
	klog.SetLogger(silent)
}
