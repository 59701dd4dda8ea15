package cli

import (
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// environment is what all commands share.
type environment struct {
	genericiooptions.IOStreams
	version string
	// config has kubectl's flags: --context, --kubeconfig, --namespace and others.
	config *genericclioptions.ConfigFlags
	// clusterFlags has the same flags, with what the command line says of them.
	clusterFlags *pflag.FlagSet
	now          func() time.Time
}

func newEnvironment(streams genericiooptions.IOStreams, version string) *environment {
	config := genericclioptions.NewConfigFlags(true).WithWrapConfigFn(func(c *rest.Config) *rest.Config {
		c.QPS, c.Burst = -1, -1 // the API server's priority and fairness limits clients, not this program
		c.WarningHandler = rest.NoWarnings{}
		return c
	})
	return &environment{IOStreams: streams, version: version, config: config, now: time.Now}
}

// addFlags adds kubectl's flags to a command and its subcommands.
func (e *environment) addFlags(root *cobra.Command) {
	e.clusterFlags = root.PersistentFlags()
	e.config.AddFlags(e.clusterFlags)
	shown := []string{"namespace", "context", "kubeconfig"} // kubectl options lists all
	e.clusterFlags.VisitAll(func(flag *pflag.Flag) { flag.Hidden = !slices.Contains(shown, flag.Name) })
	_ = root.RegisterFlagCompletionFunc("namespace", e.completeNamespaces)
}

// noCluster is the address that kubectl's configuration has if nobody has configured a cluster.
const noCluster = "http://localhost:8080"

// client returns a client for the cluster of the kubeconfig. It reads nothing before it is used.
func (e *environment) client() (client.WithWatch, error) {
	config, err := e.config.ToRESTConfig()
	if err != nil {
		return nil, explainConfig(err)
	}
	if config.Host == noCluster && *e.config.APIServer == "" {
		return nil, clientcmd.ErrEmptyConfig
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	return client.NewWithWatch(config, client.Options{Scheme: scheme})
}

// namespace returns the namespace of --namespace or of the kubeconfig's context.
func (e *environment) namespace() (string, error) {
	namespace, _, err := e.config.ToRawKubeConfigLoader().Namespace()
	return namespace, explainConfig(err)
}
