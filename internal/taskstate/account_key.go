package taskstate

import (
	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// AccountKey identifies the credentials of a task's calls, and so the account that pays: a
// Secret, or the operator's own credentials if it is empty.
type AccountKey struct{ Namespace, Secret string }

// String returns the name under which the limiter keeps the account queue.
func (a AccountKey) String() string { return a.Namespace + "/" + a.Secret }

// AccountKeyOf returns the account that a task's calls use.
func AccountKeyOf(task *v1alpha1.PrefetchTask) AccountKey {
	if name := task.Spec.CredentialsSecretRef.Name; name != "" {
		return AccountKey{task.Namespace, name}
	}
	return AccountKey{}
}
