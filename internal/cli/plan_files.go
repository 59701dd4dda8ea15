package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/plan"
)

// readFiles reads manifests, and lets the API server check the tasks in them.
func (p *planner) readFiles(ctx context.Context, files []string) ([]plan.Task, error) {
	namespace, err := p.namespace()
	if err != nil {
		return nil, err
	}
	builder := resource.NewBuilder(p.config).Unstructured().Local().NamespaceParam(namespace).DefaultNamespace().Flatten()
	isInput := func(file string) bool { return file == "-" }
	if slices.ContainsFunc(files, isInput) {
		builder.Stream(p.In, "standard input")
	}
	builder.FilenameParam(false, &resource.FilenameOptions{Filenames: slices.DeleteFunc(slices.Clone(files), isInput)})
	infos, err := builder.Do().Infos()
	if err != nil {
		return nil, err
	}
	manifests, err := p.readManifests(infos, namespace)
	if err != nil {
		return nil, err
	}
	var tasks []plan.Task
	for _, m := range manifests {
		task, err := p.admit(ctx, m)
		if apierrors.ReasonForError(err) != metav1.StatusReasonUnknown { // the API server's answer to the manifest
			err = fmt.Errorf("%s: %w", m.source, err)
		}
		if err != nil {
			return nil, err
		}
		if m.task.Name == "" { // the API server generates another name for each request
			p.generated++
			task.Name = fmt.Sprintf("%s<%d>", task.GenerateName, p.generated)
		}
		tasks = append(tasks, task)
	}
	return tasks, nil
}

// readManifests returns the tasks of manifests, and keeps their ConfigMaps.
func (p *planner) readManifests(infos []*resource.Info, namespace string) (manifests []*manifest, err error) {
	for _, info := range infos {
		object, err := readManifest(info, namespace)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", info.Source, err)
		}
		switch object := object.(type) {
		case *corev1.ConfigMap:
			p.configMaps[client.ObjectKeyFromObject(object)] = object
		case *v1alpha1.PrefetchTask:
			isSame := func(other *manifest) bool {
				return object.Name != "" && client.ObjectKeyFromObject(other.task) == client.ObjectKeyFromObject(object)
			}
			if slices.ContainsFunc(manifests, isSame) {
				return nil, fmt.Errorf("%s: the files have the task %s in namespace %s twice: remove one of them", info.Source, object.Name, object.Namespace)
			}
			manifests = append(manifests, &manifest{source: info.Source, object: info.Object.(*unstructured.Unstructured), task: object})
		}
	}
	if len(manifests) == 0 {
		return nil, errors.New("the files have no PrefetchTask")
	}
	return manifests, nil
}

// readManifest returns the task or the ConfigMap of a manifest, or nil if it is of another kind. namespace
// is that of an object that names none. What the API server or the operator has set in it is removed.
func readManifest(info *resource.Info, namespace string) (client.Object, error) {
	var object client.Object
	switch kind := info.Object.GetObjectKind().GroupVersionKind(); kind {
	case v1alpha1.GroupVersion.WithKind("PrefetchTask"):
		object = &v1alpha1.PrefetchTask{}
	case corev1.SchemeGroupVersion.WithKind("ConfigMap"):
		object = &corev1.ConfigMap{}
	default:
		return nil, nil
	}
	read := info.Object.(*unstructured.Unstructured)
	unstructured.RemoveNestedField(read.Object, "status")
	for _, field := range []string{"creationTimestamp", "generation", "managedFields", "resourceVersion", "uid"} {
		unstructured.RemoveNestedField(read.Object, "metadata", field)
	}
	if read.GetNamespace() == "" {
		read.SetNamespace(namespace)
	}
	return object, runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(read.Object, object, true)
}
