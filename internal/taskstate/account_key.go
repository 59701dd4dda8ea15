package taskstate

import (
	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// AccountKey names the credentials that a task's calls use, and so the account that pays:
// a Secret, or the operator's own credentials if empty.
type AccountKey struct{ Namespace, Secret string }

// String returns the name by which the limiter knows the account's queue.
func (a AccountKey) String() string { return a.Namespace + "/" + a.Secret }

// AccountKeyOf returns the account of a task's calls.
func AccountKeyOf(task *v1alpha1.PrefetchTask) AccountKey {
	if name := task.Spec.CredentialsSecretRef.Name; name != "" {
		return AccountKey{task.Namespace, name}
	}
	return AccountKey{}
}
