package admission

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/account"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// policed is a cluster with the policy in config/policy, and an operator's store with the
// same accounts and namespaces.
type policed struct {
	*cluster.Cluster
	t     *testing.T
	store *account.Store
}

// labelsOf are the labels of the namespaces.
var labelsOf = map[string]map[string]string{
	"default": nil,
	"shop":    {"edgeone": "main", "tier": "gold"},
	"blog":    {"edgeone": "trial"},
	"wiki":    nil,
}

func newPoliced(t *testing.T) *policed {
	t.Helper()
	p := &policed{Cluster: cluster.ForTest(t, cluster.Options{}), t: t, store: account.NewStore(account.NewUsage(16 * time.Hour))}
	for name, labels := range labelsOf {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
		if err := p.Client.Create(t.Context(), ns); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
		p.store.SetNamespace(name, labels)
	}
	if err := p.Apply(t.Context(), "../../config/policy"); err != nil {
		t.Fatal(err)
	}
	return p
}

// account creates an account with a spec in YAML, without credentials.
func (p *policed) account(name, spec string) *v1alpha1.EdgeOneAccount {
	p.t.Helper()
	account := newAccount(p.t, "credentials: {secretRef: {name: edgeone-main}}\n"+spec)
	account.Name = name
	if err := p.Client.Create(p.t.Context(), account); err != nil {
		p.t.Fatal(err)
	}
	p.store.SetAccount(account)
	return account
}

// settle waits until the policy knows all accounts that were created before. The API
// server's watch shows them in order, so it knows them if it knows the last one.
func (p *policed) settle() {
	p.t.Helper()
	last := "last-" + fmt.Sprint(time.Now().UnixNano())
	p.account(last, "")
	task := newTask("any", "https://h/")
	task.Spec.AccountRef.Name = last
	p.eventually(func(ctx context.Context) bool {
		return apierrors.IsForbidden(p.Client.Create(ctx, task.DeepCopy(), client.DryRunAll))
	})
}

func (p *policed) eventually(done func(ctx context.Context) bool) {
	p.t.Helper()
	err := wait.PollUntilContextTimeout(p.t.Context(), 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) { return done(ctx), nil })
	if err != nil {
		p.t.Fatal("the policy does not come into effect")
	}
}

// admit returns what the operator and the policy say about a task. They are empty if it is
// allowed.
func (p *policed) admit(t *testing.T, task *v1alpha1.PrefetchTask) (operator, policy string) {
	t.Helper()
	operator = p.store.Admit(taskstate.WithDefaultAccount(task, p.store.Account(v1alpha1.DefaultAccount) != nil)).Message
	err := p.Client.Create(t.Context(), task.DeepCopy(), client.DryRunAll)
	if _, text, ok := strings.Cut(fmt.Sprint(err), "denied request: "); ok {
		return operator, text
	}
	if err != nil {
		t.Fatal(err)
	}
	return operator, ""
}

// purging returns a change that adds a purge to a task.
func purging(kind v1alpha1.PurgeType, targets ...v1alpha1.PurgeTarget) func(*v1alpha1.PrefetchTaskSpec) {
	return func(s *v1alpha1.PrefetchTaskSpec) { s.Purge = v1alpha1.Purge{Type: kind, Targets: targets} }
}

const zoneWithHosts = "namespaces: {names: [shop]}\nzones: [{id: zone-1, hosts: [www.example.com, \"*.shop.example.com\", WWW.Example.org.]}, {id: zone-2}]\n"

