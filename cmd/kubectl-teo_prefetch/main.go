// kubectl-teo_prefetch is a plugin of kubectl for PrefetchTasks: kubectl teo-prefetch.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/cli-runtime/pkg/genericiooptions"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // the authentication methods of kubeconfigs

	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli"
)

// version is set by the build. If it is empty, the version is that of the main module.
var version = ""

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	code := cli.Main(ctx, os.Args[1:], streams, version)
	stop()
	os.Exit(code)
}
