package account

import (
	"fmt"
	"maps"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// Store holds the accounts and the labels of namespaces as the watch shows them. It is safe
// for concurrent use. A Store that is nil has no accounts, because the operator does not use
// any.
type Store struct {
	Usage *Usage

	mu          sync.Mutex // taken after all locks but the Usage's
	accounts    map[string]*rules
	namespaces  map[string]labels.Set
	subscribers []func(account string) // called without mu
	ofLabels    []func(namespace string)
}

// NewStore returns an empty store.
func NewStore(usage *Usage) *Store {
	return &Store{Usage: usage, accounts: map[string]*rules{}, namespaces: map[string]labels.Set{}}
}

// Subscribe calls f after each change of the spec of an account, with its name. Call Subscribe
// before the first change.
func (s *Store) Subscribe(f func(account string)) { s.subscribers = append(s.subscribers, f) }

// SubscribeLabels calls f after each change of the labels of a namespace, with its name. Call
// SubscribeLabels before the first change.
func (s *Store) SubscribeLabels(f func(namespace string)) { s.ofLabels = append(s.ofLabels, f) }

// SetAccount adds an account, or replaces it by a newer version.
func (s *Store) SetAccount(account *v1alpha1.EdgeOneAccount) {
	s.mu.Lock()
	known := s.accounts[account.Name]
	isSame := known != nil && known.account.UID == account.UID && equality.Semantic.DeepEqual(known.account.Spec, account.Spec)
	if isSame {
		newer := *known
		newer.account = account
		s.accounts[account.Name] = &newer
	} else {
		s.accounts[account.Name] = compileRules(account)
	}
	s.mu.Unlock()
	s.Usage.observeStatus(account)
	if !isSame {
		publish(s.subscribers, account.Name)
	}
}

// DeleteAccount removes an account.
func (s *Store) DeleteAccount(name string) {
	s.mu.Lock()
	delete(s.accounts, name)
	s.mu.Unlock()
	publish(s.subscribers, name)
}

// SetNamespace sets the labels of a namespace.
func (s *Store) SetNamespace(name string, of map[string]string) {
	s.mu.Lock()
	known, ok := s.namespaces[name]
	isSame := ok && maps.Equal(known, labels.Set(of))
	s.namespaces[name] = of
	s.mu.Unlock()
	if !isSame {
		publish(s.ofLabels, name)
	}
}

// DeleteNamespace forgets a namespace.
func (s *Store) DeleteNamespace(name string) {
	s.mu.Lock()
	delete(s.namespaces, name)
	s.mu.Unlock()
	publish(s.ofLabels, name)
}

// publish calls subscribers.
func publish(subscribers []func(string), name string) {
	for _, f := range subscribers {
		f(name)
	}
}

// Account returns an account, or nil if there is none.
func (s *Store) Account(name string) *v1alpha1.EdgeOneAccount {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.accounts[name]; r != nil {
		return r.account
	}
	return nil
}

// Admit says whether the account of a task allows its open targets, and how many URLs. It
// allows everything to tasks that use no account.
func (s *Store) Admit(task *v1alpha1.PrefetchTask) taskstate.Admission {
	name := taskstate.AccountKeyOf(task).Account
	if name == "" {
		return taskstate.AdmitAll
	}
	if s == nil {
		return taskstate.Admission{Cause: taskstate.Cause{
			Reason: v1alpha1.ReasonAccountMissing, NeedsUser: true,
			Message: fmt.Sprintf("EdgeOneAccount %q is not used: this operator runs without accounts", name),
			Advice:  "Remove spec.accountRef, or run the operator with accounts (value accounts.enabled, flag --accounts)",
		}}
	}
	s.mu.Lock()
	r := s.accounts[name]
	of, known := s.namespaces[task.Namespace]
	s.mu.Unlock()
	if r == nil {
		return taskstate.Admission{Cause: taskstate.Cause{
			Reason: v1alpha1.ReasonAccountMissing, NeedsUser: true,
			Message: fmt.Sprintf("EdgeOneAccount %q does not exist", name),
			Advice:  "Create it, or correct spec.accountRef",
		}}
	}
	if why := r.denial(task, of, known); why.Reason != "" {
		return taskstate.Admission{Cause: why}
	}
	return s.Usage.admit(r.account, task.Namespace)
}