// Each refusal has the words of the operator. The policy may leave a refusal to the operator.
func TestThePolicyRefusesWhatTheAccountWouldRefuse(t *testing.T) {
	p := newPoliced(t)
	const byName = "namespaces: {names: [shop]}\n"
	type spec = v1alpha1.PrefetchTaskSpec
	cases := []struct {
		name, account, namespace string
		change                   func(*spec)
		refusal                  string // without the account; "" if the task is allowed
		onlyOperator             bool
	}{
		{name: "a namespace by name", account: byName, namespace: "shop"},
		{name: "another namespace", account: byName, namespace: "blog", refusal: `does not allow namespace "blog"`},
		{name: "no namespaces", namespace: "shop", refusal: `does not allow namespace "shop"`},
		{name: "a label", account: "namespaces: {selector: {matchLabels: {edgeone: main}}}", namespace: "shop"},
		{name: "another value of the label", account: "namespaces: {selector: {matchLabels: {edgeone: main}}}", namespace: "blog", refusal: `does not allow namespace "blog"`},
		{name: "no label", account: "namespaces: {selector: {matchLabels: {edgeone: main}}}", namespace: "wiki", refusal: `does not allow namespace "wiki"`},
		{name: "one of two labels", account: "namespaces: {selector: {matchLabels: {edgeone: trial, tier: gold}}}", namespace: "blog", refusal: `does not allow namespace "blog"`},
		{name: "In", account: "namespaces: {selector: {matchExpressions: [{key: edgeone, operator: In, values: [main, trial]}]}}", namespace: "blog"},
		{name: "not In", account: "namespaces: {selector: {matchExpressions: [{key: edgeone, operator: In, values: [main]}]}}", namespace: "blog", refusal: `does not allow namespace "blog"`},
		{name: "In without the label", account: "namespaces: {selector: {matchExpressions: [{key: edgeone, operator: In, values: [main]}]}}", namespace: "wiki", refusal: `does not allow namespace "wiki"`},
		{name: "NotIn", account: "namespaces: {selector: {matchExpressions: [{key: edgeone, operator: NotIn, values: [trial]}]}}", namespace: "shop"},
		{name: "NotIn without the label", account: "namespaces: {selector: {matchExpressions: [{key: edgeone, operator: NotIn, values: [trial]}]}}", namespace: "wiki"},
		{name: "not NotIn", account: "namespaces: {selector: {matchExpressions: [{key: edgeone, operator: NotIn, values: [trial]}]}}", namespace: "blog", refusal: `does not allow namespace "blog"`},
		{name: "Exists", account: "namespaces: {selector: {matchExpressions: [{key: tier, operator: Exists}]}}", namespace: "shop"},
		{name: "not Exists", account: "namespaces: {selector: {matchExpressions: [{key: tier, operator: Exists}]}}", namespace: "blog", refusal: `does not allow namespace "blog"`},
		{name: "DoesNotExist", account: "namespaces: {selector: {matchExpressions: [{key: tier, operator: DoesNotExist}]}}", namespace: "wiki"},
		{name: "not DoesNotExist", account: "namespaces: {selector: {matchExpressions: [{key: tier, operator: DoesNotExist}]}}", namespace: "shop", refusal: `does not allow namespace "shop"`},
		{name: "a label and an expression", account: "namespaces: {selector: {matchLabels: {edgeone: main}, matchExpressions: [{key: tier, operator: In, values: [silver]}]}}", namespace: "shop", refusal: `does not allow namespace "shop"`},
		{name: "a zone", account: byName + "zones: [{id: zone-1}]", namespace: "shop"},
		{name: "another zone", account: byName + "zones: [{id: zone-2}]", namespace: "shop", refusal: `does not allow zone "zone-1"`},
		{name: "a look-alike zone", account: byName + "zones: [{id: zone-11}]", namespace: "shop", refusal: `does not allow zone "zone-1"`},
		{name: "all zones in one call", account: byName + "zones: [{id: zone-1}]", namespace: "shop", change: func(s *spec) { s.ZoneID = "*" }, refusal: `does not allow zone "*"`},
		{name: "all zones in one call, listed", account: byName + "zones: [{id: \"*\"}]", namespace: "shop", change: func(s *spec) { s.ZoneID = "*" }},
		{name: "a zone's namespace", account: "namespaces: {names: [shop, blog]}\nzones: [{id: zone-1, namespaces: {names: [shop]}}]", namespace: "shop"},
		{name: "another than the zone's namespace", account: "namespaces: {names: [shop, blog]}\nzones: [{id: zone-1, namespaces: {names: [shop]}}]", namespace: "blog", refusal: `does not allow namespace "blog" to use zone "zone-1"`},
		{name: "a zone's label", account: "namespaces: {names: [shop, blog]}\nzones: [{id: zone-1, namespaces: {selector: {matchLabels: {edgeone: trial}}}}]", namespace: "blog"},
		{name: "another than the zone's label", account: "namespaces: {names: [shop, blog]}\nzones: [{id: zone-1, namespaces: {selector: {matchLabels: {edgeone: trial}}}}]", namespace: "shop", refusal: `does not allow namespace "shop" to use zone "zone-1"`},
		{name: "the zone's namespace, not the account's", account: "namespaces: {names: [shop]}\nzones: [{id: zone-1, namespaces: {names: [blog]}}]", namespace: "blog", refusal: `does not allow namespace "blog"`},
		{name: "mode Default", account: byName, namespace: "shop", change: func(s *spec) { s.Mode = v1alpha1.ModeDefault }},
		{name: "mode Edge", account: byName, namespace: "shop", change: func(s *spec) { s.Mode = v1alpha1.ModeEdge }, refusal: `does not allow mode Edge`},
		{name: "mode Edge, listed", account: byName + "allow: {modes: [Edge]}", namespace: "shop", change: func(s *spec) { s.Mode = v1alpha1.ModeEdge }},
		{name: "mode Edge only", account: byName + "allow: {modes: [Edge]}", namespace: "shop", refusal: `does not allow mode Default`},
		{name: "media segments", account: byName, namespace: "shop", change: func(s *spec) { s.MediaSegments = v1alpha1.MediaSegmentsPrefetch }, refusal: `does not allow media segments`},
		{name: "media segments, forbidden", account: byName + "allow: {mediaSegments: false}", namespace: "shop", change: func(s *spec) { s.MediaSegments = v1alpha1.MediaSegmentsPrefetch }, refusal: `does not allow media segments`},
		{name: "media segments, allowed", account: byName + "allow: {mediaSegments: true}", namespace: "shop", change: func(s *spec) { s.MediaSegments = v1alpha1.MediaSegmentsPrefetch }},
		{name: "ignored media segments", account: byName, namespace: "shop", change: func(s *spec) { s.MediaSegments = v1alpha1.MediaSegmentsIgnore }},
		{name: "the first host that is not allowed", account: zoneWithHosts, namespace: "shop",
			change: func(s *spec) {
				s.Targets = []v1alpha1.Target{"https://www.example.com/", "https://EVIL.example.:8443/a", "https://worse.example/"}
			},
			refusal: `does not allow host "evil.example" in zone "zone-1": https://EVIL.example.:8443/a`},
		{name: "any host in a zone without hosts", account: zoneWithHosts, namespace: "shop", change: func(s *spec) { s.ZoneID = "zone-2" }},
		{name: "a host with a look-alike letter", account: zoneWithHosts, namespace: "shop", onlyOperator: true,
			change:  func(s *spec) { s.Targets = []v1alpha1.Target{"https://www.exаmple.com/"} }, // a Cyrillic а
			refusal: `does not allow host "www.xn--exmple-4nf.com" in zone "zone-1": https://www.exаmple.com/`},
		{name: "a purge", account: byName, namespace: "shop", change: purging(v1alpha1.PurgeURL), refusal: `does not allow purge URL`},
		{name: "a purge, allowed", account: byName + "allow: {purge: [URL]}", namespace: "shop", change: purging(v1alpha1.PurgeURL)},
		{name: "another type of purge", account: byName + "allow: {purge: [URL, Prefix, CacheTag]}", namespace: "shop", change: purging(v1alpha1.PurgeHost, "www.example.com"),
			refusal: `does not allow purge Host`},
		{name: "a tag, allowed", account: byName + "allow: {purge: [CacheTag]}", namespace: "shop", change: purging(v1alpha1.PurgeCacheTag, "a")},
		{name: "a tag in a zone with hosts", account: zoneWithHosts + "allow: {purge: [CacheTag]}", namespace: "shop", change: purging(v1alpha1.PurgeCacheTag, "a"),
			refusal: `does not allow purge CacheTag in zone "zone-1": the copies that have a cache tag may be of any host, and the account lists hosts`},
		{name: "the first prefix that is not allowed", account: zoneWithHosts + "allow: {purge: [Prefix]}", namespace: "shop",
			change:  purging(v1alpha1.PurgePrefix, "https://www.example.com/a/", "https://EVIL.example.:8443/b/", "https://worse.example/"),
			refusal: `does not allow host "evil.example" in zone "zone-1": purge of https://EVIL.example.:8443/b/`},
		{name: "a prefix with a look-alike letter", account: zoneWithHosts + "allow: {purge: [Prefix]}", namespace: "shop", onlyOperator: true,
			change:  purging(v1alpha1.PurgePrefix, "https://www.exаmple.com/"), // a Cyrillic а
			refusal: `does not allow host "www.xn--exmple-4nf.com" in zone "zone-1": purge of https://www.exаmple.com/`},
		{name: "a host to purge that is not allowed", account: zoneWithHosts + "allow: {purge: [Host]}", namespace: "shop",
			change: purging(v1alpha1.PurgeHost, "www.example.com", "shop.example.com"), refusal: `does not allow host "shop.example.com" in zone "zone-1": purge of shop.example.com`},
		{name: "any host to purge in a zone without hosts", account: zoneWithHosts + "allow: {purge: [Host]}", namespace: "shop", change: func(s *spec) {
			purging(v1alpha1.PurgeHost, "any.example.org")(s)
			s.ZoneID = "zone-2"
		}},
		{name: "a list in a ConfigMap", account: zoneWithHosts, namespace: "shop",
			change: func(s *spec) {
				s.Targets, s.TargetsFrom.ConfigMapKeyRef = nil, v1alpha1.ConfigMapKeyReference{Name: "list", Key: "urls"}
			}},
	}
	for i, tt := range cases {
		p.account(fmt.Sprint("of-case-", i), tt.account)
	}
	p.settle()
	for i, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			task := newTask("any", "https://www.example.com/")
			task.Namespace = tt.namespace
			task.Spec.AccountRef.Name = fmt.Sprint("of-case-", i)
			if tt.change != nil {
				tt.change(&task.Spec)
			}
			want := ""
			if tt.refusal != "" {
				want = fmt.Sprintf("EdgeOneAccount \"of-case-%d\" %s", i, tt.refusal)
			}
			operator, policy := p.admit(t, task)
			if operator != want {
				t.Errorf("the operator says %q, want %q", operator, want)
			}
			if tt.onlyOperator {
				want = ""
			}
			if policy != want {
				t.Errorf("the policy says %q, want %q", policy, want)
			}
		})
	}
}

