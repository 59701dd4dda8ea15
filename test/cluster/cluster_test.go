package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func TestCluster(t *testing.T) {
	c := ForTest(t, Options{})
	t.Run("the manager may do what it needs and nothing else", func(t *testing.T) { testRBAC(t, c) })
	t.Run("users get their rights through the cluster roles view, edit and admin", func(t *testing.T) { testUserRoles(t, c) })
	t.Run("the platform team writes accounts, and others read them", func(t *testing.T) { testAccountRoles(t, c) })
	t.Run("the Deployment meets the restricted pod security standard", func(t *testing.T) { testPodSecurity(t, c) })
	t.Run("kubectl works with the kubeconfig", func(t *testing.T) { testKubeconfig(t, c) })
	t.Run("data survives the death of etcd and kube-apiserver", func(t *testing.T) { testRestart(t, c) })
}

// may reports whether the user of cfg may do something, according to the API server.
func may(t *testing.T, cfg *rest.Config, attributes authorizationv1.ResourceAttributes) bool {
	t.Helper()
	user, err := client.New(cfg, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	review := &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &attributes},
	}
	if err := user.Create(t.Context(), review); err != nil {
		t.Fatal(err)
	}
	return review.Status.Allowed
}

func testRBAC(t *testing.T, c *Cluster) {
	cfg, err := c.ServiceAccountConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const tasks = "teo.prefetch-operator.io"
	for _, tt := range []struct {
		verbs, group, resource, subresource, namespace string
		want                                           bool
		name                                           string // all objects if empty
	}{
		{"get list watch delete", tasks, "prefetchtasks", "", "shop", true, ""},
		{"create update patch", tasks, "prefetchtasks", "", "shop", false, ""},
		{"update", tasks, "prefetchtasks", "status", "shop", true, ""},
		{"get", "", "secrets", "", "shop", true, ""},
		{"list watch create update delete", "", "secrets", "", "shop", false, ""},
		{"create patch", "events.k8s.io", "events", "", "shop", true, ""},
		{"get list watch", tasks, "edgeoneaccounts", "", "", true, ""},
		{"create update patch delete deletecollection", tasks, "edgeoneaccounts", "", "", false, ""},
		{"update", tasks, "edgeoneaccounts", "status", "", true, ""},
		{"get patch", tasks, "edgeoneaccounts", "status", "", false, ""},
		{"list watch", "", "namespaces", "", "", true, ""},
		{"get create update patch delete", "", "namespaces", "", "", false, ""},
		{"create", "coordination.k8s.io", "leases", "", Namespace, true, ""},
		{"get update", "coordination.k8s.io", "leases", "", Namespace, true, ServiceAccount},
		{"get update list watch patch delete", "coordination.k8s.io", "leases", "", Namespace, false, ""},
		{"get update", "coordination.k8s.io", "leases", "", Namespace, false, "another"},
		{"create get update", "coordination.k8s.io", "leases", "", "shop", false, ""},
		{"create patch", "", "events", "", Namespace, true, ""},
		{"create", "authentication.k8s.io", "tokenreviews", "", "", true, ""},
		{"create", "authorization.k8s.io", "subjectaccessreviews", "", "", true, ""},
	} {
		for verb := range strings.FieldsSeq(tt.verbs) {
			got := may(t, cfg, authorizationv1.ResourceAttributes{
				Verb: verb, Group: tt.group, Resource: tt.resource, Subresource: tt.subresource, Namespace: tt.namespace, Name: tt.name,
			})
			if got != tt.want {
				t.Errorf("%s %s/%s %s %s in %q: got %t, want %t", verb, tt.group, tt.resource, tt.subresource, tt.name, tt.namespace, got, tt.want)
			}
		}
	}
}

