package controller

import (
	"fmt"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// The rate of writes and Events is bounded, whatever users edit.
func TestEditsInQuickSuccessionCostWritesAndEventsByTime(t *testing.T) {
	for _, c := range []struct {
		name string
		rule simulator.Rule
		edit func(w *calm, key client.ObjectKey, i int)
	}{
		{"revisions", simulator.Rule{}, func(w *calm, key client.ObjectKey, i int) {
			w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Revision = fmt.Sprint(i) })
		}},
		{"revisions that go back and forth", simulator.Rule{}, func(w *calm, key client.ObjectKey, i int) {
			w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Revision = fmt.Sprint(i%2 + 1) })
		}},
		{"retries of what fails again", simulator.Rule{Refuse: "no"}, func(w *calm, key client.ObjectKey, i int) {
			w.server.annotate(key, v1alpha1.RetryAnnotation, fmt.Sprint(i))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inCalm(t, simulator.Config{Rules: []simulator.Rule{c.rule}}, func(t *testing.T, w *calm) {
				w.start()
				key := w.create("default", "a", urls("a", 3))
				w.awaitAll(time.Minute)
				before, calls := len(w.writes[key]), len(w.submissions())
				for i := range 480 {
					c.edit(w, key, i)
					time.Sleep(125 * time.Millisecond)
				}
				time.Sleep(time.Minute)
				w.mu.Lock()
				writes, events := len(w.writes[key])-before, len(w.reported[key])
				w.mu.Unlock()
				if writes > 60 || events > 20 || len(w.submissions())-calls > 20 {
					t.Errorf("480 edits within a minute cost %d writes, %d Events and %d calls", writes, events, len(w.submissions())-calls)
				}
				after := w.server.get(key)
				if c.rule.Refuse == "" && (taskstate.IsNewRun(after) || !taskstate.IsRunOver(after)) || taskstate.IsRetryDue(after) || !taskstate.IsRunOver(after) {
					t.Errorf("what was asked for last is not done: %s", controllertest.Summary(after))
				}
			})
		})
	}
}

// If thousands of tasks wait for the same cause, each status reports it, but only a few Events.
func TestManyStalledTasksAreFewEvents(t *testing.T) {
	inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
		const n = 2000
		w.createMany("shop", n, func(i int, spec *v1alpha1.PrefetchTaskSpec) { spec.CredentialsSecretRef.Name = "missing" })
		other := w.create("other", "one", urls("other", 1), func(spec *v1alpha1.PrefetchTaskSpec) { spec.CredentialsSecretRef.Name = "missing" })
		w.start()
		if !w.await(10*time.Minute, func() bool {
			return w.countTasks(func(task *v1alpha1.PrefetchTask) bool {
				return taskstate.IsStalledFor(task, v1alpha1.ReasonCredentialsMissing)
			}) == n+1
		}) {
			t.Fatal("not all are stalled")
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		events := 0
		for _, reasons := range w.reported {
			events += len(reasons)
		}
		if events > 100 || len(w.reported[other]) != 1 {
			t.Errorf("%d Events of %d tasks, %d of the one in another namespace", events, n+1, len(w.reported[other]))
		}
	})
}
