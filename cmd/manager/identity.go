package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/credentials"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/metrics"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// identityOptions are the flags for the role whose keys the operator uses as its own.
type identityOptions struct {
	web      sts.WebIdentity
	assume   sts.AssumedRole
	endpoint string
	allowCVM bool
	cvm      sts.CVMOptions // for tests
}

// bindIdentityFlags defines the flags for the operator's role.
func (o *options) bindIdentityFlags(f *flag.FlagSet) {
	i := &o.identity
	f.StringVar(&i.web.RoleARN, "role-arn", "", "`ARN` of the role that the operator assumes with a web identity token, in place of keys of its own. "+
		"Default: TKE_ROLE_ARN, if the operator has no keys")
	f.StringVar(&i.web.ProviderID, "role-provider-id", "", "`name` of the identity provider in CAM for --role-arn, and for EdgeOneAccounts that name none. "+
		"Default: TKE_PROVIDER_ID")
	f.StringVar(&i.web.TokenFile, "web-identity-token-file", "", "`file` with the web identity token for --role-arn and for EdgeOneAccounts. "+
		"Default: TKE_WEB_IDENTITY_TOKEN_FILE")
	f.StringVar(&i.assume.RoleARN, "assume-role-arn", "", "`ARN` of the role that the operator assumes with its own keys, or with those of --role-arn")
	f.StringVar(&i.assume.ExternalID, "assume-role-external-id", "", "external `ID` that the trust policy of --assume-role-arn requires")
	f.DurationVar(&i.assume.Duration, "assume-role-duration", 2*time.Hour, "lifetime of the keys of --assume-role-arn, at most the role's maximum session duration")
	f.BoolVar(&i.allowCVM, "allow-cvm-role", false, "let EdgeOneAccounts use a role of the node; "+
		"every pod of the node that may connect to the metadata service has the same identity")
	f.StringVar(&i.endpoint, "sts-endpoint", "", "`URL` of STS. Default: the endpoint on the site of --teo-endpoint")
}

// hasRole says whether the operator's own keys are those of a role.
func (o *options) hasRole() bool {
	return o.identity.web.RoleARN != "" || o.identity.assume.RoleARN != ""
}

// hasOwnKeys says whether the operator is configured to have keys of its own.
func (o *options) hasOwnKeys() bool {
	return o.credentialsDir != "" || os.Getenv("TENCENTCLOUD_SECRET_ID") != ""
}

// deriveIdentity sets the defaults of the flags for the role. TKE's webhook sets the
// environment variables for a pod whose ServiceAccount has a role. Its region and the
// provider ID may be missing.
func (o *options) deriveIdentity() {
	web := &o.identity.web
	if web.RoleARN == "" && !o.hasOwnKeys() && web.ProviderID == "" && web.TokenFile == "" {
		web.RoleARN = os.Getenv("TKE_ROLE_ARN")
	}
	if web.RoleARN != "" || o.accounts {
		web.ProviderID = cmp.Or(web.ProviderID, os.Getenv("TKE_PROVIDER_ID"))
		web.TokenFile = cmp.Or(web.TokenFile, os.Getenv("TKE_WEB_IDENTITY_TOKEN_FILE"))
	}
	if o.hasRole() || o.accounts {
		o.identity.endpoint = cmp.Or(o.identity.endpoint, sts.EndpointFor(o.endpoint))
	}
}

// validateIdentity returns an error that names the invalid flag for the role. Accounts may
// use the token and STS although the operator has no role.
func (o *options) validateIdentity() error {
	i := o.identity
	switch isWeb := i.web.RoleARN != ""; {
	case i.assume.RoleARN == "" && i.assume.ExternalID != "":
		return errors.New("--assume-role-external-id needs --assume-role-arn")
	case !o.accounts && o.unusedIdentity() != nil:
		return o.unusedIdentity()
	case isWeb && o.hasOwnKeys():
		return errors.New("the operator has two sources of credentials: --role-arn, and --credentials-dir or TENCENTCLOUD_SECRET_ID. Set one of them")
	case i.assume.RoleARN != "" && !isWeb && !o.hasOwnKeys():
		return errors.New("--assume-role-arn needs keys to assume the role with: set --role-arn, --credentials-dir or TENCENTCLOUD_SECRET_ID")
	case isWeb && i.web.TokenFile == "":
		return errors.New("--role-arn (or TKE_ROLE_ARN) needs --web-identity-token-file (or TKE_WEB_IDENTITY_TOKEN_FILE)")
	case o.hasRole() && i.endpoint == "":
		return errors.New("--sts-endpoint is missing; it has no default, because --teo-endpoint is not one of Tencent Cloud's hosts")
	}
	return o.validateRoles()
}

