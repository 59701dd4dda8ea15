package main

import (
	"strings"
	"testing"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts/ststest"
)

// TKE's webhook sets these variables. It may leave out the region and the provider.
func TestTKEsEnvironmentIsTheDefaultOfAnOperatorWithoutKeys(t *testing.T) {
	t.Setenv("TKE_ROLE_ARN", ststest.RoleARN)
	t.Setenv("TKE_WEB_IDENTITY_TOKEN_FILE", "/token")
	for _, c := range []struct{ args, secretID, providerID, role, provider, endpoint string }{
		{"", "", "cls-1", ststest.RoleARN, "cls-1", "https://sts.intl.tencentcloudapi.com"},
		{"--teo-endpoint=https://teo.tencentcloudapi.com", "", "", ststest.RoleARN, "", "https://sts.tencentcloudapi.com"},
		{"--credentials-dir=/keys", "", "cls-1", "", "cls-1", "https://sts.intl.tencentcloudapi.com"}, // for accounts
		{"--credentials-dir=/keys --accounts=false", "", "cls-1", "", "", ""},
		{"", "AKIDown", "cls-1", "", "cls-1", "https://sts.intl.tencentcloudapi.com"},
		{"--accounts=false", "AKIDown", "cls-1", "", "", ""},
		{"--role-arn=" + ststest.OtherARN + " --role-provider-id=own", "", "cls-1", ststest.OtherARN, "own", "https://sts.intl.tencentcloudapi.com"},
	} {
		t.Run(c.args+c.secretID, func(t *testing.T) {
			t.Setenv("TENCENTCLOUD_SECRET_ID", c.secretID)
			t.Setenv("TKE_PROVIDER_ID", c.providerID)
			o, err := parse(strings.Fields(c.args))
			if err != nil {
				t.Fatal(err)
			}
			if i := o.identity; i.web.RoleARN != c.role || i.web.ProviderID != c.provider || i.endpoint != c.endpoint {
				t.Errorf("%+v", i)
			}
		})
	}
}

func TestTheCheckProvesTheIdentity(t *testing.T) {
	t.Setenv("TENCENTCLOUD_SECRET_ID", "")
	issuer := ststest.NewIssuer(t)
	sim := simulator.New(issuer.Configure(simulator.Demo(), "demo"))
	url := sim.Start()
	defer sim.Close()
	for _, c := range []struct {
		name, args string
		token      map[string]any
		want       []string
		failed     int
	}{
		{"a role", "", nil, []string{"ok: The operator's identity is role " + ststest.RoleARN, "gave it keys until", "zone zone-ajj243dwrew may prefetch"}, 0},
		{"a role on top", " --assume-role-arn=" + ststest.OtherARN + " --assume-role-external-id=" + ststest.ExternalID, nil,
			[]string{"role " + ststest.OtherARN + ", assumed with role " + ststest.RoleARN, "zone zone-ajj243dwrew may prefetch"}, 0},
		{"a role that is refused", " --assume-role-arn=" + ststest.OtherARN + " --assume-role-external-id=another", map[string]any{},
			[]string{"STS refused AssumeRole with", "external ID"}, 1},
		{"another subject", "", map[string]any{"sub": "system:serviceaccount:shop:default"},
			[]string{"UnauthorizedOperation", `the subject "system:serviceaccount:shop:default"`, `the audience "` + ststest.Audience + `"`, ststest.IssuerURL}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			token := issuer.Token(c.token)
			o, err := parse(strings.Fields("check --check-zone=zone-ajj243dwrew --teo-endpoint=" + url + " --sts-endpoint=" + url + " --role-arn=" + ststest.RoleARN +
				" --role-provider-id=" + ststest.ProviderID + " --web-identity-token-file=" + issuer.WriteToken(token) + c.args))
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			check := &check{options: o, out: &out}
			check.edgeOneAccepts(t.Context())
			for _, text := range c.want {
				if !strings.Contains(out.String(), text) {
					t.Errorf("no %q in\n%s", text, &out)
				}
			}
			if check.failed != c.failed || strings.Contains(out.String(), token) {
				t.Errorf("%d failures:\n%s", check.failed, &out)
			}
		})
	}
}
