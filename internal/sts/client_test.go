package sts_test

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts/ststest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

const zone = "zone-ajj243dwrew"

// world is a simulator with the roles of an issuer, and clients of it.
type world struct {
	*simulator.Simulator
	issuer *ststest.Issuer
	sts    *sts.Client
	teo    *teo.Client
}

func newWorld(t *testing.T, change func(*simulator.Config)) world {
	t.Helper()
	issuer := ststest.NewIssuer(t)
	config := issuer.Configure(simulator.Demo(), "demo")
	if change != nil {
		change(&config)
	}
	sim := simulator.New(config)
	t.Cleanup(sim.Close)
	client, err := sts.NewClient(teo.Options{Endpoint: "https://sts.intl.tencentcloudapi.com", Transport: sim.RoundTripper()})
	if err != nil {
		t.Fatal(err)
	}
	edgeOne, err := teo.NewClient(teo.Options{Transport: sim.RoundTripper()})
	if err != nil {
		t.Fatal(err)
	}
	return world{sim, issuer, client, edgeOne}
}

func (w world) identity(changes map[string]any) sts.WebIdentity {
	return sts.WebIdentity{RoleARN: ststest.RoleARN, ProviderID: ststest.ProviderID, TokenFile: w.issuer.WriteToken(w.issuer.Token(changes))}
}

func TestTheKeysOfARoleSignCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.SetClockOffset(17 * time.Minute)                                                                            // the lifetime counts, and not the time of STS
		_, _ = w.teo.DescribeContentQuota(t.Context(), teo.Credentials{SecretID: "AKIDdemo", SecretKey: "key"}, zone) // shows EdgeOne's time
		keys, err := w.sts.AssumeRoleWithWebIdentity(t.Context(), w.identity(map[string]any{"exp": time.Now().Add(2 * time.Hour).Unix()}))
		if err != nil {
			t.Fatal(err)
		}
		if left := time.Until(keys.Expires); left < 2*time.Hour-2*time.Second || left > 2*time.Hour || keys.Principal != ststest.RoleARN {
			t.Errorf("keys of %s for %s", keys.Principal, left)
		}
		if _, err := w.teo.DescribeContentQuota(t.Context(), keys.Credentials, zone); err != nil {
			t.Error(err)
		}
		other, err := w.sts.AssumeRole(t.Context(), keys.Credentials, sts.AssumedRole{RoleARN: ststest.OtherARN, ExternalID: ststest.ExternalID, Duration: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		if left := time.Until(other.Expires); left > time.Hour || left < time.Hour-2*time.Second || other.Principal != ststest.OtherARN {
			t.Errorf("keys of %s for %s", other.Principal, left)
		}
		if _, err := w.teo.DescribeContentQuota(t.Context(), other.Credentials, zone); err != nil {
			t.Error(err)
		}
		time.Sleep(2*time.Hour + time.Second)
		if _, err := w.teo.DescribeContentQuota(t.Context(), keys.Credentials, zone); teo.Code(err) != "AuthFailure.TokenFailure" {
			t.Errorf("with expired keys: %v", err)
		}
	})
}

// A signature with the time of a wrong clock is refused. The refusal shows the right time.
func TestAWrongClockDoesNotKeepARoleFromBeingAssumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.SetClockOffset(-time.Hour)
		if _, err := w.sts.AssumeRole(t.Context(), teo.Credentials{SecretID: "AKIDdemo", SecretKey: "demo-secret-key"}, sts.AssumedRole{RoleARN: ststest.OtherARN, ExternalID: ststest.ExternalID}); err != nil {
			t.Error(err)
		}
	})
}