// The policy refuses no host that the operator allows. It leaves only names outside of ASCII
// to the operator.
func TestThePolicyAndTheOperatorAgreeOnHosts(t *testing.T) {
	p := newPoliced(t)
	patterns := []string{
		"www.example.com", `"*.example.com"`, `"*.WWW.Example.com."`, "WWW.EXAMPLE.COM.", "example.com, other.example", `"*.com"`,
		"xn--fsqu00a.xn--fiqs8s", "例子.中国", `"*.xn--fiqs8s"`, `"*.中国"`, "www.ｅxample.com", "a_b.example.com", "localhost", "192.0.2.1", "ex%2e" + "a",
	}
	hosts := []string{
		"www.example.com", "WWW.example.COM", "www.example.com.", "www.example.com..", "www.example.com:443", "www.example.com:8443", "WWW.Example.com.:8443",
		"example.com", "a.www.example.com", "a.b.www.example.com", ".example.com", "..example.com", "wwwxexample.com", "evilexample.com",
		"www.example.com.evil.example", "example.com.", "other.example", "xn--fsqu00a.xn--fiqs8s", "XN--FSQU00A.xn--fiqs8s", "例子.中国", "例子。中国", "a.例子.中国",
		"www.ｅxample.com", "www.exаmple.com", "a_b.example.com", "localhost", "192.0.2.1", "%e4%be%8b.example.com",
	}
	var created []string
	for i, pattern := range patterns {
		if strings.Contains(pattern, "%") {
			continue // refused by the CRD
		}
		name := fmt.Sprint("hosts-", i)
		p.account(name, "namespaces: {names: [default]}\nzones: [{id: zone-1, hosts: ["+pattern+"]}, {id: zone-2}]\nallow: {purge: [Prefix, Host]}")
		created = append(created, name)
	}
	p.settle()
	refusals, left := map[v1alpha1.PurgeType]int{}, 0
	for i, name := range created {
		for _, host := range hosts {
			targets := newTask("any", "https://"+host+"/a")
			prefix, purged := newTask("any"), newTask("any")
			purging(v1alpha1.PurgePrefix, v1alpha1.PurgeTarget("https://"+host+"/a/"))(&prefix.Spec)
			purging(v1alpha1.PurgeHost, v1alpha1.PurgeTarget(host))(&purged.Spec)
			for _, task := range []*v1alpha1.PrefetchTask{targets, prefix, purged} {
				task.Spec.AccountRef.Name = name
				if task.Spec.Targets == nil {
					task.Spec.TargetsFrom.ConfigMapKeyRef = v1alpha1.ConfigMapKeyReference{Name: "list", Key: "urls"}
				}
				err := p.Client.Create(t.Context(), task.DeepCopy(), client.DryRunAll)
				if apierrors.IsInvalid(err) {
					continue // the CRD refuses the target
				}
				operator, policy := p.admit(t, task)
				switch {
				case operator == policy && policy != "":
					refusals[task.Spec.Purge.Type]++
				case operator == policy:
				case policy == "" && (!isASCII(host) || !isASCII(patterns[i]) || strings.Contains(host, "%")):
					left++
				default:
					t.Errorf("%s and %s, purge %q: the operator says %q, and the policy %q", patterns[i], host, task.Spec.Purge.Type, operator, policy)
				}
			}
		}
	}
	if refusals[""] < 50 || refusals[v1alpha1.PurgePrefix] < 50 || refusals[v1alpha1.PurgeHost] < 20 || left < 5 {
		t.Errorf("both refused %v, and the policy left %d to the operator", refusals, left)
	}
}

