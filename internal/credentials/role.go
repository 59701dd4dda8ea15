package credentials

import (
	"context"
	"errors"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// RoleSource describes how the operator gets the keys of its role: with a web identity
// token, with its own keys and AssumeRole, or with a web identity token and then
// AssumeRole.
type RoleSource struct {
	STS         *sts.Client
	WebIdentity *sts.WebIdentity // nil: the first step uses Own
	AssumeRole  *sts.AssumedRole // nil: the web identity's role is the role
	Own         func() (teo.Credentials, error)
}

// NewProvider returns a provider of the role's keys; see sts.NewProvider.
func (s RoleSource) NewProvider(ctx context.Context, observe func(expires time.Time, err error)) *sts.Provider {
	logger := log.Log.WithName("credentials")
	return sts.NewProvider(ctx, s.fetch, func(expires time.Time, err error) {
		if err != nil {
			logger.Info("Cannot refresh the keys of the operator's role", "error", err.Error(), "expires", expires, "role", s.RoleARN())
		} else {
			logger.V(1).Info("Refreshed the keys of the operator's role", "expires", expires, "role", s.RoleARN())
		}
		observe(expires, err)
	})
}

// RoleARN returns the ARN of the role whose keys sign calls to EdgeOne.
func (s RoleSource) RoleARN() string {
	if s.AssumeRole != nil {
		return s.AssumeRole.RoleARN
	}
	return s.WebIdentity.RoleARN
}

// fetch takes all steps to new keys of the role.
func (s RoleSource) fetch(ctx context.Context) (sts.Keys, error) {
	var keys sts.Keys
	var err error
	if s.WebIdentity != nil {
		keys, err = s.STS.AssumeRoleWithWebIdentity(ctx, *s.WebIdentity)
	} else {
		keys.Credentials, err = s.Own()
	}
	switch {
	case errors.Is(err, sts.ErrToken):
		fact, advice := sts.Explain(err)
		return sts.Keys{}, &missingError{"the operator has " + fact, advice}
	case err != nil || s.AssumeRole == nil:
		return keys, err
	}
	return s.STS.AssumeRole(ctx, keys.Credentials, *s.AssumeRole)
}

// RoleCredentials returns a function for Reader.Role.
func RoleCredentials(provider *sts.Provider) func(context.Context) (teo.Credentials, error) {
	return func(ctx context.Context) (teo.Credentials, error) {
		keys, err := provider.Get(ctx)
		return keys.Credentials, err
	}
}
