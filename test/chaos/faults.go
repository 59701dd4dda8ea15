package main

import (
	"context"
	"slices"
	"syscall"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
	"github.com/prefetch-operator/teo-prefetch-operator/test/faults"
)

const (
	sec = time.Second
	// longestBody is the size in bytes of a request with a few URLs.
	longestBody = 600
)

// groups is the catalogue of faults.
var groups = []*group{
	{name: "EdgeOne", overlap: true, gap: 1300 * time.Millisecond, faults: []fault{
		spoiled("connection closed, not executed", simulator.Effect{Answer: simulator.ConnectionClosed}),
		spoiled("connection closed, executed", simulator.Effect{Answer: simulator.ConnectionClosed, Executed: true}),
		spoiled("connection reset, not executed", simulator.Effect{Answer: simulator.ConnectionReset}),
		spoiled("connection reset, executed", simulator.Effect{Answer: simulator.ConnectionReset, Executed: true}),
		spoiled("truncated answer, executed", simulator.Effect{Answer: simulator.TruncatedBody, Executed: true}),
		spoiled("502 with HTML, not executed", simulator.Effect{Answer: simulator.BadGateway}),
		spoiled("502 with HTML, executed", simulator.Effect{Answer: simulator.BadGateway, Executed: true}),
		spoiled("empty answer, executed", simulator.Effect{Answer: simulator.EmptyBody, Executed: true}),
		spoiled("null for an answer, not executed", simulator.Effect{Answer: simulator.NullBody}),
		spoiled("null for an answer, executed", simulator.Effect{Answer: simulator.NullBody, Executed: true}),
		spoiled("InternalError, not executed", simulator.Effect{Code: "InternalError.BackendError", Message: "try later"}),
		spoiled("InternalError, executed", simulator.Effect{Code: "InternalError.BackendError", Message: "try later", Executed: true}),
		spoiled("answer later than the time-out, executed", simulator.Effect{AnswerDelay: callTimeout + sec}),
		spoiled("slow EdgeOne, answered in time", simulator.Effect{ServerDelay: callTimeout * 6 / 10}),
		spoiled("413 of a proxy, not executed", simulator.Effect{Status: 413, Body: "<html>413 Request Entity Too Large</html>"}),
		{name: "path that cuts long bodies off", often: 1, byCalls: true, least: 2 * sec, most: 6 * sec,
			inject: edgeOneFault("CreatePrefetchTask", simulator.Effect{CutBody: longestBody})},
		{name: "URLs that EdgeOne has no origin for: a code of unknown outcome", often: 2, least: 2 * sec, most: 6 * sec, inject: withoutOrigin},
		{name: "request delivered late, before the fence", often: 1, lost: true, byCalls: true, calls: 2,
			least: 5 * sec, most: 8 * sec, inject: heldCalls},
		{name: "request delivered late, after the fence", often: 1, lost: true, byCalls: true, calls: 2,
			least: validity + 4*sec, most: validity + margin + 5*sec, inject: heldCalls},
		purgeFault("purge: connection closed, not executed", 2, simulator.Effect{Answer: simulator.ConnectionClosed}),
		purgeFault("purge: connection closed, executed", 2, simulator.Effect{Answer: simulator.ConnectionClosed, Executed: true}),
		purgeFault("purge: delivered late", 2, simulator.Effect{Delay: validity - 2*sec}),
		{name: "look-ups of purges fail", byCalls: true, often: 1, least: sec, most: 5 * sec,
			inject: edgeOneFault("DescribePurgeTasks", simulator.Effect{Answer: simulator.BadGateway})},
		{name: "throttling storm", byCalls: true, often: 2, least: sec, most: 4 * sec,
			inject: edgeOneFault("CreatePrefetchTask", simulator.Effect{Code: "RequestLimitExceeded"})},
		{name: "look-ups fail", byCalls: true, often: 1, least: sec, most: 5 * sec,
			inject: edgeOneFault("DescribePrefetchTasks", simulator.Effect{Answer: simulator.BadGateway})},
		{name: "history lists late, within the margin", often: 1, least: 3 * sec, most: 6 * sec, inject: slowListing},
		{name: "quota exhausted, and back", often: 2, least: 2 * sec, most: 6 * sec, inject: exhausted},
	}},
	{name: "API server", gap: 4 * sec, faults: []fault{
		apiFault("409 on status writes", 2, faults.StatusWrites, faults.Effect{Status: 409}, 0.5),
		apiFault("429 on status writes", 1, faults.StatusWrites, faults.Effect{Status: 429}, 0.5),
		apiFault("504 on status writes, not executed", 1, faults.StatusWrites, faults.Effect{Status: 504}, 0.5),
		apiFault("504 on status writes, executed", 2, faults.StatusWrites, faults.Effect{Status: 504, Executed: true}, 0.5),
		apiFault("500 on status writes, not executed", 1, faults.StatusWrites, faults.Effect{Status: 500}, 0.8),
		apiFault("connection closed after a status write, executed", 2, faults.StatusWrites, faults.Effect{Close: true, Executed: true}, 0.4),
		apiFault("connection closed before a status write", 1, faults.StatusWrites, faults.Effect{Close: true}, 0.4),
		apiFault("slow status writes", 1, faults.StatusWrites, faults.Effect{Delay: 300 * time.Millisecond, AnswerDelay: 300 * time.Millisecond}, 0.5),
		{name: "status writes delivered late", often: 1, calls: 40, least: sec, most: writeTimeout + 2*sec, inject: heldWrites},
		{name: "watch held: a stale cache", often: 3, least: sec, most: 6 * sec, inject: heldWatch},
		{name: "watch dropped: events swallowed, then a new connection", often: 2, least: sec, most: 6 * sec, inject: droppedWatch},
		{name: "watch cut", often: 1, inject: cutWatch},
		{name: "watch expired (410): the cache lists anew", often: 1, least: sec, most: 2 * sec, inject: expiredWatch},
		apiFault("lease cannot be renewed", 1, faults.Leases, faults.Effect{Status: 503}, 1),
		apiFault("Secrets cannot be read", 1, faults.Match{Resource: "secrets"}, faults.Effect{Status: 503}, 1),
	}},
	{name: "processes", gap: 9 * sec, faults: []fault{
		{name: "manager killed (SIGKILL)", often: 3, inject: killed},
		{name: "both managers killed", often: 1, inject: bothKilled},
		{name: "manager stopped in order (SIGTERM)", often: 2, inject: terminated},
		{name: "manager paused (SIGSTOP), then on, within its lease", often: 1, least: sec, most: 2 * sec, inject: paused},
		{name: "manager paused past its lease", often: 2, least: leaseDuration + sec, most: leaseDuration + 3*sec, inject: paused},
		{name: "manager paused past the fence", often: 2, least: validity + sec, most: validity + margin + 2*sec, inject: paused},
		{name: "lease taken away by hand", often: 1, inject: leaseTaken},
		{name: "two leaders: the lease freed while its holder cannot see it", often: 2, least: leaseDuration, most: leaseDuration, inject: twoLeaders},
	}},
	{name: "control plane", gap: 45 * sec, faults: []fault{
		{name: "kube-apiserver killed and started again", often: 2, least: sec / 2, most: 3 * sec, inject: apiServerKilled},
		{name: "etcd killed and started again", often: 2, least: sec / 2, most: 4 * sec, inject: etcdKilled},
	}},
	{name: "credentials", gap: 7 * sec, faults: []fault{
		{name: "key rotated, the old one disabled at once", often: 2, inject: rotated},
		{name: "Secret deleted, and restored", often: 2, least: sec, most: 8 * sec, inject: secretDeleted},
		{name: "key without permission for a while", often: 1, least: sec, most: 5 * sec, inject: notPermitted},
	}},
}

