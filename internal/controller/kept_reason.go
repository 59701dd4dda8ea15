package controller

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// keptReason is what a version in the cache is counted as; "" of none.
func keptReason(obj client.Object) string {
	switch kept := obj.(type) {
	case *v1alpha1.PrefetchTask:
		if reason := taskstate.ReadyReason(kept); reason != "" && kept.Status.ObservedGeneration == kept.Generation {
			return reason
		}
		return v1alpha1.ReasonWaiting
	case *metav1.PartialObjectMetadata:
		return keptOutcome(kept)
	}
	return ""
}