// unusedIdentity returns an error that names a flag for the identity that has no effect
// without accounts.
func (o *options) unusedIdentity() error {
	i := o.identity
	switch {
	case i.allowCVM:
		return errors.New("--allow-cvm-role needs --accounts")
	case i.web.RoleARN == "" && (i.web.ProviderID != "" || i.web.TokenFile != ""):
		return errors.New("--role-provider-id and --web-identity-token-file need --role-arn or --accounts")
	case !o.hasRole() && i.endpoint != "":
		return errors.New("--sts-endpoint needs --role-arn, --assume-role-arn or --accounts")
	}
	return nil
}

// validateRoles returns an error that names the invalid flag of a role.
func (o *options) validateRoles() error {
	i := o.identity
	if i.web.RoleARN != "" {
		if err := i.web.Validate(); err != nil {
			return fmt.Errorf("--role-arn or --role-provider-id: %w", err)
		}
	}
	if i.assume.RoleARN != "" {
		if err := i.assume.Validate(); err != nil {
			return fmt.Errorf("--assume-role-arn, --assume-role-external-id or --assume-role-duration: %w", err)
		}
	}
	if err := i.web.ValidateProvider(); err != nil {
		return fmt.Errorf("--role-provider-id: %w", err)
	}
	_, err := o.newSTS()
	return err
}

// newSTS returns a client for STS, or nil if there is no endpoint of it.
func (o *options) newSTS() (*sts.Client, error) {
	if o.identity.endpoint == "" {
		return nil, nil
	}
	client, err := sts.NewClient(teo.Options{
		Endpoint: o.identity.endpoint, Timeout: o.controller.CallTimeout, UserAgent: "teo-prefetch-operator/" + buildVersion(),
	})
	if err != nil {
		return nil, fmt.Errorf("--sts-endpoint: %w", err)
	}
	return client, nil
}

// accountIdentity returns what the operator has to get the keys of EdgeOneAccounts with.
func (o *options) accountIdentity(ctx context.Context) (credentials.Identity, error) {
	client, err := o.newSTS()
	if err != nil {
		return credentials.Identity{}, err
	}
	identity := credentials.Identity{
		Context: ctx, Namespace: o.namespace, STS: client,
		WebIdentity: sts.WebIdentity{ProviderID: o.identity.web.ProviderID, TokenFile: o.identity.web.TokenFile},
		Observe:     metrics.ObserveCredentials, Forget: metrics.ForgetCredentials,
	}
	if o.identity.allowCVM {
		identity.CVM = sts.NewCVM(o.identity.cvm)
	}
	return identity, nil
}

// roleSource returns how the operator gets the keys of its role.
func (o *options) roleSource() (credentials.RoleSource, error) {
	client, err := o.newSTS()
	if err != nil {
		return credentials.RoleSource{}, err
	}
	source := credentials.RoleSource{STS: client, Own: credentials.OwnCredentials(o.credentialsDir)}
	if o.identity.web.RoleARN != "" {
		source.WebIdentity = &o.identity.web
	}
	if o.identity.assume.RoleARN != "" {
		source.AssumeRole = &o.identity.assume
	}
	return source, nil
}

// newRole returns the provider of the role's keys, or nil if the operator has no role.
func (o *options) newRole(ctx context.Context) (*sts.Provider, error) {
	if !o.hasRole() {
		return nil, nil
	}
	source, err := o.roleSource()
	if err != nil {
		return nil, err
	}
	return source.NewProvider(ctx, func(expires time.Time, err error) { metrics.ObserveCredentials("", expires, err) }), nil
}

// identityText describes the operator's role, for the check and the log.
func (o *options) identityText() string {
	i := o.identity
	switch {
	case i.assume.RoleARN == "":
		return fmt.Sprintf("role %s, by the web identity token in %s", i.web.RoleARN, i.web.TokenFile)
	case i.web.RoleARN == "":
		return fmt.Sprintf("role %s, assumed with the operator's keys", i.assume.RoleARN)
	}
	return fmt.Sprintf("role %s, assumed with role %s, by the web identity token in %s", i.assume.RoleARN, i.web.RoleARN, i.web.TokenFile)
}
