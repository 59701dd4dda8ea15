package account

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	accounts "github.com/prefetch-operator/teo-prefetch-operator/internal/account"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// CredentialReader reads the credentials of accounts. A credentials.Reader is one.
type CredentialReader interface {
	GetCredentials(context.Context, taskstate.AccountKey) (teo.Credentials, error)
	// ForgetCredentials makes the next GetCredentials read them again.
	ForgetCredentials(taskstate.AccountKey)
}

// QuotaReader reads the quota of a zone. A teo.Client is one.
type QuotaReader interface {
	DescribeContentQuota(ctx context.Context, creds teo.Credentials, zoneID string) (teo.ContentQuota, error)
}

// Config holds the dependencies and intervals of the Reconciler.
type Config struct {
	Client      client.Client
	Live        client.Reader // reads past the cache
	Events      events.EventRecorder
	Accounts    *accounts.Store // the accounts as the watch shows them, and their usage
	Answers     *accounts.Answers
	Credentials CredentialReader
	EdgeOne     QuotaReader
	Critical    context.Context // ends when the last call of this process has ended

	Batch           int // URLs per call while EdgeOne's limit of a zone is unknown
	RecheckInterval time.Duration
	WriteTimeout    time.Duration
}

const (
	// usageInterval is the shortest time between two writes of a status of which only the
	// usage has changed. It is also how often the usage is looked at.
	usageInterval = 10 * time.Second
	// writeRetry is the time until a status is written again that could not be written.
	writeRetry = time.Second
)

// Reconciler writes the statuses of accounts. Its keys are the names of accounts.
type Reconciler struct {
	Config
	kube.DelayedQueue[string]

	mu     sync.Mutex               // guards the map, not the states
	states map[string]*accountState // by name; only the worker of the key uses a state
}

// NewReconciler returns a Reconciler for all accounts of the store.
func NewReconciler(config Config) *Reconciler {
	r := &Reconciler{Config: config, states: map[string]*accountState{}}
	enqueue := func(account string) {
		if account != "" { // a change of a namespace, or an answer about the operator's own keys
			r.EnqueueAfter(account, 0)
		}
	}
	config.Accounts.Subscribe(enqueue)
	config.Answers.Subscribe(enqueue)
	return r
}

// Setup adds the Reconciler to the manager. keys is the source that enqueues what its
// DelayedQueue holds, after the accounts and tasks that exist have been read.
func Setup(mgr manager.Manager, r *Reconciler, keys source.TypedSource[string]) error {
	if err := mgr.Add(flusher{r}); err != nil {
		return err
	}
	return builder.TypedControllerManagedBy[string](mgr).
		Named("accounts").
		WatchesRawSource(keys).
		WithOptions(controller.TypedOptions[string]{
			MaxConcurrentReconciles: 8,
			ReconciliationTimeout:   5 * time.Minute,
		}).
		Complete(r)
}

// Reconcile checks the credentials of an account if that is due, and writes its status if
// something has changed.
func (r *Reconciler) Reconcile(ctx context.Context, name string) (reconcile.Result, error) {
	account := r.Accounts.Account(name)
	if account == nil {
		r.forget(name)
		return reconcile.Result{}, nil
	}
	s := r.stateOf(account)
	if !time.Now().Before(s.checkAt) {
		r.check(ctx, account, s)
		if ctx.Err() != nil {
			return reconcile.Result{}, nil // this process stops
		}
	}
	wait := min(time.Until(s.checkAt), r.writeStatus(ctx, account, s))
	return reconcile.Result{RequeueAfter: max(wait, time.Millisecond)}, nil
}

// stateOf returns the state of an account. A new account of the same name and new
// credentials get a new state.
func (r *Reconciler) stateOf(account *v1alpha1.EdgeOneAccount) *accountState {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.states[account.Name]
	if known != nil && known.uid == account.UID && known.credentials == account.Spec.Credentials {
		return known
	}
	s := newState(account)
	if known != nil {
		s.changedAt = time.Now()
		s.isCarried = false
		r.Answers.ForgetAnswer(account.Name)
		r.Credentials.ForgetCredentials(keyOf(account))
	}
	r.states[account.Name] = s
	return s
}

// forget drops what is known of an account that is gone.
func (r *Reconciler) forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.states, name)
	r.Answers.ForgetAnswer(name)
	r.Credentials.ForgetCredentials(taskstate.AccountKey{Account: name})
}

// names returns the names of the accounts whose statuses this process writes.
func (r *Reconciler) names() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.states))
}

// keyOf returns the key of an account's credentials.
func keyOf(account *v1alpha1.EdgeOneAccount) taskstate.AccountKey {
	return taskstate.AccountKey{Account: account.Name}
}
