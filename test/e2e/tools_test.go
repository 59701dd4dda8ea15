package e2e

import (
	"testing"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/devcluster"
)

func writeAdmin(path string) error {
	return devcluster.WriteKubeconfig(path, shared.cluster.Admin, "default")
}

func binary(t *testing.T, name string) string {
	t.Helper()
	path, err := devcluster.Binary(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
