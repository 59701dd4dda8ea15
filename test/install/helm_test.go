package install

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

const release = "teo-prefetch-operator"

func TestTheChartIsInstalledUpgradedRolledBackAndUninstalled(t *testing.T) {
	s := newSite(t)
	t.Cleanup(s.removeCRDs)
	s.giveCredentials("teo-credentials", "AKIDdemo", "demo-secret-key")
	values := []string{"--wait", "--timeout=90s", "--set=edgeone.endpoint=" + s.url, "--set=extraArgs={--poll-interval=500ms}"}

	if notes := s.helm(append([]string{"install", release, chart}, values...)...); !strings.Contains(notes, "helm test "+release) {
		t.Errorf("the notes do not say what to do next:\n%s", notes)
	}
	stop := s.runManager(s.deployment(release))
	s.create(s.namespace, "installed")
	s.succeeded(s.namespace, "installed")
	if said, passed := s.helmTest(release); !passed {
		t.Errorf("helm test fails:\n%s", said)
	}
	stop()

	s.create(s.namespace, "meanwhile")
	s.must(s.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "prometheus"}}))
	s.helm(append([]string{"upgrade", release, chart, "--set=replicaCount=3", "--set=log.level=debug",
		"--set=networkPolicy.egress=true,metrics.dashboard.enabled=true",
		"--set=metrics.readers[0].name=prometheus,metrics.readers[0].namespace=" + s.namespace}, values...)...)
	stop = s.runManager(s.deployment(release))
	s.create(s.namespace, "upgraded")
	s.succeeded(s.namespace, "installed", "meanwhile", "upgraded")
	s.eventually("a reader is told of the three tasks", func() bool {
		status, text := s.scrape("prometheus")
		return status == http.StatusOK && strings.Contains(text, `teo_prefetch_tasks{reason="Succeeded"} 3`)
	})
	if status, _ := s.scrape(release); status != http.StatusForbidden {
		t.Errorf("who is no reader gets %d from the metrics, want 403", status)
	}
	stop()

	s.helm("rollback", release, "1", "--wait", "--timeout=90s")
	d := s.deployment(release)
	if *d.Spec.Replicas != 2 {
		t.Errorf("%d replicas after the rollback, want 2", *d.Spec.Replicas)
	}
	stop = s.runManager(d)
	s.create(s.namespace, "rolled-back")
	s.succeeded(s.namespace, "installed", "meanwhile", "upgraded", "rolled-back")
	stop()

	s.helm("uninstall", release, "--wait", "--timeout=90s")
	s.succeeded(s.namespace, "installed", "meanwhile", "upgraded", "rolled-back")

	s.helm(append([]string{"install", release, chart, "--set=crds.keep=false"}, values...)...)
	stop = s.runManager(s.deployment(release))
	s.create(s.namespace, "back")
	s.succeeded(s.namespace, "installed", "back")
	stop()
	s.helm("uninstall", release, "--wait", "--timeout=90s")
	s.eventually("the CRD goes with the chart where crds.keep is false", func() bool { return !s.hasCRD() })
}

func TestHelmInstallStopsWhereNoImageIsNamed(t *testing.T) {
	s := newSite(t)
	for _, command := range []string{"install", "template"} {
		out, err := s.command("helm", command, release, "./"+chart)
		if err == nil || !strings.Contains(out, "image.repository must name an image that you have built and pushed") || s.hasCRD() {
			t.Errorf("helm %s says %v\n%s", command, err, out)
		}
	}
}

// The release is in one namespace and its objects in another, where their roles are and
// the Lease is.
func TestAnInstallationInAnotherNamespaceThanTheReleaseWorks(t *testing.T) {
	s := newSite(t)
	t.Cleanup(s.removeCRDs)
	own := *s
	own.namespace = s.newNamespace("platform-")
	own.giveCredentials("teo-credentials", "AKIDdemo", "demo-secret-key")
	values := []string{"--set=namespaceOverride=" + own.namespace, "--set=check.zones={" + zoneID + "}", "--set=edgeone.endpoint=" + s.url}
	s.helm(append([]string{"install", release, chart, "--wait", "--timeout=90s"}, values...)...)
	defer s.helm("uninstall", release, "--wait", "--timeout=90s")
	if said, passed := own.helmTest(release, "--namespace="+s.namespace); !passed || !strings.Contains(said, "zone "+zoneID+" may prefetch") {
		t.Errorf("helm test passes: %t, with\n%s", passed, said)
	}
	stop := own.runManager(own.deployment(release))
	own.create(s.namespace, "served")
	own.succeeded(s.namespace, "served")
	stop()

	all := s.helm(append([]string{"template", release, chart, "--namespace=of-the-release",
		"--set=metrics.serviceMonitor.enabled=true,metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true",
		"--set=metrics.readers[0].name=prometheus,metrics.readers[0].namespace=monitoring",
		"--set=credentials.secretId=AKIDdemo,credentials.secretKey=demo-secret-key"}, values...)...)
	if _, after, found := strings.Cut(all, "of-the-release"); found {
		t.Errorf("the chart puts something into the release's namespace, ahead of %q", after[:min(len(after), 200)])
	}
}

