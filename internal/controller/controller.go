// Package controller submits PrefetchTasks to EdgeOne, follows EdgeOne's jobs until they
// end, and deletes tasks whose time to live is over (expiry.go).
//
// There are two controllers for EdgeOne. The key of the Submitter is a Secret, because
// EdgeOne meters calls by account. A pass plans the calls for which there will be slots soon
// (internal/queue decides) and hands each call to a goroutine that claims, waits for a slot,
// calls and records (call.go). The key of the Poller is a zone of a Secret. A pass reads
// EdgeOne's history once for all open jobs of the zone (outcomes.go). A third controller
// settles calls whose response was lost (lost_calls.go). internal/taskstate has everything
// that may happen to a status; requeue.go turns failures into waits.
package controller

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/credentials"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/metrics"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/targetlist"
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

// sharedState is what both controllers share.
type sharedState struct {
	Options
	versions    *kube.TaskStore
	store       kube.StatusWriter
	edgeOne     *teo.Client
	credentials *credentials.Reader
	*kube.EventReporter
	runs  *kube.WriteRate // starts of runs and retries
	notes *kube.WriteRate // writes that say why a task waits
	lists *targetlist.Resolver

	calls    inFlightCalls
	claiming *semaphore.Weighted // by claims to write
	critical context.Context     // of claim, call and record; outlives shutdown
}

// +kubebuilder:rbac:groups=teo.prefetch-operator.io,resources=prefetchtasks,verbs=get;list;watch;delete
// +kubebuilder:rbac:groups=teo.prefetch-operator.io,resources=prefetchtasks/status,verbs=update
// +kubebuilder:rbac:groups="",resources=configmaps;secrets,verbs=get
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Setup adds both controllers to the manager, whose cache has CacheOptions of the
// same jobs.
func Setup(ctx context.Context, mgr manager.Manager, edgeOne *teo.Client, credentials *credentials.Reader, jobs *RecordedJobs, options Options) error {
	critical, cancel := context.WithCancel(context.WithoutCancel(ctx))
	op := &sharedState{
		Options:       options,
		versions:      kube.NewTaskStore(),
		edgeOne:       edgeOne,
		credentials:   credentials,
		EventReporter: kube.NewEventReporter(mgr.GetEventRecorder("teo-prefetch-operator"), metrics.ObserveRun),
		claiming:      semaphore.NewWeighted(kube.MaxStatusWriters),
		runs:          kube.NewWriteRate(kube.RunRate),
		notes:         kube.NewWriteRate(kube.NoteRate),
		critical:      critical,
	}
	op.store = kube.NewStatusWriter(mgr.GetClient(), mgr.GetAPIReader(), op.versions, options.WriteTimeout)
	if err := mgr.Add(&shutdownGate{op: op, cancel: cancel}); err != nil {
		return err
	}
	jobs.setRetention(options.HistoryRetention)
	lists := targetlist.Config{
		Tasks: op.versions, Writer: op.store, EventReporter: op.EventReporter, Live: mgr.GetAPIReader(), Leads: mgr.Elected(), Critical: critical,
		RecheckInterval: options.RecheckInterval, ReadTimeout: options.WriteTimeout,
	}
	op.lists = targetlist.NewResolver(lists)
	poller := newPoller(op, jobs)
	submitter := newSubmitter(op)
	loader := targetlist.NewLoader(lists)
	go func() {
		select {
		case <-mgr.Elected():
			loader.StartLoads()
		case <-ctx.Done():
		}
	}()
	tasks := metrics.NewTaskCounter(kube.ReadyReasonOf)
	feed := kube.NewTaskEvents(mgr.GetCache(), op.versions, tasks.CountTask)
	if err := errors.Join(mgr.Add(feed), mgr.Add(stateCollector{poller, feed.WaitForSync, submitter.dropIdleQueues}), setupTTLController(mgr)); err != nil {
		return err
	}
	if options.Gauges != nil {
		if err := options.Gauges.Register(metrics.NewCollector(options.QPS, mgr.Elected(), tasks, submitter.statsByZone, poller.unsettledAges)); err != nil {
			return err
		}
	}
	if err := addController(mgr, "submitter", submitter, kube.NewDelayedQueueSource(&submitter.DelayedQueue, feed)); err != nil {
		return err
	}
	if err := addController(mgr, "settler", lostCallReconciler{poller}, kube.NewDelayedQueueSource(&poller.lostCalls, feed)); err != nil {
		return err
	}
	return addController(mgr, "poller", poller, kube.NewDelayedQueueSource(&poller.DelayedQueue, feed))
}

// addController starts a controller whose keys come from a source.
func addController[key comparable](mgr manager.Manager, name string, reconciler reconcile.TypedReconciler[key], keys source.TypedSource[key]) error {
	warmup := true
	return builder.TypedControllerManagedBy[key](mgr).
		Named(name).
		WatchesRawSource(keys).
		WithOptions(controller.TypedOptions[key]{
			MaxConcurrentReconciles: 8, // accounts or zones; each key is worked on by one
			ReconciliationTimeout:   5 * time.Minute,
			EnableWarmup:            &warmup, // a new leader has its lines in memory already
		}).
		Complete(reconciler)
}

// inFlightCalls counts the calls under way, and lets no new one start once the process
// is stopping.
type inFlightCalls struct {
	mu       sync.Mutex
	stopping bool
	open     sync.WaitGroup
	claims   map[string]bool
}

// startCall registers a claim, unless the process is stopping.
func (c *inFlightCalls) startCall(claimID string) bool {
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

// stopCalls says whether the process is stopping.
func (c *inFlightCalls) stopCalls() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopping
}

func (c *inFlightCalls) endCall(claimID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.claims, claimID)
	c.open.Done()
}

// isInFlight says whether the claim's call is still under way in this process.
func (c *inFlightCalls) isInFlight(claimID string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.claims[claimID]
}

// shutdownGate lets calls in flight be answered and recorded before the lease is given
// up, so that a rolling update leaves nothing to settle.
type shutdownGate struct {
	op     *sharedState
	cancel context.CancelFunc
}

// Start waits for the end, and then for the calls.
func (d *shutdownGate) Start(ctx context.Context) error {
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