func testUserRoles(t *testing.T, c *Cluster) {
	want := map[string]string{"viewer": "get list watch", "editor": "create delete get patch update", "admin": "create delete get"}
	for role, verbs := range want {
		binding := fmt.Sprintf(`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":%q},`+
			`"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":%q},`+
			`"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":%q}]}`,
			role, "teo-prefetch-operator-prefetchtask-"+role, role)
		path := filepath.Join(t.TempDir(), "binding.json")
		if err := os.WriteFile(path, []byte(binding), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := c.Apply(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		cfg := rest.CopyConfig(c.Admin)
		cfg.Impersonate.UserName = role
		attributes := authorizationv1.ResourceAttributes{Group: "teo.prefetch-operator.io", Resource: "prefetchtasks", Namespace: "shop"}
		for verb := range strings.FieldsSeq(verbs) {
			attributes.Verb = verb
			eventually(t, role+" may "+verb, func() bool { return may(t, cfg, attributes) })
		}
		attributes.Verb, attributes.Subresource = "update", "status"
		if may(t, cfg, attributes) {
			t.Errorf("%s may write the status", role)
		}
		attributes = authorizationv1.ResourceAttributes{Group: attributes.Group, Resource: "edgeoneaccounts"}
		for _, verb := range []string{"create", "update", "patch", "delete"} {
			attributes.Verb = verb
			if may(t, cfg, attributes) {
				t.Errorf("%s of tasks may %s accounts", role, verb)
			}
		}
	}
}

// The platform team writes accounts. Everybody with the cluster role view reads them.
func testAccountRoles(t *testing.T, c *Cluster) {
	role := &rbacv1.ClusterRole{}
	for name, want := range map[string]struct{ allowed, denied, aggregated string }{
		"viewer": {"get list watch", "create update patch delete deletecollection", "view"},
		"admin":  {"create delete deletecollection get list patch update watch", "", ""},
	} {
		key := client.ObjectKey{Name: "teo-prefetch-operator-edgeoneaccount-" + name}
		if err := c.Client.Get(t.Context(), key, role); err != nil {
			t.Fatal(err)
		}
		for _, to := range []string{"view", "edit", "admin"} {
			if got := role.Labels["rbac.authorization.k8s.io/aggregate-to-"+to] == "true"; got != (to == want.aggregated) {
				t.Errorf("%s is aggregated to %s: %t", key.Name, to, got)
			}
		}
		cfg := rest.CopyConfig(c.Admin)
		cfg.Impersonate.UserName = "of-accounts-" + name
		if err := c.Client.Create(t.Context(), &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: cfg.Impersonate.UserName},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: key.Name},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: cfg.Impersonate.UserName}},
		}); err != nil {
			t.Fatal(err)
		}
		attributes := authorizationv1.ResourceAttributes{Group: "teo.prefetch-operator.io", Resource: "edgeoneaccounts"}
		for verb := range strings.FieldsSeq(want.allowed) {
			attributes.Verb = verb
			eventually(t, name+" may "+verb, func() bool { return may(t, cfg, attributes) })
		}
		for verb := range strings.FieldsSeq(want.denied) {
			attributes.Verb = verb
			if may(t, cfg, attributes) {
				t.Errorf("%s may %s accounts", name, verb)
			}
		}
		attributes.Verb, attributes.Subresource = "update", "status"
		if may(t, cfg, attributes) {
			t.Errorf("%s may write the status of accounts", name)
		}
	}
}

func testPodSecurity(t *testing.T, c *Cluster) {
	root, err := FindRoot()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(t.Context(), filepath.Join(root, "config/default")); err != nil {
		t.Fatal(err)
	}
	deployment := &appsv1.Deployment{}
	if err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: Namespace, Name: ServiceAccount}, deployment); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "manager-", Namespace: Namespace},
		Spec:       deployment.Spec.Template.Spec,
	}
	if err := c.Client.Create(t.Context(), pod.DeepCopy(), client.DryRunAll); err != nil {
		t.Error(err)
	}
	pod.Spec.SecurityContext.SeccompProfile = nil
	if err := c.Client.Create(t.Context(), pod, client.DryRunAll); !apierrors.IsForbidden(err) {
		t.Errorf("without seccomp profile: got %v, want it refused", err)
	}
}

func testKubeconfig(t *testing.T, c *Cluster) {
	kubectl, err := FindBinary("kubectl")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := WriteKubeconfig(path, c.Admin, Namespace); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), kubectl, "--kubeconfig", path, "get", "serviceaccounts", "-o", "name").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "serviceaccount/"+ServiceAccount) {
		t.Errorf("%v\n%s", err, out)
	}
}

func testRestart(t *testing.T, c *Cluster) {
	ctx := t.Context()
	want := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: "kept"}}
	if err := c.Client.Create(ctx, want); err != nil {
		t.Fatal(err)
	}
	sa, err := c.ServiceAccountConfig(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*Process{c.APIServer, c.Etcd} {
		p.Kill()
		if p.IsRunning() {
			t.Fatalf("%s runs after Kill", p.Name)
		}
		if err := p.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the API server has found etcd again", func() bool {
		return c.Client.Get(ctx, client.ObjectKeyFromObject(want), &corev1.ConfigMap{}) == nil
	})
	if !may(t, sa, authorizationv1.ResourceAttributes{Verb: "get", Resource: "secrets", Namespace: "shop"}) {
		t.Error("a token from before does not work any more")
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(readyPoll) {
		if time.Now().After(deadline) {
			t.Fatalf("not so within 30 s: %s", what)
		}
	}
}

