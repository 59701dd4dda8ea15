// Package controller adds the operator's controllers to a manager.
//
//   - submit: turns waiting tasks into calls to EdgeOne.
//   - follow: reads outcomes, and settles calls whose answer was lost.
//   - ttl: deletes finished tasks when their time to live has passed.
//   - account: writes the statuses of EdgeOneAccounts.
//
// The controllers do not import each other. Setup passes them the shared parts: the newest
// version of each task, the status writer and the EdgeOne client. The tests in this folder run
// all controllers together, against an API server in virtual time and a simulated EdgeOne.
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

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/account"
	accountstatus "github.com/prefetch-operator/teo-prefetch-operator/internal/controller/account"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/follow"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/submit"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/ttl"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/credentials"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/metrics"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/targetlist"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// Options holds the limits and intervals of the controllers. The manager's flags document
// their meaning and defaults.
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
	AllowPurge        []v1alpha1.PurgeType // without an account
	PurgeDeadline     time.Duration
	PurgeSettle       time.Duration
	// Gauges registers the gauges and the counter of URLs. If it is nil, there are none.
	Gauges prometheus.Registerer
}

// Services holds dependencies that the controllers use and do not own.
type Services struct {
	EdgeOne     *teo.Client
	Credentials *credentials.Reader
	Jobs        *follow.RecordedJobs // the same value as in the cache's kube.CacheOptions
	Accounts    *account.Store       // nil: no EdgeOneAccounts are used
	Answers     *account.Answers     // nil without Accounts
}

// +kubebuilder:rbac:groups=teo.prefetch-operator.io,resources=prefetchtasks,verbs=get;list;watch;delete
// +kubebuilder:rbac:groups=teo.prefetch-operator.io,resources=prefetchtasks/status,verbs=update
// +kubebuilder:rbac:groups="",resources=configmaps;secrets,verbs=get
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Setup adds the controllers to the manager. The manager's cache must use kube.CacheOptions
// with the same RecordedJobs as services.
func Setup(ctx context.Context, mgr manager.Manager, services Services, options Options) error {
	// critical outlives ctx: the ShutdownGate cancels it when the calls in flight have ended
	// or ShutdownGrace has passed.
	critical, cancel := context.WithCancel(context.WithoutCancel(ctx))
	calls, tasks := &submit.InFlightCalls{}, kube.NewTaskStore()
	if err := mgr.Add(submit.ShutdownGate{Calls: calls, Grace: options.ShutdownGrace, Cancel: cancel}); err != nil {
		return err
	}
	events := kube.NewEventReporter(mgr.GetEventRecorder("teo-prefetch-operator"), metrics.ObserveRun)
	targets := metrics.NewTargetCounter()
	writer := kube.NewStatusWriter(mgr.GetClient(), mgr.GetAPIReader(), tasks, options.WriteTimeout, targets.ObserveStatusWrite)
	runs := kube.NewWriteRate(kube.RunRate)
	lists := targetlist.Config{
		Tasks: tasks, Writer: writer, EventReporter: events, Live: mgr.GetAPIReader(), Leads: mgr.Elected(), Critical: critical,
		RecheckInterval: options.RecheckInterval, ReadTimeout: options.WriteTimeout,
	}
	resolver := targetlist.NewResolver(lists)
	following := options.followConfig(follow.Config{
		Tasks: tasks, Writer: writer, Events: events, EdgeOne: services.EdgeOne, Credentials: services.Credentials, Jobs: services.Jobs,
		Runs: runs, IsInFlight: calls.IsInFlight,
	})
	poller, purges := follow.NewPoller(following), follow.NewPoller(options.forPurges(following))
	submitter := submit.NewSubmitter(options.submitConfig(submit.Config{
		Tasks: tasks, Writer: writer, Events: events, EdgeOne: services.EdgeOne, Credentials: services.Credentials, Lists: resolver,
		Calls: calls, Runs: runs, Critical: critical, Accounts: services.Accounts, Answers: services.Answers,
	}))
	ready, err := watchAccounts(mgr, services.Accounts, tasks)
	if err != nil {
		return err
	}
	loader := targetlist.NewLoader(lists)
	// Only the leader loads target lists.
	go func() {
		select {
		case <-mgr.Elected():
			loader.StartLoads()
		case <-ctx.Done():
		}
	}()
	counter := metrics.NewTaskCounter(kube.ReadyReasonOf)
	changes := kube.NewTaskEvents(mgr.GetCache(), tasks, ready, counter.CountTask)
	garbage := follow.NewGarbageCollector([]*follow.Poller{poller, purges}, changes.WaitForSync, submitter.DropIdleQueues)
	if err := errors.Join(mgr.Add(changes), mgr.Add(garbage), ttl.Setup(mgr)); err != nil {
		return err
	}
	if options.Gauges != nil {
		collector := metrics.NewCollector(options.QPS, mgr.Elected(), counter, submitter.StatsByZone, func() map[string]time.Duration {
			return longestAges(poller.UnsettledAges(), purges.UnsettledAges())
		})
		if err := errors.Join(options.Gauges.Register(collector), options.Gauges.Register(targets)); err != nil {
			return err
		}
	}
	return errors.Join(
		addController(mgr, "submitter", submitter, kube.NewDelayedQueueSource(&submitter.DelayedQueue, changes)),
		addController(mgr, "settler", follow.NewLostCallReconciler(poller), kube.NewDelayedQueueSource(&poller.LostCalls, changes)),
		addController(mgr, "poller", poller, kube.NewDelayedQueueSource(&poller.DelayedQueue, changes)),
		addController(mgr, "purge-settler", follow.NewLostCallReconciler(purges), kube.NewDelayedQueueSource(&purges.LostCalls, changes)),
		addController(mgr, "purge-poller", purges, kube.NewDelayedQueueSource(&purges.DelayedQueue, changes)),
		addAccountStatuses(critical, mgr, changes, services, options),
	)
}

