package e2e

import (
	"testing"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

func TestTasksThatAreOverAreDeletedInTimeUnlessTheyWouldBeMadeAgain(t *testing.T) {
	w := newWorld(t, config())
	add := func(name string, ttl int32, annotations map[string]string) {
		task := w.task(name, good+name)
		task.Spec.TTLSecondsAfterFinished, task.Annotations = ttl, annotations
		w.create(task)
	}
	tracked := map[string]string{"argocd.argoproj.io/tracking-id": "shop:teo.prefetch-operator.io/PrefetchTask:shop/tracked"}
	hook := map[string]string{"argocd.argoproj.io/tracking-id": "shop:teo.prefetch-operator.io/PrefetchTask:shop/hook", "argocd.argoproj.io/hook": "PostSync"}
	add("tracked", 60, tracked)
	add("kept", 0, nil)
	add("long", 3600, nil)
	add("short", 60, nil)
	add("hook", 60, hook)
	manager := w.manager()
	for _, task := range w.list() {
		w.untilFinished(task.Name, v1alpha1.ReasonSucceeded)
	}
	manager.Kill()
	for _, task := range w.list() { // time passes while no manager runs
		task.Status.CompletionTime = metav1.NewTime(time.Now().Add(-2 * time.Minute))
		w.must(w.Status().Update(t.Context(), &task))
	}
	w.manager()
	w.eventually("what is over is deleted", func() bool {
		for _, name := range []string{"short", "hook"} {
			err := w.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, &v1alpha1.PrefetchTask{})
			if !apierrors.IsNotFound(err) {
				return false
			}
		}
		return true
	})
	w.create(w.task("later", good+"later")) // once it has finished, everything that expired before has been deleted
	w.untilFinished("later", v1alpha1.ReasonSucceeded)
	for _, name := range []string{"tracked", "kept", "long"} {
		w.get(name)
		w.once(good + name)
	}
	var events eventsv1.EventList
	w.must(w.List(t.Context(), &events, client.InNamespace(w.namespace)))
	told := map[string]int{}
	for _, e := range events.Items {
		if e.Reason == "NotDeleted" {
			told[e.Regarding.Name]++
		}
	}
	if len(told) != 1 || told["tracked"] != 1 {
		t.Errorf("told why they are not deleted: %v", told)
	}
}
