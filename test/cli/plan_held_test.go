package cli

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// TestPlanOfATaskThatWaitsForAUserLeavesTheBudgetToOthers plans a suspended and a Stalled task that are older
// than a new one. The budget is one URL.
func TestPlanOfATaskThatWaitsForAUserLeavesTheBudgetToOthers(t *testing.T) {
	w := newWorld(t)
	const group = "apiVersion: teo.prefetch-operator.io/v1alpha1\n"
	const zone = "zone-planheld" // other tests have tasks in the others
	account := group + "kind: EdgeOneAccount\nmetadata: {name: " + w.namespace + "}\nspec:\n  credentials: {secretRef: {name: keys}}\n" +
		"  namespaces: {names: [" + w.namespace + "]}\n  limits: {dailyURLs: 1}\n"
	manifest := func(name, more string) string {
		return group + "kind: PrefetchTask\nmetadata: {name: " + name + "}\nspec: {zoneID: " + zone + ", accountRef: {name: " + w.namespace + "}, targets: [" + good + name + "]" + more + "}\n"
	}
	files := func(tasks ...string) string { return strings.Join(append(tasks, account), "---\n") }
	for _, name := range []string{"suspended", "stalled"} {
		task := w.task(name, good+name)
		task.Spec.ZoneID, task.Spec.AccountRef.Name = zone, w.namespace
		w.create(task)
	}
	w.setStatus("stalled", func(task *v1alpha1.PrefetchTask) {
		meta.SetStatusCondition(&task.Status.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionStalled, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonZoneNotFound, Message: "why", ObservedGeneration: task.Generation,
		})
	})
	w.run("suspend", "suspended", "--yes").has(t, 0, "suspended", "")

	suspended, stalled, waits := manifest("suspended", ", suspend: true"), manifest("stalled", ""), manifest("new", "")
	r := w.runWith(files(waits, suspended), "plan", "-")
	r.has(t, 0, "suspended: not submitted today: 1 of 1 targets: Budget: ", "")
	r.has(t, 0, "suspended: the task is suspended: this is what happens when it is resumed\n", "")
	w.runWith(files(waits), "plan", "-").has(t, 0, "new", "")
	w.runWith(files(stalled), "plan", "-").has(t, 0, "stalled: the task is Stalled (ZoneNotFound), and the plan is what happens when a user has mended it: why\n", "")
	if edited := w.runWith(files(manifest("stalled", ", mode: Edge")), "plan", "-"); strings.Contains(edited.out, "is Stalled") {
		t.Errorf("an edited task: %+v", edited)
	}
}
