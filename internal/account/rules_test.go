package account

import (
	"strings"
	"testing"
	"time"

	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// newAccount returns an account named main with a spec in YAML.
func newAccount(t *testing.T, spec string) *v1alpha1.EdgeOneAccount {
	t.Helper()
	account := &v1alpha1.EdgeOneAccount{}
	account.Name, account.UID = "main", "uid"
	if err := yaml.UnmarshalStrict([]byte(spec), &account.Spec); err != nil {
		t.Fatal(err)
	}
	return account
}

// newTask returns a task of namespace shop that uses the account main.
func newTask(urls ...string) *v1alpha1.PrefetchTask {
	task := &v1alpha1.PrefetchTask{}
	task.Namespace, task.Name, task.UID = "shop", "task", "uid of task"
	task.Spec.ZoneID, task.Spec.AccountRef.Name = "zone-1", "main"
	for _, url := range urls {
		task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(url))
	}
	return task
}

func newStore(t *testing.T, spec string) *Store {
	t.Helper()
	store := NewStore(NewUsage(16 * time.Hour))
	store.SetAccount(newAccount(t, spec))
	store.SetNamespace("shop", map[string]string{"edgeone": "main"})
	return store
}

func TestAHostIsAllowedInAnySpellingAndNoOtherHostIs(t *testing.T) {
	store := newStore(t, `{namespaces: {names: [shop]}, zones: [{id: zone-1, hosts: [www.example.com, "*.shop.example.com", "Caf\u00e9.example", dot.example.]}]}`)
	for url, allowed := range map[string]bool{
		"https://www.example.com/a":                    true,
		"https://WWW.Example.COM/a":                    true,
		"https://www.example.com./a":                   true,
		"https://www.example.com:443/a":                true,
		"http://www.example.com:8080/a":                true,
		"https://www.example.com?a=https://other.test": true,
		"https://a.shop.example.com/":                  true,
		"https://A.B.Shop.example.com/":                true,
		"https://xn--caf-dma.example/":                 true,
		"https://caf\u00e9.example/":                   true,
		"https://CAF\u00c9.example/":                   true,
		"https://cafe\u0301.example/":                  true,
		"https://dot.example/":                         true,
		"https://ｗｗｗ.example.com/":                     true,
		"https://shop.example.com/":                    false,
		"https://.shop.example.com/":                   false,
		"https://evilshop.example.com/":                false,
		"https://a.shop.example.com.evil.test/":        false,
		"https://www.example.com.evil.test/":           false,
		"https://www.example.com@evil.test/":           false,
		"https://www.example.com:443@evil.test/":       false,
		"https://evil.test#www.example.com":            false,
		"https://evil.test?www.example.com":            false,
		"https://evil.test/www.example.com":            false,
		"https://evil.test:443/":                       false,
		"https://example.com/":                         false,
		"https://ww.example.com/":                      false,
		"https://cafe.example/":                        false,
		"https://www.ex\u0430mple.com/":                false, // a Cyrillic letter
		"https://www.example.com%2eevil.test/":         false,
		"https://www.example.com\\.evil.test/":         false,
		"www.example.com/a":                            false,
		"https://evil.test\uff0f.shop.example.com/":    false, // a full-width slash
		"https://evil.c\u2100.shop.example.com/":       false, // a/c in one character
		"https://evil.test;.shop.example.com/":         false,
		"https://a..shop.example.com/":                 false,
		"https://www.example.com../":                   false,
	} {
		why := store.Admit(newTask(url))
		if (why.Reason == "") != allowed {
			t.Errorf("%q: %+v, want allowed %v", url, why.Cause, allowed)
		}
	}
}

