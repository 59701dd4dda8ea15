package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/plan"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/targetlist"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
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
	var tasks []plan.Task
	for _, info := range infos {
		object, err := readManifest(info, namespace)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", info.Source, err)
		}
		switch object := object.(type) {
		case *corev1.ConfigMap:
			p.configMaps[client.ObjectKeyFromObject(object)] = object
		case *v1alpha1.PrefetchTask:
			task, err := p.admit(ctx, object)
			switch {
			case apierrors.ReasonForError(err) != metav1.StatusReasonUnknown: // the API server's answer to the manifest
				return nil, fmt.Errorf("%s: %w", info.Source, err)
			case err != nil:
				return nil, err
			case slices.ContainsFunc(tasks, func(other plan.Task) bool { return isSameTask(other, task) }):
				return nil, fmt.Errorf("%s: the files have the task %s in namespace %s twice: remove one of them", info.Source, task.Name, task.Namespace)
			}
			tasks = append(tasks, task)
		}
	}
	if len(tasks) == 0 {
		return nil, errors.New("the files have no PrefetchTask")
	}
	return tasks, nil
}

// readManifest returns the task or the ConfigMap of a manifest, or nil if it is of another kind. namespace
// is that of an object that names none.
func readManifest(info *resource.Info, namespace string) (client.Object, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(info.Object)
	if err != nil {
		return nil, err
	}
	var object client.Object
	switch kind := info.Object.GetObjectKind().GroupVersionKind(); kind {
	case v1alpha1.GroupVersion.WithKind("PrefetchTask"):
		object = &v1alpha1.PrefetchTask{}
	case corev1.SchemeGroupVersion.WithKind("ConfigMap"):
		object = &corev1.ConfigMap{}
	default:
		return nil, nil
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(content, object, true); err != nil {
		return nil, err
	}
	if object.GetNamespace() == "" {
		object.SetNamespace(namespace)
	}
	return object, nil
}

func isSameTask(a, b plan.Task) bool {
	return client.ObjectKeyFromObject(a.PrefetchTask) == client.ObjectKeyFromObject(b.PrefetchTask)
}

// admit lets the API server check a task. Nothing is created or changed.
func (p *planner) admit(ctx context.Context, task *v1alpha1.PrefetchTask) (plan.Task, error) {
	former := &v1alpha1.PrefetchTask{}
	err := errors.New("no name")
	if task.Name != "" {
		err = p.client.Get(ctx, client.ObjectKeyFromObject(task), former)
	}
	switch {
	case task.Name == "" || isMissingTask(err):
		isGenerated := task.Name == ""
		if err := p.client.Create(ctx, task, client.DryRunAll); err != nil {
			return plan.Task{}, err
		}
		if isGenerated { // the API server generates another name for each request
			p.generated++
			task.Name = fmt.Sprintf("%s<%d>", task.GenerateName, p.generated)
		}
		return plan.Task{PrefetchTask: task}, nil
	case err != nil:
		return plan.Task{}, err
	}
	task.ResourceVersion, task.UID, task.Status = former.ResourceVersion, former.UID, former.Status
	err = p.client.Update(ctx, task, client.DryRunAll)
	return plan.Task{PrefetchTask: task, Former: former}, err
}

// resolve returns a task with its targets, also if they are in a ConfigMap of the files or of the cluster.
func (p *planner) resolve(ctx context.Context, task *v1alpha1.PrefetchTask) (*v1alpha1.PrefetchTask, error) {
	ref := task.Spec.TargetsFrom.ConfigMapKeyRef
	configMap := p.configMaps[client.ObjectKey{Namespace: task.Namespace, Name: ref.Name}]
	if configMap == nil || !taskstate.IsFromConfigMap(task) {
		return resolveTargets(ctx, p.client, task)
	}
	text, hasKey := configMap.Data[ref.Key]
	if !hasKey {
		return nil, fmt.Errorf("the ConfigMap %q of task %s has no key %q: add it, or correct spec.targetsFrom", ref.Name, task.Name, ref.Key)
	}
	targets, err := targetlist.ParseTargets(text)
	if err != nil {
		return nil, fmt.Errorf("the list %q in ConfigMap %q: %w", ref.Key, ref.Name, err)
	}
	return taskstate.WithTargets(task, targets), nil
}
