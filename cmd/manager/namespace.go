package main

import (
	"cmp"
	"io/fs"
	"strings"
)

const (
	// defaultNamespace is the operator's own namespace outside a pod. It is that of
	// config/default.
	defaultNamespace = "teo-prefetch-system"
	// namespaceFile has the namespace of a pod.
	namespaceFile = "var/run/secrets/kubernetes.io/serviceaccount/namespace"
)

// podNamespace returns the namespace of the pod, or the default outside a pod.
func podNamespace(root fs.FS) string {
	content, err := fs.ReadFile(root, namespaceFile)
	if err != nil {
		return defaultNamespace
	}
	return cmp.Or(strings.TrimSpace(string(content)), defaultNamespace)
}

// leaseNamespace returns the namespace of the Lease.
func (o *options) leaseNamespace() string { return cmp.Or(o.leaderElectionNamespace, o.namespace) }
