package admission

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// dryRun sends a task with further fields of the spec, in YAML, past the Go types. It returns
// the task that the API server would store.
func dryRun(t *testing.T, c client.Client, fields string) (*unstructured.Unstructured, error) {
	t.Helper()
	task := &unstructured.Unstructured{}
	text := "apiVersion: teo.prefetch-operator.io/v1alpha1\nkind: PrefetchTask\nmetadata: {namespace: default, name: any}\n" +
		"spec:\n  zoneID: zone-1\n  targets: [\"https://www.example.com/a\"]\n  " + strings.ReplaceAll(fields, "\n", "\n  ")
	if err := yaml.UnmarshalStrict([]byte(text), &task.Object); err != nil {
		t.Fatal(err)
	}
	return task, c.Create(t.Context(), task, client.DryRunAll)
}

// purgeOf returns spec.purge with targets.
func purgeOf(kind string, targets ...string) string {
	for i := range targets {
		targets[i] = fmt.Sprintf("%q", targets[i])
	}
	return fmt.Sprintf("purge: {type: %s, targets: [%s]}", kind, strings.Join(targets, ", "))
}

func TestWhatATaskMayPurge(t *testing.T) {
	kube := cluster.ForTest(t, cluster.Options{})
	numbered := func(n int) (tags []string) {
		for i := range n {
			tags = append(tags, fmt.Sprint("release-", i))
		}
		return tags
	}
	for _, tt := range []struct{ name, fields, problem string }{
		{"its own URLs", "purge: {type: URL}", ""},
		{"its own URLs, of a list", "purge: {type: URL}\nrevision: v1", ""},
		{"a prefix", purgeOf("Prefix", "https://www.example.com/images/"), ""},
		{"a prefix, invalidated", "purge: {type: Prefix, targets: [\"https://www.example.com/images/\"], method: Invalidate}", ""},
		{"hosts, deleted", "purge: {type: Host, targets: [www.example.com, static.example.com], method: Delete}", ""},
		{"tags", purgeOf("CacheTag", "release-2", "shop"), ""},
		{"100 targets", purgeOf("CacheTag", numbered(100)...), ""},

		{"no type", "purge: {targets: [\"https://www.example.com/images/\"]}", "spec.purge.type: Required value"},
		{"nothing", "purge: {}", "spec.purge.type: Required value"},
		{"everything", "purge: {type: All}", `spec.purge.type: Unsupported value: "All": supported values: "URL", "Prefix", "Host", "CacheTag"`},
		{"a type in lower case", "purge: {type: url}", `spec.purge.type: Unsupported value: "url": supported values: "URL"`},
		{"targets with URL", purgeOf("URL", "https://www.example.com/a"), "spec.purge.targets: Invalid value: … must have no targets with the type URL, which purges the targets of the task"},
		{"no targets with Prefix", "purge: {type: Prefix}", "spec.purge.targets: Required value: must have targets with the types Prefix, Host and CacheTag"},
		{"no targets with Host", "purge: {type: Host}", "spec.purge.targets: Required value: must have targets with"},
		{"no targets with CacheTag", "purge: {type: CacheTag}", "spec.purge.targets: Required value: must have targets with"},
		{"an empty list", "purge: {type: Host, targets: []}", "spec.purge.targets: Invalid value: … should have at least 1 items"},
		{"an empty target", purgeOf("CacheTag", ""), "spec.purge.targets[0]: Invalid value: … should be at least 1 chars long"},
		{"101 targets", purgeOf("CacheTag", numbered(101)...), "spec.purge.targets: Too many: 101: must have at most 100 items"},
		{"a target twice", purgeOf("Host", "a.example.com", "b.example.com", "a.example.com"), `spec.purge.targets[2]: Duplicate value: "a.example.com"`},
		{"a long target", purgeOf("CacheTag", strings.Repeat("x", 1025)), "spec.purge.targets[0]: Too long: may not be more than 1024"},
		{"a method with URL", "purge: {type: URL, method: Delete}", "spec.purge.method: Invalid value: … must have a method only with the types Prefix and Host"},
		{"a method with CacheTag", "purge: {type: CacheTag, targets: [a], method: Invalidate}", "spec.purge.method: Invalid value: … must have a method only with the types Prefix and Host"},
		{"a method that is none", "purge: {type: Host, targets: [a.example.com], method: Expire}", `spec.purge.method: Unsupported value: "Expire": supported values: "Delete", "Invalidate"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := dryRun(t, kube.Client, tt.fields)
			expectProblem(t, err, tt.problem)
		})
	}
}

// expectProblem compares the API server's answer with the parts of a message. An ellipsis
// separates them.
func expectProblem(t *testing.T, err error, problem string) {
	t.Helper()
	if (err == nil) != (problem == "") {
		t.Fatalf("%v, want %q", err, problem)
	}
	for part := range strings.SplitSeq(problem, " … ") {
		if err != nil && !strings.Contains(err.Error(), part) {
			t.Errorf("%v, want %q in it", err, part)
		}
	}
}

func TestATargetOfAPurgeHasTheFormOfItsType(t *testing.T) {
	kube := cluster.ForTest(t, cluster.Options{})
	for _, tt := range []struct {
		kind, other, expected string // other is a target that is taken
		good, bad             []string
	}{
		{
			kind: "Prefix", other: "https://other.example.com/", expected: "must be a full URL that ends with a slash, such as https://www.example.com/images/, without",
			good: []string{
				"https://www.example.com/", "http://www.example.com/images/", "https://www.example.com/a/b%20c/", "https://www.example.com:8443/a/", "https://WWW.Example.com/a/",
				"https://例子.中国/图片/", "https://www.example.com/a;b=c,d(e)'~/", "https://www.example.com//a//", "https://a_b.example.com/", "https://192.0.2.1/a/",
			},
			bad: []string{
				"https://www.example.com", "https://www.example.com/images", "https://www.example.com/a.js", "www.example.com/images/", "//www.example.com/images/", "/images/",
				"ftp://www.example.com/images/", "HTTPS://www.example.com/images/", "https:///images/", "https:/www.example.com/", "https://*.example.com/images/",
				"https://www.example.com/*/", "https://www.example.com/images/*", "https://www.example.com/?a=b/", "https://www.example.com/images/?", "https://www.example.com/a/#b/",
				"https://me@www.example.com/", "https://me:pw@www.example.com/", "https://www.example.com:0/", "https://www.example.com:65536/", "https://www.example.com:/",
				"https://www.example.com:port/", "https://[::1]/", `https://www.example.com\a/`, `https://www.example.com/a\b/`, "https://www.example.com/a b/", " https://www.example.com/",
				"https://www.example.com/ ", "https://www.example.com/a\u00a0b/", "https://www.example.com/a\u200bb/", "https://www.example.com/100%/", "https://www.example.com/%zz/",
				"https://www.example.com/%u4e2d/", "https://www.example.com/a&amp;b/", "https://ex%61mple.com/", "https://www.example.com/a\tb/",
			},
		},
		{
			kind: "Host", other: "other.example.com", expected: "must be a plain host name in lower case, such as www.example.com, without a scheme, a port, a path or a wildcard",
			good: []string{
				"www.example.com", "example.com", "a_b.example.com", "_dmarc.example.com", "a-b.c--d.example.com", "xn--fsqu00a.xn--fiqs8s", "1.example.com",
				strings.Repeat("a.", 123) + "example",
			},
			bad: []string{
				"https://www.example.com", "http://www.example.com/", "www.example.com/", "www.example.com/a", "//www.example.com", "www.example.com:443", "www.example.com:", "*.example.com", "*",
				"www.*.com", "WWW.example.com", "www.Example.com", "www.example.com.", ".example.com", "www..example.com", "example", "-a.example.com", "a-.example.com", "me@example.com",
				"www example.com", " www.example.com", "www.example.com ", "www.example.com?a", "www.example.com#a", "例子.中国", "www.exаmple.com", "[::1]", `www.example.com\a`,
				"www.example.com\n", strings.Repeat("a.", 124) + "example", "www%2eexample.com", "a.example.com,b.example.com",
			},
		},
		{
			kind: "CacheTag", other: "other", expected: "must be a single cache tag: printable ASCII characters, without spaces and commas",
			good: []string{"release-2", "Shop", "a:b/c.d_e", "!#$%&'()*+-./:;<=>?@[]^_`{|}~", "1", strings.Repeat("x", 1024), `a"b\c`},
			bad:  []string{"a b", " a", "a ", "a,b", ",", "a\tb", "a\u00a0b", "a\u200bb", "发布", "a\x7f", "é"},
		},
	} {
		for _, good := range tt.good {
			if _, err := dryRun(t, kube.Client, purgeOf(tt.kind, tt.other, good)); err != nil {
				t.Errorf("%s %q: %v", tt.kind, good, err)
			}
			if problem := target.Check(good); tt.kind == "Prefix" && problem != "" {
				t.Errorf("%q is a prefix, and as a target it %s", good, problem)
			}
		}
		for _, bad := range tt.bad {
			_, err := dryRun(t, kube.Client, purgeOf(tt.kind, tt.other, bad))
			if err == nil {
				t.Errorf("%s %q is taken", tt.kind, bad)
				continue
			}
			for _, part := range []string{"spec.purge.targets: Invalid value: ", `"` + bad + `" ` + tt.expected} {
				if strings.ContainsAny(bad, "\n") {
					continue // the message names no target then
				}
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s %q: %v, want %q in it", tt.kind, bad, err, part)
				}
			}
		}
	}
}

