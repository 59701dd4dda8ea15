package e2e

import (
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// fixtureAccount returns an account for the test's namespace, with the zone and the host of
// the other fixtures.
func (w *world) fixtureAccount(name, secret string, change func(*v1alpha1.EdgeOneAccountSpec)) *v1alpha1.EdgeOneAccount {
	account := &v1alpha1.EdgeOneAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
	account.Spec.Credentials.SecretRef.Name = secret
	account.Spec.Namespaces.Names = []v1alpha1.NamespaceName{v1alpha1.NamespaceName(w.namespace)}
	account.Spec.Zones = []v1alpha1.AccountZone{{ID: zoneID, Hosts: []v1alpha1.HostPattern{"www.example.com"}}}
	if change != nil {
		change(&account.Spec)
	}
	return account
}

// untilFixture waits until a condition of an account has a status and a reason.
func (w *world) untilFixture(name, conditionType string, status metav1.ConditionStatus, reason string) {
	w.t.Helper()
	account := &v1alpha1.EdgeOneAccount{}
	w.eventually(name+" is "+reason, func() bool {
		w.must(w.Get(w.t.Context(), client.ObjectKey{Name: name}, account))
		c := meta.FindStatusCondition(account.Status.Conditions, conditionType)
		return c != nil && c.Status == status && c.Reason == reason
	})
}

// This is TestTheTasksThatTools… for accounts, and for tasks that wait for their account. It
// has a cluster of its own, because all managers of a cluster write the statuses of accounts.
func TestTheAccountsThatToolsAreTestedWithAreThoseThatTheOperatorWrites(t *testing.T) {
	t.Parallel()
	w := newWorldIn(t, cluster.ForTest(t, cluster.Options{}), config())
	for name, secretKey := range map[string]string{"edgeone-main": keyValue, "edgeone-wrong": "a-wrong-secret-key"} {
		w.must(w.Create(t.Context(), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: cluster.Namespace, Name: name},
			StringData: map[string]string{"secretId": keyID, "secretKey": secretKey},
		}))
	}
	type spec = v1alpha1.EdgeOneAccountSpec
	stale := w.fixtureAccount("stale", "edgeone-main", nil)
	for _, account := range []*v1alpha1.EdgeOneAccount{
		w.fixtureAccount("accepted", "edgeone-main", nil), stale,
		w.fixtureAccount("suspended", "edgeone-main", func(s *spec) { s.Suspend = ptr.To(true) }),
		w.fixtureAccount("not-verified", "edgeone-main", func(s *spec) { s.Zones = nil }),
		w.fixtureAccount("credentials-missing", "edgeone-none", nil),
		w.fixtureAccount("credentials-refused", "edgeone-wrong", nil),
		w.fixtureAccount("role-refused", "edgeone-main", func(s *spec) {
			s.Credentials.AssumeRole.RoleARN = "qcs::cam::uin/100000000002:roleName/prefetch"
		}),
		w.fixtureAccount("small", "edgeone-main", func(s *spec) {
			s.Zones, s.Limits.DailyURLs = []v1alpha1.AccountZone{{ID: "zone-3smallquota0"}}, ptr.To(int32(2))
		}),
	} {
		w.must(w.Create(t.Context(), account))
	}
	manager := w.manager("--sts-endpoint=" + w.url)
	for _, name := range []string{"accepted", "stale", "suspended", "small"} {
		w.untilFixture(name, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	}
	w.untilFixture("not-verified", v1alpha1.ConditionReady, metav1.ConditionUnknown, v1alpha1.ReasonNotVerified)
	w.untilFixture("credentials-missing", v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonCredentialsMissing)
	w.untilFixture("credentials-refused", v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonCredentialsRefused)
	w.untilFixture("role-refused", v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonRoleRefused)

	tasks := map[string]string{"not-allowed": "accepted", "account-missing": "nobodys", "account-suspended": "suspended", "budget-held": "small"}
	for name, account := range tasks {
		task := w.task(name, good+name+".html")
		task.Spec.AccountRef.Name = account
		switch name {
		case "not-allowed":
			task.Spec.Targets = append(task.Spec.Targets, "https://shop.example.org/")
		case "budget-held":
			task.Spec.ZoneID = "zone-3smallquota0"
			task.Spec.Targets = []v1alpha1.Target{"https://small.example.net/a.html", "https://small.example.net/b.html", "https://small.example.net/c.html"}
		}
		w.create(task)
	}
	for name, reason := range map[string]string{"not-allowed": v1alpha1.ReasonNotAllowed, "account-missing": v1alpha1.ReasonAccountMissing} {
		w.until(name, "stalled", func(s v1alpha1.PrefetchTaskStatus) bool { return isTrue(s, v1alpha1.ConditionStalled, reason) })
	}
	w.untilReason("account-suspended", v1alpha1.ReasonSuspended)
	w.until("budget-held", "held", func(s v1alpha1.PrefetchTaskStatus) bool {
		return isTrue(s, v1alpha1.ConditionQuotaExceeded, v1alpha1.ReasonBudget) && ptr.Deref(s.Targets.Succeeded, 0) == 2
	})
	manager.Kill()
	w.must(w.Create(t.Context(), w.fixtureAccount("new", "edgeone-main", nil)))
	w.must(w.Get(t.Context(), client.ObjectKeyFromObject(stale), stale))
	stale.Spec.Limits.DailyURLs = ptr.To(int32(1000))
	w.must(w.Update(t.Context(), stale))

	for name := range tasks {
		t.Run(name, func(*testing.T) { w.sameAsFixture(name) })
	}
	for _, name := range []string{"accepted", "credentials-missing", "credentials-refused", "new", "not-verified", "role-refused", "stale", "suspended"} {
		t.Run("account "+name, func(*testing.T) {
			path := filepath.Join(fixtures, "../../EdgeOneAccount/testdata", name+".yaml")
			w.isFile(path, w.fixtureOf("EdgeOneAccount", client.ObjectKey{Name: name}))
		})
	}
}
