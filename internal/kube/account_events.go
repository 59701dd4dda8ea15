package kube

import (
	"context"
	"errors"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/account"
)

// AccountEvents passes the EdgeOneAccounts and the labels of namespaces from the watch to the
// account.Store, and to the TaskStore whether the default account exists. It runs in every
// process, also without the lease.
type AccountEvents struct {
	sources []source.SyncingSource
	synced  chan struct{} // closed when Start is done
	err     error         // the error of Start; read it only after synced is closed
}

// noQueue is the queue of the sources' handlers, which they do not use.
type noQueue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// NewAccountEvents returns a handler of the watch events of accounts and namespaces.
func NewAccountEvents(objects cache.Cache, accounts *account.Store, tasks *TaskStore) *AccountEvents {
	set := func(object client.Object) {
		accounts.SetAccount(object.(*v1alpha1.EdgeOneAccount))
		if object.GetName() == v1alpha1.DefaultAccount {
			tasks.SetDefaultAccount(true)
		}
	}
	ofAccounts := handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, _ noQueue) { set(e.Object) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, _ noQueue) { set(e.ObjectNew) },
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, _ noQueue) {
			accounts.DeleteAccount(e.Object.GetName())
			if e.Object.GetName() == v1alpha1.DefaultAccount {
				tasks.SetDefaultAccount(false)
			}
		},
	}
	ofNamespaces := handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, _ noQueue) {
			accounts.SetNamespace(e.Object.GetName(), e.Object.GetLabels())
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, _ noQueue) {
			accounts.SetNamespace(e.ObjectNew.GetName(), e.ObjectNew.GetLabels())
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, _ noQueue) { accounts.DeleteNamespace(e.Object.GetName()) },
	}
	return &AccountEvents{synced: make(chan struct{}), sources: []source.SyncingSource{
		source.Kind[client.Object](objects, &v1alpha1.EdgeOneAccount{}, ofAccounts),
		source.Kind[client.Object](objects, namespaceMetadata(), ofNamespaces),
	}}
}

// namespaceMetadata is a namespace without spec and status.
func namespaceMetadata() *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}}
}

// NeedLeaderElection returns false: processes without the lease handle events as well.
func (*AccountEvents) NeedLeaderElection() bool { return false }

// Start starts the watches, and returns when all objects that existed at the start have been
// handled. It reports an error only through WaitForSync.
func (a *AccountEvents) Start(ctx context.Context) error {
	defer close(a.synced)
	for _, events := range a.sources {
		if a.err = events.Start(ctx, nil); a.err != nil {
			return nil // WaitForSync returns it
		}
	}
	for _, events := range a.sources {
		if a.err = events.WaitForSync(ctx); a.err != nil {
			return nil
		}
	}
	return nil
}

// WaitForSync waits until all objects that existed at the start have been handled. It returns
// the error of Start, if any.
func (a *AccountEvents) WaitForSync(ctx context.Context) error {
	select {
	case <-a.synced:
		return a.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// AccountsSynced returns a readiness check that passes once the cache has read the accounts
// from the API server; see TasksSynced.
func AccountsSynced(objects cache.Cache) healthz.Checker {
	return func(req *http.Request) error {
		for _, object := range []client.Object{&v1alpha1.EdgeOneAccount{}, namespaceMetadata()} {
			informer, err := objects.GetInformer(req.Context(), object, cache.BlockUntilSynced(false))
			if err == nil && !informer.HasSynced() {
				err = errors.New("the accounts and namespaces have not been read from the API server yet")
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
}
