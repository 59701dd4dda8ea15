package simulator

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"
)

// sessionOf returns a caller with the keys in the answer to a call of STS.
func sessionOf(t *testing.T, c caller, answer reply) caller {
	t.Helper()
	var envelope struct {
		Response struct {
			Credentials struct{ TmpSecretID, TmpSecretKey, Token string }
		}
	}
	if err := json.Unmarshal([]byte(answer.body), &envelope); err != nil || envelope.Response.Credentials.Token == "" {
		t.Fatalf("no keys: %s", answer.body)
	}
	keys := envelope.Response.Credentials
	c.secretID, c.key, c.token = keys.TmpSecretID, keys.TmpSecretKey, keys.Token
	return c
}

// asSTS returns the caller for calls of STS.
func (c caller) asSTS() caller {
	c.version, c.scope, c.url = stsVersion, "sts", "http://sts.intl.tencentcloudapi.com/"
	return c
}

// Account a has the roles first and second, account b the role strict, which only the
// second role may assume, with an external ID.
func TestARoleIsAssumedOnlyByThoseThatItTrusts(t *testing.T) {
	const first, second, strict = "qcs::cam::uin/1:roleName/first", "qcs::cam::uin/1:roleName/second", "qcs::cam::uin/2:roleName/strict"
	config := Config{
		Keys: []Key{{SecretID: "AKIDa", SecretKey: "a", Account: "a"}, {SecretID: "AKIDb", SecretKey: "b", Account: "b"}},
		Zones: []Zone{
			{ID: "zone-a", Account: "a", Domains: []string{"a.example.com"}}, {ID: "zone-b", Account: "b", Domains: []string{"b.example.com"}},
			{ID: "zone-b2", Account: "b", Domains: []string{"b2.example.com"}},
		},
		Roles: []Role{
			{ARN: first, Account: "a", Trust: []Trust{{Caller: "a"}}},
			{ARN: second, Account: "a", Trust: []Trust{{Caller: first}}, Lifetime: time.Hour},
			{ARN: strict, Account: "b", Trust: []Trust{{Caller: second, ExternalID: "shop"}}, Zones: []string{"zone-b"}},
		},
	}
	synctest.Test(t, func(t *testing.T) {
		s := New(config)
		defer s.Close()
		a := inMemory(t, s)
		a.secretID, a.key = "AKIDa", "a"
		b := a
		b.secretID, b.key = "AKIDb", "b"
		assume := func(c caller, role string, more params) reply {
			in := params{"RoleArn": role, "RoleSessionName": "test"}
			for name, value := range more {
				in[name] = value
			}
			return c.asSTS().call(assumeRole, in)
		}
		expect := func(what string, got reply, code string) {
			t.Helper()
			if got.code != code || got.status != 200 {
				t.Errorf("%s: %s, want %q", what, got.body, code)
			}
		}
		expect("another account", assume(b, first, nil), "UnauthorizedOperation")
		expect("the account of a role that trusts another role", assume(a, second, nil), "UnauthorizedOperation")
		inFirst := sessionOf(t, a, assume(a, first, nil))
		inSecond := sessionOf(t, a, assume(inFirst, second, nil))
		expect("a role at the start of a chain", assume(inFirst, strict, params{"ExternalId": "shop"}), "UnauthorizedOperation")
		expect("no external ID", assume(inSecond, strict, nil), "UnauthorizedOperation")
		expect("another external ID", assume(inSecond, strict, params{"ExternalId": "other"}), "UnauthorizedOperation")
		expect("a malformed external ID", assume(inSecond, strict, params{"ExternalId": "a b"}), "InvalidParameter.ParamError")
		expect("an unknown role", assume(inSecond, strict+"2", params{"ExternalId": "shop"}), "ResourceNotFound.RoleNotFound")
		expect("no role", assume(inSecond, "strict", params{"ExternalId": "shop"}), "InvalidParameter.ParamError")
		expect("more than 12 hours", assume(inSecond, strict, params{"ExternalId": "shop", "DurationSeconds": 43201}), "InvalidParameter.OverLimit")
		expect("an unknown parameter", assume(inSecond, strict, params{"ExternalID": "shop"}), "UnknownParameter")
		inStrict := sessionOf(t, a, assume(inSecond, strict, params{"ExternalId": "shop", "DurationSeconds": 7200}))

		quota := func(c caller, zone string) reply { return c.call("DescribeContentQuota", params{"ZoneId": zone}) }
		expect("a zone of the role", quota(inStrict, "zone-b"), "")
		expect("another zone of its account", quota(inStrict, "zone-b2"), "UnauthorizedOperation.NoPermission")
		expect("a zone of the caller", quota(inStrict, "zone-a"), "InvalidParameter.ZoneNotFound")
		stolen := inStrict
		stolen.token = inSecond.token
		expect("the token of another session", quota(stolen, "zone-b"), "AuthFailure.TokenFailure")

		time.Sleep(time.Hour)
		expect("keys whose lifetime the role limits", quota(inSecond, "zone-a"), "AuthFailure.TokenFailure")
		expect("a chain whose middle has expired", quota(inStrict, "zone-b"), "")
		expect("a new session of keys that have expired", assume(inSecond, strict, params{"ExternalId": "shop"}), "AuthFailure.TokenFailure")
		time.Sleep(time.Hour)
		expect("keys after the time that was asked for", quota(inStrict, "zone-b"), "AuthFailure.TokenFailure")
		inFirst = sessionOf(t, a, assume(a, first, nil))
		s.RemoveRole(first)
		expect("keys of a role that is gone", quota(inFirst, "zone-a"), "AuthFailure.SecretIdNotFound")
		expect("a role that is gone", assume(a, first, nil), "ResourceNotFound.RoleNotFound")
	})
}

func TestRolesAndProvidersThatAreNone(t *testing.T) {
	for name, c := range map[string]Config{
		"no ARN":                {Roles: []Role{{ARN: "prefetch", Account: "a"}}},
		"no account":            {Roles: []Role{{ARN: testRole}}},
		"trust in nobody":       {Roles: []Role{{ARN: testRole, Account: "a", Trust: []Trust{{}}}}},
		"trust in two":          {Roles: []Role{{ARN: testRole, Account: "a", Trust: []Trust{{Provider: "p", Caller: "a"}}}}},
		"a provider of nobody":  {IdentityProviders: []IdentityProvider{{ID: "p", Issuer: "i", ClientIDs: []string{"c"}}}},
		"a provider, no keys":   {IdentityProviders: []IdentityProvider{{ID: "p", Account: "a", Issuer: "i", ClientIDs: []string{"c"}, JWKS: []byte(`{"keys":[]}`)}}},
		"a provider, other JWK": {IdentityProviders: []IdentityProvider{{ID: "p", Account: "a", Issuer: "i", ClientIDs: []string{"c"}, JWKS: []byte(`{"keys":[{"kty":"oct"}]}`)}}},
	} {
		if c.validateRoles() == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
