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

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

// The check asks for just the permissions that the roles in config/rbac give.
func TestTheCheckAsksForWhatTheRolesGive(t *testing.T) {
	for file, needed := range map[string][]permission{
		"role.yaml":                 neededForTasks,
		"leader_election_role.yaml": neededToLead,
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
					given = append(given, permission{group, resource, strings.Join(rule.Verbs, " ")})
				}
			}
		}
		if !slices.Equal(given, needed) {
			t.Errorf("%s gives\n%v, and the check asks for\n%v", file, given, needed)
		}
	}
}

func TestTheCommandLine(t *testing.T) {
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

// Of the whole check, see test/install.
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