func TestHelmTestSaysWhatIsWrongWithTheCredentials(t *testing.T) {
	s := newSite(t)
	t.Cleanup(s.removeCRDs)
	s.helm("install", release, chart, "--wait", "--timeout=90s", "--set=edgeone.endpoint="+s.url, "--set=check.zone="+zoneID)
	defer s.helm("uninstall", release, "--wait", "--timeout=90s")
	for _, tt := range []struct {
		name          string
		id, key       string // no Secret if empty
		passes        bool
		says, advises string
	}{
		{"none", "", "", false, "FAILED: The operator has no credentials of its own", "Create the Secret"},
		{"another account's", "AKIDtenant", "tenant-secret-key", false, "InvalidParameter.ZoneNotFound", "belongs to the account of these keys"},
		{"with too narrow a policy", "AKIDcreate", "key", false, "UnauthorizedOperation", "Let the sub-account's policy allow"},
		{"an unknown SecretId", "AKIDnobody", "demo-secret-key", false, "AuthFailure.SecretIdNotFound", "correct secretId in the operator's Secret"},
		{"a wrong SecretKey", "AKIDdemo", "wrong", false, "AuthFailure.SignatureFailure", "correct secretKey in the operator's Secret"},
		{"half of a key", "AKIDdemo", "", false, "has no key secretKey", ""},
		{"good ones", "AKIDdemo", "demo-secret-key", true, "zone " + zoneID + " may prefetch 10000 URLs a day", "Ready."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.id != "" {
				s.giveCredentials("teo-credentials", tt.id, tt.key)
			}
			said, passed := s.helmTest(release)
			if passed != tt.passes || !strings.Contains(said, tt.says) || !strings.Contains(said, tt.advises) {
				t.Errorf("helm test passes: %t, want %t, with %q and %q in:\n%s", passed, tt.passes, tt.says, tt.advises, said)
			}
		})
	}
	if n := s.edgeOne.Stats().Calls("CreatePrefetchTask"); n > 0 {
		t.Errorf("the check prefetched: %d calls", n)
	}
}

