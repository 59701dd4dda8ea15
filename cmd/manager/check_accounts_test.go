package main

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/account"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts/ststest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

const demoZone = "zone-ajj243dwrew"

// accountServer is an API server with EdgeOneAccounts, and with a Secret in the operator's
// namespace.
type accountServer struct {
	accounts []v1alpha1.EdgeOneAccount
	err      error // of lists
}

func (s accountServer) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	list.(*v1alpha1.EdgeOneAccountList).Items = s.accounts
	return s.err
}

func (s accountServer) Get(_ context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	if key != (client.ObjectKey{Namespace: "prefetch", Name: "keys"}) {
		return apierrors.NewNotFound(corev1.Resource("secrets"), key.Name)
	}
	obj.(*corev1.Secret).Data = map[string][]byte{"secretId": []byte("AKIDdemo"), "secretKey": []byte("demo-secret-key")}
	return nil
}

// accountOf returns an account.
func accountOf(name string, credentials v1alpha1.AccountCredentials, zones ...string) v1alpha1.EdgeOneAccount {
	a := v1alpha1.EdgeOneAccount{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.EdgeOneAccountSpec{Credentials: credentials}}
	for _, zone := range zones {
		a.Spec.Zones = append(a.Spec.Zones, v1alpha1.AccountZone{ID: zone})
	}
	return a
}

func TestTheCheckProvesTheCredentialsOfEachAccount(t *testing.T) {
	t.Setenv("TENCENTCLOUD_SECRET_ID", "")
	issuer := ststest.NewIssuer(t)
	config := issuer.Configure(simulator.Demo(), "demo")
	sim := simulator.New(config)
	url := sim.Start()
	defer sim.Close()
	metadata := httptest.NewServer(&ststest.Metadata{Simulator: sim, Account: "demo", Lifetime: time.Hour})
	defer metadata.Close()

	keys := v1alpha1.AccountCredentials{SecretRef: v1alpha1.AccountSecretReference{Name: "keys"}}
	role := v1alpha1.AccountCredentials{WebIdentity: v1alpha1.WebIdentity{RoleARN: ststest.RoleARN}}
	node := v1alpha1.AccountCredentials{CVMRole: v1alpha1.CVMRole{Name: ststest.CVMRole}}
	chain := role
	chain.AssumeRole = v1alpha1.AssumeRole{RoleARN: ststest.OtherARN, ExternalID: ststest.ExternalID}
	strict := chain
	strict.AssumeRole.ExternalID = "another"
	unknown := v1alpha1.AccountCredentials{WebIdentity: v1alpha1.WebIdentity{RoleARN: ststest.RoleARN, ProviderID: "cls-unknown"}}
	for _, c := range []struct {
		name, args string
		server     accountServer
		failed     int
		want       []string
	}{
		{"none", "", accountServer{}, 0, []string{""}},
		{"not allowed to list", "", accountServer{err: apierrors.NewForbidden(v1alpha1.GroupVersion.WithResource("edgeoneaccounts").GroupResource(), "", nil)}, 0,
			[]string{"not checked: The EdgeOneAccounts of the cluster"}},
		{"an API server in trouble", "", accountServer{err: errors.New("busy")}, 1, []string{"FAILED: Cannot list the EdgeOneAccounts: busy."}},
		{"every source", " --allow-cvm-role", accountServer{accounts: []v1alpha1.EdgeOneAccount{
			accountOf("keys", keys, demoZone), accountOf("role", role, demoZone), accountOf("chain", chain, demoZone, "zone-nobodys"), accountOf("node", node, demoZone), accountOf("any", keys),
		}}, 0, []string{
			`ok: EdgeOneAccount "keys": EdgeOne at ` + url + ` accepts the keys of AKIDdemo: zone ` + demoZone + ` may prefetch `,
			`ok: EdgeOneAccount "role": EdgeOne at ` + url + ` accepts the keys of ` + ststest.RoleARN + `: zone ` + demoZone,
			`ok: EdgeOneAccount "chain": EdgeOne at ` + url + ` accepts the keys of ` + ststest.OtherARN + `: zone ` + demoZone,
			`ok: EdgeOneAccount "node": EdgeOne at ` + url + ` accepts the keys of ` + sts.CVMPrincipal(ststest.CVMRole) + `: zone ` + demoZone,
			`ok: EdgeOneAccount "any": EdgeOne at ` + url + ` knows the keys of AKIDdemo. The account lists no zone whose quota could be read.`,
		}},
		{"every failure", "", accountServer{accounts: []v1alpha1.EdgeOneAccount{
			accountOf("strict", strict, demoZone), accountOf("unknown", unknown), accountOf("node", node),
			accountOf("missing", v1alpha1.AccountCredentials{SecretRef: v1alpha1.AccountSecretReference{Name: "missing"}}), accountOf("zone", keys, "zone-nobodys"), accountOf("last", keys, demoZone),
		}}, 5, []string{
			`FAILED: EdgeOneAccount "strict", role ` + ststest.OtherARN + `: STS refused AssumeRole with UnauthorizedOperation. STS says: The caller is not allowed to assume this role. ` +
				`Check that the role's trust policy names the caller and its external ID, and that the caller may call sts:AssumeRole.`,
			`FAILED: EdgeOneAccount "unknown", role ` + ststest.RoleARN + `: STS refused AssumeRoleWithWebIdentity with InvalidParameter.ParamError. STS says: The identity provider does not exist. ` +
				`Check the role ARN, the provider ID, and the role's trust policy. The token has the issuer "` + ststest.IssuerURL + `", the audience "` + ststest.Audience + `"`,
			`FAILED: Credentials missing: EdgeOneAccount "node": the operator may not use the role of its node (cvmRole). Use another source of credentials, or run the operator with --allow-cvm-role.`,
			`FAILED: Credentials missing: EdgeOneAccount "missing": Secret "missing" does not exist in namespace "prefetch". Create it with the keys secretId and secretKey.`,
			`FAILED: EdgeOneAccount "zone": EdgeOne at ` + url + ` does not accept a read of the quota of zone zone-nobodys with the keys of AKIDdemo: `,
			`ok: EdgeOneAccount "last": EdgeOne at `,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, err := parse(strings.Fields("check --namespace=prefetch --teo-endpoint=" + url + " --sts-endpoint=" + url +
				" --role-provider-id=" + ststest.ProviderID + " --web-identity-token-file=" + issuer.WriteToken(issuer.Token(nil)) + c.args))
			if err != nil {
				t.Fatal(err)
			}
			o.identity.cvm = sts.CVMOptions{Endpoint: metadata.URL}
			var out strings.Builder
			check := &check{options: o, out: &out}
			check.accountsAccepted(t.Context(), c.server)
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if check.failed != c.failed || len(lines) != len(c.want) || strings.Contains(out.String(), "demo-secret-key") {
				t.Fatalf("%d failures:\n%s", check.failed, &out)
			}
			for i, line := range lines {
				if !strings.HasPrefix(line, c.want[i]) {
					t.Errorf("it says\n%s\nwant\n%s", line, c.want[i])
				}
			}
		})
	}
}