// spoiled strikes the next few calls that submit.
func spoiled(name string, effect simulator.Effect) fault {
	return fault{name: name, often: 1, calls: 3, least: 3 * sec, most: 3 * sec, byCalls: true,
		lost:   effect.Answer != "" || effect.Code != "" || effect.AnswerDelay > callTimeout,
		inject: edgeOneFault("CreatePrefetchTask", effect)}
}

// purgeFault strikes the next call that purges.
func purgeFault(name string, often int, effect simulator.Effect) fault {
	return fault{name: name, often: often, calls: 1, least: 6 * sec, most: 6 * sec, byCalls: true, inject: edgeOneFault("CreatePurgeTask", effect)}
}

// edgeOneFault strikes calls of the action as they arrive, at most e.calls of them.
func edgeOneFault(action string, effect simulator.Effect) func(context.Context, *chaos, event) (int, time.Time) {
	return func(ctx context.Context, c *chaos, e event) (int, time.Time) {
		id := c.edgeOne.AddFault(simulator.Fault{Match: simulator.Matcher{Action: action, Count: e.calls}, Effect: effect})
		c.blame(id, e.fault)
		lasting(ctx, e.lasts)
		c.edgeOne.RemoveFault(id)
		return c.befallen(id), time.Time{}
	}
}

