// The manager submits PrefetchTasks to Tencent EdgeOne.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	_ "golang.org/x/crypto/x509roots/fallback" // so that an image from scratch can check EdgeOne's certificate
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // so that any kubeconfig works
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/follow"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/credentials"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/endpoint"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
)

// version is set by the build; a build without it tells its commit.
var version = ""

func main() {
	o, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	case err != nil:
		fmt.Fprintf(os.Stderr, "teo-prefetch-operator: %v\n", err)
		os.Exit(2)
	case o.showVersion:
		fmt.Println("teo-prefetch-operator", buildVersion())
		return
	}
	if o.check {
		ctrl.SetLogger(zap.New(zap.WriteTo(io.Discard))) // it says all in its own sentences
		if !runCheck(ctrl.SetupSignalHandler(), o, os.Stdout) {
			os.Exit(1)
		}
		return
	}
	if err := run(ctrl.SetupSignalHandler(), o); err != nil {
		fmt.Fprintf(os.Stderr, "teo-prefetch-operator: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o *options) error {
	if err := o.readable(); err != nil {
		return err
	}
	limitMemory(os.DirFS("/"))
	go releaseMemory(ctx)
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("cannot load the cluster configuration: %w. Run it in a pod of the cluster, or pass --kubeconfig", err)
	}
	// Not before: that there is no cluster would be logged as well, with a stack.
	ctrl.SetLogger(zap.New(zap.UseFlagOptions(&o.logging)))
	config.QPS, config.Burst = 2000, 4000 // the API server has its own fairness; the default would throttle us
	config.DisableCompression = true      // it takes the API server longer than a list takes to send
	config.Wrap(kube.NewReadAhead)
	jobs := follow.NewRecordedJobs()
	grace := o.controller.ShutdownGrace + 5*time.Second
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                        scheme,
		Cache:                         kube.CacheOptions(jobs, o.namespaces()...),
		Metrics:                       metricsserver.Options{BindAddress: "0"}, // see serve
		HealthProbeBindAddress:        "0",
		LeaderElection:                o.leaderElect,
		LeaderElectionID:              o.leaderElectionID,
		LeaderElectionNamespace:       o.leaderElectionNamespace,
		LeaderElectionReleaseOnCancel: true, // the process ends right after
		LeaseDuration:                 &o.leaseDuration,
		RenewDeadline:                 &o.renew,
		RetryPeriod:                   &o.retry,
		GracefulShutdownTimeout:       &grace,
	})
	if err != nil {
		return err
	}
	edgeOne, err := o.edgeOne()
	if err != nil {
		return err
	}
	credentials := &credentials.Reader{Live: mgr.GetAPIReader(), Own: credentials.OwnCredentials(o.credentialsDir), MaxAge: o.controller.RecheckInterval}
	o.controller.Gauges = ctrlmetrics.Registry
	if err := controller.Setup(ctx, mgr, controller.Services{EdgeOne: edgeOne, Credentials: credentials, Jobs: jobs}, o.controller); err != nil {
		return err
	}
	if err := o.serve(mgr); err != nil {
		return err
	}
	ctrl.Log.Info("Starting", "version", buildVersion(), "endpoint", o.endpoint, "qps", o.controller.QPS)
	go func() {
		// A manager that is told to stop while it still waits for its first list
		// would wait for ever. Nothing has been submitted then.
		<-ctx.Done()
		<-time.After(grace + 10*time.Second)
		fmt.Fprintln(os.Stderr, "teo-prefetch-operator: did not stop in time")
		os.Exit(1)
	}()
	return mgr.Start(ctx)
}

// serve adds the servers of metrics and probes to the manager. Its own ones cannot be
// told to bound what strangers make them hold.
func (o *options) serve(mgr manager.Manager) error {
	if o.metricsAddress != "0" {
		var apiServer kubernetes.Interface
		if o.metricsSecure {
			clients, err := kubernetes.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
			if err != nil {
				return err
			}
			apiServer = clients
		}
		server, err := endpoint.NewMetrics(o.metricsAddress, ctrlmetrics.Registry, apiServer)
		if err != nil {
			return fmt.Errorf("--metrics-bind-address: %w", err)
		}
		if err := mgr.Add(server); err != nil {
			return err
		}
	}
	if o.probeAddress == "0" {
		return nil
	}
	server, err := endpoint.NewProbes(o.probeAddress, map[string]healthz.Checker{"tasks": kube.TasksSynced(mgr.GetCache())})
	if err != nil {
		return fmt.Errorf("--health-probe-bind-address: %w", err)
	}
	return mgr.Add(server)
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