func TestAnInstallationForSomeNamespacesLeavesTheOthersAlone(t *testing.T) {
	s := newSite(t)
	t.Cleanup(s.removeCRDs)
	served, other := s.newNamespace("served-"), s.newNamespace("other-")
	s.helm("install", release, chart, "--wait", "--timeout=90s", "--set=edgeone.endpoint="+s.url, "--set=watchNamespaces={"+served+"}",
		"--set=credentials.secretId=AKIDdemo,credentials.secretKey=demo-secret-key")
	defer s.helm("uninstall", release, "--wait", "--timeout=90s")
	if said, passed := s.helmTest(release); !passed {
		t.Errorf("helm test fails:\n%s", said)
	}
	s.create(other, "unwatched")
	s.create(served, "watched")
	stop := s.runManager(s.deployment(release))
	s.succeeded(served, "watched")
	stop()
	task := &v1alpha1.PrefetchTask{}
	s.must(s.Get(t.Context(), client.ObjectKey{Namespace: other, Name: "unwatched"}, task))
	if task.Status.ObservedGeneration != -1 || len(task.Status.Conditions) > 0 || s.edgeOne.Executed(good+"unwatched") > 0 {
		t.Errorf("a task in another namespace was touched: %+v", task.Status)
	}

	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: other, Name: "keys"}}
	s.must(s.Create(t.Context(), secret))
	operator := s.as(release)
	s.must(operator.List(t.Context(), &v1alpha1.PrefetchTaskList{}, client.InNamespace(served)))
	// What accounts need: themselves, the labels of namespaces, and the Secrets in the operator's namespace.
	account := &v1alpha1.EdgeOneAccount{ObjectMeta: metav1.ObjectMeta{Name: "main"}}
	account.Spec.Credentials.SecretRef.Name = release + "-credentials"
	s.must(s.Create(t.Context(), account))
	s.must(operator.List(t.Context(), &v1alpha1.EdgeOneAccountList{}))
	s.must(operator.List(t.Context(), &corev1.NamespaceList{}))
	s.must(operator.Get(t.Context(), client.ObjectKey{Namespace: s.namespace, Name: release + "-credentials"}, &corev1.Secret{}))
	account.Status.ObservedGeneration = account.Generation
	s.must(operator.Status().Update(t.Context(), account))
	for name, try := range map[string]func() error{
		"list all tasks": func() error { return operator.List(t.Context(), &v1alpha1.PrefetchTaskList{}) },
		"list the tasks there": func() error {
			return operator.List(t.Context(), &v1alpha1.PrefetchTaskList{}, client.InNamespace(other))
		},
		"write the task's status": func() error { return operator.Status().Update(t.Context(), task) },
		"read a Secret there":     func() error { return operator.Get(t.Context(), client.ObjectKeyFromObject(secret), secret) },
		"read a namespace":        func() error { return operator.Get(t.Context(), client.ObjectKey{Name: other}, &corev1.Namespace{}) },
		"change an account":       func() error { return operator.Update(t.Context(), account) },
		"list Secrets in its own namespace": func() error {
			return operator.List(t.Context(), &corev1.SecretList{}, client.InNamespace(s.namespace))
		},
		"list Secrets where it acts": func() error { return operator.List(t.Context(), &corev1.SecretList{}, client.InNamespace(served)) },
	} {
		if err := try(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want Forbidden", name, err)
		}
	}
}

// Neither release waits for the other's Lease.
func TestTwoReleasesInOneNamespaceBothWork(t *testing.T) {
	s := newSite(t)
	t.Cleanup(s.removeCRDs)
	s.giveCredentials("teo-credentials", "AKIDdemo", "demo-secret-key")
	for i, name := range []string{release, "games"} {
		served := s.newNamespace("served-")
		s.helm("install", name, chart, "--wait", "--timeout=90s", "--set=edgeone.endpoint="+s.url, "--set=watchNamespaces={"+served+"}",
			"--set=extraArgs={--poll-interval=500ms}", fmt.Sprintf("--set=crds.enabled=%t", i == 0))
		defer s.helm("uninstall", name, "--wait", "--timeout=90s")
		stop := s.runManager(s.deployment([]string{release, "games-" + release}[i]))
		defer stop()
		s.create(served, name)
		s.succeeded(served, name)
	}
	for of, want := range map[string]int{"view": 2, "edit": 1, "admin": 1} { // view has one for tasks and one for accounts
		roles := &rbacv1.ClusterRoleList{}
		s.must(s.List(t.Context(), roles, client.MatchingLabels{"rbac.authorization.k8s.io/aggregate-to-" + of: "true", "app.kubernetes.io/name": release}))
		if len(roles.Items) != want {
			t.Errorf("%d roles extend %s, want the %d of the release with the CRDs", len(roles.Items), of, want)
		}
	}
}

// If a new pod ran alongside the old one, two managers would work at the same time. Helm
// has two ways to change a Deployment. They differ in what happens to the API server's
// defaults.
func TestLeaderElectionIsTurnedOffAndOn(t *testing.T) {
	s := newSite(t)
	t.Cleanup(s.removeCRDs)
	for _, way := range []string{"true", "false"} {
		common := []string{release, chart, "--server-side=" + way, "--wait", "--timeout=90s", "--set=replicaCount=1,crds.keep=false"}
		s.helm(append([]string{"install"}, common...)...)
		for _, step := range []struct{ set, surge string }{
			{"leaderElection.enabled=false,log.level=debug", "0"},
			{"leaderElection.enabled=true", "25%"},
		} {
			s.helm(append(append([]string{"upgrade"}, common...), "--set="+step.set)...)
			if rolls := s.deployment(release).Spec.Strategy.RollingUpdate; rolls == nil || rolls.MaxSurge.String() != step.surge {
				t.Errorf("with %s, server-side=%s, it rolls with %+v, want a surge of %s", step.set, way, rolls, step.surge)
			}
		}
		s.helm("uninstall", release, "--wait", "--timeout=90s")
	}
}