func TestARefusalSaysWhichStepFailedAndWhatToCheck(t *testing.T) {
	demo := teo.Credentials{SecretID: "AKIDdemo", SecretKey: "demo-secret-key"}
	for _, c := range []struct {
		name   string
		token  map[string]any
		change func(*sts.WebIdentity)
		signer teo.Credentials // not zero: AssumeRole with role
		role   sts.AssumedRole
		want   []string
	}{
		{name: "another issuer", token: map[string]any{"iss": "https://elsewhere"},
			want: []string{"STS refused AssumeRoleWithWebIdentity with InvalidParameter.WebIdentityTokenError", "issuer URL", "signing keys", "client IDs", "provider ID"}},
		{name: "another audience", token: map[string]any{"aud": "elsewhere"}, want: []string{"InvalidParameter.WebIdentityTokenError", "audience"}},
		{name: "an old token", token: map[string]any{"exp": 1}, want: []string{"InvalidParameter.WebIdentityTokenError"}},
		{name: "another subject", token: map[string]any{"sub": "system:serviceaccount:shop:default"},
			want: []string{"STS refused AssumeRoleWithWebIdentity with UnauthorizedOperation", "trust policy"}},
		{name: "no such provider", change: func(w *sts.WebIdentity) { w.ProviderID = "cls-other" }, want: []string{"InvalidParameter.ParamError", "provider ID"}},
		{name: "no provider", change: func(w *sts.WebIdentity) { w.ProviderID = "" }, want: []string{"MissingParameter", "provider ID"}},
		{name: "no such role", change: func(w *sts.WebIdentity) { w.RoleARN += "2" }, want: []string{"InternalError.GetRoleError", "role ARN"}},
		{name: "no external ID", signer: demo, role: sts.AssumedRole{RoleARN: "qcs::cam::uin/100000000002:roleName/strict"},
			want: []string{"STS refused AssumeRole with UnauthorizedOperation", "external ID", "sts:AssumeRole"}},
		{name: "no such role to assume", signer: demo, role: sts.AssumedRole{RoleARN: ststest.OtherARN + "2"}, want: []string{"ResourceNotFound.RoleNotFound", "ARN"}},
		{name: "keys that are none", signer: teo.Credentials{SecretID: "AKIDnobody", SecretKey: "key"}, role: sts.AssumedRole{RoleARN: ststest.OtherARN},
			want: []string{"STS refused AssumeRole with AuthFailure.SecretIdNotFound", "check the keys"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, func(config *simulator.Config) {
				config.Roles = append(config.Roles, simulator.Role{ARN: "qcs::cam::uin/100000000002:roleName/strict", Account: "demo",
					Trust: []simulator.Trust{{Caller: "demo", ExternalID: "required"}}})
			})
			var err error
			if c.signer != (teo.Credentials{}) {
				_, err = w.sts.AssumeRole(t.Context(), c.signer, c.role)
			} else {
				identity := w.identity(c.token)
				if c.change != nil {
					c.change(&identity)
				}
				_, err = w.sts.AssumeRoleWithWebIdentity(t.Context(), identity)
			}
			if !errors.Is(err, sts.ErrRole) || !teo.DeniedAccount(err) {
				t.Fatalf("the error is %v", err)
			}
			for _, text := range c.want {
				if !strings.Contains(teo.Message(err), text) {
					t.Errorf("%q does not contain %q", teo.Message(err), text)
				}
			}
		})
	}
}

