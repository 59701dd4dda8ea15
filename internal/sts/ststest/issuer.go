// Package ststest issues web identity tokens for tests, as the API server of a cluster
// does.
package ststest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

// The names that Configure uses.
const (
	Audience   = "sts.cloud.tencent.com"
	IssuerURL  = "https://kubernetes.default.svc"
	ProviderID = "cls-example"
	Subject    = "system:serviceaccount:teo-prefetch-system:teo-prefetch-operator"
	RoleARN    = "qcs::cam::uin/100000000001:roleName/prefetch"
	OtherARN   = "qcs::cam::uin/100000000002:roleName/prefetch"
	ExternalID = "shop-prod"
)

// Issuer signs tokens with a key of its own.
type Issuer struct {
	t   testing.TB
	key *ecdsa.PrivateKey
}

// NewIssuer returns an issuer.
func NewIssuer(t testing.TB) *Issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &Issuer{t, key}
}

func encode(bytes []byte) string { return base64.RawURLEncoding.EncodeToString(bytes) }

// JWKS returns the public key, as an issuer publishes it.
func (i *Issuer) JWKS() json.RawMessage {
	i.t.Helper()
	point, err := i.key.PublicKey.Bytes() // 4, x and y
	if err != nil {
		i.t.Fatal(err)
	}
	return fmt.Appendf(nil, `{"keys":[{"kty":"EC","crv":"P-256","kid":"one","alg":"ES256","use":"sig","x":%q,"y":%q}]}`, encode(point[1:33]), encode(point[33:]))
}

// Token returns a token for Subject that is valid for an hour. changes replace claims.
func (i *Issuer) Token(changes map[string]any) string {
	i.t.Helper()
	claims := map[string]any{
		"iss": IssuerURL, "sub": Subject, "aud": []string{Audience},
		"nbf": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}
	for name, value := range changes {
		claims[name] = value
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		i.t.Fatal(err)
	}
	text := encode([]byte(`{"alg":"ES256","kid":"one"}`)) + "." + encode(payload)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, i.key, sum[:])
	if err != nil {
		i.t.Fatal(err)
	}
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return text + "." + encode(signature)
}

// WriteToken writes a token to a new file and returns its name. A later Token has to be
// written to it before this one expires.
func (i *Issuer) WriteToken(token string) string {
	i.t.Helper()
	name := filepath.Join(i.t.TempDir(), "token")
	if err := os.WriteFile(name, []byte(token+"\n"), 0o600); err != nil {
		i.t.Fatal(err)
	}
	return name
}

// Configure adds the identity provider and two roles of an account: RoleARN, which the
// subject of the token may assume, and OtherARN, which RoleARN and the account's keys may
// assume with ExternalID.
func (i *Issuer) Configure(c simulator.Config, account string) simulator.Config {
	c.IdentityProviders = append(c.IdentityProviders, simulator.IdentityProvider{
		ID: ProviderID, Account: account, Issuer: IssuerURL, ClientIDs: []string{Audience}, JWKS: i.JWKS(),
	})
	c.Roles = append(c.Roles,
		simulator.Role{ARN: RoleARN, Account: account, Trust: []simulator.Trust{{Provider: ProviderID, Subjects: []string{Subject}}}},
		simulator.Role{ARN: OtherARN, Account: account, Trust: []simulator.Trust{{Caller: RoleARN, ExternalID: ExternalID}, {Caller: account, ExternalID: ExternalID}}},
	)
	return c
}