// The test uses the values from docs/install.md. Without NO_PROXY the request for the API
// server arrives at the proxy, which proves that the proxy is in use. Go never uses a
// proxy for loopback addresses, so here the API server has another name, which does not
// resolve.
func TestBehindAProxyTheAPIServerIsCalledDirectly(t *testing.T) {
	s := newSite(t)
	s.apiServer = "kubernetes.invalid"
	s.must(s.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: release}}))
	page, err := os.ReadFile(filepath.Join(shared.root, "docs", "install.md"))
	s.must(err)
	_, text, _ := strings.Cut(string(page), "# proxy.yaml\n")
	text, _, found := strings.Cut(text, "```")
	if !found {
		t.Fatal("docs/install.md has no proxy.yaml")
	}
	for _, tt := range []struct {
		values string
		asked  bool
	}{
		{text, false},
		{strings.ReplaceAll(text, "NO_PROXY", "SOMETHING"), true},
	} {
		var mu sync.Mutex
		asked := map[string]bool{}
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			asked[r.Host] = true
			w.WriteHeader(http.StatusBadGateway)
		}))
		t.Cleanup(proxy.Close)
		values := filepath.Join(t.TempDir(), "values.yaml")
		s.must(os.WriteFile(values, []byte(strings.ReplaceAll(tt.values, "http://proxy.example:3128", proxy.URL)), 0o600))
		pod := objects(t, s.helm("template", release, chart, "--values", values, "--show-only=templates/tests/check.yaml",
			"--set=credentials.existingSecret="))["Pod/"+release+"-check"]
		var check corev1.Pod
		s.must(runtime.DefaultUnstructuredConverter.FromUnstructured(pod, &check))
		p := s.process(check.Spec)
		p.Env = append(p.Env, "TENCENTCLOUD_SECRET_ID=AKIDdemo", "TENCENTCLOUD_SECRET_KEY=demo-secret-key")
		s.must(p.Start(t.Context()))
		if err := p.Wait(t.Context()); err == nil {
			t.Errorf("the check passes though nothing can be reached:\n%s", p.Output())
		}
		mu.Lock()
		if !asked["teo.intl.tencentcloudapi.com:443"] || asked["kubernetes.invalid:6443"] != tt.asked {
			t.Errorf("the proxy was asked for %v, want EdgeOne, and the API server: %t, with\n%s\n%s", asked, tt.asked, tt.values, p.Output())
		}
		mu.Unlock()
	}
}

// As described in docs/security.md.
func TestHelmTestPassesWithRolesThatNameSecrets(t *testing.T) {
	s := newSite(t)
	t.Cleanup(s.removeCRDs)
	s.giveCredentials("teo-credentials", "AKIDdemo", "demo-secret-key")
	served := s.newNamespace("served-")
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: served, Name: "operator"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"secrets", "configmaps"}, ResourceNames: []string{"edgeone"}, Verbs: []string{"get"}},
		{APIGroups: []string{"events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
		{APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"prefetchtasks"}, Verbs: []string{"delete", "get", "list", "watch"}},
		{APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"prefetchtasks/status"}, Verbs: []string{"update"}},
	}}
	s.must(s.Create(t.Context(), role))
	s.must(s.Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: served, Name: "operator"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: s.namespace, Name: release}},
	}))
	s.helm("install", release, chart, "--wait", "--timeout=90s", "--set=edgeone.endpoint="+s.url, "--set=watchNamespaces={"+served+"}",
		"--set=rbac.create=false,metrics.secure=false,leaderElection.enabled=false,replicaCount=1,accounts.enabled=false")
	defer s.helm("uninstall", release, "--wait", "--timeout=90s")
	if said, passed := s.helmTest(release); !passed || !strings.Contains(said, "not checked: Which configmaps and secrets") {
		t.Errorf("helm test passes: %t, with\n%s", passed, said)
	}
	role.Rules = role.Rules[:3]
	s.must(s.Update(t.Context(), role))
	if said, passed := s.helmTest(release); passed || !strings.Contains(said, "it lacks get configmaps, get secrets, update prefetchtasks/status") {
		t.Errorf("without the right to write statuses helm test passes: %t, with\n%s", passed, said)
	}
}

