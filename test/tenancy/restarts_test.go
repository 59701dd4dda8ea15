package tenancy

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// An operator is killed while EdgeOne holds its answer, and starts again. The tasks of before,
// those that are deleted, and the call in flight count as before: not less, and not twice. What
// the status of the account did not say yet counts only if its task still exists.
func TestABudgetSurvivesKilledOperatorsAndDeletedTasks(t *testing.T) {
	t.Parallel()
	s := newSceneIn(t, cluster.ForTest(t, cluster.Options{})) // no other operator writes the status
	s.must(s.start(t.Context(), []string{s.team}))
	a := s.account("", "{namespaces: {names: [$team]}, limits: {dailyURLs: 10}}")
	gone := a.newTask(s.team, "gone", urls("gone.example", 3)...)
	kept := a.newTask(s.team, "kept", urls("kept.example", 3)...)
	s.createTasks(gone, kept)
	s.until(v1alpha1.ReasonSucceeded, gone, kept)
	s.eventually("the status of the account counts them", func() bool { return a.used() == 6 })
	s.must(s.kube.Delete(t.Context(), gone))
	held := s.edgeOne.HoldAnswer(simulator.Matcher{Action: "CreatePrefetchTask", SecretID: a.key})
	flight := a.newTask(s.team, "flight", urls("flight.example", 3)...)
	s.createTasks(flight)
	s.eventually("the call", func() bool { return held.Waiting() == 1 })
	s.eventually("the status of the account counts the call", func() bool { return a.used() == 9 })
	s.manager.Kill()
	held.Drop()
	rest := a.newTask(s.team, "rest", urls("rest.example", 5)...)
	s.createTasks(rest)
	s.must(s.start(t.Context(), []string{s.team}))
	s.until(v1alpha1.ReasonSucceeded, flight)
	s.holdsBudget(rest)
	if got := a.executed(); got != 10 {
		t.Errorf("EdgeOne executed %d URLs with a budget of 10: %v", got, a.asked())
	}
	s.must(s.manager.Stop(t.Context(), 30*time.Second)) // writes what is used
	s.must(s.kube.Delete(t.Context(), kept))
	s.must(s.kube.Delete(t.Context(), flight))
	s.must(s.start(t.Context(), []string{s.team}))
	again := a.newTask(s.team, "again", urls("again.example", 2)...)
	s.createTasks(again)
	s.until(v1alpha1.ReasonBudget, again, rest)
	if got := a.executed(); got != 10 {
		t.Errorf("after another restart, EdgeOne executed %d URLs with a budget of 10: %v", got, a.asked())
	}
}

// used returns what the status of the account says is used.
func (a *account) used() int {
	a.Helper()
	object := a.object()
	a.must(a.kube.Get(a.Context(), client.ObjectKeyFromObject(object), object))
	return int(ptr.Deref(object.Status.Used, 0))
}

// Two operators without leader election serve the same tasks. Each sees what the other has
// claimed only after a moment, so at most one call exceeds the budget.
func TestTwoOperatorsAtOnceExceedABudgetByOneCallAtMost(t *testing.T) {
	t.Parallel()
	s := newOwnScene(t)
	const budget, size, tasks = 30, 2, 60
	flags := []string{"--max-tasks-per-call=1"}
	s.must(s.start(t.Context(), []string{s.team, s.rival}, flags...))
	second, err := s.newManager(t.Context(), []string{s.team, s.rival}, flags...)
	s.must(err)
	s.must(second.Start(t.Context()))
	t.Cleanup(second.Kill)
	a := s.account("", fmt.Sprintf("{namespaces: {names: [$team, $rival]}, limits: {dailyURLs: %d}}", budget))
	var all []*v1alpha1.PrefetchTask
	for i := range tasks {
		list := []string{fmt.Sprintf("https://a.example/%d/0", i), fmt.Sprintf("https://a.example/%d/1", i)}
		all = append(all, a.newTask([]string{s.team, s.rival}[i%2], fmt.Sprint("task-", i), list...))
	}
	s.createTasks(all...)
	s.eventually("the budget is used up, and the tasks say so", func() bool {
		reasons := s.countReasons(all)
		return reasons[v1alpha1.ReasonBudget]+reasons[v1alpha1.ReasonSucceeded] == tasks && a.executed() >= budget
	})
	if got := a.executed(); got > budget+size {
		t.Errorf("EdgeOne executed %d URLs with a budget of %d and calls of %d", got, budget, size)
	}
	for url, times := range a.asked() {
		if times > 1 {
			t.Errorf("%s was executed %d times", url, times)
		}
	}
	if slices.ContainsFunc(all, isStalled) {
		t.Error("a task is stalled")
	}
}
