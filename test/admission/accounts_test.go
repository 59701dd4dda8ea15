package admission

import (
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// newAccount returns an account with a spec in YAML.
func newAccount(t *testing.T, spec string) *v1alpha1.EdgeOneAccount {
	t.Helper()
	account := &v1alpha1.EdgeOneAccount{}
	account.Name = "main"
	if err := yaml.UnmarshalStrict([]byte(spec), &account.Spec); err != nil {
		t.Fatal(err)
	}
	return account
}

func TestWhatAnAccountMayHave(t *testing.T) {
	kube := cluster.ForTest(t, cluster.Options{})
	const key = "credentials: {secretRef: {name: edgeone-main}}\n"
	for _, tt := range []struct{ name, spec, problem string }{
		{"a Secret", key, ""},
		{"everything", `
credentials:
  webIdentity: {roleARN: "qcs::cam::uin/100000000001:roleName/prefetch", providerID: cls-0abc}
  assumeRole: {roleARN: "qcs::cam::uin/100000000002:roleName/prefetch", externalID: shop-prod, durationSeconds: 7200}
namespaces:
  selector:
    matchLabels: {edgeone: main, example.com/tier: ""}
    matchExpressions: [{key: edgeone, operator: In, values: [main]}, {key: example.com/off, operator: DoesNotExist}]
zones:
- {id: zone-2x9examplea, hosts: [www.example.com, "*.shop.example.com", WWW.Example.org., 例子.中国, a_b.example.com], namespaces: {names: [shop]}}
- {id: "*"}
allow: {modes: [Default, Edge], mediaSegments: true, purge: [URL]}
limits: {callsPerSecond: 12, dailyURLs: 8000, dailyURLsPerNamespace: 0}
suspend: true
`, ""},
		{"the node's role", "credentials: {cvmRole: {name: prefetch}}", ""},
		{"no source", "credentials: {assumeRole: {roleARN: \"qcs::cam::uin/1:roleName/a\"}}", "spec.credentials: Invalid value: … must have exactly one of secretRef, webIdentity and cvmRole"},
		{"no credentials", "suspend: false", "spec.credentials: Required value"},
		{"two sources", "credentials: {secretRef: {name: a}, cvmRole: {name: prefetch}}", "spec.credentials: Invalid value: … must have exactly one of"},
		{"a role ARN that is none", "credentials: {webIdentity: {roleARN: prefetch}}", "spec.credentials.webIdentity.roleARN: Invalid value: … must be the ARN of a role"},
		{"an assumed role that is none", "credentials: {secretRef: {name: a}, assumeRole: {roleARN: \"arn:aws:iam::1:role/a\"}}", "spec.credentials.assumeRole.roleARN: Invalid value: … must be the ARN of a role"},
		{"a short lifetime", "credentials: {secretRef: {name: a}, assumeRole: {roleARN: \"qcs::cam::uin/1:roleName/a\", durationSeconds: 60}}", "spec.credentials.assumeRole.durationSeconds"},
		{"a Secret of another namespace", "credentials: {secretRef: {name: shop/edgeone}}", "spec.credentials.secretRef.name: Invalid value: … must be the name of a Secret in the operator's namespace"},
		{"names and a selector", key + "namespaces: {names: [a], selector: {matchLabels: {a: b}}}", "spec.namespaces: Invalid value: … must have either names or selector"},
		{"an empty set", key + "namespaces: {names: []}", "spec.namespaces: Invalid value"},
		{"a name that is none", key + "namespaces: {names: [\"*\"]}", "spec.namespaces.names[0]: Invalid value: \"*\""},
		{"an empty selector", key + "namespaces: {selector: {}}", "spec.namespaces.selector: Invalid value"},
		{"a selector with a bad name", key + "namespaces: {selector: {matchLabels: {\"a b\": c}}}", "spec.namespaces.selector.matchLabels: Invalid value: … must have valid names of labels"},
		{"a selector with a bad value", key + "namespaces: {selector: {matchLabels: {a: \"b c\"}}}", "spec.namespaces.selector.matchLabels.a: Invalid value"},
		{"an operator that is none", key + "namespaces: {selector: {matchExpressions: [{key: a, operator: Like, values: [b]}]}}", "operator: Unsupported value: \"Like\""},
		{"values that are missing", key + "namespaces: {selector: {matchExpressions: [{key: a, operator: In}]}}", "matchExpressions[0]: Invalid value: … must have values"},
		{"values that are too many", key + "namespaces: {selector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}", "matchExpressions[0]: Invalid value: … must have values"},
		{"a key that is none", key + "namespaces: {selector: {matchExpressions: [{key: \"a b\", operator: Exists}]}}", "matchExpressions[0].key: Invalid value: … must be the name of a label"},
		{"a host with a scheme", key + "zones: [{id: zone-1, hosts: [\"https://www.example.com\"]}]", "spec.zones[0].hosts[0]: Invalid value: … must be a host name without a scheme, port or path"},
		{"a host with a port", key + "zones: [{id: zone-1, hosts: [\"www.example.com:8443\"]}]", "spec.zones[0].hosts[0]: Invalid value: … must be a host name without a scheme, port or path"},
		{"a host with a path", key + "zones: [{id: zone-1, hosts: [\"www.example.com/a\"]}]", "spec.zones[0].hosts[0]: Invalid value: … must be a host name without"},
		{"a wildcard in the middle", key + "zones: [{id: zone-1, hosts: [\"www.*.com\"]}]", "spec.zones[0].hosts[0]: Invalid value"},
		{"a wildcard alone", key + "zones: [{id: zone-1, hosts: [\"*\"]}]", "spec.zones[0].hosts[0]: Invalid value"},
		{"a host with a user", key + "zones: [{id: zone-1, hosts: [\"me@example.com\"]}]", "spec.zones[0].hosts[0]: Invalid value"},
		{"a zone that is none", key + "zones: [{id: example.com}]", "spec.zones[0].id: Invalid value: … must be an EdgeOne zone ID"},
		{"a zone twice", key + "zones: [{id: zone-1}, {id: zone-1}]", "spec.zones[1]: Duplicate value"},
		{"a mode that is none", key + "allow: {modes: [Deep]}", "spec.allow.modes[0]: Unsupported value"},
		{"a purge that is none", key + "allow: {purge: [All]}", "spec.allow.purge[0]: Unsupported value"},
		{"a negative budget", key + "limits: {dailyURLs: -1}", "spec.limits.dailyURLs: Invalid value: -1: spec.limits.dailyURLs in body should be greater than or equal to 0"},
		{"no calls at all", key + "limits: {callsPerSecond: -1}", "spec.limits.callsPerSecond: Invalid value: -1: spec.limits.callsPerSecond in body should be greater than or equal to 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := kube.Client.Create(t.Context(), newAccount(t, tt.spec), client.DryRunAll)
			if (err == nil) != (tt.problem == "") {
				t.Fatal(err)
			}
			for part := range strings.SplitSeq(tt.problem, " … ") { // the API server quotes short values
				if err != nil && !strings.Contains(err.Error(), part) {
					t.Errorf("%v, want %q in it", err, part)
				}
			}
		})
	}
}

func TestATaskHasOneSourceOfCredentials(t *testing.T) {
	kube := cluster.ForTest(t, cluster.Options{})
	task := newTask("any", "https://h/")
	task.Spec.AccountRef.Name = "main"
	if err := kube.Client.Create(t.Context(), task, client.DryRunAll); err != nil {
		t.Error(err)
	}
	task.Spec.CredentialsSecretRef.Name = "keys"
	err := kube.Client.Create(t.Context(), task, client.DryRunAll)
	if err == nil || !strings.Contains(err.Error(), "must not have both accountRef and credentialsSecretRef") {
		t.Error(err)
	}
	task.Spec.CredentialsSecretRef.Name, task.Spec.AccountRef.Name = "", "Main Account"
	err = kube.Client.Create(t.Context(), task, client.DryRunAll)
	if err == nil || !strings.Contains(err.Error(), "must be the name of an EdgeOneAccount") {
		t.Error(err)
	}
}
