package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Apply applies the YAML file at path, or the resources that the kustomization.yaml in the
// folder at path lists. It then waits until the API server serves every applied CRD. Apply
// supports only the resources list of kustomize, because config/ needs nothing else.
func (c *Cluster) Apply(ctx context.Context, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return c.applyFile(ctx, path)
	}
	data, err := os.ReadFile(filepath.Join(path, "kustomization.yaml"))
	if err != nil {
		return err
	}
	var kustomization struct {
		Resources []string `json:"resources"`
	}
	if err := yaml.UnmarshalStrict(data, &kustomization); err != nil {
		return fmt.Errorf("%s: only resources are understood here: %w", path, err)
	}
	for _, resource := range kustomization.Resources {
		if err := c.Apply(ctx, filepath.Join(path, resource)); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) applyFile(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for docs := yaml.NewYAMLOrJSONDecoder(f, 4096); ; {
		obj := &unstructured.Unstructured{}
		if err := docs.Decode(&obj.Object); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if len(obj.Object) == 0 {
			continue
		}
		config := client.ApplyConfigurationFromUnstructured(obj)
		if err := c.Client.Apply(ctx, config, client.FieldOwner("test-cluster"), client.ForceOwnership); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if obj.GetKind() == "CustomResourceDefinition" {
			if err := c.waitServed(ctx, obj); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
	}
}

// waitServed waits until the API server can list the objects of a CRD. The condition
// Established is not enough: it becomes true a moment earlier.
func (c *Cluster) waitServed(ctx context.Context, crd *unstructured.Unstructured) error {
	group, _, _ := unstructured.NestedString(crd.Object, "spec", "group")
	kind, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "kind")
	versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
	for _, v := range versions {
		version, _ := v.(map[string]any)["name"].(string)
		list := &unstructured.UnstructuredList{}
		list.SetAPIVersion(group + "/" + version)
		list.SetKind(kind + "List")
		var last error
		err := wait.PollUntilContextTimeout(ctx, readyPoll, StartTimeout, true, func(ctx context.Context) (bool, error) {
			last = c.Client.List(ctx, list, client.Limit(1))
			return last == nil, nil
		})
		if err != nil {
			return fmt.Errorf("kind %s of %s/%s is not served (%w): %w", kind, group, version, last, err)
		}
	}
	return nil
}