func TestARefusalNamesTheRuleAndTheAccount(t *testing.T) {
	const open = "namespaces: {names: [shop]}\n"
	const hosts = open + "zones: [{id: zone-1, hosts: [h, \"*.b.example\", \"caf\u00e9.example\"]}]\n"
	purging := func(kind v1alpha1.PurgeType, targets ...v1alpha1.PurgeTarget) func(*v1alpha1.PrefetchTask) {
		return func(task *v1alpha1.PrefetchTask) { task.Spec.Purge = v1alpha1.Purge{Type: kind, Targets: targets} }
	}
	for _, tt := range []struct {
		name, spec   string
		edit         func(*v1alpha1.PrefetchTask)
		reason, text string
	}{
		{"nobody", "{}", nil, v1alpha1.ReasonNotAllowed, `EdgeOneAccount "main" does not allow namespace "shop"`},
		{"another namespace", "namespaces: {names: [other]}", nil, v1alpha1.ReasonNotAllowed, `does not allow namespace "shop"`},
		{"by name", open, nil, "", ""},
		{"by label", "namespaces: {selector: {matchLabels: {edgeone: main}}}", nil, "", ""},
		{"another label", "namespaces: {selector: {matchLabels: {edgeone: other}}}", nil, v1alpha1.ReasonNotAllowed, `does not allow namespace "shop"`},
		{"by expression", "namespaces: {selector: {matchExpressions: [{key: edgeone, operator: In, values: [a, main]}, {key: off, operator: DoesNotExist}]}}", nil, "", ""},
		{"another expression", "namespaces: {selector: {matchExpressions: [{key: edgeone, operator: NotIn, values: [main]}]}}", nil, v1alpha1.ReasonNotAllowed, "namespace"},
		{"a namespace that is not known yet", "namespaces: {selector: {matchExpressions: [{key: off, operator: DoesNotExist}]}}",
			func(task *v1alpha1.PrefetchTask) { task.Namespace = "new" }, v1alpha1.ReasonWaiting, "not known yet"},
		{"any zone", open, func(task *v1alpha1.PrefetchTask) { task.Spec.ZoneID = "*" }, "", ""},
		{"another zone", open + "zones: [{id: zone-2}]", nil, v1alpha1.ReasonNotAllowed, `EdgeOneAccount "main" does not allow zone "zone-1"`},
		{"all zones", open + "zones: [{id: zone-1}]", func(task *v1alpha1.PrefetchTask) { task.Spec.ZoneID = "*" }, v1alpha1.ReasonNotAllowed, `does not allow zone "*"`},
		{"all zones, listed", open + "zones: [{id: \"*\"}]", func(task *v1alpha1.PrefetchTask) { task.Spec.ZoneID = "*" }, "", ""},
		{"a zone of another namespace", "namespaces: {names: [shop, other]}\nzones: [{id: zone-1, namespaces: {names: [other]}}]", nil, v1alpha1.ReasonNotAllowed, `does not allow namespace "shop" to use zone "zone-1"`},
		{"a zone of more namespaces", "namespaces: {names: [other]}\nzones: [{id: zone-1, namespaces: {names: [shop]}}]", nil, v1alpha1.ReasonNotAllowed, `does not allow namespace "shop"`},
		{"a host", open + "zones: [{id: zone-1, hosts: [a.example]}]", nil, v1alpha1.ReasonNotAllowed, `does not allow host "h" in zone "zone-1": https://h/1`},
		{"the edge", open, func(task *v1alpha1.PrefetchTask) { task.Spec.Mode = v1alpha1.ModeEdge }, v1alpha1.ReasonNotAllowed, "does not allow mode Edge"},
		{"the edge, allowed", open + "allow: {modes: [Edge]}", func(task *v1alpha1.PrefetchTask) { task.Spec.Mode = v1alpha1.ModeEdge }, "", ""},
		{"the middle tier, not allowed", open + "allow: {modes: [Edge]}", nil, v1alpha1.ReasonNotAllowed, "does not allow mode Default"},
		{"segments", open, func(task *v1alpha1.PrefetchTask) { task.Spec.MediaSegments = v1alpha1.MediaSegmentsPrefetch }, v1alpha1.ReasonNotAllowed, "does not allow media segments"},
		{"segments, allowed", open + "allow: {mediaSegments: true}", func(task *v1alpha1.PrefetchTask) { task.Spec.MediaSegments = v1alpha1.MediaSegmentsPrefetch }, "", ""},
		{"a purge", open, purging(v1alpha1.PurgeURL), v1alpha1.ReasonNotAllowed, `EdgeOneAccount "main" does not allow purge URL`},
		{"a purge, allowed", open + "allow: {purge: [URL]}", purging(v1alpha1.PurgeURL), "", ""},
		{"a purge of its own URLs where hosts are listed", hosts + "allow: {purge: [URL]}", purging(v1alpha1.PurgeURL), "", ""},
		{"a prefix", open + "allow: {purge: [URL, Host, CacheTag]}", purging(v1alpha1.PurgePrefix, "https://h/a/"), v1alpha1.ReasonNotAllowed, "does not allow purge Prefix"},
		{"a prefix, allowed", open + "allow: {purge: [Prefix]}", purging(v1alpha1.PurgePrefix, "https://any.example/a/"), "", ""},
		{"a prefix of a host", hosts + "allow: {purge: [Prefix]}", purging(v1alpha1.PurgePrefix, "https://H:8443/a/", "https://a.b.example/", "http://caf\u00e9.example/"), "", ""},
		{"a prefix of another host", hosts + "allow: {purge: [Prefix]}", purging(v1alpha1.PurgePrefix, "https://h/", "https://EVIL.example.:8443/h/", "https://worse.example/"),
			v1alpha1.ReasonNotAllowed, `does not allow host "evil.example" in zone "zone-1": purge of https://EVIL.example.:8443/h/`},
		{"a prefix with a user", hosts + "allow: {purge: [Prefix]}", purging(v1alpha1.PurgePrefix, "https://h@evil.example/"), v1alpha1.ReasonNotAllowed, `does not allow host "evil.example"`},
		{"a prefix without a scheme", hosts + "allow: {purge: [Prefix]}", purging(v1alpha1.PurgePrefix, "h/"), v1alpha1.ReasonNotAllowed, `does not allow host ""`},
		{"a host, not allowed", open + "allow: {purge: [URL, Prefix, CacheTag]}", purging(v1alpha1.PurgeHost, "h"), v1alpha1.ReasonNotAllowed, "does not allow purge Host"},
		{"hosts, allowed", hosts + "allow: {purge: [Host]}", purging(v1alpha1.PurgeHost, "h", "a.b.example", "xn--caf-dma.example"), "", ""},
		{"another host", hosts + "allow: {purge: [Host]}", purging(v1alpha1.PurgeHost, "h", "b.example"), v1alpha1.ReasonNotAllowed, `does not allow host "b.example" in zone "zone-1": purge of b.example`},
		{"a host with more than a name", hosts + "allow: {purge: [Host]}", purging(v1alpha1.PurgeHost, "h/../evil.example"), v1alpha1.ReasonNotAllowed, "does not allow host"},
		{"a tag", open + "allow: {purge: [URL, Prefix, Host]}", purging(v1alpha1.PurgeCacheTag, "a"), v1alpha1.ReasonNotAllowed, "does not allow purge CacheTag"},
		{"a tag, allowed", open + "allow: {purge: [CacheTag]}", purging(v1alpha1.PurgeCacheTag, "a"), "", ""},
		{"a tag where hosts are listed", hosts + "allow: {purge: [CacheTag]}", purging(v1alpha1.PurgeCacheTag, "a"), v1alpha1.ReasonNotAllowed,
			`does not allow purge CacheTag in zone "zone-1": the copies that have a cache tag may be of any host, and the account lists hosts`},
		{"a tag where another zone lists hosts", open + "zones: [{id: zone-1}, {id: zone-2, hosts: [h]}]\nallow: {purge: [CacheTag]}", purging(v1alpha1.PurgeCacheTag, "a"), "", ""},
		{"a host in all zones", open + "zones: [{id: \"*\", hosts: [h]}]\nallow: {purge: [Host]}", func(task *v1alpha1.PrefetchTask) {
			purging(v1alpha1.PurgeHost, "evil.example")(task)
			task.Spec.ZoneID = "*"
		}, v1alpha1.ReasonNotAllowed, `does not allow host "evil.example" in zone "*": purge of evil.example`},
		{"a purge that is fine, and a target that is not", hosts + "allow: {purge: [Host]}", func(task *v1alpha1.PrefetchTask) {
			purging(v1alpha1.PurgeHost, "h")(task)
			task.Spec.Targets = []v1alpha1.Target{"https://evil.example/"}
		}, v1alpha1.ReasonNotAllowed, `does not allow host "evil.example" in zone "zone-1": https://evil.example/`},
		{"suspended", open + "suspend: true", nil, v1alpha1.ReasonSuspended, `spec.suspend of EdgeOneAccount "main" is true`},
		{"no such account", open, func(task *v1alpha1.PrefetchTask) { task.Spec.AccountRef.Name = "other" }, v1alpha1.ReasonAccountMissing, `EdgeOneAccount "other" does not exist`},
		{"no account", "{}", func(task *v1alpha1.PrefetchTask) { task.Spec.AccountRef.Name = "" }, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			task := newTask("https://h/1")
			if tt.edit != nil {
				tt.edit(task)
			}
			why := newStore(t, tt.spec).Admit(task)
			if why.Reason != tt.reason || !strings.Contains(why.Message, tt.text) {
				t.Errorf("%+v, want %s with %q", why.Cause, tt.reason, tt.text)
			}
			if wantsUser := tt.reason == v1alpha1.ReasonNotAllowed || tt.reason == v1alpha1.ReasonAccountMissing; why.NeedsUser != wantsUser || wantsUser != (why.Advice != "") {
				t.Errorf("needs a user: %v, advice %q", why.NeedsUser, why.Advice)
			}
		})
	}
	if why := (*Store)(nil).Admit(newTask("https://h/1")); why.Reason != v1alpha1.ReasonAccountMissing || !strings.Contains(why.Message, "runs without accounts") {
		t.Errorf("an operator without accounts: %+v", why.Cause)
	}
}

