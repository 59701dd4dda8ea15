package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// account returns an EdgeOneAccount for the world's namespace. Edit it before create.
func (w *world) account(name string, credentials v1alpha1.AccountCredentials) *v1alpha1.EdgeOneAccount {
	return &v1alpha1.EdgeOneAccount{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.EdgeOneAccountSpec{
		Credentials: credentials,
		Namespaces:  v1alpha1.NamespaceSet{Names: []v1alpha1.NamespaceName{v1alpha1.NamespaceName(w.namespace)}},
		Zones:       []v1alpha1.AccountZone{{ID: zoneID}},
		Limits:      v1alpha1.AccountLimits{DailyURLs: ptr.To[int32](100)},
	}}
}

// setSecret writes a Secret in the operator's namespace.
func (w *world) setSecret(name, key string) {
	w.t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: cluster.Namespace, Name: name}}
	w.must(client.IgnoreNotFound(w.Delete(w.t.Context(), secret)))
	secret.StringData = map[string]string{"secretId": keyID, "secretKey": key}
	w.must(w.Create(w.t.Context(), secret))
}

// untilAccountSays waits until a condition of an account has a status, a reason and a text. The
// account must be in its first generation: nobody touches it.
func (w *world) untilAccountSays(name, conditionType string, status metav1.ConditionStatus, reason, text string) *v1alpha1.EdgeOneAccount {
	w.t.Helper()
	account := &v1alpha1.EdgeOneAccount{}
	var got *metav1.Condition
	defer func() {
		if w.t.Failed() {
			w.t.Logf("the account's status is %+v", account.Status)
		}
	}()
	w.eventually(name+" says "+reason+" in "+conditionType, func() bool {
		w.must(w.Get(w.t.Context(), client.ObjectKey{Name: name}, account))
		got = meta.FindStatusCondition(account.Status.Conditions, conditionType)
		return got != nil && got.Status == status && got.Reason == reason && strings.Contains(got.Message, text)
	})
	if account.Generation != 1 || account.Status.ObservedGeneration != 1 || got.ObservedGeneration != 1 {
		w.t.Errorf("the status is about generation %d of %d", account.Status.ObservedGeneration, account.Generation)
	}
	return account
}

// The test has a cluster of its own, because all managers of a cluster see the same accounts.
// Each account heals without a touch.
func TestAccountsSayWhetherEdgeOneAcceptsThem(t *testing.T) {
	t.Parallel()
	w := newWorldIn(t, cluster.ForTest(t, cluster.Options{}), config())
	file, role := w.identityOf("operator")
	flags := []string{"--sts-endpoint=" + w.url, "--web-identity-token-file=" + file}
	w.roleHeals(file, role, w.manager(flags...))
	w.secretHeals(w.manager(flags...), flags)
}

// secretHeals goes through the problems of an account with a Secret, and checks that what is
// used survives the task and the process.
func (w *world) secretHeals(manager *cluster.Process, flags []string) {
	t := w.t
	w.must(w.Create(t.Context(), w.account("main", v1alpha1.AccountCredentials{SecretRef: v1alpha1.AccountSecretReference{Name: "edgeone-main"}})))
	ready, stalled := v1alpha1.ConditionReady, v1alpha1.ConditionStalled
	w.untilAccountSays("main", ready, metav1.ConditionFalse, v1alpha1.ReasonCredentialsMissing, `Secret "edgeone-main" does not exist in namespace "teo-prefetch-system"`)
	w.untilAccountSays("main", stalled, metav1.ConditionTrue, v1alpha1.ReasonCredentialsMissing, "Create it with the keys secretId and secretKey")
	w.setSecret("edgeone-main", "wrong")
	w.untilAccountSays("main", ready, metav1.ConditionFalse, v1alpha1.ReasonCredentialsRefused, "AuthFailure.SignatureFailure")
	w.untilAccountSays("main", stalled, metav1.ConditionTrue, v1alpha1.ReasonCredentialsRefused, "Replace the secretId and secretKey")
	w.setSecret("edgeone-main", keyValue)
	account := w.untilAccountSays("main", ready, metav1.ConditionTrue, v1alpha1.ReasonAccepted, "EdgeOne accepts the credentials")
	if meta.FindStatusCondition(account.Status.Conditions, stalled) != nil {
		t.Error("the account is still stalled")
	}
	w.eventually("Events of each change", func() bool {
		var events eventsv1.EventList
		w.must(w.List(t.Context(), &events, client.InNamespace(metav1.NamespaceDefault)))
		reasons := map[string]string{}
		for _, event := range events.Items {
			if event.Regarding.Kind == "EdgeOneAccount" && event.Regarding.Name == "main" {
				reasons[event.Reason] = event.Type
			}
		}
		return reasons["CredentialsMissing"] == "Warning" && reasons["CredentialsRefused"] == "Warning" && reasons["Accepted"] == "Normal"
	})

	task := w.task("launch", good+"launch-1", good+"launch-2")
	task.Spec.AccountRef.Name = "main"
	w.create(task)
	w.untilFinished("launch", v1alpha1.ReasonSucceeded)
	w.remove("launch") // what it used stays used
	w.eventually("the task is gone", func() bool { return len(w.list()) == 0 })
	w.must(manager.Stop(t.Context(), 30*time.Second))
	w.saysUsed(2)
	w.manager(flags...)
	task = w.task("again", good+"again")
	task.Spec.AccountRef.Name = "main"
	w.create(task)
	w.untilFinished("again", v1alpha1.ReasonSucceeded)
	w.eventually("3 URLs are used", func() bool {
		w.must(w.Get(t.Context(), client.ObjectKeyFromObject(account), account))
		return ptr.Deref(account.Status.Used, 0) == 3
	})
	w.saysUsed(3)
	kubectl, err := w.cluster.Kubectl(t.Context(), "get", "eoa", "main")
	w.must(err)
	out, err := kubectl.CombinedOutput()
	w.must(err)
	lines := strings.Split(string(out), "\n")
	for i, want := range []string{"NAME READY REASON PRINCIPAL USED LEFT AGE", "main True Accepted AKIDdemo 3 97"} {
		if got := strings.Join(strings.Fields(lines[i]), " "); !strings.HasPrefix(got, want) {
			t.Errorf("kubectl says %q, want %q", got, want)
		}
	}
}

