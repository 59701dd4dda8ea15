package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

const (
	operatorRole = "qcs::cam::uin/100000000001:roleName/prefetch"
	stsAudience  = "sts.cloud.tencent.com"
)

// identityOf registers the API server as an identity provider, and returns a file with a
// token of a new ServiceAccount and the role that only this ServiceAccount may assume.
func (w *world) identityOf(account string) (file string, role simulator.Role) {
	w.t.Helper()
	clients, err := kubernetes.NewForConfig(w.cluster.Admin)
	w.must(err)
	w.must(w.Create(w.t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: account}}))
	request, err := clients.CoreV1().ServiceAccounts(w.namespace).CreateToken(w.t.Context(), account,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{stsAudience}}}, metav1.CreateOptions{})
	w.must(err)
	keys, err := clients.RESTClient().Get().AbsPath("/openid/v1/jwks").DoRaw(w.t.Context())
	w.must(err)
	w.edgeOne.SetIdentityProvider(simulator.IdentityProvider{
		ID: "cls-e2e", Account: "demo", Issuer: "https://kubernetes.default.svc", ClientIDs: []string{stsAudience}, JWKS: keys,
	})
	file = filepath.Join(w.t.TempDir(), "token")
	w.must(os.WriteFile(file, []byte(request.Status.Token), 0o600))
	return file, simulator.Role{ARN: operatorRole, Account: "demo", Trust: []simulator.Trust{{
		Provider: "cls-e2e", Subjects: []string{"system:serviceaccount:" + w.namespace + ":" + account}, Audiences: []string{stsAudience},
	}}}
}

// tkeEnvironment is what TKE's webhook sets in a pod.
func tkeEnvironment(file string) []string {
	return []string{
		"TENCENTCLOUD_SECRET_ID=", "TENCENTCLOUD_SECRET_KEY=", "TENCENTCLOUD_TOKEN=",
		"TKE_ROLE_ARN=" + operatorRole, "TKE_PROVIDER_ID=cls-e2e", "TKE_WEB_IDENTITY_TOKEN_FILE=" + file,
	}
}

// submitters returns the SecretIds that have signed accepted calls of CreatePrefetchTask.
func (w *world) submitters() map[string]bool {
	ids := map[string]bool{}
	for _, call := range w.edgeOne.Calls() {
		if call.Action == "CreatePrefetchTask" && call.Outcome == "OK" {
			ids[call.SecretID] = true
		}
	}
	return ids
}

func TestAServiceAccountsTokenReplacesKeys(t *testing.T) {
	w := newWorld(t, config())
	file, role := w.identityOf("operator")
	role.Lifetime = 12 * time.Second // refreshed after 6 s
	w.edgeOne.SetRole(role)
	w.managerWith(tkeEnvironment(file), "--sts-endpoint="+w.url)
	// Each task takes about a second, so the keys are refreshed several times meanwhile.
	for i := 0; i < 60 && len(w.submitters()) < 3; i++ {
		name := fmt.Sprint("task-", i)
		w.create(w.task(name, good+name))
		w.untilFinished(name, v1alpha1.ReasonSucceeded)
		w.executed(good+name, 1)
	}
	ids := w.submitters()
	if len(ids) < 3 || ids[keyID] {
		t.Errorf("calls are signed with %v", ids)
	}
	for _, call := range w.edgeOne.Calls() {
		if call.Outcome != "OK" {
			t.Errorf("%s failed: %s", call.Action, call.Outcome)
		}
	}
}

func TestAServiceAccountThatTheRoleDoesNotTrustIsRefusedUntilItDoes(t *testing.T) {
	w := newWorld(t, config())
	file, trusting := w.identityOf("operator")
	strict := trusting
	strict.Trust = []simulator.Trust{{Provider: "cls-e2e", Subjects: []string{"system:serviceaccount:other:operator"}}}
	w.edgeOne.SetRole(strict)
	w.create(w.task("refused", good+"refused-role"))
	w.managerWith(tkeEnvironment(file), "--sts-endpoint="+w.url)
	task := w.until("refused", "refused by STS", func(s v1alpha1.PrefetchTaskStatus) bool {
		return isTrue(s, v1alpha1.ConditionStalled, v1alpha1.ReasonCredentialsRefused)
	})
	for _, condition := range task.Status.Conditions {
		if text := "STS refused AssumeRoleWithWebIdentity with UnauthorizedOperation"; condition.Type == v1alpha1.ConditionStalled && !strings.Contains(condition.Message, text) {
			t.Errorf("the message is %q, without %q", condition.Message, text)
		}
	}
	w.executed(good+"refused-role", 0)
	w.edgeOne.SetRole(trusting)
	w.untilFinished("refused", v1alpha1.ReasonSucceeded)
	w.executed(good+"refused-role", 1)
}
