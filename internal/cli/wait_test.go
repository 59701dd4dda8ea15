package cli

import (
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/taskwatch"
)

func TestAListOfANameIsAboutOneNamespace(t *testing.T) {
	task := &waitedTask{key: client.ObjectKey{Namespace: "a", Name: "x"}, isNamed: true}
	for namespace, want := range map[string]bool{"a": true, "b": false} {
		if got := task.isOf(taskwatch.Scope{Namespace: namespace, Name: "x"}); got != want {
			t.Errorf("a list of x in namespace %s is about a/x: %v", namespace, got)
		}
	}
}
