package taskstate

import (
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// ExpiryOf returns the time at which a task expires, and whether it expires at all. A task
// that another tool would recreate does not expire: the new copy would submit everything
// again.
func ExpiryOf(task *v1alpha1.PrefetchTask) (time.Time, bool) {
	ttl := task.Spec.TTLSecondsAfterFinished
	if ttl == 0 || task.Status.CompletionTime.IsZero() || !task.DeletionTimestamp.IsZero() || RecreatedBy(task) != "" {
		return time.Time{}, false
	}
	return task.Status.CompletionTime.Add(time.Duration(ttl) * time.Second), true
}

// OwnerLabels are the labels that RecreatedBy reads.
var OwnerLabels = []string{
	"kustomize.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/name", "argocd.argoproj.io/instance", "app.kubernetes.io/instance",
}

// RecreatedBy names the tool that would recreate the task after a deletion, or returns "".
// It recognizes the tool by the marks on objects that the tool keeps in sync with their
// sources.
//
// A hook has no such tool: Argo CD and Helm recreate hooks on each sync anyway. No tool
// recreates an object with a generated name.
func RecreatedBy(task *v1alpha1.PrefetchTask) string {
	has := func(marks map[string]string, names ...string) bool {
		for _, name := range names {
			if marks[name] != "" {
				return true
			}
		}
		return false
	}
	switch {
	case task.GenerateName != "":
		return ""
	case has(task.Labels, "kustomize.toolkit.fluxcd.io/name"): // Flux does not treat hooks specially
		return "Flux"
	case has(task.Annotations, "argocd.argoproj.io/hook", "helm.sh/hook"):
		return ""
	case has(task.Labels, "helm.toolkit.fluxcd.io/name"):
		return "Flux"
	case has(task.Annotations, "argocd.argoproj.io/tracking-id"), has(task.Labels, "argocd.argoproj.io/instance"):
		return "Argo CD"
	case has(task.Annotations, "meta.helm.sh/release-name"):
		return "Helm"
	case has(task.Labels, "app.kubernetes.io/instance"): // Argo CD tracks by this label if configured to
		return "Argo CD or Helm"
	}
	return ""
}
