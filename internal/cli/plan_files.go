package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	tasks, err := p.admitAll(ctx, manifests)
	if err != nil {
		return nil, err
	}
	users, err := p.readListUsers(ctx, tasks)
	if tasks = append(tasks, users...); err == nil && len(tasks) == 0 {
		err = errors.New("the files have no PrefetchTask, and no ConfigMap with the list of one")
	}
	return tasks, err
}

// admitAll lets the API server check the tasks of the files. The first error ends it.
func (p *planner) admitAll(ctx context.Context, manifests []*manifest) ([]plan.Task, error) {
	if n := len(manifests); n > 1 { // there may be hundreds
		_ = printLine(p.ErrOut, "Letting the API server check %d tasks", n)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	tasks, err := readInParallel(manifests, func(m *manifest) (plan.Task, error) {
		task, err := p.admit(ctx, m)
		if apierrors.ReasonForError(err) != metav1.StatusReasonUnknown { // the API server's answer to the manifest
			err = fmt.Errorf("%s: %w", m.source, err)
		}
		if err != nil {
			stop()
		}
		return task, err
	})
	if err != nil {
		return nil, err
	}
	generated := 0
	for i, m := range manifests {
		if m.task.Name == "" { // the API server generates another name for each request
			generated++
			tasks[i].Name = fmt.Sprintf("%s<%d>", tasks[i].GenerateName, generated)
		}
	}
	return tasks, nil
}

// readListUsers reads the tasks of the cluster that have their lists in the ConfigMaps of the files. If tasks
// of the files name a ConfigMap, the plan is about these.
func (p *planner) readListUsers(ctx context.Context, tasks []plan.Task) (users []plan.Task, err error) {
	unnamed := maps.Clone(p.configMaps)
	for _, task := range tasks {
		delete(unnamed, configMapOf(task.PrefetchTask))
	}
	namespaces := map[string]bool{}
	for key := range unnamed {
		namespaces[key.Namespace] = true
	}
	for _, namespace := range slices.Sorted(maps.Keys(namespaces)) {
		err := listPages(ctx, p.client, &v1alpha1.PrefetchTaskList{}, func(page *v1alpha1.PrefetchTaskList) {
			for i := range page.Items {
				task := &page.Items[i]
				isSame := func(t plan.Task) bool {
					return client.ObjectKeyFromObject(t.PrefetchTask) == client.ObjectKeyFromObject(task)
				}
				if unnamed[configMapOf(task)] != nil && !slices.ContainsFunc(tasks, isSame) {
					users = append(users, plan.Task{PrefetchTask: task, Former: task.DeepCopy()}) // with the list of the cluster
				}
			}
		}, client.InNamespace(namespace), client.Limit(tasksPerPage))
		if err := p.noteForbidden(err, "which tasks of namespace "+namespace+" have their lists in ConfigMaps of the files is not known"); err != nil {
			return nil, err
		}
	}
	return users, nil
}

// configMapOf names the ConfigMap with the list of a task, if it has one.
func configMapOf(task *v1alpha1.PrefetchTask) client.ObjectKey {
	return client.ObjectKey{Namespace: task.Namespace, Name: task.Spec.TargetsFrom.ConfigMapKeyRef.Name}
}

// readManifests returns the tasks of manifests, and keeps their ConfigMaps and accounts. It notes which objects
// are of other kinds.
func (p *planner) readManifests(infos []*resource.Info, namespace string) (manifests []*manifest, err error) {
	var others []string
	for _, info := range infos {
		object, err := readManifest(info, namespace)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", info.Source, err)
		}
		switch object := object.(type) {
		case *v1alpha1.EdgeOneAccount:
			p.accounts = append(p.accounts, object)
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
		default:
			others = append(others, info.Object.GetObjectKind().GroupVersionKind().Kind+" "+info.Name)
		}
	}
	if n := len(others); n > 0 {
		p.addNote(fmt.Sprintf("objects of other kinds, which are not planned: %d, for example %s", n, others[0]))
	}
	return manifests, nil
}

// readManifest returns the task, the ConfigMap or the account of a manifest, or nil if it is of another kind.
// namespace is that of an object that names none. What the API server or the operator has set in it is removed.
func readManifest(info *resource.Info, namespace string) (client.Object, error) {
	var object client.Object
	switch kind := info.Object.GetObjectKind().GroupVersionKind(); kind {
	case v1alpha1.GroupVersion.WithKind("PrefetchTask"):
		object = &v1alpha1.PrefetchTask{}
	case v1alpha1.GroupVersion.WithKind("EdgeOneAccount"):
		object, namespace = &v1alpha1.EdgeOneAccount{}, ""
	case corev1.SchemeGroupVersion.WithKind("ConfigMap"):
		object = &corev1.ConfigMap{}
	default:
		if kind.Group == v1alpha1.GroupVersion.Group {
			return nil, fmt.Errorf("%s %s has the apiVersion %s: use %s", kind.Kind, info.Name, kind.GroupVersion(), v1alpha1.GroupVersion)
		}
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
