package cli

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/clientcmd"
)

// explainFlag returns an error of a flag's value as one that says which values it has.
func explainFlag(_ *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return err
	}
	flag, value := invalid.GetFlag(), invalid.GetValue()
	switch {
	case flag.Name == "wait":
		return fmt.Errorf("--wait is %q, and has no value: for a limit, give --wait --timeout=45m", value)
	case flag.Value.Type() == "bool":
		return fmt.Errorf("--%s is %q: give it without a value, or true or false", flag.Name, value)
	case flag.Value.Type() == "duration":
		return fmt.Errorf("--%s is %q: give a duration in h, m or s, such as 24h, 45m or 30s", flag.Name, value)
	case strings.HasPrefix(flag.Value.Type(), "int"), strings.HasPrefix(flag.Value.Type(), "uint"):
		return fmt.Errorf("--%s is %q: give a whole number", flag.Name, value)
	}
	return err
}

// explainConfig returns an error of loading the kubeconfig as one that names it.
func explainConfig(err error) error {
	var file *fs.PathError
	if errors.As(err, &file) {
		return fmt.Errorf("the kubeconfig cannot be read: %w; check --kubeconfig and KUBECONFIG", err)
	}
	return err
}

// explain returns an error as one sentence that says what to do.
func explain(err error) error {
	var unreachable *net.OpError
	var untrusted *tls.CertificateVerificationError
	var request *url.Error
	switch {
	case meta.IsNoMatchError(err):
		return errors.New("the cluster has no PrefetchTasks: install the operator first, see docs/install.md")
	case clientcmd.IsEmptyConfig(err):
		return errors.New("no cluster is configured: set KUBECONFIG, or give --kubeconfig or --context")
	case errors.As(err, &unreachable) && errors.As(err, &request):
		return explainRequest(err, request, fmt.Sprintf("the cluster cannot be reached at %s: %v; check --context and your network", request.URL, unreachable))
	case errors.As(err, &untrusted) && errors.As(err, &request):
		return explainRequest(err, request, fmt.Sprintf("the certificate of the cluster at %s is not trusted: %v; check --context, and the certificate-authority "+
			"of the cluster in the kubeconfig", request.URL, untrusted.Err))
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%w; ask who manages the cluster for the role edit (or view, to read only)", err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("the cluster does not accept your credentials: log in again, or check --context (%w)", err)
	}
	return err
}

// explainRequest returns an error with another text for the request that has failed. What is said around it
// stays, but for what client-go says of its first request.
func explainRequest(err error, request *url.Error, explained string) error {
	text := strings.Replace(err.Error(), "failed to get server groups: ", "", 1)
	return errors.New(strings.Replace(text, request.Error(), explained, 1))
}
