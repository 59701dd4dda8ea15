package e2e

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

// rewriteAsFormer rewrites the status of a task as the first version of the operator wrote it.
func (w *world) rewriteAsFormer(name string) {
	w.t.Helper()
	task := w.raw(name)
	status := task.Object["status"].(map[string]any)
	rename := func(in map[string]any, present, former string) {
		if value, ok := in[present]; ok {
			delete(in, present)
			in[former] = value
		}
	}
	rename(status, "refusedPositions", "refusedTargets")
	jobs, _ := status["jobs"].([]any)
	for _, job := range jobs {
		rename(job.(map[string]any), "positions", "targets")
		rename(job.(map[string]any), "retriedPositions", "retried")
	}
	if submission, ok := status["submission"].(map[string]any); ok {
		rename(submission, "positions", "targets")
	}
	w.must(w.Status().Update(w.t.Context(), task))
	if got := w.statusText(name); strings.Contains(got, "ositions") {
		w.t.Fatalf("%s is not rewritten: %s", name, got)
	}
}

// raw returns a task with all fields that the API server returns.
func (w *world) raw(name string) *unstructured.Unstructured {
	w.t.Helper()
	task := &unstructured.Unstructured{}
	task.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("PrefetchTask"))
	w.must(w.Get(w.t.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, task))
	return task
}

func (w *world) statusText(name string) string {
	w.t.Helper()
	return fmt.Sprint(w.raw(name).Object["status"])
}

// A manager starts in a cluster in which the first version of the operator has run. No URL is
// submitted again, no outcome is lost, and claims are settled.
func TestAClusterOfTheFirstVersionIsUpgraded(t *testing.T) {
	c := unhurried()
	c.Rules = append(c.Rules, simulator.Rule{URL: "/slow/", Status: simulator.Never})
	w := newWorld(t, c)
	long := w.task("long", w.urls(600)...) // so long that the cache does not keep the list
	for i := range long.Spec.Targets {
		long.Spec.Targets[i] += v1alpha1.Target("/slow/" + strings.Repeat("x", 60))
	}
	w.create(
		w.task("finished", good+"a", good+"b"), w.task("failed", good+"c", good+"broken/d", good+"refused/e"),
		w.task("retried", good+"f", good+"broken/g"), w.task("running", good+"slow/h", good+"slow/i"), long,
	)
	former := w.manager(unhurriedFlags...)
	w.untilFinished("finished", v1alpha1.ReasonSucceeded)
	w.untilFinished("failed", v1alpha1.ReasonPartiallyFailed)
	w.untilFinished("retried", v1alpha1.ReasonPartiallyFailed)
	w.untilReason("running", v1alpha1.ReasonSubmitted)
	w.untilReason("long", v1alpha1.ReasonSubmitted)
	w.ask("retried", "1")
	w.until("retried", "retried and over", func(s v1alpha1.PrefetchTaskStatus) bool {
		return s.LastHandledRetry == "1" && isTrue(s, v1alpha1.ConditionFinished, v1alpha1.ReasonPartiallyFailed)
	})
	held := w.edgeOne.HoldAnswer(simulator.Matcher{Action: "CreatePrefetchTask", URL: "claimed"})
	defer held.Release()
	w.create(w.task("claimed", good+"claimed/j", good+"claimed/k"))
	w.eventually("EdgeOne has executed the claimed call", func() bool { return w.edgeOne.Executed(good+"claimed/j") == 1 })
	former.Kill()
	held.Release()
	names := []string{"finished", "failed", "retried", "running", "long", "claimed"}
	for _, name := range names {
		w.rewriteAsFormer(name)
	}

	// Users write to the tasks before the new manager does.
	w.edit("running", func(task *v1alpha1.PrefetchTask) { task.Spec.Suspend = ptr.To(true) })
	w.edit("claimed", func(task *v1alpha1.PrefetchTask) { task.Labels = map[string]string{"team": "web"} })
	w.edit("long", func(task *v1alpha1.PrefetchTask) { metav1.SetMetaDataAnnotation(&task.ObjectMeta, "note", "old") })
	untouched := w.get("finished").ResourceVersion

	w.edgeOne.SetRules()
	w.manager(unhurriedFlags...)
	w.untilFinished("claimed", v1alpha1.ReasonSucceeded)
	w.edgeOne.Finish("/slow/", "success", "", "")
	w.untilFinished("running", v1alpha1.ReasonSucceeded)
	w.untilFinished("long", v1alpha1.ReasonSucceeded)
	w.ask("failed", "1")
	w.ask("retried", "2")
	w.untilFinished("failed", v1alpha1.ReasonSucceeded)
	w.untilFinished("retried", v1alpha1.ReasonSucceeded)

	for u, times := range map[string]int{
		"a": 1, "b": 1, "c": 1, "broken/d": 2, "refused/e": 1, "f": 1, "broken/g": 3,
		"slow/h": 1, "slow/i": 1, "claimed/j": 1, "claimed/k": 1,
	} {
		w.executed(good+u, times)
	}
	for _, u := range long.Spec.Targets {
		w.executed(string(u), 1)
	}
	if w.get("finished").ResourceVersion != untouched {
		t.Error("a finished task was written again")
	}
	for _, name := range names[1:] {
		if got := w.statusText(name); !strings.Contains(got, " positions:") || strings.Contains(got, "retried:") ||
			strings.Contains(got, "refusedTargets:") || strings.Count(got, " targets:") != 1 { // status.targets are the counts
			t.Errorf("%s keeps former fields: %s", name, got)
		}
	}
}