func TestNoErrorTellsATokenOrAKey(t *testing.T) {
	w := newWorld(t, nil)
	identity := w.identity(nil)
	token, err := os.ReadFile(identity.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.TrimSpace(string(token))
	keys, err := w.sts.AssumeRoleWithWebIdentity(t.Context(), identity)
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range []string{"InvalidParameter.WebIdentityTokenError", "InternalError.SystemError"} {
		w.ClearFaults()
		w.AddFault(simulator.Fault{Effect: simulator.Effect{Code: code, Message: "you sent " + secret + " for " + ststest.RoleARN + " {secretID} {token} {signature}"}})
		_, first := w.sts.AssumeRoleWithWebIdentity(t.Context(), identity)
		_, second := w.sts.AssumeRole(t.Context(), keys.Credentials, sts.AssumedRole{RoleARN: ststest.OtherARN, ExternalID: ststest.ExternalID})
		for _, err := range []error{first, second} {
			for _, hidden := range []string{keys.SecretID, keys.SecretKey, keys.Token} {
				if err == nil || strings.Contains(err.Error(), hidden) || strings.Contains(teo.Message(err), hidden) {
					t.Errorf("%s: the error is %v", code, err)
				}
			}
			if strings.Contains(first.Error(), secret) {
				t.Errorf("%s: the error contains the token: %v", code, first)
			}
		}
	}
}

func TestAnUnusableTokenFileIsNamed(t *testing.T) {
	w := newWorld(t, nil)
	dir := t.TempDir()
	for name, content := range map[string]string{"missing": "", "empty": "\n", "large": strings.Repeat("a", 40<<10), "text": "no token\n"} {
		file := filepath.Join(dir, name)
		if name != "missing" {
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, err := w.sts.AssumeRoleWithWebIdentity(t.Context(), sts.WebIdentity{RoleARN: ststest.RoleARN, TokenFile: file})
		if !errors.Is(err, sts.ErrToken) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := w.Stats().Calls(sts.ActionAssumeRoleWithWebIdentity); n != 0 {
		t.Errorf("%d calls without a token", n)
	}
}

// answers is a transport that answers every call with a text.
type answers string

func (a answers) RoundTrip(req *http.Request) (*http.Response, error) {
	if _, err := io.Copy(io.Discard, req.Body); err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Request: req, Header: http.Header{},
		Body: io.NopCloser(strings.NewReader(string(a)))}, nil
}

func TestUselessAnswersAreNoKeys(t *testing.T) {
	for name, body := range map[string]string{
		"no token":   `{"Response":{"Credentials":{"TmpSecretId":"AKIDx","TmpSecretKey":"key"},"ExpiredTime":9999999999,"RequestId":"r"}}`,
		"no expiry":  `{"Response":{"Credentials":{"TmpSecretId":"AKIDx","TmpSecretKey":"key","Token":"t"},"RequestId":"r"}}`,
		"no keys":    `{"Response":{"Credentials":null,"ExpiredTime":9999999999,"RequestId":"r"}}`,
		"expired":    `{"Response":{"Credentials":{"TmpSecretId":"AKIDx","TmpSecretKey":"key","Token":"t"},"ExpiredTime":1,"RequestId":"r"}}`,
		"line break": `{"Response":{"Credentials":{"TmpSecretId":"AKIDx\n","TmpSecretKey":"key","Token":"t"},"ExpiredTime":9999999999,"RequestId":"r"}}`,
		"a list":     `{"Response":{"Credentials":["AKIDx"],"ExpiredTime":9999999999,"RequestId":"r"}}`,
		"huge":       `{"Response":{"Credentials":{"Token":"` + strings.Repeat("x", 1<<20) + `"},"RequestId":"r"}}`,
		"HTML":       `<html>`,
		"null":       `null`,
		"empty":      ``,
	} {
		t.Run(name, func(t *testing.T) {
			client, err := sts.NewClient(teo.Options{Endpoint: "https://sts.tencentcloudapi.com", Transport: answers(body)})
			if err != nil {
				t.Fatal(err)
			}
			keys, err := client.AssumeRole(t.Context(), teo.Credentials{SecretID: "AKIDdemo", SecretKey: "key"}, sts.AssumedRole{RoleARN: ststest.OtherARN})
			if keys != (sts.Keys{}) || teo.KindOf(err) != teo.Unavailable || !strings.Contains(teo.Message(err), "AssumeRole") {
				t.Errorf("%v, %v", keys, err)
			}
		})
	}
}

func TestRolesThatAreNone(t *testing.T) {
	file := "/token"
	for _, arn := range []string{"", "prefetch", "qcs::cam::uin/1:roleName/", "qcs::cam::uin/x:roleName/a", "arn:aws:iam::1:role/a", "qcs::cam::uin/1:roleName/a b", "qcs::cam::uin/1:policy/a"} {
		if (sts.WebIdentity{RoleARN: arn, TokenFile: file}).Validate() == nil || (sts.AssumedRole{RoleARN: arn}).Validate() == nil {
			t.Errorf("%q counts as the ARN of a role", arn)
		}
	}
	for _, arn := range []string{ststest.RoleARN, "qcs::cam::uin/1:role/4611686018427397919", "qcs::cam::uin/1:role/tencentcloudServiceRoleName/a"} {
		if err := (sts.WebIdentity{RoleARN: arn, TokenFile: file}).Validate(); err != nil {
			t.Error(err)
		}
	}
	for _, role := range []sts.AssumedRole{{Duration: time.Minute}, {Duration: 13 * time.Hour}, {Duration: time.Hour + time.Millisecond}, {ExternalID: "a"}, {ExternalID: "a b"}} {
		role.RoleARN = ststest.RoleARN
		if role.Validate() == nil {
			t.Errorf("%+v is accepted", role)
		}
	}
}

func TestTheEndpointBelongsToTheSite(t *testing.T) {
	for edgeOne, want := range map[string]string{
		teo.DefaultEndpoint:                                "https://sts.intl.tencentcloudapi.com",
		"https://teo.tencentcloudapi.com":                  "https://sts.tencentcloudapi.com",
		"https://TEO.ap-guangzhou.tencentcloudapi.com":     "https://sts.tencentcloudapi.com",
		"https://teo.internal.tencentcloudapi.com":         "https://sts.internal.tencentcloudapi.com",
		"https://teo.example.com":                          "",
		"http://127.0.0.1:8081":                            "",
		"https://teo.tencentcloudapi.com.attacker.example": "",
	} {
		if got := sts.EndpointFor(edgeOne); got != want {
			t.Errorf("%s: %q, want %q", edgeOne, got, want)
		}
	}
}
