package tenancy

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

// holdsBudget fails unless tasks report the budget as a wait: not stalled, with the time at
// which it ends, and with one Event.
func (s *scene) holdsBudget(tasks ...*v1alpha1.PrefetchTask) {
	s.Helper()
	for _, task := range tasks {
		s.until(v1alpha1.ReasonBudget, task)
		if next := task.Status.NextAttemptTime.Time; isStalled(task) || !isQuotaExceeded(task) || !next.After(time.Now()) || next.After(time.Now().Add(24*time.Hour)) {
			s.Errorf("%s: stalled %v, quota exceeded %v, next attempt %v", task.Name, isStalled(task), isQuotaExceeded(task), next)
		}
		s.hasOneEvent(task, v1alpha1.ReasonBudget)
	}
}

// endsAt returns once nothing more happens with the account: each task has one of these
// reasons, so often, and EdgeOne has executed n URLs.
func (a *account) endsAt(n int, reasons map[string]int, tasks []*v1alpha1.PrefetchTask) {
	a.Helper()
	a.untilReasons(reasons, tasks)
	a.settle()
	a.untilReasons(reasons, tasks)
	if got := a.executed(); got != n {
		a.Errorf("EdgeOne executed %d URLs with the key of %s, want %d: %v", got, a.name, n, a.asked())
	}
}

func TestABudgetCannotBeStretchedByManySmallTasksInManyNamespaces(t *testing.T) {
	s := newScene(t)
	namespaces := []string{s.team, s.rival, s.namespace(), s.namespace()}
	a := s.account("", fmt.Sprintf("{namespaces: {names: [%s, %s, %s, %s]}, limits: {dailyURLs: 5}}", namespaces[0], namespaces[1], namespaces[2], namespaces[3]))
	var tasks []*v1alpha1.PrefetchTask
	for i := range 20 {
		tasks = append(tasks, a.newTask(namespaces[i%4], fmt.Sprint("small-", i), fmt.Sprint("https://a.example/small/", i)))
	}
	s.createTasks(tasks...)
	a.endsAt(5, map[string]int{v1alpha1.ReasonSucceeded: 5, v1alpha1.ReasonBudget: 15}, tasks)
	a.edit(fmt.Sprintf("{namespaces: {names: [%s, %s, %s, %s]}, limits: {dailyURLs: 12}}", namespaces[0], namespaces[1], namespaces[2], namespaces[3]))
	a.endsAt(12, map[string]int{v1alpha1.ReasonSucceeded: 12, v1alpha1.ReasonBudget: 8}, tasks)
}

func TestABigTaskGetsThePartThatTheBudgetLeaves(t *testing.T) {
	s := newScene(t)
	a := s.account("", "{namespaces: {names: [$team]}, limits: {dailyURLs: 7}}")
	task := a.newTask(s.team, "big", urls("a.example", 20)...)
	s.createTasks(task)
	s.holdsBudget(task)
	if got := counts(task); got != "7 submitted, 0 succeeded, 0 failed of 20" && got != "7 submitted, 7 succeeded, 0 failed of 20" {
		t.Error(got)
	}
	a.endsAt(7, map[string]int{v1alpha1.ReasonBudget: 1}, []*v1alpha1.PrefetchTask{task})
	a.edit("{namespaces: {names: [$team]}, limits: {dailyURLs: 19}}")
	s.eventually("12 more", func() bool { return a.executed() == 19 })
	a.endsAt(19, map[string]int{v1alpha1.ReasonBudget: 1}, []*v1alpha1.PrefetchTask{task})
	a.edit("{namespaces: {names: [$team]}}")
	s.until(v1alpha1.ReasonSucceeded, task)
	a.onlyAsked(urls("a.example", 20)...)
}

func TestABudgetCannotBeStretchedByDeletionAndRecreation(t *testing.T) {
	s := newScene(t)
	a := s.account("", "{namespaces: {names: [$team]}, limits: {dailyURLs: 3}}")
	var last *v1alpha1.PrefetchTask
	for i := range 4 {
		last = a.newTask(s.team, "again", "https://a.example/again")
		s.createTasks(last)
		if i < 3 {
			s.until(v1alpha1.ReasonSucceeded, last)
			s.must(s.kube.Delete(t.Context(), last))
		}
	}
	s.holdsBudget(last)
	a.endsAt(3, map[string]int{v1alpha1.ReasonBudget: 1}, []*v1alpha1.PrefetchTask{last})
}