// saysUsed checks that the status of the account main says that this many URLs are used.
func (w *world) saysUsed(urls int32) {
	w.t.Helper()
	account := &v1alpha1.EdgeOneAccount{}
	w.must(w.Get(w.t.Context(), client.ObjectKey{Name: "main"}, account))
	status := account.Status
	if ptr.Deref(status.Used, -1) != urls || ptr.Deref(status.Left, -1) != 100-urls ||
		len(status.Zones) != 1 || ptr.Deref(status.Zones[0].Used, -1) != urls || ptr.Deref(status.Zones[0].Left, 0) == 0 ||
		len(status.Namespaces) != 1 || status.Namespaces[0].Name != w.namespace || ptr.Deref(status.Namespaces[0].Used, -1) != urls {
		w.t.Errorf("the status says %+v, want %d URLs used", status, urls)
	}
}

// roleHeals goes through the problems of an account with a role, and stops the manager.
func (w *world) roleHeals(file string, role simulator.Role, manager *cluster.Process) {
	t := w.t
	token, err := os.ReadFile(file)
	w.must(err)
	w.must(os.Remove(file))
	trusting := role.Trust
	role.Trust = []simulator.Trust{{Provider: "cls-e2e", Subjects: []string{"system:serviceaccount:other:operator"}}}
	w.edgeOne.SetRole(role)
	w.must(w.Create(t.Context(), w.account("role", v1alpha1.AccountCredentials{WebIdentity: v1alpha1.WebIdentity{RoleARN: operatorRole, ProviderID: "cls-e2e"}})))
	task := w.task("launch", good+"role-launch")
	task.Spec.AccountRef.Name = "role"
	w.create(task)
	ready, stalled := v1alpha1.ConditionReady, v1alpha1.ConditionStalled
	w.untilAccountSays("role", ready, metav1.ConditionFalse, v1alpha1.ReasonCredentialsMissing, "no web identity token")
	w.must(os.WriteFile(file, nil, 0o600))
	w.untilAccountSays("role", stalled, metav1.ConditionTrue, v1alpha1.ReasonCredentialsMissing, "is empty")
	w.must(os.WriteFile(file, token[:len(token)/2], 0o600))
	w.untilAccountSays("role", stalled, metav1.ConditionTrue, v1alpha1.ReasonRoleRefused, "InvalidParameter.WebIdentityTokenError")
	w.must(os.WriteFile(file, token, 0o600))
	w.untilAccountSays("role", stalled, metav1.ConditionTrue, v1alpha1.ReasonRoleRefused, "STS refused AssumeRoleWithWebIdentity with UnauthorizedOperation")
	w.untilReason("launch", v1alpha1.ReasonCredentialsRefused)
	role.Trust = trusting
	w.edgeOne.SetRole(role)
	account := w.untilAccountSays("role", ready, metav1.ConditionTrue, v1alpha1.ReasonAccepted, "EdgeOne accepts the credentials")
	if account.Status.Principal != operatorRole || meta.FindStatusCondition(account.Status.Conditions, stalled) != nil {
		t.Errorf("the status is %+v", account.Status)
	}
	w.untilFinished("launch", v1alpha1.ReasonSucceeded)
	w.once(good + "role-launch")
	w.remove("launch")
	w.eventually("the task is gone", func() bool { return len(w.list()) == 0 })
	w.must(manager.Stop(t.Context(), 30*time.Second))
}
