package simulator

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"
)

// STS is the Security Token Service, API version 2018-08-13. The simulator answers its
// calls on the same address as EdgeOne's.
const (
	stsVersion = "2018-08-13"

	assumeRole                = "AssumeRole"
	assumeRoleWithWebIdentity = "AssumeRoleWithWebIdentity"

	stsRate            = 600 // calls per second of AssumeRole
	maxSessionDuration = 12 * time.Hour
)

// Role is a role of an account. Its keys have the permissions of the role.
type Role struct {
	ARN     string  `json:"arn"`
	Account string  `json:"account"`
	Trust   []Trust `json:"trust"` // who may assume the role; one match suffices
	// Lifetime is the lifetime of the role's keys, whatever the caller asks for. Default:
	// what the caller asks for, and otherwise 2 hours.
	Lifetime time.Duration `json:"lifetime,omitempty"`
	Actions  []string      `json:"actions,omitempty"`
	Zones    []string      `json:"zones,omitempty"`
	Modes    []string      `json:"modes,omitempty"`
}

// Trust is a statement of a role's trust policy: for the tokens of an identity provider,
// or for other keys.
type Trust struct {
	// Provider is the ID of an identity provider. Subjects and Audiences are the accepted
	// values of the token's sub and aud. Default: any.
	Provider  string   `json:"provider,omitempty"`
	Subjects  []string `json:"subjects,omitempty"`
	Audiences []string `json:"audiences,omitempty"`
	// Caller is the ARN of a role, or an account. ExternalID is required from it, unless it
	// is empty.
	Caller     string `json:"caller,omitempty"`
	ExternalID string `json:"externalID,omitempty"`
}

// IdentityProvider is an OIDC provider that is registered in CAM.
type IdentityProvider struct {
	ID        string          `json:"id"`
	Account   string          `json:"account"`
	Issuer    string          `json:"issuer"`
	ClientIDs []string        `json:"clientIDs"` // the accepted audiences
	JWKS      json.RawMessage `json:"jwks"`      // the public keys, as the issuer publishes them
}

var (
	webIdentityParams = object{
		"ProviderId":       {required: true, is: isString},
		"WebIdentityToken": {required: true, is: isString},
		"RoleArn":          {required: true, is: isString},
		"RoleSessionName":  {required: true, is: isString},
		"DurationSeconds":  {is: isInteger},
	}
	assumeRoleParams = object{
		"RoleArn":         {required: true, is: isString},
		"RoleSessionName": {required: true, is: isString},
		"DurationSeconds": {is: isInteger},
		"Policy":          {is: isString},
		"ExternalId":      {is: isString},
		"SourceIdentity":  {is: isString},
		"Tags": {is: isList(isObject), items: object{
			"Key":   {required: true, is: isString},
			"Value": {required: true, is: isString},
		}},
	}
	stsRoleARN     = regexp.MustCompile(`^qcs::cam::uin/\d+:roleName/[^:/]+$`)
	stsSessionName = regexp.MustCompile(`^[\w+=,.@-]{2,128}$`)
	stsExternalID  = regexp.MustCompile(`^[\w+=,.@:/-]{2,128}$`)
)

func (r Role) validate() error {
	if !stsRoleARN.MatchString(r.ARN) || r.Account == "" {
		return fmt.Errorf("the role %q needs an arn such as qcs::cam::uin/100000000001:roleName/prefetch, and an account", r.ARN)
	}
	for _, trust := range r.Trust {
		if (trust.Provider == "") == (trust.Caller == "") {
			return fmt.Errorf("the trust of role %q needs either a provider or a caller", r.ARN)
		}
	}
	return nil
}

func (p IdentityProvider) validate() error {
	if p.ID == "" || p.Account == "" || p.Issuer == "" || len(p.ClientIDs) == 0 {
		return fmt.Errorf("the identity provider %q needs an id, an account, an issuer and clientIDs", p.ID)
	}
	if _, err := parseJWKS(p.JWKS); err != nil {
		return fmt.Errorf("the identity provider %q: jwks: %w", p.ID, err)
	}
	return nil
}

// validateRoles returns what is wrong with the roles and identity providers.
func (c Config) validateRoles() error {
	var wrong []error
	for _, r := range c.Roles {
		wrong = append(wrong, r.validate())
	}
	for _, p := range c.IdentityProviders {
		wrong = append(wrong, p.validate())
	}
	return errors.Join(wrong...)
}

// SetRole adds a role, or replaces the role with the same ARN. Keys that it has issued
// stay valid.
func (s *Simulator) SetRole(r Role) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roles[r.ARN] = r
}