// heldCalls delays calls in the network. They arrive long after their sender has given up.
func heldCalls(ctx context.Context, c *chaos, e event) (int, time.Time) {
	id := c.edgeOne.AddFault(simulator.Fault{
		Match: simulator.Matcher{Action: "CreatePrefetchTask", Count: e.calls}, Effect: simulator.Effect{Hold: "request"},
	})
	c.blame(id, e.fault)
	lasting(ctx, e.lasts)
	c.edgeOne.RemoveFault(id)
	return c.befallen(id), time.Time{}
}

func slowListing(ctx context.Context, c *chaos, e event) (int, time.Time) {
	c.edgeOne.SetRules(rules(slowListingDelay)...)
	lasting(ctx, e.lasts)
	c.edgeOne.SetRules(rules(listingDelay)...)
	return 1, time.Time{}
}

// withoutOrigin makes EdgeOne answer calls that contain certain URLs with a code that does
// not show whether EdgeOne executed them. The seed decides whether it did. URLs that
// EdgeOne refuses, or that fail, keep their answers.
func withoutOrigin(ctx context.Context, c *chaos, e event) (int, time.Time) {
	broken := simulator.Rule{URL: "/run-1", Code: "InternalError.DomainConfig", Message: "origin config unavailable", Executed: e.seed%2 == 0}
	usual := rules(listingDelay)
	c.edgeOne.SetRules(slices.Insert(usual, len(usual)-1, broken)...)
	lasting(ctx, e.lasts)
	c.edgeOne.SetRules(rules(listingDelay)...)
	return 1, time.Time{}
}

func exhausted(ctx context.Context, c *chaos, e event) (int, time.Time) {
	c.edgeOne.SetAvailable(zones[e.zone].id, int(e.seed%7))
	lasting(ctx, e.lasts)
	c.edgeOne.ResetQuota()
	return 1, time.Time{}
}

// apiFault strikes a share of one manager's requests.
func apiFault(name string, often int, match faults.Match, effect faults.Effect, share float64) fault {
	match.Probability = share
	return fault{name: name, often: often, least: sec, most: 6 * sec, inject: func(ctx context.Context, c *chaos, e event) (int, time.Time) {
		match := match
		match.Seed = e.seed
		proxy := c.choose(e).proxy
		id := proxy.AddFault(faults.Fault{Match: match, Effect: effect})
		lasting(ctx, e.lasts)
		proxy.RemoveFault(id)
		return proxy.Taken(id), time.Time{}
	}}
}

func heldWrites(ctx context.Context, c *chaos, e event) (int, time.Time) {
	match := faults.StatusWrites
	match.Count = e.calls
	held := c.choose(e).proxy.Hold(match)
	lasting(ctx, e.lasts)
	held.Release()
	return held.Taken(), time.Time{}
}

func heldWatch(ctx context.Context, c *chaos, e event) (int, time.Time) {
	held := c.choose(e).proxy.Hold(faults.TaskEvents)
	lasting(ctx, e.lasts)
	held.Release()
	return min(1, held.Taken()), time.Time{}
}

func droppedWatch(ctx context.Context, c *chaos, e event) (int, time.Time) {
	proxy := c.choose(e).proxy
	id := proxy.AddFault(faults.Fault{Match: faults.TaskEvents, Effect: faults.Effect{Drop: true}})
	lasting(ctx, e.lasts)
	proxy.RemoveFault(id)
	return min(1, proxy.Taken(id)), time.Time{}
}

func cutWatch(_ context.Context, c *chaos, e event) (int, time.Time) {
	return c.choose(e).proxy.CutWatches(faults.TaskWatches), time.Time{}
}

func expiredWatch(ctx context.Context, c *chaos, e event) (int, time.Time) {
	proxy, match := c.choose(e).proxy, faults.TaskWatches
	match.Count = 1
	id := proxy.AddFault(faults.Fault{Match: match, Effect: faults.Effect{Status: 410}})
	proxy.CutWatches(faults.TaskWatches)
	lasting(ctx, e.lasts)
	proxy.RemoveFault(id)
	return proxy.Taken(id), time.Time{}
}

// killed kills a manager. KeepRunning restarts it, as a kubelet does.
func killed(_ context.Context, c *chaos, e event) (int, time.Time) {
	from := c.edgeOne.Now()
	c.choose(e).process.Kill()
	return 1, from
}

func bothKilled(_ context.Context, c *chaos, _ event) (int, time.Time) {
	from := c.edgeOne.Now()
	for _, m := range c.managers {
		m.process.Kill()
	}
	return 1, from
}

