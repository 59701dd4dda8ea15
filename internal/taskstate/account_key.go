package taskstate

import (
	"maps"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// AccountKey identifies the credentials of a task's calls, and so the account that pays: an
// EdgeOneAccount, a Secret, or the operator's own credentials if it is empty.
type AccountKey struct {
	Account           string // the name of an EdgeOneAccount
	Namespace, Secret string // a Secret of a task's namespace
}

// String returns the name under which the limiter keeps the account queue.
func (a AccountKey) String() string {
	switch {
	case a.Account != "":
		return "EdgeOneAccount/" + a.Account // no namespace has upper-case letters
	case a == (AccountKey{}):
		return "operator" // its own credentials
	}
	return a.Namespace + "/" + a.Secret
}

// IsTenants reports whether the credentials belong to a tenant: whoever may create a task
// may also name a Secret of its namespace. Other credentials belong to those who install the
// operator.
func (a AccountKey) IsTenants() bool { return a.Secret != "" }

// AccountKeyOf returns the account that a task's calls use.
func AccountKeyOf(task *v1alpha1.PrefetchTask) AccountKey {
	if name := task.Spec.AccountRef.Name; name != "" {
		return AccountKey{Account: name}
	}
	if name := task.Spec.CredentialsSecretRef.Name; name != "" {
		return AccountKey{Namespace: task.Namespace, Secret: name}
	}
	return AccountKey{}
}

// impliedAccount is the annotation of a copy in memory whose spec names the default
// account, although the task's spec names neither an account nor a Secret. Like the
// annotations of an elided task, it is in memory only.
const impliedAccount = "\x00account"

// WithDefaultAccount returns the task as it is while an account named default exists
// (exists is true) or does not exist: a task whose spec names neither an account nor a
// Secret uses that account. It changes nothing of task.
func WithDefaultAccount(task *v1alpha1.PrefetchTask, exists bool) *v1alpha1.PrefetchTask {
	_, implied := task.Annotations[impliedAccount]
	switch {
	case !implied && exists && AccountKeyOf(task) == AccountKey{}:
		changed := *task
		changed.Annotations = maps.Clone(task.Annotations)
		if changed.Annotations == nil {
			changed.Annotations = map[string]string{}
		}
		changed.Annotations[impliedAccount] = ""
		changed.Spec.AccountRef.Name = v1alpha1.DefaultAccount
		return &changed
	case implied && !exists:
		changed := *task
		changed.Annotations = maps.Clone(task.Annotations)
		delete(changed.Annotations, impliedAccount)
		changed.Spec.AccountRef.Name = ""
		return &changed
	}
	return task
}