func TestABudgetCannotBeStretchedByRetries(t *testing.T) {
	s := newScene(t)
	s.addRules(simulator.Rule{URL: "/" + s.name + "/broken/", Status: "failed", FailType: "originPullFailed", FailMessage: "The origin did not answer."})
	a := s.account("", "{namespaces: {names: [$team]}, limits: {dailyURLs: 3}}")
	task := a.newTask(s.team, "retried", "https://a.example/"+s.name+"/broken/0", "https://a.example/"+s.name+"/broken/1")
	s.createTasks(task)
	s.until(v1alpha1.ReasonFailed, task)
	s.editTask(task, func(task *v1alpha1.PrefetchTask) {
		metav1.SetMetaDataAnnotation(&task.ObjectMeta, v1alpha1.RetryAnnotation, "1")
	})
	s.holdsBudget(task)
	a.endsAt(3, map[string]int{v1alpha1.ReasonBudget: 1}, []*v1alpha1.PrefetchTask{task})
}

func TestABudgetCannotBeStretchedByRevisions(t *testing.T) {
	s := newScene(t)
	a := s.account("", "{namespaces: {names: [$team]}, limits: {dailyURLs: 5}}")
	task := a.newTask(s.team, "revised", urls("a.example", 2)...)
	s.createTasks(task)
	s.until(v1alpha1.ReasonSucceeded, task)
	for i := range 2 {
		s.editTask(task, func(task *v1alpha1.PrefetchTask) { task.Spec.Revision = fmt.Sprint(i) })
		if i == 0 {
			s.eventually("the new run", func() bool { return a.executed() == 4 })
			s.until(v1alpha1.ReasonSucceeded, task)
		}
	}
	s.holdsBudget(task)
	a.endsAt(5, map[string]int{v1alpha1.ReasonBudget: 1}, []*v1alpha1.PrefetchTask{task})
}

// EdgeOne gets one spelling of a URL per call, and counts it once. So does the budget.
func TestSpellingsOfAURLCountAsOften(t *testing.T) {
	s := newScene(t)
	a := s.account("", "{namespaces: {names: [$team]}, limits: {dailyURLs: 2}}")
	task := a.newTask(s.team, "spelled", "https://a.example/x%2fy", "https://A.example/x%2Fy", "https://a.example:443/x%2Fy", "https://a.example/x%2fy#top")
	s.createTasks(task)
	s.until(v1alpha1.ReasonSucceeded, task)
	other := a.newTask(s.team, "spelled-again", "https://A.EXAMPLE/x%2fy", "https://a.example/x%2Fy")
	s.createTasks(other)
	s.until(v1alpha1.ReasonSucceeded, other)
	last := a.newTask(s.team, "spelled-too-often", "https://a.example/x%2fy")
	s.createTasks(last)
	s.holdsBudget(last)
	a.endsAt(2, map[string]int{v1alpha1.ReasonBudget: 1}, []*v1alpha1.PrefetchTask{last})
}

// EdgeOne counts the URLs that tasks share in a call once, and so does the budget: what is
// left afterwards is the budget less what EdgeOne executed.
func TestURLsThatTasksShareCountOnce(t *testing.T) {
	s := newScene(t)
	a := s.account("", "{namespaces: {names: [$team, $rival]}, limits: {dailyURLs: 20}, suspend: true}")
	var tasks []*v1alpha1.PrefetchTask
	for i := range 10 { // each shares two of its three URLs with its neighbours
		list := []string{fmt.Sprint("https://a.example/", i), fmt.Sprint("https://a.example/", (i+1)%10), "https://a.example/all"}
		tasks = append(tasks, a.newTask([]string{s.team, s.rival}[i%2], fmt.Sprint("sharing-", i), list...))
	}
	s.createTasks(tasks...)
	s.until(v1alpha1.ReasonSuspended, tasks...)
	if isStalled(tasks[0]) {
		t.Error("a task whose account is suspended is stalled")
	}
	a.onlyAsked()
	a.edit("{namespaces: {names: [$team, $rival]}, limits: {dailyURLs: 20}}")
	s.until(v1alpha1.ReasonSucceeded, tasks...)
	used := a.executed()
	if used > 20 {
		t.Errorf("EdgeOne executed %d URLs", used)
	}
	rest := a.newTask(s.team, "rest", urls("rest.example", 30)...)
	s.createTasks(rest)
	s.holdsBudget(rest)
	a.endsAt(20, map[string]int{v1alpha1.ReasonBudget: 1}, []*v1alpha1.PrefetchTask{rest})
}