func TestSubscribersLearnOfChangesOfRulesOnly(t *testing.T) {
	store := NewStore(NewUsage(0))
	var changes []string
	store.Subscribe(func(account string) { changes = append(changes, account) })
	store.SubscribeLabels(func(namespace string) { changes = append(changes, "labels of "+namespace) })
	expect := func(what string, want ...string) {
		t.Helper()
		if strings.Join(changes, ",") != strings.Join(want, ",") || len(changes) != len(want) {
			t.Errorf("%s: %q, want %q", what, changes, want)
		}
		changes = nil
	}
	account := newAccount(t, "namespaces: {names: [shop]}")
	store.SetAccount(account)
	expect("a new account", "main")
	counted := account.DeepCopy()
	counted.Status.Used = ptr.To[int32](3)
	store.SetAccount(counted)
	expect("a status")
	if store.Account("main") != counted {
		t.Error("not the newest version")
	}
	counted = counted.DeepCopy()
	counted.Spec.Suspend = ptr.To(true)
	store.SetAccount(counted)
	expect("a spec", "main")
	store.SetNamespace("shop", map[string]string{"a": "b"})
	expect("a namespace", "labels of shop")
	store.SetNamespace("shop", map[string]string{"a": "b"})
	expect("the same labels")
	store.SetNamespace("shop", nil)
	expect("no labels", "labels of shop")
	store.DeleteNamespace("shop")
	expect("a namespace that is gone", "labels of shop")
	store.DeleteAccount("main")
	expect("a deletion", "main")
	if store.Account("main") != nil {
		t.Error("the account is still there")
	}
}
