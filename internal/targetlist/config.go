package targetlist

import (
	"context"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
)

// Config is what the Resolver and the Loader need.
type Config struct {
	Tasks  *kube.TaskStore
	Writer kube.StatusWriter
	*kube.EventReporter
	Live     client.Reader
	Leads    <-chan struct{} // closed once this process may write and submit
	Critical context.Context // ends when nothing more may be read

	RecheckInterval time.Duration // how long a ConfigMap that was read counts as fresh
	ReadTimeout     time.Duration // of one request
}