func TestWhatEdgeOneRefusesIsGivenBack(t *testing.T) {
	s := newScene(t)
	at := "https://a.example/" + s.name
	s.addRules(
		simulator.Rule{URL: "/" + s.name + "/refused/", Refuse: "The resource is not allowed to be prefetched."},
		simulator.Rule{URL: "/" + s.name + "/poison/", Code: "InvalidParameter.Target", Message: "the target is not valid"},
	)
	a := s.account("", "{namespaces: {names: [$team]}, limits: {dailyURLs: 4}}")
	refused := a.newTask(s.team, "refused", at+"/refused/0", at+"/refused/1", at+"/refused/2", at+"/refused/3")
	s.createTasks(refused)
	s.until(v1alpha1.ReasonFailed, refused)
	poisoned := a.newTask(s.team, "poisoned", at+"/poison/0", at+"/poison/1", at+"/poison/2", at+"/good/0")
	s.createTasks(poisoned)
	s.until(v1alpha1.ReasonPartiallyFailed, poisoned)
	rest := a.newTask(s.team, "rest", urls("rest.example", 9)...)
	s.createTasks(rest)
	s.holdsBudget(rest)
	a.endsAt(4, map[string]int{v1alpha1.ReasonBudget: 1}, []*v1alpha1.PrefetchTask{rest})
}

func TestCallsThatFailAreGivenBack(t *testing.T) {
	s := newScene(t)
	a := s.account("", "{namespaces: {names: [$team]}, limits: {dailyURLs: 4}}")
	s.edgeOne.AddFault(simulator.Fault{
		Match:  simulator.Matcher{Action: "CreatePrefetchTask", SecretID: a.key, Count: 3},
		Effect: simulator.Effect{Code: "RequestLimitExceeded", Message: "too many requests"},
	})
	task := a.newTask(s.team, "throttled", urls("a.example", 9)...)
	s.createTasks(task)
	s.eventually("4 URLs", func() bool { return a.executed() == 4 })
	s.holdsBudget(task)
	a.endsAt(4, map[string]int{v1alpha1.ReasonBudget: 1}, []*v1alpha1.PrefetchTask{task})
}

// A call whose answer is lost counts until EdgeOne's history shows whether it was executed.
func TestLostCallsCountUntilTheyAreSettled(t *testing.T) {
	for _, isExecuted := range []bool{true, false} {
		t.Run(fmt.Sprintf("executed %v", isExecuted), func(t *testing.T) {
			s := newScene(t)
			a := s.account("", "{namespaces: {names: [$team, $rival]}, limits: {dailyURLs: 4}}")
			s.edgeOne.AddFault(simulator.Fault{
				Match:  simulator.Matcher{Action: "CreatePrefetchTask", SecretID: a.key, Nth: 1},
				Effect: simulator.Effect{Answer: simulator.ConnectionReset, Executed: isExecuted},
			})
			lost := a.newTask(s.team, "lost", urls("lost.example", 3)...)
			s.createTasks(lost)
			s.eventually("the call", func() bool { return len(a.asked()) > 0 })
			late := a.newTask(s.rival, "late", urls("late.example", 3)...)
			s.createTasks(late)
			s.until(v1alpha1.ReasonSucceeded, lost)
			s.holdsBudget(late)
			a.endsAt(4, map[string]int{v1alpha1.ReasonSucceeded: 1, v1alpha1.ReasonBudget: 1}, []*v1alpha1.PrefetchTask{lost, late})
		})
	}
}

// What a task of another account gives back when its lost call is settled is there for the
// tasks that wait, although the task has left the account.
func TestALostCallOfATaskThatLeftTheAccountIsGivenBack(t *testing.T) {
	s := newScene(t)
	a := s.account("-left", "{namespaces: {names: [$team, $rival]}, limits: {dailyURLs: 3}}")
	b := s.account("-entered", "{namespaces: {names: [$team]}}")
	s.edgeOne.AddFault(simulator.Fault{
		Match:  simulator.Matcher{Action: "CreatePrefetchTask", SecretID: a.key, Nth: 1},
		Effect: simulator.Effect{Answer: simulator.ConnectionReset},
	})
	lost := a.newTask(s.team, "lost", urls("lost.example", 3)...)
	s.createTasks(lost)
	s.eventually("the call", func() bool { return len(a.asked()) == 3 })
	waiting := a.newTask(s.rival, "waiting", urls("waiting.example", 3)...)
	s.createTasks(waiting)
	s.until(v1alpha1.ReasonBudget, waiting)
	s.editTask(lost, func(task *v1alpha1.PrefetchTask) { task.Spec.AccountRef.Name = b.name })
	s.until(v1alpha1.ReasonSucceeded, lost, waiting)
	b.onlyAsked(urls("lost.example", 3)...)
	if got := a.executed(); got != 3 {
		t.Errorf("%d URLs with the budget of 3", got)
	}
}

