package main

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

// The check asks for exactly the permissions that the roles in config/rbac grant.
func TestTheCheckAsksForWhatTheRolesGive(t *testing.T) {
	for file, needed := range map[string][]permission{
		"role.yaml":                 neededForTasks,
		"accounts_role.yaml":        neededForAccounts,
		"leader_election_role.yaml": neededToLead("teo-prefetch-operator"),
		"metrics_auth_role.yaml":    neededForMetrics,
	} {
		data, err := os.ReadFile(filepath.Join("..", "..", "config", "rbac", file))
		if err != nil {
			t.Fatal(err)
		}
		var role rbacv1.Role
		if err := yaml.Unmarshal(data, &role); err != nil {
			t.Fatal(err)
		}
		var given []permission
		for _, rule := range role.Rules {
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					given = append(given, permission{group, resource, strings.Join(rule.Verbs, " "), strings.Join(rule.ResourceNames, " ")})
				}
			}
		}
		if !slices.Equal(given, needed) {
			t.Errorf("%s gives\n%v, and the check asks for\n%v", file, given, needed)
		}
	}
}

func TestTheCommandLine(t *testing.T) {
	const arn = "qcs::cam::uin/100000000001:roleName/prefetch"
	for _, tt := range []struct {
		args string
		want string // the error; "" for none
	}{
		{"", ""},
		{"check", ""},
		{"check --check-zone=zone-1 --teo-qps=5", ""},
		{"--check-zone=zone-1", "not defined: -check-zone"},
		{"check check", `"check" is not a flag`},
		{"--leader-election-id=Shop", `"Shop" is not a name for a Lease`},
		{"--watch-namespaces=a,b,a", `--watch-namespaces names "a" twice`},
		{"--allow-purge=url", `"url" is not a type of purge: use URL, Prefix, Host or CacheTag`},
		{"--allow-purge=URL,", `"" is not a type of purge`},
		{"--allow-purge=URL,Host,URL", "flag -allow-purge: it names URL twice"},
		{"--purge-deadline=0", "--purge-deadline is 0s; it must be more than 0"},
		{"--purge-settle=-1s", "--purge-settle is -1s; it must not be negative"},
		{"--purge-settle=5m --purge-deadline=1h", ""},
		{"--role-arn=" + arn + " --web-identity-token-file=/token", ""},
		{"--role-arn=" + arn + " --web-identity-token-file=/token --assume-role-arn=" + arn + " --assume-role-external-id=shop", ""},
		{"--credentials-dir=/keys --assume-role-arn=" + arn, ""},
		{"--role-arn=prefetch --web-identity-token-file=/token", `"prefetch" is not the ARN of a role`},
		{"--role-arn=" + arn, "--role-arn (or TKE_ROLE_ARN) needs --web-identity-token-file"},
		{"--role-arn=" + arn + " --web-identity-token-file=/token --credentials-dir=/keys", "two sources of credentials"},
		{"--role-arn=" + arn + " --web-identity-token-file=/token --teo-endpoint=http://127.0.0.1:8081", "--sts-endpoint is missing"},
		{"--role-arn=" + arn + " --web-identity-token-file=/token --sts-endpoint=http://sts.example.com", "--sts-endpoint: endpoint sts.example.com is plain http"},
		{"--assume-role-arn=" + arn, "--assume-role-arn needs keys"},
		{"--credentials-dir=/keys --assume-role-arn=" + arn + " --assume-role-duration=1m", "the duration is 1m0s"},
		{"--web-identity-token-file=/token --role-provider-id=cls-1", ""},
		{"--sts-endpoint=https://sts.tencentcloudapi.com", ""},
		{"--teo-endpoint=http://127.0.0.1:8081", ""},
		{"--accounts=false --web-identity-token-file=/token", "need --role-arn or --accounts"},
		{"--accounts=false --sts-endpoint=https://sts.tencentcloudapi.com", "--sts-endpoint needs"},
		{"--accounts=false --allow-cvm-role", "--allow-cvm-role needs --accounts"},
		{"--assume-role-external-id=shop", "--assume-role-external-id needs --assume-role-arn"},
		{"--sts-endpoint=http://sts.example.com", "--sts-endpoint: endpoint sts.example.com is plain http"},
		{"--role-provider-id=cls/1", "--role-provider-id: \"cls/1\" is not the name"},
		{"--namespace=Shop", "--namespace: \"Shop\" is not a namespace"},
		{"--leader-election-namespace=a.b", "--leader-election-namespace: \"a.b\" is not a namespace"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			o, err := parse(strings.Fields(tt.args))
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("it says %v, want %q", err, tt.want)
			}
			if err == nil && o.check != strings.HasPrefix(tt.args, "check") {
				t.Errorf("check is %t", o.check)
			}
		})
	}
}

func TestTheFlagsDecideWhatMayBePurgedWithoutAnAccount(t *testing.T) {
	for args, want := range map[string][]v1alpha1.PurgeType{
		"":                                       {v1alpha1.PurgeURL},
		"--allow-purge=":                         nil,
		"--allow-purge=Host":                     {v1alpha1.PurgeHost},
		"--allow-purge=URL,Prefix,Host,CacheTag": {v1alpha1.PurgeURL, v1alpha1.PurgePrefix, v1alpha1.PurgeHost, v1alpha1.PurgeCacheTag},
	} {
		o, err := parse(strings.Fields(args))
		if err != nil || !slices.Equal(o.controller.AllowPurge, want) {
			t.Errorf("%q allows %v (%v), want %v", args, o.controller.AllowPurge, err, want)
		}
	}
}

