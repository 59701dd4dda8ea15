package cli

import (
	"encoding/json"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// TestPlanOfAFileIsWhatApplyMakesOfIt plans manifests and then applies them. The plan has a call if the apply
// changes what the operator has to do.
func TestPlanOfAFileIsWhatApplyMakesOfIt(t *testing.T) {
	const head = "apiVersion: teo.prefetch-operator.io/v1alpha1\nkind: PrefetchTask\nmetadata: {name: home}\nspec: {zoneID: " + zoneID + ", targets: [" + good + "]"
	const purges, plain = head + ", purge: {type: URL}}\n", head + "}\n"
	for way, args := range map[string][]string{
		"kubectl apply":               {"apply", "-f", "-"},
		"kubectl apply --server-side": {"apply", "--server-side", "--field-manager=gitops", "-f", "-"},
		"submit":                      nil,
	} {
		t.Run(way, func(t *testing.T) {
			w := newWorld(t)
			apply := func(manifest string) {
				t.Helper()
				switch {
				case args != nil:
					w.kubectl(manifest, args...)
				case manifest == purges:
					w.runWith(good, "submit", "-", "--name=home", zoneFlag, "--purge=URL").has(t, 0, "home", "")
				default:
					w.runWith(good, "submit", "-", "--name=home", zoneFlag).has(t, 0, "home", "")
				}
			}
			comparePlan := func(manifest string, isChange bool) {
				t.Helper()
				before := w.get("home")
				var result cli.PlanResult
				r := w.runWith(manifest, "plan", "-", "-o", "json")
				if json.Unmarshal([]byte(r.out), &result) != nil || len(result.Tasks) != 1 {
					t.Fatalf("%+v", r)
				}
				apply(manifest)
				after := w.get("home")
				if has := result.Tasks[0].Calls > 0; has != isChange || isChange != taskstate.NeedsCall(after) || isChange != (before.Generation != after.Generation) {
					t.Errorf("planned %+v; the task was\n%+v and is\n%+v", result.Tasks[0], before.Spec, after.Spec)
				}
			}
			apply(purges)
			w.setStatus("home", succeeded)
			comparePlan(purges, false)
			w.run("rerun", "home", "--revision=2", "--yes").has(t, 0, "home", "")
			w.setStatus("home", succeeded)
			comparePlan(purges, false) // the revision stays
			comparePlan(plain, true)   // the manifest before has set purge
			w.setStatus("home", succeeded)
			w.run("suspend", "home").has(t, 0, "home", "")
			comparePlan(plain, false) // it stays suspended
		})
	}
}

// kubectl runs kubectl in the namespace of the test.
func (w *world) kubectl(input string, args ...string) {
	w.t.Helper()
	cmd, err := w.cluster.Kubectl(w.t.Context(), append([]string{"--namespace=" + w.namespace}, args...)...)
	w.must(err)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func TestPlanNeedsNoOtherRightsThanSubmit(t *testing.T) {
	w := newWorld(t)
	user := "submits-" + w.namespace
	w.create(&rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "submitter"},
		Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"prefetchtasks"}, ResourceNames: []string{"home"},
			Verbs: []string{"create", "get", "patch"},
		}},
	}, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "submitter"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "submitter"},
	})
	submitter := rest.CopyConfig(w.cluster.Admin)
	submitter.Impersonate.UserName = user
	run := func(input string, args ...string) result {
		t.Helper()
		r := w.startWith(submitter, input, append(args, "--as="+user)...).wait()
		if r.code != 0 {
			t.Errorf("%q: %+v", args, r)
		}
		return r
	}
	submit := []string{"submit", "-", "--name=home", zoneFlag}
	for range 2 { // a new task, and one that exists
		manifest := run(good, append(submit, "--dry-run=client", "-o", "yaml")...)
		run(manifest.out, "plan", "-")
		run(good, submit...)
	}
}
