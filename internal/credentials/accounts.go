package credentials

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// Identity is what the operator has to get the keys of EdgeOneAccounts with.
type Identity struct {
	// Context ends the refreshes of keys. The default never ends.
	Context context.Context
	// Namespace is the operator's own. The Secrets of accounts are in it, and never
	// elsewhere.
	Namespace string
	// STS is nil if the operator knows no endpoint of STS.
	STS *sts.Client
	// WebIdentity has the file with the operator's token, and the provider ID of accounts
	// that name none. It has no role.
	WebIdentity sts.WebIdentity
	// CVM is nil unless accounts may use the role of the node.
	CVM *sts.CVM
	// Observe is called after each refresh of the keys of an account's role, with the time
	// at which the current keys expire (zero if there are none) and the error of the
	// refresh. Forget is called when an account no longer has the role. Both may be nil, and
	// must not call the Reader.
	Observe func(account string, expires time.Time, err error)
	Forget  func(account string)
}

// accountRoles has a provider for each EdgeOneAccount whose keys are those of a role.
type accountRoles struct {
	mu     sync.Mutex // the store's lock is taken after it
	byName map[string]*accountRole
}

// accountRole is the provider of an account's keys, and the credentials of the spec for
// which it was made.
type accountRole struct {
	spec     v1alpha1.AccountCredentials
	provider *sts.Provider
}

// hasRole says whether the keys of an account are those of a role.
func hasRole(spec v1alpha1.AccountCredentials) bool {
	return spec.WebIdentity.RoleARN != "" || spec.CVMRole.Name != "" || spec.AssumeRole.RoleARN != ""
}

// accountNamed returns an account, or an error that says that there is none. There is no
// other key for its tasks.
func (c *Reader) accountNamed(name string) (*v1alpha1.EdgeOneAccount, error) {
	if c.Accounts != nil {
		if account := c.Accounts(name); account != nil {
			return account, nil
		}
	}
	return nil, fmt.Errorf("%w: %w", ErrNoAccount, &missingError{fmt.Sprintf("EdgeOneAccount %q does not exist", name), "create it, or correct spec.accountRef"})
}

// ErrNoAccount is in the chain of an error if the EdgeOneAccount does not exist, with
// ErrMissing.
var ErrNoAccount = errors.New("no such account")

