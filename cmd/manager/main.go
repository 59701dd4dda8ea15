// The manager submits PrefetchTasks to Tencent EdgeOne.
//
//   - main.go: starts the manager and its servers.
//   - options.go: the flags, their defaults and their validation. identity.go: those of the
//     role whose keys the operator uses.
//   - check.go: the command check.
//   - memory.go: the limits of the Go runtime's memory.
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

	_ "golang.org/x/crypto/x509roots/fallback" // root certificates for EdgeOne: an image from scratch has none
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // the authentication methods of kubeconfigs
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/account"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/follow"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/credentials"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/endpoint"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// version is set by the build. If it is empty, the version is that of the main module,
// which contains the commit.
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
		ctrl.SetLogger(zap.New(zap.WriteTo(io.Discard))) // the check prints its own messages
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

// run starts the manager and returns when it has stopped.
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
	// Enable logging only now. Otherwise, a missing cluster configuration would also be
	// logged, with a stack trace.
	ctrl.SetLogger(zap.New(zap.UseFlagOptions(&o.logging)))
	config.QPS, config.Burst = 2000, 4000 // the API server applies its own priority and fairness; the defaults of client-go are too low
	config.DisableCompression = true      // compressing a list takes the API server longer than sending it
	config.Wrap(kube.NewReadAhead)
	services := controller.Services{Jobs: follow.NewRecordedJobs()}
	if o.accounts {
		services.Accounts, services.Answers = account.NewStore(account.NewUsage(o.controller.QuotaReset)), account.NewAnswers()
	}
	grace := o.controller.ShutdownGrace + 5*time.Second
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                        scheme,
		Cache:                         kube.CacheOptions(controller.NewJobRecorder(services.Jobs, services.Accounts), o.namespaces()...),
		Metrics:                       metricsserver.Options{BindAddress: "0"}, // replaced by serve
		HealthProbeBindAddress:        "0",
		LeaderElection:                o.leaderElect,
		LeaderElectionID:              o.leaderElectionID,
		LeaderElectionNamespace:       o.leaseNamespace(),
		LeaderElectionReleaseOnCancel: true, // safe, because the process exits right after
		LeaseDuration:                 &o.leaseDuration,
		RenewDeadline:                 &o.renew,
		RetryPeriod:                   &o.retry,
		GracefulShutdownTimeout:       &grace,
	})
	if err != nil {
		return err
	}
	if services.EdgeOne, services.Credentials, err = o.newClients(ctx, mgr.GetAPIReader(), services.Accounts); err != nil {
		return err
	}
	o.controller.Gauges = ctrlmetrics.Registry
	if err := controller.Setup(ctx, mgr, services, o.controller); err != nil {
		return err
	}
	if err := o.serve(mgr); err != nil {
		return err
	}
	ctrl.Log.Info("Starting", "version", buildVersion(), "endpoint", o.endpoint, "qps", o.controller.QPS)
	go func() {
		// Exit if the manager does not stop in time. A manager that is stopped while it
		// still waits for its first list never returns. It has not submitted anything at
		// that point.
		<-ctx.Done()
		<-time.After(grace + 10*time.Second)
		fmt.Fprintln(os.Stderr, "teo-prefetch-operator: did not stop in time")
		os.Exit(1)
	}()
	return mgr.Start(ctx)
}

// newClients returns the client for EdgeOne, and the reader of the keys that sign its calls.
// accounts is nil if the operator does not use accounts.
func (o *options) newClients(ctx context.Context, live client.Reader, accounts *account.Store) (*teo.Client, *credentials.Reader, error) {
	role, err := o.newRole(ctx)
	if err != nil {
		return nil, nil, err
	}
	identity, err := o.accountIdentity(ctx)
	if err != nil {
		return nil, nil, err
	}
	reader := &credentials.Reader{Live: live, Own: credentials.OwnCredentials(o.credentialsDir), Identity: identity, MaxAge: o.controller.RecheckInterval}
	keyRefused := reader.RefuseKey
	if role != nil {
		reader.Role = credentials.RoleCredentials(role)
		keyRefused = func(creds teo.Credentials) {
			role.Refuse(creds.SecretID)
			reader.RefuseKey(creds)
		}
		ctrl.Log.Info("The operator's own credentials are temporary keys", "identity", o.identityText(), "sts", o.identity.endpoint)
	}
	if accounts != nil {
		reader.Accounts = accounts.Account
		accounts.Subscribe(reader.OnAccountChange)
	}
	edgeOne, err := o.edgeOne(keyRefused)
	return edgeOne, reader, err
}

// serve adds the servers for metrics and probes to the manager. They replace the servers
// of controller-runtime, which have no options to bound what clients can make them hold.
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
	checks := map[string]healthz.Checker{"tasks": kube.TasksSynced(mgr.GetCache())}
	if o.accounts {
		checks["accounts"] = kube.AccountsSynced(mgr.GetCache())
	}
	server, err := endpoint.NewProbes(o.probeAddress, checks)
	if err != nil {
		return fmt.Errorf("--health-probe-bind-address: %w", err)
	}
	return mgr.Add(server)
}

// buildVersion returns the version for the logs and the User-Agent.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
