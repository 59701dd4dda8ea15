package endpoint

import (
	"net/http"

	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// NewProbes returns a server of the health probes. /healthz succeeds while the process
// serves, and /readyz succeeds while all checks do. Its listener is open already.
func NewProbes(address string, ready map[string]healthz.Checker) (*manager.Server, error) {
	mux := http.NewServeMux()
	for path, checks := range map[string]map[string]healthz.Checker{
		"/healthz": {"healthz": healthz.Ping},
		"/readyz":  ready,
	} {
		handler := http.StripPrefix(path, &healthz.Handler{Checks: checks})
		mux.Handle(path, handler)
		mux.Handle(path+"/", handler) // the path of a single check, such as /readyz/tasks
	}
	return newServer("health probes", address, nil, mux)
}
