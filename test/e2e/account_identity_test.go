package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// The operator has no keys. Each account has a role of its own, by the token of the
// operator's ServiceAccount, which the API server has issued.
func TestEachAccountHasARoleOfItsOwn(t *testing.T) {
	t.Parallel()
	const shopRole, topRole = "qcs::cam::uin/100000000001:roleName/shop", "qcs::cam::uin/100000000002:roleName/top"
	w := newWorldIn(t, cluster.ForTest(t, cluster.Options{}), config()) // all managers of a cluster see its accounts
	file, role := w.identityOf("operator")
	role.Lifetime = 12 * time.Second // refreshed after 6 s
	w.edgeOne.SetRole(role)
	w.edgeOne.SetRole(simulator.Role{
		ARN: topRole, Account: "demo", Lifetime: role.Lifetime, Trust: []simulator.Trust{{Caller: operatorRole, ExternalID: "shop-prod"}},
	})
	strict := role
	strict.ARN, strict.Trust = shopRole, []simulator.Trust{{Provider: "cls-e2e", Subjects: []string{"system:serviceaccount:other:operator"}}}
	w.edgeOne.SetRole(strict)
	create := func(name string, credentials v1alpha1.AccountCredentials) {
		w.must(w.Create(t.Context(), &v1alpha1.EdgeOneAccount{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.EdgeOneAccountSpec{
			Credentials: credentials, Namespaces: v1alpha1.NamespaceSet{Names: []v1alpha1.NamespaceName{v1alpha1.NamespaceName(w.namespace)}},
			Zones: []v1alpha1.AccountZone{{ID: zoneID}},
		}}))
	}
	create("main", v1alpha1.AccountCredentials{WebIdentity: v1alpha1.WebIdentity{RoleARN: operatorRole}})
	create("chain", v1alpha1.AccountCredentials{
		WebIdentity: v1alpha1.WebIdentity{RoleARN: operatorRole}, AssumeRole: v1alpha1.AssumeRole{RoleARN: topRole, ExternalID: "shop-prod"},
	})
	create("shop", v1alpha1.AccountCredentials{WebIdentity: v1alpha1.WebIdentity{RoleARN: shopRole, ProviderID: "cls-e2e"}})
	submit := func(account, name string) {
		task := w.task(name, good+name)
		task.Spec.AccountRef.Name = account
		w.create(task)
	}
	submit("shop", "refused")
	w.managerWith([]string{"TENCENTCLOUD_SECRET_ID=", "TENCENTCLOUD_SECRET_KEY=", "TENCENTCLOUD_TOKEN="},
		"--web-identity-token-file="+file, "--role-provider-id=cls-e2e", "--sts-endpoint="+w.url)
	for i := 0; i < 60 && len(w.submitters()) < 6; i++ {
		for _, account := range []string{"main", "chain"} {
			name := fmt.Sprint(account, "-", i)
			submit(account, name)
			w.untilFinished(name, v1alpha1.ReasonSucceeded)
			w.executed(good+name, 1)
		}
	}
	if ids := w.submitters(); len(ids) < 6 || ids[keyID] {
		t.Errorf("calls are signed with %v", ids)
	}
	w.untilAccount("main", "accepted", v1alpha1.ReasonAccepted, operatorRole)
	w.untilAccount("chain", "accepted", v1alpha1.ReasonAccepted, topRole)

	const refused = `EdgeOneAccount "shop", role ` + shopRole + ": STS refused AssumeRoleWithWebIdentity with UnauthorizedOperation"
	task := w.until("refused", "refused by STS", func(s v1alpha1.PrefetchTaskStatus) bool {
		return isTrue(s, v1alpha1.ConditionStalled, v1alpha1.ReasonCredentialsRefused)
	})
	account := w.untilAccount("shop", "refused by STS", v1alpha1.ReasonRoleRefused, "")
	for _, conditions := range [][]metav1.Condition{task.Status.Conditions, account.Status.Conditions} {
		if stalled := meta.FindStatusCondition(conditions, v1alpha1.ConditionStalled); stalled == nil || !strings.HasPrefix(stalled.Message, refused) ||
			!strings.Contains(stalled.Message, "trust policy") {
			t.Errorf("the conditions are %+v, without %q", conditions, refused)
		}
	}
	w.executed(good+"refused", 0)
	role.ARN = shopRole
	w.edgeOne.SetRole(role)
	w.untilFinished("refused", v1alpha1.ReasonSucceeded)
	w.executed(good+"refused", 1)
	w.untilAccount("shop", "accepted", v1alpha1.ReasonAccepted, shopRole)
}

// untilAccount waits until the condition Ready of an account has a reason, and the status
// the principal.
func (w *world) untilAccount(name, what, reason, principal string) *v1alpha1.EdgeOneAccount {
	w.t.Helper()
	account := &v1alpha1.EdgeOneAccount{}
	w.eventually("EdgeOneAccount "+name+" is "+what, func() bool {
		w.must(w.Get(w.t.Context(), client.ObjectKey{Name: name}, account))
		ready := meta.FindStatusCondition(account.Status.Conditions, v1alpha1.ConditionReady)
		return ready != nil && ready.Reason == reason && account.Status.Principal == principal
	})
	return account
}
