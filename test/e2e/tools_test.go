package e2e

import (
	"testing"

	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

func writeAdmin(path string) error {
	return cluster.WriteKubeconfig(path, shared.cluster.Admin, "default")
}

func binary(t *testing.T, name string) string {
	t.Helper()
	path, err := cluster.Binary(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
