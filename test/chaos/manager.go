package main

import (
	"context"
	"os"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
	"github.com/prefetch-operator/teo-prefetch-operator/test/faults"
)

// manager is a manager process, with its proxy to the API server. It is restarted whenever
// it ends.
type manager struct {
	process *cluster.Manager
	proxy   *faults.Proxy
	renewed int // ID of the proxy's fault that counts writes of the Lease
	cancel  context.CancelFunc
	ended   <-chan struct{}
	log     *os.File
}

func (c *chaos) startManager(ctx context.Context, path, name string) (*manager, error) {
	proxy, err := faults.StartProxy(c.cluster)
	if err != nil {
		return nil, err
	}
	cfg, err := c.cluster.ServiceAccountConfig(ctx)
	if err != nil {
		return nil, err
	}
	m := &manager{proxy: proxy}
	m.process, err = c.cluster.NewManager(ctx, cluster.ManagerOptions{
		Name: name, Path: path, EdgeOne: c.url, Config: proxy.Config(cfg), Unprobed: true,
		Env: cluster.Credentials(ownKey.SecretID, ownKey.SecretKey),
		Args: []string{
			"--leader-elect", "--leader-election-namespace=" + cluster.Namespace,
			"--leader-election-lease-duration=" + leaseDuration.String(),
			"--leader-election-renew-deadline=" + renewDeadline.String(),
			"--leader-election-retry-period=500ms",
			"--teo-timeout=" + callTimeout.String(),
			"--signature-validity=" + validity.String(), "--settle-margin=" + margin.String(),
			"--write-timeout=" + writeTimeout.String(), "--shutdown-grace=10s",
			"--poll-interval=1s", "--quota-interval=1s", "--recheck-interval=2s",
			"--zap-log-level=debug", "--allow-purge=URL,Prefix",
		},
	})
	if err != nil {
		return nil, err
	}
	if m.log, err = os.Create(c.logFile(name + ".log")); err != nil {
		return nil, err
	}
	m.process.Tee = m.log
	m.countRenewals()
	if err := m.process.Start(ctx); err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(context.Background())
	m.cancel, m.ended = cancel, m.process.KeepRunning(running, 500*time.Millisecond)
	return m, nil
}

// stop stops the process and waits until it has ended.
func (m *manager) stop() {
	m.cancel()
	<-m.ended
	_ = faults.Resume(m.process.Process) // if a fault was interrupted
	_ = m.process.Stop(context.Background(), 30*time.Second)
	_ = m.log.Close()
}

func (m *manager) countRenewals() {
	m.renewed = m.proxy.AddFault(faults.Fault{Match: faults.LeaseWrites, Effect: faults.Effect{Delay: time.Nanosecond}})
}

// leader returns the manager that renews the Lease. A standby only reads the Lease, so the
// leader is the manager that currently writes it.
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
	return a // neither leads at the moment
}

// choose returns the manager that an event strikes.
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