// The operator could not read a task with another time, and with it no task at all.
func TestFreshSinceIsATime(t *testing.T) {
	kube := cluster.ForTest(t, cluster.Options{})
	const problem = "spec.freshSince: Invalid value: "
	for text, want := range map[string]string{
		`"2026-11-28T14:05:00Z"`: "2026-11-28T14:05:00Z", `2026-11-28T14:05:00Z`: "2026-11-28T14:05:00Z", `"2026-11-28T22:05:00+08:00"`: "2026-11-28T14:05:00Z",
		`"2026-11-28T14:05:00.123456789Z"`: "2026-11-28T14:05:00Z", `"2024-02-29T00:00:00-00:00"`: "2024-02-29T00:00:00Z", `"2026-11-28T14:05:00+23:59"`: "2026-11-27T14:06:00Z",
		`"2026-11-28"`: problem, `"2026-11-28T14:05:00"`: problem, `"2026-11-28 14:05:00Z"`: problem, `"2026-11-28T14:05Z"`: problem, `"2026-11-28T14:05:00+0800"`: problem,
		`"2026-11-28T14:05:00 Z"`: problem, `"2026-11-28t14:05:00z"`: problem, `"2026-11-28T14:05:00,5Z"`: problem, `"2026-11-28T14:05:00.Z"`: problem,
		`"2026-13-01T00:00:00Z"`: problem, `"2026-02-30T00:00:00Z"`: problem, `"2026-11-28T24:00:00Z"`: problem, `"2026-11-28T14:05:60Z"`: problem,
		`"2026-11-28T14:05:00+25:00"`: problem, `"2026-11-28T14:05:00+24:00"`: problem, `"2026-11-28T14:05:00+08:60"`: problem, `"2026-11-28T14:05:00Z "`: problem, `"2026-11-28T14:05:00Z\n"`: problem,
		`"Sat, 28 Nov 2026 14:05:00 UTC"`: problem, `now`: problem, `"1764338700"`: problem, `1764338700`: problem, `""`: problem, `true`: problem,
	} {
		stored, err := dryRun(t, kube.Client, "freshSince: "+text)
		if want == problem {
			if err == nil || !strings.Contains(err.Error(), problem) || !strings.Contains(err.Error(), "date-time") && !strings.Contains(err.Error(), `should match '^\d{4}-\d\d-\d\dT`) &&
				!strings.Contains(err.Error(), "must be of type string") {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		json, err := stored.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		task := &v1alpha1.PrefetchTask{}
		if err := yaml.Unmarshal(json, task); err != nil || task.Spec.FreshSince.UTC().Format(time.RFC3339) != want {
			t.Errorf("%s: the operator reads %v: %v", text, task.Spec.FreshSince, err)
		}
	}
}