func TestCredentialFilesThatCannotBeReadEndTheManager(t *testing.T) {
	dir := t.TempDir()
	o := &options{credentialsDir: dir}
	if err := o.readable(); err != nil {
		t.Errorf("no files yet, which may come later: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "secretKey"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := o.readable(); err == nil || !strings.Contains(err.Error(), "secretKey cannot be read") {
		t.Errorf("a file that can't be read: %v", err)
	}
	o.credentialsDir = filepath.Join(dir, "nowhere")
	if err := o.readable(); err == nil || !strings.Contains(err.Error(), "--credentials-dir") {
		t.Errorf("a directory that is not there: %v", err)
	}
}

func TestTheCheckSaysWhetherTasksMayPurge(t *testing.T) {
	config := simulator.Demo()
	config.Keys = append(config.Keys, simulator.Key{
		SecretID: "AKIDprefetches", SecretKey: "demo-secret-key", Account: "demo",
		Actions: []string{"CreatePrefetchTask", "DescribePrefetchTasks", "DescribeContentQuota"},
	})
	for i := range config.Zones {
		config.Zones[i].Purge = map[string]simulator.Limits{"purge_url": {Batch: 10, Daily: 70}, "purge_host": {NotAllowed: true, Unlisted: true}}
	}
	edgeOne := simulator.New(config)
	server := httptest.NewServer(edgeOne)
	defer server.Close()
	defer edgeOne.Close()
	const history, note = "ok: The keys read the history of purges in zone zone-2x9examplea. Purges left today: URL 70 of 70", "note: Tasks with spec.purge cannot run in zone"
	for _, tt := range []struct {
		name, key, allow string
		want, not        string
	}{
		{"a key that may", "AKIDdemo", "URL", history + ". For purges", "note: "},
		{"types that the plan lacks", "AKIDdemo", "URL,Host", "note: EdgeOne reports no quota for purges of type Host in zone zone-2x9examplea", "Prefix"},
		{"a key that may not", "AKIDprefetches", "URL", note, "FAILED"},
		{"nothing is allowed", "AKIDprefetches", "", "ok: EdgeOne at", "purge"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("TENCENTCLOUD_SECRET_ID", tt.key)
			t.Setenv("TENCENTCLOUD_SECRET_KEY", "demo-secret-key")
			o, err := parse([]string{"check", "--teo-endpoint=" + server.URL, "--check-zone=zone-2x9examplea", "--allow-purge=" + tt.allow})
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			c := &check{options: o, out: &out}
			c.edgeOneAccepts(t.Context())
			if said := out.String(); c.failed != 0 || !strings.Contains(said, tt.want) || strings.Contains(said, tt.not) {
				t.Errorf("%d failed; want %q and not %q in:\n%s", c.failed, tt.want, tt.not, said)
			}
		})
	}
}

// test/install tests the whole check.
func TestTheCheckSaysWhatIsWrongWithTheCredentials(t *testing.T) {
	edgeOne := simulator.New(simulator.Demo())
	server := httptest.NewServer(edgeOne)
	defer server.Close()
	defer edgeOne.Close()
	t.Setenv("TENCENTCLOUD_SECRET_ID", "")
	for _, tt := range []struct {
		name   string
		files  string // name=content, with spaces between them
		flags  string
		failed int
		want   string
	}{
		{"no source", "", "", 0, "not checked: The operator has no credentials of its own"},
		{"no source, but a zone", "", "--check-zone=zone-2x9examplea", 1, "to read the quota of zone zone-2x9examplea with"},
		{"no Secret", "", "--credentials-dir=DIR", 1, "has no files. Create the Secret"},
		{"another spelling", "SecretId=AKIDdemo SecretKey=demo-secret-key", "--credentials-dir=DIR", 1, "has SecretId, SecretKey"},
		{"two zones, one of them unknown", "secretId=AKIDdemo secretKey=demo-secret-key", "--credentials-dir=DIR --check-zone=zone-2x9examplea,zone-nobodys", 1,
			"zone zone-2x9examplea may prefetch"},
		{"a good key", "secretId=AKIDdemo secretKey=demo-secret-key", "--credentials-dir=DIR", 0, "knows the operator's keys"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, file := range strings.Fields(tt.files) {
				name, text, _ := strings.Cut(file, "=")
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			o, err := parse(append([]string{"check", "--teo-endpoint=" + server.URL}, strings.Fields(strings.ReplaceAll(tt.flags, "DIR", dir))...))
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			c := &check{options: o, out: &out}
			c.edgeOneAccepts(t.Context())
			if c.failed != tt.failed || !strings.Contains(out.String(), tt.want) || strings.Contains(out.String(), "demo-secret-key") {
				t.Errorf("%d failed, want %d and %q in:\n%s", c.failed, tt.failed, tt.want, &out)
			}
		})
	}
}