func TestProcess(t *testing.T) {
	shell := func(t *testing.T, script string) *Process {
		p := &Process{Name: "script", Path: "/bin/sh", Args: []string{"-c", script}}
		t.Cleanup(p.Kill)
		return p
	}
	t.Run("output is kept, and passed on", func(t *testing.T) {
		var tee bytes.Buffer
		p := shell(t, "printf 'one\\ntw'; echo o; echo $WORD; printf rest")
		p.Env, p.Tee = []string{"WORD=three"}, &tee
		if err := errors.Join(p.Start(t.Context()), p.Wait(t.Context())); err != nil {
			t.Fatal(err)
		}
		if got, want := p.Output(), "one\ntwo\nthree\nrest"; got != want {
			t.Errorf("kept %q, want %q", got, want)
		}
		if got, want := tee.String(), p.Output(); got != want {
			t.Errorf("passed on %q, want %q", got, want)
		}
	})
	t.Run("one that ends before it is ready says why", func(t *testing.T) {
		p := shell(t, "echo no such flag; exit 3")
		p.ReadyURL = "http://127.0.0.1:1/"
		err := p.Start(t.Context())
		if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such flag") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("one that never gets ready is not left running", func(t *testing.T) {
		p := shell(t, "sleep 600")
		p.ReadyURL = "http://127.0.0.1:1/"
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := p.Start(ctx); !errors.Is(err, context.DeadlineExceeded) || p.IsRunning() {
			t.Errorf("got %v, running %t", err, p.IsRunning())
		}
	})
	t.Run("Stop lets it end in order", func(t *testing.T) {
		p := shell(t, "trap 'echo bye; exit 0' TERM; echo hi; while :; do sleep 0.01; done")
		if err := p.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it runs", func() bool { return strings.Contains(p.Output(), "hi") })
		if err := p.Start(t.Context()); err == nil {
			t.Error("started twice")
		}
		if err := p.Stop(t.Context(), 10*time.Second); err != nil || !strings.Contains(p.Output(), "bye") {
			t.Errorf("got %v, output %q", err, p.Output())
		}
	})
	t.Run("Stop kills one that does not, children included", func(t *testing.T) {
		p := shell(t, "trap '' TERM; sleep 600 & echo $!; while :; do sleep 0.01; done")
		if err := p.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it runs", func() bool { return strings.HasSuffix(p.Output(), "\n") })
		if err := p.Stop(t.Context(), 50*time.Millisecond); err == nil || p.IsRunning() {
			t.Errorf("got %v, running %t", err, p.IsRunning())
		}
		eventually(t, "the child is dead", func() bool { return dead(strings.TrimSpace(p.Output())) })
	})
	t.Run("Stop waits for that run alone, should somebody start it again", func(t *testing.T) {
		p := shell(t, "exec sleep 600")
		if err := p.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		ended, restarted := p.Done(), make(chan error)
		go func() {
			<-ended
			restarted <- p.Start(t.Context())
		}()
		if err := p.Stop(t.Context(), 10*time.Second); err != nil {
			t.Error(err)
		}
		if err := <-restarted; err != nil || !p.IsRunning() {
			t.Errorf("got %v, running %t", err, p.IsRunning())
		}
		p.Kill()
	})
	t.Run("a killed one can be started again", func(t *testing.T) {
		p := shell(t, "exec sleep 600")
		for range 2 {
			if err := p.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			p.Kill()
			var exit *exec.ExitError
			if err := p.Wait(t.Context()); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Errorf("ended with %v", err)
			}
		}
	})
}

// dead reports whether the process has ended. A zombie, which its parent has not reaped
// yet, counts as ended.
func dead(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func TestBuild(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the simulator; skipped with -short")
	}
	path, err := Build(t.Context(), "simulator", "./cmd/simulator")
	if err != nil {
		t.Fatal(err)
	}
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	p := &Process{Name: "simulator", Path: path, Args: []string{"--listen", url[len("http://"):]}, ReadyURL: url + "/_simulator/"}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(t.Context(), 10*time.Second); err != nil {
		t.Error(err)
	}
	if resp, err := http.Get(url); err == nil {
		_ = resp.Body.Close()
		t.Error("it answers after Stop")
	}
}
