// Package controller submits PrefetchTasks to EdgeOne, follows what becomes of them,
// and deletes those that have been over for as long as they ask to be kept (expiry.go).
//
// There are two controllers for EdgeOne. The Submitter's queue key is an account, as
// EdgeOne meters calls by account: a pass plans the calls for which there will be
// slots soon (internal/schedule decides) and hands each to a goroutine that claims,
// waits for a slot, calls and records (call.go). The Poller's key is a zone of an account: a pass looks once
// for everything open there, follows jobs, and settles calls whose answer was
// lost (settle.go decides). What may happen to a status is in status.go; how
// failures become waits is in requeue.go.
package controller

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// Options are the limits and intervals of the controllers. See the manager's
// flags for their meaning and defaults.
type Options struct {
	Batch             int
	TasksPerCall      int
	QPS               int
	QuotaInterval     time.Duration
	QuotaReset        time.Duration
	PollInterval      time.Duration
	JobDeadline       time.Duration
	RecheckInterval   time.Duration
	SignatureValidity time.Duration
	SettleMargin      time.Duration
	HistoryRetention  time.Duration
	WriteTimeout      time.Duration
	CallTimeout       time.Duration
	ShutdownGrace     time.Duration
	// Gauges is where the gauges are registered; nil is nowhere.
	Gauges prometheus.Registerer
}

// operator is what both controllers share.
type operator struct {
	Options
	store       store
	edgeOne     *teo.Client
	credentials *Credentials
	events      events.EventRecorder
	eventLimits eventLimits
	runs        *pace // starts of runs and retries
	notes       *pace // writes that say why a task waits
	lists       *lists

	calls    calls
	claiming *semaphore.Weighted // by claims to write
	critical context.Context     // of claim, call and record; outlives shutdown
}

// +kubebuilder:rbac:groups=teo.prefetch-operator.io,resources=prefetchtasks,verbs=get;list;watch;delete
// +kubebuilder:rbac:groups=teo.prefetch-operator.io,resources=prefetchtasks/status,verbs=update
// +kubebuilder:rbac:groups="",resources=configmaps;secrets,verbs=get
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Setup adds both controllers to the manager, whose cache has CacheOptions of the
// same jobs.
func Setup(ctx context.Context, mgr manager.Manager, edgeOne *teo.Client, credentials *Credentials, jobs *Jobs, options Options) error {
	critical, cancel := context.WithCancel(context.WithoutCancel(ctx))
	op := &operator{
		Options:     options,
		store:       newStore(mgr.GetClient(), mgr.GetAPIReader(), options.WriteTimeout),
		edgeOne:     edgeOne,
		credentials: credentials,
		events:      mgr.GetEventRecorder("teo-prefetch-operator"),
		claiming:    semaphore.NewWeighted(writers),
		runs:        newPace(runRate),
		notes:       newPace(noteRate),
		critical:    critical,
	}
	if err := mgr.Add(&drain{op: op, cancel: cancel}); err != nil {
		return err
	}
	jobs.keepUnseen(options.HistoryRetention)
	poller := newPoller(op, jobs)
	synced := func(ctx context.Context) { // an error is that of ctx, or ends the manager elsewhere
		_, _ = mgr.GetCache().GetInformer(ctx, &v1alpha1.PrefetchTask{})
	}
	if err := mgr.Add(forgetting{poller, synced}); err != nil {
		return err
	}
	submitter := &Submitter{operator: op, poller: poller, lines: map[account]*line{}, places: map[client.ObjectKey]account{}}
	op.lists = newLists(op, mgr.GetAPIReader(), mgr.Elected(), func(task *v1alpha1.PrefetchTask) { feed(submitter, poller, task) })
	if err := setupReaper(mgr); err != nil {
		return err
	}
	tasks := newTally()
	if options.Gauges != nil {
		if err := options.Gauges.Register(&monitor{options.QPS, mgr.Elected(), tasks, submitter, poller}); err != nil {
			return err
		}
	}
	if err := run(mgr, "submitter", submitter, &submitter.waker, tasks.change); err != nil {
		return err
	}
	if err := (settler{poller}).run(mgr); err != nil {
		return err
	}
	return run(mgr, "poller", poller, &poller.waker, func(_, _ client.Object) {})
}

