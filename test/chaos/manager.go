package main

import (
	"context"
	"os"
	"syscall"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// manager is a manager process, the proxy through which it sees the API server,
// and what a kubelet would do for it: it is started again whenever it ends.
type manager struct {
	process *cluster.Process
	proxy   *cluster.Proxy
	renewed int // the proxy's number for what counts writes of the Lease
	cancel  context.CancelFunc
	ended   chan struct{}
	starts  int
}

func (c *chaos) startManager(ctx context.Context, path, name string) (*manager, error) {
	proxy, err := c.cluster.StartProxy()
	if err != nil {
		return nil, err
	}
	cfg, err := c.cluster.ServiceAccountConfig(ctx)
	if err != nil {
		return nil, err
	}
	kubeconfig := c.logFile(name + ".kubeconfig")
	if err := cluster.WriteKubeconfig(kubeconfig, proxy.Config(cfg), cluster.Namespace); err != nil {
		return nil, err
	}
	out, err := os.Create(c.logFile(name + ".log"))
	if err != nil {
		return nil, err
	}
	m := &manager{proxy: proxy, ended: make(chan struct{})}
	m.countRenewals()
	m.process = &cluster.Process{
		Name: name, Path: path, Tee: out,
		Args: []string{
			"--kubeconfig=" + kubeconfig,
			"--leader-elect", "--leader-election-namespace=" + cluster.Namespace,
			"--leader-election-lease-duration=" + leaseDuration.String(),
			"--leader-election-renew-deadline=" + renewDeadline.String(),
			"--leader-election-retry-period=500ms",
			"--metrics-bind-address=0", "--health-probe-bind-address=0",
			"--teo-endpoint=" + c.url, "--teo-timeout=" + callTimeout.String(),
			"--signature-validity=" + validity.String(), "--settle-margin=" + margin.String(),
			"--write-timeout=" + writeTimeout.String(), "--shutdown-grace=10s",
			"--poll-interval=1s", "--quota-interval=1s", "--recheck-interval=2s",
			"--zap-log-level=debug",
		},
		Env: []string{"TENCENTCLOUD_SECRET_ID=" + ownKey.SecretID, "TENCENTCLOUD_SECRET_KEY=" + ownKey.SecretKey, "TENCENTCLOUD_TOKEN="},
	}
	if err := m.process.Start(ctx); err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(context.Background())
	m.cancel, m.starts = cancel, 1
	go func() {
		defer close(m.ended)
		defer func() { _ = out.Close() }()
		m.keepRunning(running)
	}()
	return m, nil
}

func (m *manager) keepRunning(ctx context.Context) {
	for {
		select {
		case <-m.process.Done():
			lasting(ctx, 500*time.Millisecond)
		case <-ctx.Done():
			return
		}
		if ctx.Err() == nil && m.process.Start(ctx) == nil {
			m.starts++
		}
	}
}

// stop ends the process, and waits for that.
func (m *manager) stop() {
	m.cancel()
	<-m.ended
	_ = m.process.Signal(syscall.SIGCONT) // if a fault was interrupted
	_ = m.process.Stop(context.Background(), 30*time.Second)
}

func (m *manager) countRenewals() {
	m.renewed = m.proxy.AddFault(cluster.ProxyFault{
		Match: cluster.ProxyMatch{Verb: "update", Resource: "leases"}, Effect: cluster.ProxyEffect{Delay: time.Nanosecond},
	})
}

// leader returns the manager that renews the Lease: of the two the one that wrote
// it last, as a standby only reads it.
func (c *chaos) leader() *manager {
	a, b := c.managers[0], c.managers[1]
	for range 10 {
		before, beforeB := a.proxy.Taken(a.renewed), b.proxy.Taken(b.renewed)
		time.Sleep(300 * time.Millisecond)
		switch movedA, movedB := a.proxy.Taken(a.renewed) > before, b.proxy.Taken(b.renewed) > beforeB; {
		case movedA && !movedB:
			return a
		case movedB && !movedA:
			return b
		}
	}
	return a // nobody leads just now
}

// choose returns the manager that an event is meant for.
func (c *chaos) choose(e event) *manager {
	leader := c.leader()
	if e.leader {
		return leader
	}
	if leader == c.managers[0] {
		return c.managers[1]
	}
	return c.managers[0]
}