// addAccountStatuses adds the controller of EdgeOneAccounts, if the operator uses them. The
// process counts what is used of them from the moment on at which it has seen everything.
func addAccountStatuses(critical context.Context, mgr manager.Manager, changes *kube.TaskEvents, services Services, options Options) error {
	if services.Accounts == nil {
		return nil
	}
	go func() {
		select {
		case <-mgr.Elected():
			if changes.WaitForSync(critical) == nil { // the statuses of all accounts and tasks are counted
				services.Accounts.Usage.Seal()
			}
		case <-critical.Done():
		}
	}()
	r := accountstatus.NewReconciler(accountstatus.Config{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Events: mgr.GetEventRecorder("teo-prefetch-operator"), Critical: critical,
		Accounts: services.Accounts, Answers: services.Answers, Credentials: services.Credentials, EdgeOne: services.EdgeOne,
		Batch: options.Batch, RecheckInterval: options.RecheckInterval, WriteTimeout: options.WriteTimeout,
	})
	if options.Gauges != nil {
		if err := options.Gauges.Register(metrics.NewAccountCollector(mgr.Elected(), r.Stats)); err != nil {
			return err
		}
	}
	return accountstatus.Setup(mgr, r, kube.NewDelayedQueueSource(&r.DelayedQueue, changes))
}

// watchAccounts fills the store of accounts from the watch. It returns a function that waits
// until all accounts that existed at the start are in the store. Tasks are handled after that:
// a task that names no account must not be submitted with the operator's own key while it is
// unknown that the account named default exists.
func watchAccounts(mgr manager.Manager, accounts *account.Store, tasks *kube.TaskStore) (func(context.Context) error, error) {
	if accounts == nil {
		return func(context.Context) error { return nil }, nil
	}
	events := kube.NewAccountEvents(mgr.GetCache(), accounts, tasks)
	return events.WaitForSync, mgr.Add(events)
}

// NewJobRecorder returns the recorder for kube.CacheOptions: the jobs that the poller must
// know, and the use of the accounts' budgets. accounts may be nil.
func NewJobRecorder(jobs *follow.RecordedJobs, accounts *account.Store) kube.JobRecorder {
	if accounts == nil {
		return jobs
	}
	return jobRecorder{jobs, accounts.Usage}
}

type jobRecorder struct {
	*follow.RecordedJobs
	usage *account.Usage
}

// ObserveTask passes a version of a task to both.
func (r jobRecorder) ObserveTask(task *v1alpha1.PrefetchTask) {
	r.RecordedJobs.ObserveTask(task)
	r.usage.ObserveJobs(task)
}

// submitConfig adds the options' limits and intervals to c.
func (o *Options) submitConfig(c submit.Config) submit.Config {
	c.Batch, c.TasksPerCall, c.QPS, c.QuotaInterval, c.QuotaReset = o.Batch, o.TasksPerCall, o.QPS, o.QuotaInterval, o.QuotaReset
	c.RecheckInterval, c.SignatureValidity, c.SettleMargin = o.RecheckInterval, o.SignatureValidity, o.SettleMargin
	c.WriteTimeout, c.CallTimeout = o.WriteTimeout, o.CallTimeout
	c.AllowPurge, c.PurgeDeadline, c.PurgeSettle = o.AllowPurge, o.PurgeDeadline, o.PurgeSettle
	return c
}

// followConfig adds the options' intervals to c.
func (o *Options) followConfig(c follow.Config) follow.Config {
	c.PollInterval, c.JobDeadline, c.RecheckInterval, c.HistoryRetention = o.PollInterval, o.JobDeadline, o.RecheckInterval, o.HistoryRetention
	c.SignatureValidity, c.SettleMargin, c.CallTimeout = o.SignatureValidity, o.SettleMargin, o.CallTimeout
	return c
}

// purgePollInterval is the shortest time between two reads of a purge. A purge takes less than a
// minute, and its targets are cold until they are prefetched.
const purgePollInterval = time.Second

// forPurges returns the configuration of the Poller of purges.
func (o *Options) forPurges(c follow.Config) follow.Config {
	c.Kind, c.JobDeadline, c.PurgeSettle = v1alpha1.JobPurge, o.PurgeDeadline, o.PurgeSettle
	c.PollInterval = min(c.PollInterval, purgePollInterval)
	return c
}

// longestAges returns the longer of two ages of each zone.
func longestAges(a, b map[string]time.Duration) map[string]time.Duration {
	for zone, age := range b {
		a[zone] = max(a[zone], age)
	}
	return a
}

// addController adds a controller that gets its keys from a source.
func addController[key comparable](mgr manager.Manager, name string, reconciler reconcile.TypedReconciler[key], keys source.TypedSource[key]) error {
	warmup := true
	return builder.TypedControllerManagedBy[key](mgr).
		Named(name).
		WatchesRawSource(keys).
		WithOptions(controller.TypedOptions[key]{
			MaxConcurrentReconciles: 8, // accounts or zones at a time; one worker per key
			ReconciliationTimeout:   5 * time.Minute,
			EnableWarmup:            &warmup, // so that a new leader already has its account queues in memory
		}).
		Complete(reconciler)
}
