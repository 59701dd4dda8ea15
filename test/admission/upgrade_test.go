package admission

import (
	"context"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// withNewStatusField adds a field that a later version of the CRD may have.
func withNewStatusField(t *testing.T, obj *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	versions, _, _ := unstructured.NestedSlice(obj.Object, "spec", "versions")
	err := unstructured.SetNestedMap(versions[0].(map[string]any), map[string]any{"type": "string"},
		"schema", "openAPIV3Schema", "properties", "status", "properties", "newField")
	must(t, err)
	must(t, unstructured.SetNestedSlice(obj.Object, versions, "spec", "versions"))
	return obj
}

// docs/upgrade.md says what an earlier CRD does to the fields of a later one: they are hidden
// until the status is written, and lost afterwards.
func TestAnOlderCRDHidesANewFieldAndTheNextWriteLosesIt(t *testing.T) {
	kube := cluster.ForTest(t, cluster.Options{Bare: true})
	c := kube.Client
	apply(t, c, withNewStatusField(t, crd(t, nil)))
	names := []string{"read", "written"}
	for _, name := range names {
		until(t, "the new CRD", func(ctx context.Context) bool { return c.Create(ctx, newTask(name, "https://h/")) == nil })
	}
	newField := func(ctx context.Context, name string) string {
		task := &unstructured.Unstructured{}
		task.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("PrefetchTask"))
		must(t, c.Get(ctx, client.ObjectKey{Namespace: "default", Name: name}, task))
		text, _, _ := unstructured.NestedString(task.Object, "status", "newField")
		return text
	}
	for _, name := range names {
		until(t, "the new field", func(ctx context.Context) bool {
			task := newTask(name)
			patch := client.RawPatch("application/merge-patch+json", []byte(`{"status":{"newField":"a"}}`))
			must(t, c.Status().Patch(ctx, task, patch))
			return newField(ctx, name) == "a"
		})
	}
	apply(t, c, crd(t, nil))
	for _, name := range names {
		until(t, "the old CRD hides the field", func(ctx context.Context) bool { return newField(ctx, name) == "" })
	}
	written := &v1alpha1.PrefetchTask{}
	must(t, c.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "written"}, written))
	written.Status.Run = "run"
	must(t, c.Status().Update(t.Context(), written))
	apply(t, c, withNewStatusField(t, crd(t, nil)))
	until(t, "the field is back where no status was written", func(ctx context.Context) bool { return newField(ctx, "read") == "a" })
	if got := newField(t.Context(), "written"); got != "" {
		t.Errorf("after a write under the old CRD the field is %q", got)
	}
}
