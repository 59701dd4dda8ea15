package targetlist

import (
	"context"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
)

// Config holds the dependencies and settings of the Resolver and the Loader.
type Config struct {
	Tasks  *kube.TaskStore
	Writer kube.StatusWriter
	*kube.EventReporter
	Live     client.Reader   // reads past the cache
	Leads    <-chan struct{} // closed when this process may write and submit
	Critical context.Context // ends when this process must stop reading

	RecheckInterval time.Duration // how long the content of a ConfigMap counts as fresh
	ReadTimeout     time.Duration // of one request
}
