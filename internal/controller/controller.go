// Package controller adds the operator's controllers to a manager.
//
//   - submit: turns waiting tasks into calls to EdgeOne.
//   - follow: reads outcomes, and settles calls whose answer was lost.
//   - ttl: deletes finished tasks when their time to live is over.
//
// The controllers do not know each other. Setup hands them what they share: the newest version
// of each task, the writer of statuses, the client of EdgeOne. The tests in this folder run
// all of them together, on an API server in virtual time and a simulated EdgeOne.
package controller

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/follow"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/submit"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/ttl"
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

// Services are what the controllers use and do not own.
type Services struct {
	EdgeOne     *teo.Client
	Credentials *credentials.Reader
	Jobs        *follow.RecordedJobs // of the manager's cache; see kube.CacheOptions
}

// +kubebuilder:rbac:groups=teo.prefetch-operator.io,resources=prefetchtasks,verbs=get;list;watch;delete
// +kubebuilder:rbac:groups=teo.prefetch-operator.io,resources=prefetchtasks/status,verbs=update
// +kubebuilder:rbac:groups="",resources=configmaps;secrets,verbs=get
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Setup adds the controllers to the manager, whose cache has kube.CacheOptions of the same
// jobs.
func Setup(ctx context.Context, mgr manager.Manager, services Services, options Options) error {
	critical, cancel := context.WithCancel(context.WithoutCancel(ctx))
	calls, tasks := &submit.InFlightCalls{}, kube.NewTaskStore()
	if err := mgr.Add(submit.ShutdownGate{Calls: calls, Grace: options.ShutdownGrace, Cancel: cancel}); err != nil {
		return err
	}
	events := kube.NewEventReporter(mgr.GetEventRecorder("teo-prefetch-operator"), metrics.ObserveRun)
	writer := kube.NewStatusWriter(mgr.GetClient(), mgr.GetAPIReader(), tasks, options.WriteTimeout)
	runs := kube.NewWriteRate(kube.RunRate)
	lists := targetlist.Config{
		Tasks: tasks, Writer: writer, EventReporter: events, Live: mgr.GetAPIReader(), Leads: mgr.Elected(), Critical: critical,
		RecheckInterval: options.RecheckInterval, ReadTimeout: options.WriteTimeout,
	}
	resolver := targetlist.NewResolver(lists)
	poller := follow.NewPoller(options.followConfig(follow.Config{
		Tasks: tasks, Writer: writer, Events: events, EdgeOne: services.EdgeOne, Credentials: services.Credentials, Jobs: services.Jobs,
		Runs: runs, IsInFlight: calls.IsInFlight,
	}))
	submitter := submit.NewSubmitter(options.submitConfig(submit.Config{
		Tasks: tasks, Writer: writer, Events: events, EdgeOne: services.EdgeOne, Credentials: services.Credentials, Lists: resolver,
		Calls: calls, Runs: runs, Critical: critical,
	}))
	loader := targetlist.NewLoader(lists)
	go func() {
		select {
		case <-mgr.Elected():
			loader.StartLoads()
		case <-ctx.Done():
		}
	}()
	counter := metrics.NewTaskCounter(kube.ReadyReasonOf)
	changes := kube.NewTaskEvents(mgr.GetCache(), tasks, counter.CountTask)
	if err := errors.Join(mgr.Add(changes), mgr.Add(follow.NewGarbageCollector(poller, changes.WaitForSync, submitter.DropIdleQueues)), ttl.Setup(mgr)); err != nil {
		return err
	}
	if options.Gauges != nil {
		collector := metrics.NewCollector(options.QPS, mgr.Elected(), counter, submitter.StatsByZone, poller.UnsettledAges)
		if err := options.Gauges.Register(collector); err != nil {
			return err
		}
	}
	return errors.Join(
		addController(mgr, "submitter", submitter, kube.NewDelayedQueueSource(&submitter.DelayedQueue, changes)),
		addController(mgr, "settler", follow.NewLostCallReconciler(poller), kube.NewDelayedQueueSource(&poller.LostCalls, changes)),
		addController(mgr, "poller", poller, kube.NewDelayedQueueSource(&poller.DelayedQueue, changes)),
	)
}

// submitConfig adds the limits and intervals of the options.
func (o *Options) submitConfig(c submit.Config) submit.Config {
	c.Batch, c.TasksPerCall, c.QPS, c.QuotaInterval, c.QuotaReset = o.Batch, o.TasksPerCall, o.QPS, o.QuotaInterval, o.QuotaReset
	c.RecheckInterval, c.SignatureValidity, c.SettleMargin = o.RecheckInterval, o.SignatureValidity, o.SettleMargin
	c.WriteTimeout, c.CallTimeout = o.WriteTimeout, o.CallTimeout
	return c
}

// followConfig adds the intervals of the options.
func (o *Options) followConfig(c follow.Config) follow.Config {
	c.PollInterval, c.JobDeadline, c.RecheckInterval, c.HistoryRetention = o.PollInterval, o.JobDeadline, o.RecheckInterval, o.HistoryRetention
	c.SignatureValidity, c.SettleMargin, c.CallTimeout = o.SignatureValidity, o.SettleMargin, o.CallTimeout
	return c
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
