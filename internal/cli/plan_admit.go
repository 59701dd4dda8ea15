package cli

import (
	"context"
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/jsonmergepatch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/plan"
)

// manifest is a task of a file, as it is written there and as it is read.
type manifest struct {
	source string
	object *unstructured.Unstructured
	task   *v1alpha1.PrefetchTask
}

// admit lets the API server say what a task becomes when its manifest is applied. Nothing is created or
// changed. A task with generateName, which only create accepts, is created.
func (p *planner) admit(ctx context.Context, m *manifest) (plan.Task, error) {
	task := m.task.DeepCopy()
	if task.Name == "" {
		err := p.client.Create(ctx, task, client.DryRunAll)
		return plan.Task{PrefetchTask: task}, err
	}
	former := &v1alpha1.PrefetchTask{}
	err := p.client.Get(ctx, client.ObjectKeyFromObject(task), former)
	if isMissingTask(err) {
		former = nil
	} else if err != nil {
		return plan.Task{}, err
	}
	patch, options, err := newAppliedPatch(m.object, former)
	if err != nil {
		return plan.Task{}, err
	}
	err = p.client.Patch(ctx, task, patch, append(options, client.DryRunAll)...)
	return plan.Task{PrefetchTask: task, Former: former}, err
}

// newAppliedPatch returns the patch that applies a manifest the way its task, if it exists, was applied
// before. It depends on the way what happens to the fields that the manifest does not set: client-side apply
// removes what the last manifest has set, and server-side apply what its field manager owns alone. Other
// fields stay, such as those that suspend and rerun have set.
func newAppliedPatch(object *unstructured.Unstructured, former *v1alpha1.PrefetchTask) (client.Patch, []client.PatchOption, error) {
	text, err := json.Marshal(object.Object)
	if err != nil {
		return nil, nil, err
	}
	if former == nil || former.Annotations[corev1.LastAppliedConfigAnnotation] == "" {
		options := []client.PatchOption{client.FieldOwner(lastApplier(former)), client.ForceOwnership}
		return client.RawPatch(types.ApplyPatchType, text), options, nil
	}
	current, err := json.Marshal(former)
	if err != nil {
		return nil, nil, err
	}
	text, err = jsonmergepatch.CreateThreeWayJSONMergePatch([]byte(former.Annotations[corev1.LastAppliedConfigAnnotation]), text, current)
	return client.RawPatch(types.MergePatchType, text), nil, err
}

// lastApplier returns the field manager that has applied a task last, server-side. Nobody has applied a new
// task, and submit may be what does it.
func lastApplier(task *v1alpha1.PrefetchTask) string {
	last := metav1.ManagedFieldsEntry{Manager: fieldManager}
	if task == nil {
		return last.Manager
	}
	for _, entry := range task.ManagedFields {
		if entry.Operation == metav1.ManagedFieldsOperationApply && entry.Subresource == "" && !entry.Time.Before(last.Time) {
			last = entry
		}
	}
	return last.Manager
}