func isASCII(s string) bool { return strings.IndexFunc(s, func(r rune) bool { return r > 127 }) < 0 }

func TestWhichAccountThePolicyAsks(t *testing.T) {
	p := newPoliced(t)
	p.account("nobodys", "")
	p.account("everybodys", "namespaces: {selector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: Exists}]}}")
	for name, labels := range labelsOf { // as the API server labels them
		all := map[string]string{"kubernetes.io/metadata.name": name}
		for k, v := range labels {
			all[k] = v
		}
		p.store.SetNamespace(name, all)
	}
	p.settle()
	check := func(what, account, secret, want string) {
		t.Helper()
		task := newTask("any", "https://h/")
		task.Spec.AccountRef.Name, task.Spec.CredentialsSecretRef.Name = account, secret
		if operator, policy := p.admit(t, task); policy != want || account != "missing" && operator != want {
			t.Errorf("%s: the operator says %q, and the policy %q, want %q", what, operator, policy, want)
		}
	}
	check("no account", "", "", "")
	check("an account that allows it", "everybodys", "", "")
	check("an account that does not", "nobodys", "", `EdgeOneAccount "nobodys" does not allow namespace "default"`)
	check("a missing account", "missing", "", "")
	check("a Secret", "", "keys", "")
	// From now on there is an account named default.
	p.account("default", "namespaces: {names: [shop]}")
	p.settle()
	check("the account named default", "", "", `EdgeOneAccount "default" does not allow namespace "default"`)
	check("a Secret in place of the account named default", "", "keys", "")
	check("another account than default", "everybodys", "", "")
}

