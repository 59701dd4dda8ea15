package cli

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/targetlist"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// listError says why the list of a task, which is in a ConfigMap, is not usable. reason is the one that the
// status of the task has then.
type listError struct {
	reason string
	error
}

// resolveTargets returns a task with its targets in the spec, also if they are in a ConfigMap.
func resolveTargets(ctx context.Context, c client.Client, task *v1alpha1.PrefetchTask) (*v1alpha1.PrefetchTask, error) {
	if !taskstate.IsFromConfigMap(task) {
		return task, nil
	}
	name := task.Spec.TargetsFrom.ConfigMapKeyRef.Name
	configMap := &corev1.ConfigMap{}
	err := c.Get(ctx, client.ObjectKey{Namespace: task.Namespace, Name: name}, configMap)
	if apierrors.IsNotFound(err) {
		return nil, listError{v1alpha1.ReasonTargetsMissing,
			fmt.Errorf("the ConfigMap %q of task %s does not exist: create it, or correct spec.targetsFrom", name, task.Name)}
	}
	if err != nil {
		return nil, err
	}
	return addTargets(task, configMap)
}

// addTargets returns a task with the targets of its ConfigMap in the spec.
func addTargets(task *v1alpha1.PrefetchTask, configMap *corev1.ConfigMap) (*v1alpha1.PrefetchTask, error) {
	ref := task.Spec.TargetsFrom.ConfigMapKeyRef
	text, hasKey := configMap.Data[ref.Key]
	if !hasKey {
		return nil, listError{v1alpha1.ReasonTargetsMissing,
			fmt.Errorf("the ConfigMap %q of task %s has no key %q: add it, or correct spec.targetsFrom", ref.Name, task.Name, ref.Key)}
	}
	targets, err := targetlist.ParseTargets(text)
	if err != nil {
		return nil, listError{v1alpha1.ReasonTargetsInvalid, fmt.Errorf("the list %q in ConfigMap %q: %w", ref.Key, ref.Name, err)}
	}
	return taskstate.WithTargets(task, targets), nil
}
