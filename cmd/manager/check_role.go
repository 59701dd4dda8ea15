package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// assumeOwnRole gets the keys of the operator's role from STS. If STS does not give them,
// it prints why and returns false.
func (c *check) assumeOwnRole(ctx context.Context) (teo.Credentials, bool) {
	provider, err := c.newRole(ctx)
	if err != nil {
		c.fail("%s.", upper(err.Error()))
		return teo.Credentials{}, false
	}
	keys, err := provider.Get(ctx)
	var refused *teo.Error
	switch {
	case errors.As(err, &refused):
		token := ""
		if c.identity.web.RoleARN != "" {
			token = c.tokenText()
		}
		c.fail("The operator's identity is %s, and STS at %s gives no keys for it. %s.%s", c.identityText(), c.identity.endpoint,
			strings.TrimSuffix(upper(refused.Message), "."), token)
	case err != nil:
		c.fail("The operator's identity is %s, and it has no keys. %s.", c.identityText(), upper(err.Error()))
	default:
		c.ok("The operator's identity is %s. STS at %s gave it keys until %s.", c.identityText(), c.identity.endpoint, keys.Expires.UTC().Format(time.RFC3339))
	}
	return keys.Credentials, err == nil
}

// tokenText returns what the web identity token says about itself, for a comparison with
// the identity provider and the trust policy. It returns "" if there is no token.
func (c *check) tokenText() string {
	if c.identity.web.TokenFile == "" {
		return ""
	}
	claims, err := c.identity.web.ReadClaims()
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" The token has the issuer %q, the audience %q and the subject %q, and expires at %s.",
		claims.Issuer, strings.Join(claims.Audience, ", "), claims.Subject, claims.Expires.UTC().Format(time.RFC3339))
}

// adviseOn returns what a user can do about an error of EdgeOne.
func (c *check) adviseOn(err error) string {
	if c.hasRole() {
		return adviseOnRole(err)
	}
	return advice(err)
}

// adviseOnRole returns what a user can do about an error of EdgeOne for the keys of a role.
func adviseOnRole(err error) string {
	code := teo.Code(err)
	switch {
	case code == "AuthFailure.SecretIdNotFound" || code == "AuthFailure.TokenFailure":
		return "STS gave these keys just now: see that --teo-endpoint and --sts-endpoint belong to the same site."
	case code == "AuthFailure.UnauthorizedOperation" || strings.HasPrefix(code, "UnauthorizedOperation"):
		return "Let the role's policy allow teo:CreatePrefetchTask, teo:DescribePrefetchTasks and teo:DescribeContentQuota for this zone."
	}
	return advice(err)
}
