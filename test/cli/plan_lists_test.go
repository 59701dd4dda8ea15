package cli

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// TestPlanOfATaskNeedsNoListThatTheOperatorDoesNotNeed plans a task that waits without its ConfigMap, one that
// is finished, and one that has a list.
func TestPlanOfATaskNeedsNoListThatTheOperatorDoesNotNeed(t *testing.T) {
	w := newWorld(t)
	list := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "urls"}, Data: map[string]string{"list": good + "1\n" + good + "2\n"}}
	w.create(list)
	for _, name := range []string{"finished", "listed", "waits"} {
		task := w.task(name)
		task.Spec.ZoneID = "zone-planlists" // other tests have tasks in the others
		task.Labels = map[string]string{"plan": "lists"}
		task.Spec.TargetsFrom.ConfigMapKeyRef = v1alpha1.ConfigMapKeyReference{Name: "urls", Key: "list"}
		if name == "waits" {
			task.Spec.TargetsFrom.ConfigMapKeyRef.Name = "missing"
		}
		w.create(task)
	}
	w.setStatus("finished", func(task *v1alpha1.PrefetchTask) {
		former := taskstate.WithTargets(task, []v1alpha1.Target{good + "old"})
		taskstate.StartFromHistory(nil, metav1.Now().Time)(former)
		succeeded(former)
		task.Status = former.Status
	})
	const want = `NAMESPACE   TASK       ZONE             TARGETS   KEPT   URLS   LEFT TODAY   CALLS   PURGE CALLS   NOT TODAY
NS   finished   zone-planlists   1         1      0      unknown      0       0             0
NS   listed     zone-planlists   2         0      2      unknown      1       0             0
NS   waits      zone-planlists   0         0      0      unknown      0       0             0
waits: not submitted today: TargetsMissing: the ConfigMap "missing" of task waits does not exist: create it, or correct spec.targetsFrom
`
	r := w.run("plan", "-l", "plan=lists")
	if got := strings.ReplaceAll(r.out, w.namespace, "NS"); got != want || r.code != 3 {
		t.Errorf("exit code %d, standard output:\n%s\nstandard error:\n%s", r.code, got, r.err)
	}
}

func TestPlanTakesAccountsAndListsOfTheFiles(t *testing.T) {
	w := newWorld(t)
	const group = "apiVersion: teo.prefetch-operator.io/v1alpha1\n"
	account := group + "kind: EdgeOneAccount\nmetadata: {name: " + w.namespace + "}\nspec:\n  credentials: {secretRef: {name: keys}}\n" +
		"  namespaces: {names: [" + w.namespace + "]}\n  zones: [{id: zone-planfiles}]\n  limits: {dailyURLs: 1}\n"
	task := group + "kind: PrefetchTask\nmetadata: {name: home}\nspec: {zoneID: zone-planfiles, accountRef: {name: " + w.namespace + "}, targets: [" + good + "1, " + good + "2]}\n"
	const list = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: urls}\ndata: {list: " + good + "1}\n"
	const other = "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\n"

	r := w.runWith(strings.Join([]string{account, task, other}, "---\n"), "plan", "-")
	r.has(t, 3, "home: not submitted today: 1 of 2 targets: Budget: ", "Note: objects of other kinds, which are not planned: 1, for example Secret keys\n")
	r.has(t, 3, "home", "Note: the cluster does not have EdgeOneAccount \""+w.namespace+"\" yet: ")
	w.runWith(strings.Replace(task, "v1alpha1", "v1", 1), "plan", "-").has(t, 1, "", "PrefetchTask home has the apiVersion teo.prefetch-operator.io/v1: use teo.prefetch-operator.io/v1alpha1\n")

	w.runWith(list, "plan", "-").has(t, 1, "", "the files have no PrefetchTask, and no ConfigMap with the list of one\n")
	user := w.task("user")
	user.Spec.TargetsFrom.ConfigMapKeyRef = v1alpha1.ConfigMapKeyReference{Name: "urls", Key: "list"}
	w.create(user)
	w.runWith(list, "plan", "-", "-o", "json").has(t, 0, `"targets": 1,`, "")
	w.runWith(task+"---\n"+list, "plan", "-", "-o", "json").has(t, 3, `"name": "user"`, "")
}
