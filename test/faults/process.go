package faults

import (
	"context"
	"syscall"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// Pause freezes a process until Resume, as if its machine were suspended.
func Pause(p *cluster.Process) error { return p.Signal(syscall.SIGSTOP) }

// Resume continues a paused process.
func Resume(p *cluster.Process) error { return p.Signal(syscall.SIGCONT) }

// Restart kills a process, leaves it down for a while and starts it again. If ctx is done
// while the process is down, Restart starts it at once, because the final checks need it.
func Restart(ctx context.Context, p *cluster.Process, down time.Duration) error {
	p.Kill()
	select {
	case <-time.After(down):
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cluster.StartTimeout)
	defer cancel()
	return p.Start(ctx)
}

// EditLease changes a Lease. It retries until the write succeeds or ctx is done. A write
// can fail because the holder writes the Lease too, or because the API server is down.
func EditLease(ctx context.Context, c client.Client, key client.ObjectKey, change func(*coordinationv1.LeaseSpec)) error {
	const retryEvery = 200 * time.Millisecond
	var last error
	err := wait.PollUntilContextCancel(ctx, retryEvery, true, func(ctx context.Context) (bool, error) {
		lease := &coordinationv1.Lease{}
		if last = c.Get(ctx, key, lease); last == nil {
			change(&lease.Spec)
			last = c.Update(ctx, lease)
		}
		return last == nil, nil
	})
	if err != nil && last != nil {
		return last
	}
	return err
}
