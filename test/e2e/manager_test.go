package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

func TestMetricsAreForThoseWhoMayReadThem(t *testing.T) {
	w := newWorld(t, config())
	port, err := cluster.FreePort()
	w.must(err)
	w.manager(fmt.Sprintf("--metrics-bind-address=127.0.0.1:%d", port))
	w.create(w.task("counted", good+"a"))
	w.untilFinished("counted", v1alpha1.ReasonSucceeded)
	clients, err := kubernetes.NewForConfig(shared.cluster.Admin)
	w.must(err)
	token := func(name string) string {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
		w.must(w.Create(t.Context(), account))
		request, err := clients.CoreV1().ServiceAccounts(w.namespace).
			CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		w.must(err)
		return request.Status.Token
	}
	scrape := func(bearer string) (int, string) {
		return cluster.Scrape(t.Context(), fmt.Sprintf("https://127.0.0.1:%d/metrics", port), bearer)
	}
	w.eventually("the endpoint answers, with 401 without a token", func() bool {
		code, _ := scrape("")
		return code == http.StatusUnauthorized
	})
	if code, _ := scrape("forged"); code != http.StatusUnauthorized {
		t.Errorf("with a token of nobody: %d, want 401", code)
	}
	if code, _ := scrape(token("nobody")); code != http.StatusForbidden {
		t.Errorf("without permission: %d, want 403", code)
	}
	var roles rbacv1.ClusterRoleList
	w.must(w.List(t.Context(), &roles))
	reader := slices.IndexFunc(roles.Items, func(r rbacv1.ClusterRole) bool { return strings.HasSuffix(r.Name, "metrics-reader") })
	if reader < 0 {
		t.Fatal("config/rbac has no metrics-reader role")
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: w.namespace},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: w.namespace, Name: "prometheus"}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: roles.Items[reader].Name},
	}
	w.must(w.Create(t.Context(), binding))
	prometheus := token("prometheus")
	w.eventually("the metrics are served", func() bool {
		code, body := scrape(prometheus)
		return code == http.StatusOK && strings.Contains(body, "teo_prefetch_api_calls_total") &&
			strings.Contains(body, `controller_runtime_reconcile_total{controller="submitter"`)
	})
}

// The manager's ServiceAccount has the permissions that the manager needs, and no others.
func TestTheServiceAccountMayDoNoMoreThanItMust(t *testing.T) {
	w := newWorld(t, config())
	cfg, err := shared.cluster.ServiceAccountConfig(t.Context())
	w.must(err)
	cl, err := client.New(cfg, client.Options{Scheme: shared.cluster.Client.Scheme()})
	w.must(err)
	w.create(w.task("mine", good+"a"))
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "keys"}}
	w.must(w.Create(t.Context(), secret))
	configMap := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "list"}}
	account := &v1alpha1.EdgeOneAccount{ObjectMeta: metav1.ObjectMeta{Name: "any"}}
	account.Spec.Credentials.SecretRef.Name = "keys"
	task := w.get("mine")
	for name, try := range map[string]func() error{
		"list Secrets":      func() error { return cl.List(t.Context(), &corev1.SecretList{}) },
		"write a Secret":    func() error { return cl.Update(t.Context(), secret) },
		"create a task":     func() error { return cl.Create(t.Context(), w.task("other", good+"b")) },
		"change a spec":     func() error { return cl.Update(t.Context(), task) },
		"list ConfigMaps":   func() error { return cl.List(t.Context(), &corev1.ConfigMapList{}) },
		"write a ConfigMap": func() error { return cl.Create(t.Context(), configMap) },
		"read a namespace": func() error {
			return cl.Get(t.Context(), client.ObjectKey{Name: w.namespace}, &corev1.Namespace{})
		},
		"create an account":  func() error { return cl.Create(t.Context(), account) },
		"change an account":  func() error { return cl.Update(t.Context(), account) },
		"delete an account":  func() error { return cl.Delete(t.Context(), account) },
		"read cluster roles": func() error { return cl.List(t.Context(), &rbacv1.ClusterRoleList{}) },
	} {
		if err := try(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want Forbidden", name, err)
		}
	}
}

func TestOnlyWatchedNamespacesAreServed(t *testing.T) {
	w, other := newWorldPair(t)
	other.create(other.task("unwatched", good+"b"))
	w.create(w.task("watched", good+"a"))
	w.manager()
	w.untilFinished("watched", v1alpha1.ReasonSucceeded)
	if status := other.get("unwatched").Status; status.ObservedGeneration != -1 || len(status.Conditions) != 0 {
		t.Errorf("a task in another namespace was touched: %+v", status)
	}
	if n := w.edgeOne.Executed(good + "b"); n != 0 {
		t.Errorf("its URL was executed %d times", n)
	}
}