func TestABudgetCannotBeStretchedByMovingBetweenAccounts(t *testing.T) {
	s := newScene(t)
	a := s.account("-a", "{namespaces: {names: [$team]}, limits: {dailyURLs: 2}}")
	b := s.account("-b", "{namespaces: {names: [$team]}, limits: {dailyURLs: 3}}")
	task := a.newTask(s.team, "moving", urls("a.example", 9)...)
	s.createTasks(task)
	s.holdsBudget(task)
	for _, to := range []*account{b, a, b, a} {
		s.editTask(task, func(task *v1alpha1.PrefetchTask) { task.Spec.AccountRef.Name = to.name })
		s.eventually("the status of the account", func() bool {
			s.read(task)
			return task.Status.ObservedGeneration == task.Generation && ready(task).Reason == v1alpha1.ReasonBudget
		})
	}
	s.settle()
	if a.executed() != 2 || b.executed() != 3 || counts(task)[0] != '5' {
		t.Errorf("executed %d and %d: %s", a.executed(), b.executed(), counts(task))
	}
	all := a.asked()
	for url, times := range b.asked() {
		all[url] += times
	}
	for url, times := range all {
		if times != 1 {
			t.Errorf("%s was executed %d times", url, times)
		}
	}
}

func TestABudgetOfZeroAllowsNothing(t *testing.T) {
	s := newScene(t)
	a := s.account("", "{namespaces: {names: [$team, $rival]}, limits: {dailyURLs: 0}}")
	b := s.account("-each", "{namespaces: {names: [$team, $rival]}, limits: {dailyURLsPerNamespace: 0}}")
	tasks := []*v1alpha1.PrefetchTask{a.newTask(s.team, "zero", urls("a.example", 1)...), b.newTask(s.rival, "zero-each", urls("a.example", 2)...)}
	s.createTasks(tasks...)
	s.holdsBudget(tasks...)
	a.endsAt(0, map[string]int{v1alpha1.ReasonBudget: 2}, tasks)
	a.onlyAsked()
	b.onlyAsked()
}

func TestANamespaceCannotUseTheBudgetOfAnother(t *testing.T) {
	s := newScene(t)
	third := s.namespace()
	a := s.account("", "{namespaces: {names: [$team, $rival, "+third+"]}, limits: {dailyURLs: 10, dailyURLsPerNamespace: 4}}")
	var tasks []*v1alpha1.PrefetchTask
	for i := range 12 {
		tasks = append(tasks, a.newTask(s.team, fmt.Sprint("greedy-", i), fmt.Sprint("https://greedy.example/", i)))
	}
	s.createTasks(tasks...)
	a.endsAt(4, map[string]int{v1alpha1.ReasonSucceeded: 4, v1alpha1.ReasonBudget: 8}, tasks)
	modest := a.newTask(s.rival, "modest", urls("modest.example", 4)...)
	s.createTasks(modest)
	s.until(v1alpha1.ReasonSucceeded, modest)
	last := a.newTask(third, "last", urls("last.example", 4)...)
	s.createTasks(last)
	s.holdsBudget(last)
	a.endsAt(10, map[string]int{v1alpha1.ReasonSucceeded: 5, v1alpha1.ReasonBudget: 9}, append(tasks, modest, last))
}

// Tasks that wait for a budget continue at --quota-reset, and what was used before no longer
// counts.
func TestABudgetReturnsAtTheTimeOfTheReset(t *testing.T) {
	t.Parallel()
	s := newOwnScene(t)
	reset := time.Now().UTC().Add(20 * time.Second).Truncate(time.Minute).Add(time.Minute)
	s.must(s.start(t.Context(), []string{s.team}, "--quota-reset="+reset.Format("15:04")))
	a := s.account("", "{namespaces: {names: [$team]}, limits: {dailyURLs: 3}}")
	task := a.newTask(s.team, "big", urls("a.example", 5)...)
	s.createTasks(task)
	s.holdsBudget(task)
	if next := task.Status.NextAttemptTime.Time; !next.Equal(reset) {
		t.Errorf("the next attempt is at %v, want %v", next, reset)
	}
	if got := a.executed(); got != 3 {
		t.Errorf("%d URLs before the reset", got)
	}
	s.until(v1alpha1.ReasonSucceeded, task)
	a.onlyAsked(urls("a.example", 5)...)
	late := 0
	for _, e := range s.edgeOne.Ledger() {
		if !e.Time.Before(reset) {
			late += len(e.Accepted)
		}
	}
	if late != 2 {
		t.Errorf("%d URLs after the reset, want 2", late)
	}
	more := a.newTask(s.team, "more", urls("more.example", 5)...)
	s.createTasks(more)
	s.holdsBudget(more)
	if got := a.executed(); got != 6 || len(slices.Collect(maps.Keys(a.asked()))) != 6 {
		t.Errorf("%d URLs after the reset with a budget of 3", got-3)
	}
}