func TestWrongValuesAreRefusedWithTheirName(t *testing.T) {
	s := newSite(t)
	for _, tt := range []struct{ set, want string }{
		{"replicas=3", "'replicas' not allowed"},
		{"replicaCount=two", "/replicaCount"},
		{"edgeone.site=japan", "/edgeone/site"},
		{"edgeone.endpoint=http://example.com", "/edgeone/endpoint"},
		{"edgeone.endpoint=https://example.com/path", "/edgeone/endpoint"},
		{"edgeone.qps=0", "/edgeone/qps"},
		{"edgeone.region=x", "'region' not allowed"},
		{"image.digest=latest", "/image/digest"},
		{"image.pullPolicy=Sometimes", "/image/pullPolicy"},
		{"watchNamespaces={a,a}", "/watchNamespaces"},
		{"watchNamespaces={A}", "/watchNamespaces/0"},
		{"watchNamespaces=a", "/watchNamespaces"},
		{"allowPurge={URL,Url}", "/allowPurge/1"},
		{"credentials.secretId=AKID", "/credentials"},
		{"credentials.secretID=AKID", "'secretID' not allowed"},
		{"crds.keep=yes", "/crds/keep"},
		{"metrics.serviceMonitor.interval=30", "/metrics/serviceMonitor/interval"},
		{"leaderElection.enabled=false", "/replicaCount"},
		{"extraArgs={check}", "/extraArgs/0"},
		{"check.zone=example.com", "/check/zone"},
		{"metrics.readers[0].name=prometheus", "namespace"},
		{"resources.limit.memory=1Gi", "'limit' not allowed"},
		{"terminationGracePeriodSeconds=5", "/terminationGracePeriodSeconds"},
		{"log.level=warning", "/log/level"},
		{"namespaceOverride=A", "/namespaceOverride"},
		{"strategy.type=Rolling", "/strategy/type"},
		{"dnsPolicy=Cluster", "/dnsPolicy"},
		{"networkPolicy.egressTo={EdgeOne}", "/networkPolicy/egressTo/0"},
		{"podDisruptionBudget.minAvailable=0", "/podDisruptionBudget/minAvailable"},
		{"podDisruptionBudget.minAvailable=1,podDisruptionBudget.maxUnavailable=1", "set one of them only"},
		{"rbac.aggregateToEdit=no", "/rbac/aggregateToEdit"},
		{"accounts.enabled=off", "/accounts/enabled"},
		{"accounts.policy.enable=true", "'enable' not allowed"},
		{"metrics.enabled=false,metrics.serviceMonitor.enabled=true", "metrics.serviceMonitor.enabled needs metrics.enabled"},
	} {
		t.Run(tt.set, func(t *testing.T) {
			if out, err := s.command("helm", "template", chart, "--set", tt.set); err == nil || !strings.Contains(out, tt.want) {
				t.Errorf("helm says %v, want %q in:\n%s", err, tt.want, out[:min(len(out), 1000)])
			}
		})
	}
}

// For a cluster in which the operator must have no cluster-scoped objects except the CRD.
func TestAnInstallationForSomeNamespacesNeedsNoClusterRole(t *testing.T) {
	s := newSite(t)
	strict := objects(t, s.helm("template", release, chart, "--set=watchNamespaces={shop},metrics.secure=false,rbac.aggregateRoles=false,accounts.enabled=false"))
	for name := range strict {
		if strings.HasPrefix(name, "Cluster") {
			t.Errorf("it installs %s", name)
		}
	}
	if strict["Role/"+release] == nil {
		t.Error("it installs no Role")
	}
}

// Users could not set a value that is missing from the schema. A value that is missing
// from values.yaml is not documented.
func TestTheSchemaKnowsJustTheValuesThatThereAre(t *testing.T) {
	read := func(name string) (all map[string]any) {
		data, err := os.ReadFile(filepath.Join(shared.root, chart, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(data, &all); err != nil {
			t.Fatal(err)
		}
		return all
	}
	var compare func(path string, schema, values map[string]any)
	compare = func(path string, schema, values map[string]any) {
		known, ok := schema["properties"].(map[string]any)
		if !ok {
			return // a map with any keys, or a type of Kubernetes
		}
		if schema["additionalProperties"] != false {
			t.Errorf("%s may have any keys", path)
		}
		for key, sub := range known {
			value, ok := values[key]
			if !ok && key != "global" && path != ".resources" {
				t.Errorf("%s.%s is not in values.yaml", path, key)
			}
			if value, ok := value.(map[string]any); ok && len(value) > 0 {
				compare(path+"."+key, sub.(map[string]any), value)
			}
		}
	}
	compare("", read("values.schema.json"), read("values.yaml"))
}