// getAccountCredentials returns the credentials of an EdgeOneAccount.
func (c *Reader) getAccountCredentials(ctx context.Context, name string) (teo.Credentials, error) {
	account, err := c.accountNamed(name)
	if err != nil {
		return teo.Credentials{}, err
	}
	if !hasRole(account.Spec.Credentials) {
		creds, err := c.readCached(ctx, c.secretOf(account))
		return creds, explainForAccount(account.Name, "", err)
	}
	provider, err := c.providerOf(name)
	if err != nil {
		return teo.Credentials{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, secretTimeout)
	defer cancel()
	keys, err := provider.Get(ctx)
	return keys.Credentials, err
}

// secretOf returns where the Secret of an account is.
func (c *Reader) secretOf(account *v1alpha1.EdgeOneAccount) taskstate.AccountKey {
	return taskstate.AccountKey{Namespace: c.Identity.Namespace, Secret: account.Spec.Credentials.SecretRef.Name}
}

// providerOf returns the provider of the keys of an account's role. It makes a new one if the
// credentials of the spec have changed.
//
// It reads the account while it holds the lock, so that OnAccountChange, which is called
// after a change, sees a provider that was made before it.
func (c *Reader) providerOf(name string) (*sts.Provider, error) {
	r := &c.roles
	r.mu.Lock()
	defer r.mu.Unlock()
	account, err := c.accountNamed(name)
	if err != nil {
		return nil, err
	}
	if known := r.byName[name]; known != nil {
		if known.spec == account.Spec.Credentials {
			return known.provider, nil
		}
		c.dropRoleLocked(name)
	}
	if r.byName == nil {
		r.byName = map[string]*accountRole{}
	}
	role := &accountRole{spec: account.Spec.Credentials}
	r.byName[name] = role
	source := accountSource{c, name, role.spec}
	ctx := c.Identity.Context
	if ctx == nil {
		ctx = context.Background()
	}
	role.provider = sts.NewProvider(ctx, source.fetch, func(expires time.Time, err error) { c.observeRefresh(source, role, expires, err) })
	return role.provider, nil
}

// observeRefresh reports a refresh, unless the account no longer has the role.
func (c *Reader) observeRefresh(source accountSource, role *accountRole, expires time.Time, err error) {
	r := &c.roles
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byName[source.account] != role {
		return
	}
	logger := log.Log.WithName("credentials").WithValues("account", source.account, "expires", expires)
	if err != nil {
		logger.Info("Cannot refresh the keys of an account's role", "error", err.Error())
	} else {
		logger.V(1).Info("Refreshed the keys of an account's role")
	}
	if c.Identity.Observe != nil {
		c.Identity.Observe(source.account, expires, err)
	}
}

// OnAccountChange stops refreshing the keys of an account's role if the account is gone or
// its credentials have changed. It is a subscriber of the account.Store.
func (c *Reader) OnAccountChange(name string) {
	r := &c.roles
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.byName[name]
	if known == nil {
		return
	}
	if account, err := c.accountNamed(name); err != nil || account.Spec.Credentials != known.spec {
		c.dropRoleLocked(name)
	}
}

// dropRoleLocked stops refreshing the keys of an account's role. The caller holds the lock
// of the roles.
func (c *Reader) dropRoleLocked(name string) {
	c.roles.byName[name].provider.Stop()
	delete(c.roles.byName, name)
	if c.Identity.Forget != nil {
		c.Identity.Forget(name)
	}
}

// RefuseKey reports that EdgeOne does not know a key or its token. If it is the key of an
// account's role, it is refreshed once.
func (c *Reader) RefuseKey(creds teo.Credentials) {
	c.roles.mu.Lock()
	defer c.roles.mu.Unlock()
	for _, role := range c.roles.byName {
		role.provider.Refuse(creds.SecretID)
	}
}

// accountSource gets new keys for an account.
type accountSource struct {
	reader  *Reader
	account string
	spec    v1alpha1.AccountCredentials
}

// fetch takes all steps to new keys of the account's role.
func (s accountSource) fetch(ctx context.Context) (sts.Keys, error) {
	keys, err := s.firstKeys(ctx)
	if assume := s.spec.AssumeRole; err == nil && assume.RoleARN != "" {
		if s.reader.Identity.STS == nil {
			return sts.Keys{}, s.explain(errNoSTS)
		}
		keys, err = s.reader.Identity.STS.AssumeRole(ctx, keys.Credentials, sts.AssumedRole{
			RoleARN: assume.RoleARN, ExternalID: assume.ExternalID, Duration: time.Duration(assume.DurationSeconds) * time.Second,
		})
	}
	if err != nil {
		return sts.Keys{}, s.explain(err)
	}
	return keys, nil
}

// firstKeys returns the keys of the source.
func (s accountSource) firstKeys(ctx context.Context) (sts.Keys, error) {
	has := &s.reader.Identity
	switch {
	case s.spec.SecretRef.Name != "":
		creds, err := s.reader.readSecret(ctx, taskstate.AccountKey{Namespace: has.Namespace, Secret: s.spec.SecretRef.Name})
		return sts.Keys{Credentials: creds}, err
	case s.spec.CVMRole.Name != "" && has.CVM == nil:
		return sts.Keys{}, &missingError{"the operator may not use the role of its node (cvmRole)",
			"use another source of credentials, or run the operator with --allow-cvm-role"}
	case s.spec.CVMRole.Name != "":
		return has.CVM.Keys(ctx, s.spec.CVMRole.Name)
	case has.STS == nil:
		return sts.Keys{}, errNoSTS
	case has.WebIdentity.TokenFile == "":
		return sts.Keys{}, &missingError{"the operator has no web identity token",
			"run it with --web-identity-token-file (the chart's workloadIdentity.enabled), or in TKE give its ServiceAccount a role"}
	}
	identity := sts.WebIdentity{RoleARN: s.spec.WebIdentity.RoleARN, ProviderID: s.spec.WebIdentity.ProviderID, TokenFile: has.WebIdentity.TokenFile}
	if identity.ProviderID == "" {
		identity.ProviderID = has.WebIdentity.ProviderID
	}
	return has.STS.AssumeRoleWithWebIdentity(ctx, identity)
}

// errNoSTS reports that the operator cannot call STS.
var errNoSTS = &missingError{"the operator does not know the address of STS", "run it with --sts-endpoint"}

// explain returns an error that names the account, the step and the role.
func (s accountSource) explain(err error) error {
	var step *teo.Error
	role := ""
	switch {
	case errors.Is(err, ErrMissing), errors.Is(err, sts.ErrToken), errors.Is(err, sts.ErrNoCVMRole):
	case !errors.As(err, &step):
		return &teo.Error{
			Kind:    teo.Unavailable,
			Message: fmt.Sprintf("EdgeOneAccount %q: Secret %q cannot be read from the Kubernetes API", s.account, s.spec.SecretRef.Name),
			Err:     fmt.Errorf("%w: %w", sts.ErrRole, err),
		}
	case step.Action == sts.ActionAssumeRoleWithWebIdentity:
		role = "role " + s.spec.WebIdentity.RoleARN
	case step.Action == sts.ActionAssumeRole:
		role = "role " + s.spec.AssumeRole.RoleARN
	case step.Action == sts.StepCVMRole:
		role = "CVM role " + s.spec.CVMRole.Name
	}
	return explainForAccount(s.account, role, err)
}