// The Reader gets what the flags say, and hears of changes of accounts and of refused keys.
func TestTheFlagsDecideWhatAccountsMayUse(t *testing.T) {
	t.Setenv("TENCENTCLOUD_SECRET_ID", "")
	for _, c := range []struct {
		args             string
		namespace        string
		usesCVM, usesSTS bool
	}{
		{"", defaultNamespace, false, true},
		{"--namespace=prefetch --allow-cvm-role", "prefetch", true, true},
		{"--teo-endpoint=http://127.0.0.1:1", defaultNamespace, false, false},
	} {
		o, err := parse(strings.Fields(c.args))
		if err != nil {
			t.Fatal(err)
		}
		store := account.NewStore(account.NewUsage(o.controller.QuotaReset))
		_, reader, err := o.newClients(t.Context(), accountServer{}, store)
		if err != nil {
			t.Fatal(err)
		}
		if i := reader.Identity; i.Namespace != c.namespace || (i.CVM != nil) != c.usesCVM || (i.STS != nil) != c.usesSTS || i.Observe == nil || i.Forget == nil {
			t.Errorf("%s: %+v", c.args, i)
		}
		if _, err := reader.GetCredentials(t.Context(), taskstate.AccountKey{Account: "main"}); err == nil {
			t.Errorf("%s: an account that does not exist has keys", c.args)
		}
	}
}

func TestTheNamespaceIsThePodsOwn(t *testing.T) {
	for content, want := range map[string]string{"prefetch\n": "prefetch", "": defaultNamespace} {
		if got := podNamespace(fstest.MapFS{namespaceFile: {Data: []byte(content)}}); got != want {
			t.Errorf("%q: %s", content, got)
		}
	}
	if got := podNamespace(fstest.MapFS{}); got != defaultNamespace {
		t.Errorf("outside of a pod: %s", got)
	}
	for args, want := range map[string]string{"": defaultNamespace, "--namespace=a": "a", "--namespace=a --leader-election-namespace=b": "b"} {
		o, err := parse(strings.Fields(args))
		if err != nil || o.leaseNamespace() != want {
			t.Errorf("%s: the Lease is in %s (%v), want %s", args, o.leaseNamespace(), err, want)
		}
	}
}
