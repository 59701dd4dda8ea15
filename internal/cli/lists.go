package cli

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// newTaskMetadataList returns an empty list of tasks without their specs and statuses.
func newTaskMetadataList() *metav1.PartialObjectMetadataList {
	return newMetadataList("PrefetchTaskList")
}

// newMetadataList returns an empty list of a kind of ours, without the specs and statuses.
func newMetadataList(kind string) *metav1.PartialObjectMetadataList {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
	return list
}

// listPages reads a list page by page, and calls onPage after each, while list has that page.
func listPages(ctx context.Context, c client.Client, list client.ObjectList, onPage func(), opts ...client.ListOption) error {
	gvk := list.GetObjectKind().GroupVersionKind()
	for next := ""; ; {
		list.GetObjectKind().SetGroupVersionKind(gvk)
		page := append([]client.ListOption{client.Limit(pageSize), client.Continue(next)}, opts...)
		if err := c.List(ctx, list, page...); err != nil {
			return err
		}
		onPage()
		if next = list.GetContinue(); next == "" {
			return nil
		}
	}
}
