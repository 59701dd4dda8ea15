// Command crossplane is a baseline: Crossplane's managed reconciler with a thin EdgeOne
// client, as in a typical provider.
package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"time"

	xpv1 "github.com/crossplane/crossplane-runtime/apis/common/v1"
	xpcontroller "github.com/crossplane/crossplane-runtime/pkg/controller"
	"github.com/crossplane/crossplane-runtime/pkg/event"
	"github.com/crossplane/crossplane-runtime/pkg/feature"
	"github.com/crossplane/crossplane-runtime/pkg/logging"
	xpmeta "github.com/crossplane/crossplane-runtime/pkg/meta"
	"github.com/crossplane/crossplane-runtime/pkg/ratelimiter"
	"github.com/crossplane/crossplane-runtime/pkg/reconciler/managed"
	"github.com/crossplane/crossplane-runtime/pkg/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/prefetch-operator/teo-prefetch-operator/test/bench/baseline/edgeone"
)

const (
	// maxReconcileRate is a provider's --max-reconcile-rate. With the usual default of 10,
	// it would process fewer tasks per second than EdgeOne allows.
	maxReconcileRate = 100
	// pollInterval is the usual value of --poll.
	pollInterval = time.Minute
)

func main() {
	metrics := flag.String("metrics-bind-address", "0", "address of the metrics endpoint")
	probes := flag.String("health-probe-bind-address", "0", "address of /healthz and /readyz")
	endpoint := flag.String("teo-endpoint", "", "URL of the EdgeOne API")
	flag.Parse() // --kubeconfig is a flag of controller-runtime
	ctrl.SetLogger(zap.New())
	if err := run(*metrics, *probes, *endpoint); err != nil {
		ctrl.Log.Error(err, "The provider ended")
		os.Exit(1)
	}
}

func run(metrics, probes, endpoint string) error {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(groupVersion, &Prefetch{}, &PrefetchList{})
	metav1.AddToGroupVersion(scheme, groupVersion)
	mgr, err := ctrl.NewManager(ratelimiter.LimitRESTConfig(ctrl.GetConfigOrDie(), maxReconcileRate), ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: metrics}, HealthProbeBindAddress: probes,
	})
	if err != nil {
		return err
	}
	edgeOne, err := edgeone.New(endpoint, 0)
	if err != nil {
		return err
	}
	const name = "managed/prefetch"
	o := xpcontroller.Options{
		Logger: logging.NewLogrLogger(ctrl.Log), GlobalRateLimiter: ratelimiter.NewGlobal(maxReconcileRate),
		PollInterval: pollInterval, MaxConcurrentReconciles: maxReconcileRate, Features: &feature.Flags{},
	}
	reconciler := managed.NewReconciler(mgr, resource.ManagedKind(groupVersion.WithKind("Prefetch")),
		managed.WithExternalConnecter(connecter{edgeOne}),
		managed.WithInitializers(), // EdgeOne assigns the external name
		managed.WithPollInterval(o.PollInterval),
		managed.WithLogger(o.Logger),
		managed.WithRecorder(event.NewAPIRecorder(mgr.GetEventRecorderFor(name))),
		managed.WithManagementPolicies())
	if err := ctrl.NewControllerManagedBy(mgr).
		Named(name).
		WithOptions(o.ForControllerRuntime()).
		WithEventFilter(resource.DesiredStateChanged()).
		For(&Prefetch{}).
		Complete(ratelimiter.NewReconciler(name, reconciler, o.GlobalRateLimiter)); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("readyz", healthz.Ping); err != nil {
		return err
	}
	return mgr.Start(ctrl.SetupSignalHandler())
}

// connecter connects all objects in the same way, because there is only one account.
type connecter struct{ edgeOne *edgeone.Client }

func (c connecter) Connect(context.Context, resource.Managed) (managed.ExternalClient, error) {
	return external(c), nil
}

type external struct{ edgeOne *edgeone.Client }

// Observe looks up a job until it has finished.
func (e external) Observe(ctx context.Context, mg resource.Managed) (managed.ExternalObservation, error) {
	p := mg.(*Prefetch)
	jobID := xpmeta.GetExternalName(p)
	if jobID == "" {
		return managed.ExternalObservation{}, nil
	}
	if state := p.Status.AtProvider.State; state == "" || state == "processing" {
		var err error
		if p.Status.AtProvider.State, err = e.edgeOne.State(ctx, p.Spec.ForProvider.ZoneID, jobID); err != nil {
			return managed.ExternalObservation{}, err
		}
	}
	if p.Status.AtProvider.State == "success" {
		p.SetConditions(xpv1.Available())
	} else {
		p.SetConditions(xpv1.Unavailable())
	}
	return managed.ExternalObservation{ResourceExists: true, ResourceUpToDate: true}, nil
}

// Create makes the call.
func (e external) Create(ctx context.Context, mg resource.Managed) (managed.ExternalCreation, error) {
	p := mg.(*Prefetch)
	p.SetConditions(xpv1.Creating())
	jobID, err := e.edgeOne.Prefetch(ctx, p.Spec.ForProvider.ZoneID, []string{p.Spec.ForProvider.URL}, p.Spec.ForProvider.Headers)
	if err == nil {
		xpmeta.SetExternalName(p, jobID)
	}
	return managed.ExternalCreation{}, err
}

// Update always fails: a prefetch cannot be changed.
func (external) Update(context.Context, resource.Managed) (managed.ExternalUpdate, error) {
	return managed.ExternalUpdate{}, errors.New("a prefetch cannot be changed")
}

// Delete does nothing: a prefetch cannot be revoked.
func (external) Delete(context.Context, resource.Managed) (managed.ExternalDelete, error) {
	return managed.ExternalDelete{}, nil
}

// Disconnect does nothing.
func (external) Disconnect(context.Context) error { return nil }
