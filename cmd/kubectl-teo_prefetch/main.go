// kubectl-teo_prefetch is a plugin of kubectl for PrefetchTasks: kubectl teo-prefetch.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // the authentication methods of kubeconfigs
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli"
)

// version is set by the build. If it is empty, the version is that of the main module.
var version = ""

func main() {
	klog.SetLogger(logr.Discard()) // the logs of client-go and controller-runtime are not for users
	log.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	code := cli.Main(ctx, os.Args[1:], streams, version)
	stop()
	os.Exit(code)
}
