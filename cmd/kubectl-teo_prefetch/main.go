// kubectl-teo_prefetch is a plugin of kubectl for PrefetchTasks: kubectl teo-prefetch.
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	_ "golang.org/x/crypto/x509roots/fallback" // root certificates for verify and sitemaps: an image from scratch has none
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
	context.AfterFunc(ctx, stop) // a second signal kills the program, whatever it is doing
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	os.Exit(cli.Main(ctx, arguments(os.Args), streams, version))
}

// arguments returns the arguments for a command line. Under the name with which kubectl asks plugins for
// completions, the program completes them.
func arguments(args []string) []string {
	name := strings.TrimSuffix(filepath.Base(args[0]), ".exe")
	if name == cli.CompletionName {
		return append([]string{cobra.ShellCompRequestCmd}, args[1:]...)
	}
	return args[1:]
}
