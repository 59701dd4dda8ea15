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

// listPages reads a list page by page, and calls onPage for each. Each page is a new copy of empty: in one that
// is decoded into another, fields that it does not have would keep their values.
func listPages[L client.ObjectList](ctx context.Context, c client.Client, empty L, onPage func(page L), opts ...client.ListOption) error {
	for next := ""; ; {
		page := empty.DeepCopyObject().(L)
		if err := c.List(ctx, page, append([]client.ListOption{client.Limit(pageSize), client.Continue(next)}, opts...)...); err != nil {
			return err
		}
		onPage(page)
		if next = page.GetContinue(); next == "" {
			return nil
		}
	}
}
