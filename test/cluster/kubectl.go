package cluster

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
)

// Kubectl returns a kubectl command that acts as the administrator. It is not started.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (*exec.Cmd, error) {
	path, err := FindKubectl()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig, "KUBECACHEDIR="+filepath.Join(c.Dir, "kubectl"))
	return cmd, nil
}

// FindKubectl prefers the kubectl that was built with the API server, and falls back to
// the one in PATH.
func FindKubectl() (path string, err error) {
	path, err = FindBinary("kubectl")
	if err == nil {
		return path, nil
	}
	if path, notFound := exec.LookPath("kubectl"); notFound == nil {
		return path, nil
	}
	return "", err
}