// RemoveRole removes a role and invalidates all keys that it has issued.
func (s *Simulator) RemoveRole(arn string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.roles, arn)
	s.revoke(arn)
}

// RevokeSessions invalidates all keys that a role has issued so far.
func (s *Simulator) RevokeSessions(arn string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revoke(arn)
}

func (s *Simulator) revoke(arn string) {
	for id, key := range s.keys {
		if key.Role == arn {
			delete(s.keys, id)
		}
	}
}

// SetIdentityProvider adds an identity provider, or replaces the one with the same ID.
func (s *Simulator) SetIdentityProvider(p IdentityProvider) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.providers[p.ID] = p
}

// assumeRoleWithWebIdentity is the action of that name. The caller holds s.mu.
func (s *Simulator) assumeRoleWithWebIdentity(c *call) (map[string]any, *apiError) {
	role, failure := s.roleOf(c)
	if failure != nil {
		return nil, failure
	}
	provider, known := s.providers[c.text("ProviderId")]
	if !known || provider.Account != role.Account {
		return nil, fail("InvalidParameter.ParamError", "The identity provider does not exist.")
	}
	token, err := provider.verify(c.text("WebIdentityToken"), s.now())
	if err != nil {
		return nil, fail("InvalidParameter.WebIdentityTokenError", "%v", err)
	}
	isTrusted := slices.ContainsFunc(role.Trust, func(t Trust) bool {
		return t.Provider == provider.ID &&
			(t.Subjects == nil || slices.Contains(t.Subjects, token.Subject)) &&
			(t.Audiences == nil || slices.ContainsFunc(t.Audiences, func(a string) bool { return slices.Contains(token.Audience, a) }))
	})
	if !isTrusted {
		return nil, fail("UnauthorizedOperation", "The trust policy of the role does not allow this web identity.")
	}
	return s.session(c, role), nil
}

// assumeRole is the action of that name. The caller holds s.mu.
func (s *Simulator) assumeRole(c *call) (map[string]any, *apiError) {
	role, failure := s.roleOf(c)
	if failure != nil {
		if failure.code == "InternalError.GetRoleError" {
			failure = fail("ResourceNotFound.RoleNotFound", "The role does not exist.")
		}
		return nil, failure
	}
	external := c.text("ExternalId")
	if external != "" && !stsExternalID.MatchString(external) {
		return nil, fail("InvalidParameter.ParamError", "ExternalId is malformed.")
	}
	isTrusted := slices.ContainsFunc(role.Trust, func(t Trust) bool {
		isCaller := t.Caller != "" && (t.Caller == c.key.Role || t.Caller == c.key.Account)
		return isCaller && (t.ExternalID == "" || t.ExternalID == external)
	})
	if !isTrusted {
		return nil, fail("UnauthorizedOperation", "The caller is not allowed to assume this role.")
	}
	return s.session(c, role), nil
}

// roleOf returns the role of a call of STS, and checks the parameters of both actions.
func (s *Simulator) roleOf(c *call) (Role, *apiError) {
	switch seconds := c.integer("DurationSeconds", 7200); {
	case !stsRoleARN.MatchString(c.text("RoleArn")):
		return Role{}, fail("InvalidParameter.ParamError", "RoleArn is malformed.")
	case !stsSessionName.MatchString(c.text("RoleSessionName")):
		return Role{}, fail("InvalidParameter.ParamError", "RoleSessionName is malformed.")
	case seconds <= 0 || time.Duration(seconds)*time.Second > maxSessionDuration:
		return Role{}, fail("InvalidParameter.OverLimit", "DurationSeconds is out of range.")
	}
	role, known := s.roles[c.text("RoleArn")]
	if !known {
		return Role{}, fail("InternalError.GetRoleError", "The role does not exist.")
	}
	return role, nil
}

// session issues the keys of a role.
func (s *Simulator) session(c *call, role Role) map[string]any {
	lifetime := role.Lifetime
	if lifetime == 0 {
		lifetime = time.Duration(c.integer("DurationSeconds", 7200)) * time.Second
	}
	expires := s.now().Add(lifetime).Truncate(time.Second)
	key := Key{
		SecretID: "AKID" + rand.Text(), SecretKey: rand.Text(), Token: rand.Text() + rand.Text(),
		Account: role.Account, Actions: role.Actions, Zones: role.Zones, Modes: role.Modes,
		Role: role.ARN, Expires: expires,
	}
	s.keys[key.SecretID] = key
	return map[string]any{
		"Credentials": map[string]string{"TmpSecretId": key.SecretID, "TmpSecretKey": key.SecretKey, "Token": key.Token},
		"ExpiredTime": expires.Unix(),
		"Expiration":  expires.UTC().Format(time.RFC3339),
	}
}
