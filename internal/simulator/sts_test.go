package simulator

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"
)

const (
	testRole     = "qcs::cam::uin/100000000001:roleName/prefetch"
	testAudience = "sts.cloud.tencent.com"
)

// tokenOf returns a token that sign signs.
func tokenOf(t *testing.T, algorithm, keyID string, claims map[string]any, sign func(sum []byte) []byte) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	text := encode(fmt.Appendf(nil, `{"alg":%q,"kid":%q}`, algorithm, keyID)) + "." + encode(payload)
	sum := sha256.Sum256([]byte(text))
	return text + "." + encode(sign(sum[:]))
}

// unsigned replaces the signature of a request.
func unsigned(req *http.Request) { req.Header.Set("Authorization", "SKIP") }

// API servers sign with RSA by default, so both kinds of keys count.
func TestSTSVerifiesTokens(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := ecKey.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	s := New(Config{
		IdentityProviders: []IdentityProvider{{ID: "cls-1", Account: "a", Issuer: "https://issuer", ClientIDs: []string{testAudience}, JWKS: fmt.Appendf(nil,
			`{"keys":[{"kty":"RSA","kid":"r","n":%q,"e":%q},{"kty":"EC","crv":"P-256","kid":"e","x":%q,"y":%q}]}`,
			encode(rsaKey.N.Bytes()), encode(big.NewInt(int64(rsaKey.E)).Bytes()), encode(point[1:33]), encode(point[33:]))}},
		Roles: []Role{{ARN: testRole, Account: "a", Trust: []Trust{{Provider: "cls-1", Subjects: []string{"pod"}}}}},
	})
	defer s.Close()
	byRSA := func(sum []byte) []byte {
		signature, err := rsa.SignPKCS1v15(rand.Reader, rsaKey, crypto.SHA256, sum)
		if err != nil {
			t.Fatal(err)
		}
		return signature
	}
	byEC := func(sum []byte) []byte {
		r, s, err := ecdsa.Sign(rand.Reader, ecKey, sum)
		if err != nil {
			t.Fatal(err)
		}
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}
	claims := func(changes map[string]any) map[string]any {
		all := map[string]any{"iss": "https://issuer", "sub": "pod", "aud": testAudience, "exp": time.Now().Add(time.Hour).Unix()}
		for name, value := range changes {
			all[name] = value
		}
		return all
	}
	good := tokenOf(t, "RS256", "r", claims(nil), byRSA)
	parts := strings.Split(good, ".")
	const wrong = "InvalidParameter.WebIdentityTokenError"
	for _, c := range []struct{ name, token, want string }{
		{"RSA", good, ""},
		{"EC", tokenOf(t, "ES256", "e", claims(map[string]any{"aud": []string{"other", testAudience}}), byEC), ""},
		{"no signature", parts[0] + "." + parts[1] + ".", wrong},
		{"algorithm none", tokenOf(t, "none", "r", claims(nil), func([]byte) []byte { return nil }), wrong},
		{"the algorithm of the other key", tokenOf(t, "ES256", "r", claims(nil), byRSA), wrong},
		{"an unknown key", tokenOf(t, "RS256", "x", claims(nil), byRSA), wrong},
		{"other claims under the signature", parts[0] + "." + strings.Split(tokenOf(t, "RS256", "r", claims(map[string]any{"jti": 1}), byRSA), ".")[1] + "." + parts[2], wrong},
		{"another issuer", tokenOf(t, "RS256", "r", claims(map[string]any{"iss": "https://other"}), byRSA), wrong},
		{"another audience", tokenOf(t, "RS256", "r", claims(map[string]any{"aud": []string{"other"}}), byRSA), wrong},
		{"expired", tokenOf(t, "RS256", "r", claims(map[string]any{"exp": time.Now().Unix() - 1}), byRSA), wrong},
		{"not valid yet", tokenOf(t, "RS256", "r", claims(map[string]any{"nbf": time.Now().Unix() + 60}), byRSA), wrong},
		{"another subject", tokenOf(t, "RS256", "r", claims(map[string]any{"sub": "other"}), byRSA), "UnauthorizedOperation"},
		{"no JWT", "token", wrong},
	} {
		t.Run(c.name, func(t *testing.T) {
			caller := inMemory(t, s)
			caller.version = stsVersion
			caller.tamper = unsigned
			got := caller.call(assumeRoleWithWebIdentity, params{"ProviderId": "cls-1", "WebIdentityToken": c.token, "RoleArn": testRole, "RoleSessionName": "test"})
			if got.code != c.want || c.want == "" && !strings.Contains(got.body, "TmpSecretId") {
				t.Errorf("the answer is %s", got.body)
			}
		})
	}
}

func TestAWebIdentityIsSentUnsigned(t *testing.T) {
	s := New(Demo())
	defer s.Close()
	caller := inMemory(t, s)
	caller.version = stsVersion
	if got := caller.call(assumeRoleWithWebIdentity, params{}); got.code != "AuthFailure.InvalidAuthorization" {
		t.Errorf("a signed call: %s", got.body)
	}
	caller.version = "2022-09-01"
	if got := caller.call(assumeRole, params{}); got.code != "InvalidAction" {
		t.Errorf("an action of STS with the version of EdgeOne: %s", got.body)
	}
}