func terminated(ctx context.Context, c *chaos, e event) (int, time.Time) {
	from := c.edgeOne.Now()
	p := c.choose(e).process
	_ = p.Signal(syscall.SIGTERM)
	select {
	case <-p.Done():
	case <-ctx.Done():
	}
	return 1, from
}

// paused freezes a manager for a while, as if its machine were suspended.
func paused(ctx context.Context, c *chaos, e event) (int, time.Time) {
	p := c.choose(e).process.Process
	_ = faults.Pause(p)
	lasting(ctx, e.lasts)
	_ = faults.Resume(p)
	return 1, time.Time{}
}

// editLease changes the managers' Lease.
func (c *chaos) editLease(ctx context.Context, change func(*coordinationv1.LeaseSpec)) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*sec)
	defer cancel()
	key := client.ObjectKey{Namespace: cluster.Namespace, Name: "teo-prefetch-operator"}
	return faults.EditLease(ctx, c.cluster.Client, key, change) == nil
}

func struck(done bool) int {
	if done {
		return 1
	}
	return 0
}

// leaseTaken gives the lease to a holder that does not exist.
func leaseTaken(ctx context.Context, c *chaos, _ event) (int, time.Time) {
	from := c.edgeOne.Now()
	return struck(c.editLease(ctx, func(lease *coordinationv1.LeaseSpec) {
		lease.HolderIdentity, lease.RenewTime = ptr.To("a-person"), ptr.To(metav1.NowMicro())
	})), from
}

// twoLeaders hides from the leader that it has lost its lease. The other manager takes the
// lease at once, so both lead until the renew deadline of the first.
func twoLeaders(ctx context.Context, c *chaos, e event) (int, time.Time) {
	held := c.leader().proxy.Hold(faults.Leases)
	defer held.Drop()
	done := c.editLease(ctx, func(lease *coordinationv1.LeaseSpec) {
		lease.HolderIdentity, lease.LeaseDurationSeconds = ptr.To(""), ptr.To(int32(1))
	})
	lasting(ctx, e.lasts)
	return struck(done), time.Time{}
}

func apiServerKilled(ctx context.Context, c *chaos, e event) (int, time.Time) {
	return c.restart(ctx, c.cluster.APIServer, e.lasts)
}

func etcdKilled(ctx context.Context, c *chaos, e event) (int, time.Time) {
	return c.restart(ctx, c.cluster.Etcd, e.lasts)
}

// restart kills a process of the control plane and starts it again.
func (c *chaos) restart(ctx context.Context, p *cluster.Process, down time.Duration) (int, time.Time) {
	if err := faults.Restart(ctx, p, down); err != nil {
		c.fail(err)
	}
	return 1, time.Time{}
}

// rotated replaces the team's key with a new one, and disables the old one.
func rotated(ctx context.Context, c *chaos, e event) (int, time.Time) {
	old := c.teamKey
	next := newKey("team", e.seed)
	c.edgeOne.SetKey(next)
	if !c.writeSecret(ctx, "chaos-team", "team-key", next) {
		return 0, time.Time{}
	}
	c.teamKey = next
	c.edgeOne.RemoveKey(old.SecretID)
	return 1, time.Time{}
}

func secretDeleted(ctx context.Context, c *chaos, e event) (int, time.Time) {
	namespace, name, key := "chaos-tenant", "tenant-key", tenantKey
	if e.seed%2 == 0 {
		namespace, name, key = "chaos-team", "team-key", c.teamKey
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	done := insist(ctx, func(ctx context.Context) error { return client.IgnoreNotFound(c.cluster.Client.Delete(ctx, secret)) })
	lasting(ctx, e.lasts)
	c.writeSecret(context.WithoutCancel(ctx), namespace, name, key)
	return struck(done), time.Time{}
}

func notPermitted(ctx context.Context, c *chaos, e event) (int, time.Time) {
	key := c.teamKey
	key.Actions = []string{"DescribeContentQuota"}
	c.edgeOne.SetKey(key)
	lasting(ctx, e.lasts)
	c.edgeOne.SetKey(c.teamKey)
	return 1, time.Time{}
}

// writeSecret creates or updates the Secret with a key.
func (c *chaos) writeSecret(ctx context.Context, namespace, name string, key simulator.Key) bool {
	return insist(ctx, func(ctx context.Context) error {
		secret := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			StringData: map[string]string{"secretId": key.SecretID, "secretKey": key.SecretKey},
		}
		err := c.cluster.Client.Update(ctx, secret)
		if err != nil && client.IgnoreNotFound(err) == nil {
			err = c.cluster.Client.Create(ctx, secret)
		}
		return err
	})
}
