package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/clientcmd"
)

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
	var request *url.Error
	switch {
	case meta.IsNoMatchError(err):
		return errors.New("the cluster has no PrefetchTasks: install the operator first, see docs/install.md")
	case clientcmd.IsEmptyConfig(err):
		return errors.New("no cluster is configured: set KUBECONFIG, or give --kubeconfig or --context")
	case errors.As(err, &unreachable) && errors.As(err, &request):
		explained := fmt.Sprintf("the cluster cannot be reached at %s: %v; check --context and your network", request.URL, unreachable)
		text := strings.Replace(err.Error(), "failed to get server groups: ", "", 1) // client-go's first request
		return errors.New(strings.Replace(text, request.Error(), explained, 1))      // what is said around it stays
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%w; ask who manages the cluster for the role edit (or view, to read only)", err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("the cluster does not accept your credentials: log in again, or check --context (%w)", err)
	}
	return err
}
