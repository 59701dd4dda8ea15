package simulator

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// claims are the claims of a token that CAM checks.
type claims struct {
	Issuer    string   `json:"iss"`
	Subject   string   `json:"sub"`
	Audience  audience `json:"aud"`
	Expires   int64    `json:"exp"`
	NotBefore int64    `json:"nbf"`
}

// audience is a string or a list of strings.
type audience []string

// UnmarshalJSON implements json.Unmarshaler.
func (a *audience) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(a))
}

// verify returns the claims of a token after it has verified the signature, the issuer,
// the audience and the times.
func (p IdentityProvider) verify(token string, now time.Time) (claims, error) {
	var header struct {
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
	}
	var c claims
	parts := strings.Split(token, ".")
	if len(parts) != 3 || decodePart(parts[0], &header) != nil || decodePart(parts[1], &c) != nil {
		return c, errors.New("the token is not a JWT")
	}
	keys, err := parseJWKS(p.JWKS)
	if err != nil {
		return c, err
	}
	key, known := keys[header.KeyID]
	if !known {
		return c, errors.New("the token is signed with a key that the identity provider does not have")
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	switch {
	case err != nil || !verifySignature(header.Algorithm, key, sum[:], signature):
		return c, errors.New("the signature of the token is wrong")
	case c.Issuer != p.Issuer:
		return c, errors.New("the issuer of the token is not that of the identity provider")
	case !slices.ContainsFunc(p.ClientIDs, func(id string) bool { return slices.Contains(c.Audience, id) }):
		return c, errors.New("the audience of the token is not a client ID of the identity provider")
	case now.Unix() >= c.Expires || now.Unix() < c.NotBefore:
		return c, errors.New("the token has expired, or is not valid yet")
	}
	return c, nil
}

func decodePart(part string, into any) error {
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// verifySignature verifies a signature by RS256 or ES256. The algorithm must fit the key.
func verifySignature(algorithm string, key crypto.PublicKey, sum, signature []byte) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return algorithm == "RS256" && rsa.VerifyPKCS1v15(key, crypto.SHA256, sum, signature) == nil
	case *ecdsa.PublicKey:
		return algorithm == "ES256" && len(signature) == 64 &&
			ecdsa.Verify(key, sum, new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
	}
	return false
}

// parseJWKS returns the keys of a JSON Web Key Set by their IDs.
func parseJWKS(document json.RawMessage) (map[string]crypto.PublicKey, error) {
	var set struct {
		Keys []struct {
			Type  string `json:"kty"`
			ID    string `json:"kid"`
			N     string `json:"n"`
			E     string `json:"e"`
			Curve string `json:"crv"`
			X     string `json:"x"`
			Y     string `json:"y"`
		} `json:"keys"`
	}
	if err := json.Unmarshal(document, &set); err != nil {
		return nil, err
	}
	keys := map[string]crypto.PublicKey{}
	for _, k := range set.Keys {
		var numbers [4]*big.Int
		for i, text := range []string{k.N, k.E, k.X, k.Y} {
			bytes, err := base64.RawURLEncoding.DecodeString(text)
			if err != nil {
				return nil, fmt.Errorf("key %q is malformed", k.ID)
			}
			numbers[i] = new(big.Int).SetBytes(bytes)
		}
		switch {
		case k.Type == "RSA" && numbers[0].Sign() > 0 && numbers[1].IsInt64():
			keys[k.ID] = &rsa.PublicKey{N: numbers[0], E: int(numbers[1].Int64())}
		case k.Type == "EC" && k.Curve == "P-256" && max(numbers[2].BitLen(), numbers[3].BitLen()) <= 256:
			x, y := numbers[2].FillBytes(make([]byte, 32)), numbers[3].FillBytes(make([]byte, 32))
			key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
			if err != nil {
				return nil, fmt.Errorf("key %q is malformed", k.ID)
			}
			keys[k.ID] = key
		default:
			return nil, fmt.Errorf("key %q is neither RSA nor P-256", k.ID)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("there are no keys")
	}
	return keys, nil
}
