// Package sts gets the temporary keys of roles from Tencent Cloud's Security Token
// Service, API version 2018-08-13. It does not depend on Kubernetes.
//
//   - client.go makes the two calls. errors.go describes their failures.
//   - role.go describes a role and the token file, and validates them.
//   - cvm.go reads the keys of a node's role from the metadata service.
//   - provider.go keeps the keys of a role fresh.
//
// The calls are signed, bounded and redacted by internal/teo.
package sts

import (
	"context"
	"errors"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// The actions of STS.
const (
	ActionAssumeRole                = "AssumeRole"
	ActionAssumeRoleWithWebIdentity = "AssumeRoleWithWebIdentity"
)

const (
	serviceName = "sts"
	apiVersion  = "2018-08-13"
	// region is a common parameter of all calls. The keys are valid everywhere.
	region = "ap-guangzhou"
	// sessionName is how the sessions of the operator appear in CAM and in audits.
	sessionName = "teo-prefetch-operator"
	// defaultDuration is STS's own default.
	defaultDuration = 2 * time.Hour
)

// Keys are the keys of a role until they expire. The time is on the local clock.
type Keys struct {
	teo.Credentials
	Expires time.Time
}

// Client calls STS. It is safe for concurrent use.
type Client struct{ service *teo.Service }

// NewClient returns a client, or an error that names the invalid option.
func NewClient(options teo.Options) (*Client, error) {
	service, err := teo.NewService(serviceName, apiVersion, options)
	if err != nil {
		return nil, err
	}
	return &Client{service}, nil
}

// webIdentityParameters is the body of AssumeRoleWithWebIdentity.
type webIdentityParameters struct {
	ProviderID       string `json:"ProviderId,omitempty"`
	WebIdentityToken string `json:"WebIdentityToken"`
	RoleARN          string `json:"RoleArn"`
	RoleSessionName  string `json:"RoleSessionName"`
	DurationSeconds  int64  `json:"DurationSeconds"`
}

// AssumeRoleWithWebIdentity returns the keys of a role for a web identity token. It reads
// the token file.
func (c *Client) AssumeRoleWithWebIdentity(ctx context.Context, identity WebIdentity) (Keys, error) {
	token, err := identity.readToken()
	if err != nil {
		return Keys{}, err
	}
	return c.assume(ctx, identity.RoleARN, teo.ServiceCall{
		Action: ActionAssumeRoleWithWebIdentity,
		Parameters: webIdentityParameters{
			ProviderID: identity.ProviderID, WebIdentityToken: token, RoleARN: identity.RoleARN,
			RoleSessionName: sessionName, DurationSeconds: int64(defaultDuration.Seconds()),
		},
		Secrets: []string{token, identity.RoleARN},
	})
}

// assumeRoleParameters is the body of AssumeRole.
type assumeRoleParameters struct {
	RoleARN         string `json:"RoleArn"`
	RoleSessionName string `json:"RoleSessionName"`
	DurationSeconds int64  `json:"DurationSeconds"`
	ExternalID      string `json:"ExternalId,omitempty"`
}

// AssumeRole returns the keys of a role. signer are any keys, also those of another role.
func (c *Client) AssumeRole(ctx context.Context, signer teo.Credentials, role AssumedRole) (Keys, error) {
	call := teo.ServiceCall{
		Action: ActionAssumeRole, Signer: &signer,
		Parameters: assumeRoleParameters{
			RoleARN: role.RoleARN, RoleSessionName: sessionName,
			DurationSeconds: int64(role.duration().Seconds()), ExternalID: role.ExternalID,
		},
		Secrets: []string{role.RoleARN, role.ExternalID},
	}
	keys, err := c.assume(ctx, role.RoleARN, call)
	if errors.Is(err, errClock) {
		// The refusal has shown the time of STS. The call is signed with it now.
		keys, err = c.assume(ctx, role.RoleARN, call)
	}
	return keys, err
}

// assume makes a call that answers with the keys of a role.
func (c *Client) assume(ctx context.Context, roleARN string, call teo.ServiceCall) (Keys, error) {
	answer := answer{creds: teo.Credentials{Principal: roleARN}}
	call.Region, call.Read, call.Problem = region, answer.read, answer.problem
	at, err := c.service.Call(ctx, call)
	if err != nil {
		return Keys{}, describe(call.Action, err)
	}
	lifetime := time.Unix(int64(answer.expired), 0).Sub(at)
	if lifetime <= 0 {
		return Keys{}, unavailable(call.Action, "STS answered "+call.Action+" with keys that have already expired", "", nil)
	}
	return Keys{answer.creds, time.Now().Add(lifetime)}, nil
}

// answer is the content of the answer to either call.
type answer struct {
	creds   teo.Credentials
	expired int // Unix time, on the clock of STS
}

// read reads a field of the answer.
func (a *answer) read(field string, value teo.Value) {
	switch field {
	case "Credentials":
		value.Object(func(name string, value teo.Value) {
			switch name {
			case "TmpSecretId":
				a.creds.SecretID = value.Text()
			case "TmpSecretKey":
				a.creds.SecretKey = value.Text()
			case "Token":
				a.creds.Token = value.Text()
			default:
				value.Skip()
			}
		})
	case "ExpiredTime":
		if number := value.Number(); number != nil {
			a.expired = *number
		}
	default:
		value.Skip()
	}
}

// problem returns what is missing from a complete answer. The error contains no values.
func (a *answer) problem() error {
	switch {
	case a.creds.Token == "" || a.expired <= 0:
		return errors.New("no Token or no ExpiredTime")
	case a.creds.Validate() != nil:
		return errors.New("keys that cannot sign")
	}
	return nil
}