// A task that is not allowed anymore can still be resumed, labeled and released. What starts
// a new run, or changes the account, is checked.
func TestWhatCanBeChangedInATaskThatIsNoLongerAllowed(t *testing.T) {
	p := newPoliced(t)
	allowing := p.account("main", "namespaces: {names: [default]}\nzones: [{id: zone-1, hosts: [www.example.com]}]")
	p.account("other", "namespaces: {names: [default]}\nzones: [{id: zone-1, hosts: [www.example.org]}]")
	p.account("strict", "namespaces: {names: [shop]}")
	p.settle()
	task := newTask("stored", "https://www.example.com/")
	task.Spec.AccountRef.Name = "main"
	task.Finalizers = []string{"example.com/any"}
	task.Spec.Suspend = ptr.To(true)
	if err := p.Client.Create(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	allowing.Spec.Zones[0].Hosts = []v1alpha1.HostPattern{"www.example.net"}
	if err := p.Client.Update(t.Context(), allowing); err != nil {
		t.Fatal(err)
	}
	p.settle()
	for _, tt := range []struct {
		name   string
		change func(*v1alpha1.PrefetchTask)
		want   string
	}{
		{"a label", func(task *v1alpha1.PrefetchTask) { task.Labels = map[string]string{"a": "b"} }, ""},
		{"finalizers", func(task *v1alpha1.PrefetchTask) { task.Finalizers = nil }, ""},
		{"suspend", func(task *v1alpha1.PrefetchTask) { task.Spec.Suspend = nil }, ""},
		{"the time to live", func(task *v1alpha1.PrefetchTask) { task.Spec.TTLSecondsAfterFinished = 60 }, ""},
		{"a revision", func(task *v1alpha1.PrefetchTask) { task.Spec.Revision = "2" }, `"main" does not allow host "www.example.com"`},
		{"headers", func(task *v1alpha1.PrefetchTask) { task.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "A", Value: "b"}} }, `"main" does not allow host "www.example.com"`},
		{"the encoding", func(task *v1alpha1.PrefetchTask) { task.Spec.EncodeURL = ptr.To(true) }, `"main" does not allow host "www.example.com"`},
		{"the zone", func(task *v1alpha1.PrefetchTask) { task.Spec.ZoneID = "zone-2" }, `"main" does not allow zone "zone-2"`},
		{"the targets", func(task *v1alpha1.PrefetchTask) { task.Spec.Targets[0] += "a" }, `"main" does not allow host "www.example.com"`},
		{"allowed targets", func(task *v1alpha1.PrefetchTask) { task.Spec.Targets[0] = "https://www.example.net/" }, ""},
		{"the account", func(task *v1alpha1.PrefetchTask) { task.Spec.AccountRef.Name = "strict" }, `"strict" does not allow namespace "default"`},
		{"the account, and its hosts are checked by the operator", func(task *v1alpha1.PrefetchTask) { task.Spec.AccountRef.Name = "other" }, ""},
		{"no account", func(task *v1alpha1.PrefetchTask) { task.Spec.AccountRef.Name = "" }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			changed := task.DeepCopy()
			tt.change(changed)
			err := p.Client.Update(t.Context(), changed, client.DryRunAll)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	task.Status.ObservedGeneration = task.Generation
	if err := p.Client.Status().Update(t.Context(), task); err != nil {
		t.Errorf("the operator cannot write the status: %v", err)
	}
}

// The largest lists are within the API server's limits on the cost of CEL.
func TestThePolicyChecksTheLargestTasks(t *testing.T) {
	p := newPoliced(t)
	list := func(names, wildcards int) string {
		var hosts []string
		for i := range names {
			hosts = append(hosts, fmt.Sprintf("host-%d.shop.example.com", i))
		}
		for i := range wildcards {
			hosts = append(hosts, fmt.Sprintf("*.host-%d.shop.example.com", i))
		}
		return "namespaces: {names: [default]}\nzones: [{id: zone-1, hosts: [\"" + strings.Join(hosts, `", "`) + "\"]}]"
	}
	p.account("names", list(64, 0))
	p.account("wildcards", list(0, 64))
	p.account("both", list(62, 2))
	p.settle()
	for _, tt := range []struct {
		name, account, host, outside string // %d in host is a number up to 9,999
		isAllowed                    bool   // without outside; the policy has to evaluate as much
		isOperators                  bool   // the policy leaves the refusal to the operator
	}{
		{name: "a host", account: "names", host: "HOST-63.shop.example.com.", outside: "host-64.shop.example.com", isAllowed: true},
		{name: "below a wildcard", account: "wildcards", host: "a.b.host-63.shop.example.com", outside: "host-63.shop.example.com"},
		{name: "many hosts below wildcards", account: "both", host: "h-%d.host-1.shop.example.com", outside: "h-1.host-2.shop.example.com"},
		{name: "too many", account: "wildcards", host: "h-%d.host-1.shop.example.com", outside: "h-1.host-64.shop.example.com", isOperators: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			task := newTask("any")
			task.Spec.AccountRef.Name = tt.account
			for i := range 10_000 {
				url := fmt.Sprintf("https://%s/%05d/", strings.ReplaceAll(tt.host, "%d", fmt.Sprint(i)), i)
				task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(url+strings.Repeat("p", 151-len(url))))
			}
			if tt.isAllowed {
				if operator, policy := p.admit(t, task); operator != "" || policy != "" {
					t.Fatalf("the operator says %q, and the policy %q", operator, policy)
				}
				task = task.DeepCopy() // what is known of a list in memory belongs to it
			}
			task.Spec.Targets[9_999] = v1alpha1.Target("https://" + tt.outside + "/")
			operator, policy := p.admit(t, task)
			if want := fmt.Sprintf("does not allow host %q", tt.outside); !strings.Contains(operator, want) {
				t.Errorf("the operator says %q, want %q", operator, want)
			}
			if !tt.isOperators && policy != operator || tt.isOperators && policy != "" {
				t.Errorf("the operator says %q, and the policy %q", operator, policy)
			}
		})
	}
}