// feed gives both controllers a task beside their feeds.
func feed(submitter *Submitter, poller *Poller, task *v1alpha1.PrefetchTask) {
	for _, a := range submitter.observe(task) {
		submitter.wake(a, 0)
	}
	for _, z := range poller.observe(task) {
		poller.wake(z, 0)
	}
}

// waker makes keys of a controller due. Before the controller's feed has begun it
// does nothing: the feed brings all tasks then.
type waker[key comparable] struct {
	add atomic.Pointer[func(key, time.Duration)]
}

func (w *waker[key]) wake(k key, after time.Duration) {
	if add := w.add.Load(); add != nil {
		(*add)(k, after)
	}
}

// reconciler is a controller whose keys come from a feed of tasks. It sees every
// event in order and says which keys that makes due.
type reconciler[key comparable] interface {
	reconcile.TypedReconciler[key]
	observe(task *v1alpha1.PrefetchTask) []key
	remove(task *v1alpha1.PrefetchTask) []key
	knows(task client.ObjectKey) bool
}

// run starts a controller; wake makes its keys due later, and count sees what each
// event makes of what.
func run[key comparable](
	mgr manager.Manager, name string, reconciler reconciler[key], wake *waker[key], count func(before, after client.Object),
) error {
	type queue = workqueue.TypedRateLimitingInterface[key]
	var once sync.Once
	seen := func(obj client.Object) []key {
		if _, whole := obj.(*v1alpha1.PrefetchTask); !whole && !reconciler.knows(client.ObjectKeyFromObject(obj)) {
			return nil // it has been finished for long
		}
		return reconciler.observe(cached(obj))
	}
	add := func(q queue, keys func() []key) {
		once.Do(func() {
			addAfter := q.AddAfter
			wake.add.Store(&addAfter)
		})
		for _, k := range keys() {
			q.Add(k)
		}
	}
	feed := handler.TypedFuncs[client.Object, key]{
		CreateFunc: func(_ context.Context, e event.TypedCreateEvent[client.Object], q queue) {
			count(nil, e.Object)
			add(q, func() []key { return seen(e.Object) })
		},
		UpdateFunc: func(_ context.Context, e event.TypedUpdateEvent[client.Object], q queue) {
			count(e.ObjectOld, e.ObjectNew)
			add(q, func() []key { return seen(e.ObjectNew) })
		},
		DeleteFunc: func(_ context.Context, e event.TypedDeleteEvent[client.Object], q queue) {
			count(e.Object, nil)
			add(q, func() []key { return reconciler.remove(cached(e.Object)) })
		},
	}
	warmup := true
	return builder.TypedControllerManagedBy[key](mgr).
		Named(name).
		Watches(&v1alpha1.PrefetchTask{}, feed).
		WithOptions(controller.TypedOptions[key]{
			MaxConcurrentReconciles: 8, // accounts or zones; each key is worked on by one
			ReconciliationTimeout:   5 * time.Minute,
			EnableWarmup:            &warmup, // a new leader has its lines in memory already
		}).
		Complete(reconciler)
}

// calls counts the calls under way, and lets no new one start once the process
// is stopping.
type calls struct {
	mu       sync.Mutex
	stopping bool
	open     sync.WaitGroup
	claims   map[string]bool
}

// start registers a claim, unless the process is stopping.
func (c *calls) start(claimID string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping {
		return false
	}
	if c.claims == nil {
		c.claims = map[string]bool{}
	}
	c.claims[claimID] = true
	c.open.Add(1)
	return true
}

// stops says whether the process is stopping.
func (c *calls) stops() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopping
}

func (c *calls) end(claimID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.claims, claimID)
	c.open.Done()
}

// has says whether the claim's call is still under way in this process.
func (c *calls) has(claimID string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.claims[claimID]
}

// drain lets calls in flight be answered and recorded before the lease is given
// up, so that a rolling update leaves nothing to settle.
type drain struct {
	op     *operator
	cancel context.CancelFunc
}

// Start waits for the end, and then for the calls.
func (d *drain) Start(ctx context.Context) error {
	<-ctx.Done()
	d.op.calls.mu.Lock()
	d.op.calls.stopping = true
	d.op.calls.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.op.calls.open.Wait()
	}()
	select {
	case <-done:
	case <-time.After(d.op.ShutdownGrace):
	}
	d.cancel()
	return nil
}
