package taskstate

import (
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// ExpiryOf is when a task is to be deleted, if ever.
func ExpiryOf(task *v1alpha1.PrefetchTask) (time.Time, bool) {
	ttl := task.Spec.TTLSecondsAfterFinished
	if ttl == 0 || task.Status.CompletionTime.IsZero() || !task.DeletionTimestamp.IsZero() || RecreatedBy(task) != "" {
		return time.Time{}, false
	}
	return task.Status.CompletionTime.Add(time.Duration(ttl) * time.Second), true
}

// OwnerLabels are the labels that RecreatedBy looks at.
var OwnerLabels = []string{
	"kustomize.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/name", "argocd.argoproj.io/instance", "app.kubernetes.io/instance",
}

// RecreatedBy names who would make the task again if it were deleted, by the marks
// that they put on what they keep as it is in their sources. What they run as a
// hook they make anew each time anyway, and of a generated name nobody makes another.
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
	case has(task.Labels, "kustomize.toolkit.fluxcd.io/name"): // to which a hook is nothing special
		return "Flux"
	case has(task.Annotations, "argocd.argoproj.io/hook", "helm.sh/hook"):
		return ""
	case has(task.Labels, "helm.toolkit.fluxcd.io/name"):
		return "Flux"
	case has(task.Annotations, "argocd.argoproj.io/tracking-id"), has(task.Labels, "argocd.argoproj.io/instance"):
		return "Argo CD"
	case has(task.Annotations, "meta.helm.sh/release-name"):
		return "Helm"
	case has(task.Labels, "app.kubernetes.io/instance"): // the label by which Argo CD tracks if told so
		return "Argo CD or Helm"
	}
	return ""
}