// The samples are accepted with the policy, are allowed by their accounts, and do nothing
// until a user resumes them.
func TestTheSamplesOfAccounts(t *testing.T) {
	p := newPoliced(t)
	for range 2 { // the accounts are known when the tasks are applied again
		apply, err := p.Kubectl(t.Context(), "apply", "--server-side", "-k", "../../config/samples/accounts")
		if err != nil {
			t.Fatal(err)
		}
		if out, err := apply.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		accounts := &v1alpha1.EdgeOneAccountList{}
		if err := p.Client.List(t.Context(), accounts); err != nil {
			t.Fatal(err)
		}
		for i := range accounts.Items {
			p.store.SetAccount(&accounts.Items[i])
		}
		p.settle()
	}
	namespaces := &corev1.NamespaceList{}
	if err := p.Client.List(t.Context(), namespaces); err != nil {
		t.Fatal(err)
	}
	for _, ns := range namespaces.Items {
		p.store.SetNamespace(ns.Name, ns.Labels)
	}
	tasks := &v1alpha1.PrefetchTaskList{}
	if err := p.Client.List(t.Context(), tasks); err != nil || len(tasks.Items) != 2 {
		t.Fatalf("%d tasks: %v", len(tasks.Items), err)
	}
	for i := range tasks.Items {
		task := &tasks.Items[i]
		if admission := p.store.Admit(task); admission.Reason != "" || task.Spec.AccountRef.Name == "" {
			t.Errorf("%s/%s: %s", task.Namespace, task.Name, admission.Message)
		}
		if !taskstate.IsSuspended(task) {
			t.Errorf("%s/%s is not suspended", task.Namespace, task.Name)
		}
	}
}
