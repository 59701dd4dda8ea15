// Command kubebuilder is a baseline: the reconciler that results from a kubebuilder
// tutorial, for the operator's own PrefetchTask. It makes one call per object, has a rate
// limiter in the client, and updates the status after the call. It submits jobs, but does
// not follow their outcomes.
package main

import (
	"context"
	"flag"
	"os"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/test/bench/baseline/edgeone"
)

func main() {
	metrics := flag.String("metrics-bind-address", "0", "address of the metrics endpoint")
	probes := flag.String("health-probe-bind-address", "0", "address of /healthz and /readyz")
	endpoint := flag.String("teo-endpoint", "", "URL of the EdgeOne API")
	flag.Parse() // --kubeconfig is a flag of controller-runtime
	ctrl.SetLogger(zap.New())
	if err := run(*metrics, *probes, *endpoint); err != nil {
		ctrl.Log.Error(err, "The manager ended")
		os.Exit(1)
	}
}

func run(metrics, probes, endpoint string) error {
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return err
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(ctrl.GetConfigOrDie(), ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: metrics}, HealthProbeBindAddress: probes,
	})
	if err != nil {
		return err
	}
	edgeOne, err := edgeone.New(endpoint, 0)
	if err != nil {
		return err
	}
	if err := ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.PrefetchTask{}).
		WithOptions(controller.Options{MaxConcurrentReconciles: 8}).
		Complete(&reconciler{mgr.GetClient(), edgeOne}); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("readyz", healthz.Ping); err != nil {
		return err
	}
	return mgr.Start(ctrl.SetupSignalHandler())
}

type reconciler struct {
	client.Client
	edgeOne *edgeone.Client
}

// Reconcile submits a task that has no job yet. The queue retries failures, including
// throttling, with its exponential back-off.
func (r *reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var task v1alpha1.PrefetchTask
	if err := r.Get(ctx, req.NamespacedName, &task); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if len(task.Status.Jobs) > 0 {
		return ctrl.Result{}, nil
	}
	var urls []string
	for _, target := range task.Spec.Targets {
		urls = append(urls, string(target))
	}
	headers := map[string]string{}
	for _, header := range task.Spec.Headers {
		headers[header.Name] = header.Value
	}
	jobID, err := r.edgeOne.Prefetch(ctx, task.Spec.ZoneID, urls, headers)
	if err != nil {
		return ctrl.Result{}, err
	}
	task.Status.ObservedGeneration = task.Generation
	task.Status.Jobs = []v1alpha1.Job{{ID: jobID, ClaimID: "none", Positions: "0", SubmitTime: metav1.Now()}}
	meta.SetStatusCondition(&task.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionSubmitted, Status: metav1.ConditionTrue, Reason: "Accepted", ObservedGeneration: task.Generation,
	})
	return ctrl.Result{}, r.Status().Update(ctx, &task)
}
