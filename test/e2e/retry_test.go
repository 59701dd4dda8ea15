package e2e

import (
	"testing"

	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

// ask requests a retry as a user does.
func (w *world) ask(name, value string) {
	w.t.Helper()
	w.edit(name, func(task *v1alpha1.PrefetchTask) {
		metav1.SetMetaDataAnnotation(&task.ObjectMeta, v1alpha1.RetryAnnotation, value)
	})
}

// executed fails unless EdgeOne executed a URL the given number of times.
func (w *world) executed(u string, times int) {
	w.t.Helper()
	if n := w.edgeOne.Executed(u); n != times {
		w.t.Errorf("EdgeOne executed %s %d times, want %d", u, n, times)
	}
}

func TestARetryAskedForSubmitsAgainOnlyWhatFailed(t *testing.T) {
	w := newWorld(t, config())
	good, broken, refused := good+"a", good+"broken/b", good+"refused/c"
	w.create(w.task("release", good, broken, refused))
	manager := w.manager()
	generation := w.untilFinished("release", v1alpha1.ReasonPartiallyFailed).Generation

	w.edgeOne.SetRules(simulator.Rule{URL: "/refused/", Refuse: "still not"})
	w.ask("release", "1")
	task := w.until("release", "retried and over", func(s v1alpha1.PrefetchTaskStatus) bool {
		return s.LastHandledRetry == "1" && isTrue(s, v1alpha1.ConditionFinished, v1alpha1.ReasonPartiallyFailed)
	})
	w.executed(good, 1)
	w.executed(broken, 2)
	w.executed(refused, 0)
	if got, want := counts(task.Status), "3 submitted, 2 succeeded, 1 failed of 3"; got != want || task.Generation != generation {
		t.Errorf("%s of generation %d, want %s of %d", got, task.Generation, want, generation)
	}

	// A killed manager leaves a retry to its successor. A retry that was handled is not
	// handled again.
	manager.Kill()
	w.edgeOne.SetRules()
	w.ask("release", "2")
	w.manager()
	task = w.untilFinished("release", v1alpha1.ReasonSucceeded)
	w.executed(good, 1)
	w.executed(broken, 2)
	w.executed(refused, 1)
	if len(task.Status.Jobs) != 3 || task.Status.LastHandledRetry != "2" || len(task.Status.FailedTargets) > 0 {
		t.Errorf("the status is %+v", task.Status)
	}
	w.eventually("an Event tells of both retries", func() bool {
		var events eventsv1.EventList
		w.must(w.List(t.Context(), &events, client.InNamespace(w.namespace)))
		n := 0
		for _, e := range events.Items {
			if e.Reason == "Retried" {
				n++
			}
		}
		return n == 2
	})
}
