package queue

import (
	"fmt"
	"testing"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate/taskstatetest"
)

// statuses returns the waiting statuses that are due, by task.
func (w *world) statuses() map[string]taskstate.WaitingStatus {
	due := map[string]taskstate.WaitingStatus{}
	notes, _ := w.q.WaitingStatuses(100, w.now)
	for _, note := range notes {
		due[note.Task.Name] = note
	}
	return due
}

func TestATaskThatItsAccountDoesNotAllowSaysSoAtOnceAndHealsUntouched(t *testing.T) {
	w := newWorld(t)
	a := w.useAccount("good")
	w.set(taskstatetest.NewTask("bad/a", taskstatetest.ListURLs("a", 1)...), taskstatetest.NewTask("good/b", taskstatetest.ListURLs("b", 1)...))
	if s := w.statuses()["a"]; s.Reason != v1alpha1.ReasonNotAllowed || !s.Stalled || s.Quota {
		t.Errorf("%+v", s)
	}
	w.answer(w.expect(w.next(), "good/b"))
	w.none()
	a.allowed["bad"] = true
	w.q.Readmit("", w.now)
	w.answer(w.expect(w.next(), "bad/a"))
	w.none()
}

// Namespaces may change their labels often, and a hundred thousand tasks of others may wait.
func TestTheLabelsOfANamespaceConcernOnlyItsOwnTasks(t *testing.T) {
	w := newWorld(t)
	w.readQuotaFirst()
	a := w.useAccount()
	for _, name := range []string{"a/1", "b/2", "b/3"} {
		w.set(taskstatetest.NewTask(name, taskstatetest.ListURLs(name, 1)...))
	}
	asked := map[string]int{}
	w.q.limits.Admit = func(task *v1alpha1.PrefetchTask) taskstate.Admission {
		asked[task.Namespace]++
		return a.admit(task)
	}
	if w.q.Readmit("a", w.now) || asked["b"] > 0 || asked["a"] == 0 {
		t.Errorf("nothing has changed, and %v are asked for", asked)
	}
	a.allowed["a"], a.allowed["b"] = true, true
	if !w.q.Readmit("a", w.now) || asked["b"] > 0 {
		t.Errorf("its tasks are allowed now, and %v are asked for", asked)
	}
	w.answer(w.expect(w.next(), "a/1"))
	w.none()
	w.q.Readmit("", w.now)
	w.expect(w.next(), "b/2 b/3")
}

func TestATaskThatIsNoLongerAllowedLeavesTheQueue(t *testing.T) {
	w := newWorld(t)
	w.q.limits.Batch = 200
	w.readQuotaFirst()
	a := w.useAccount("a", "b")
	w.set(taskstatetest.NewTask("a/1", taskstatetest.ListURLs("a", 300)...), taskstatetest.NewTask("b/2", taskstatetest.ListURLs("b", 1)...))
	call := w.expect(w.next(), "a/1")
	a.allowed["a"] = false
	w.q.Readmit("", w.now)
	w.answer(call) // the caller asks again before it sends a call
	w.answer(w.expect(w.next(), "b/2"))
	w.none()
	if s := w.statuses()["1"]; s.Reason != v1alpha1.ReasonNotAllowed || !s.Stalled {
		t.Errorf("%+v", s)
	}
}

// An edit of the task, or the outcomes of its earlier calls, must not leave a status that does
// not say why the task waits.
func TestATaskThatIsNotAllowedSaysSoAgainAfterAnEdit(t *testing.T) {
	w := newWorld(t)
	w.useAccount()
	w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 1)...))
	note := w.statuses()["a"]
	w.edit("a", func(task *v1alpha1.PrefetchTask) { taskstate.ReportWaiting(note, w.now)(task) })
	if due := w.statuses(); len(due) > 0 {
		t.Errorf("the status already says so, and %+v is due", due)
	}
	w.edit("a", func(task *v1alpha1.PrefetchTask) { task.Generation++ })
	if s := w.statuses()["a"]; s.Reason != v1alpha1.ReasonNotAllowed || !s.Stalled {
		t.Errorf("after an edit, %+v is due", s)
	}
}

// Users often apply an account together with its tasks.
func TestAMissingAccountStallsItsTasksAfterAWhile(t *testing.T) {
	w := newWorld(t)
	missing := taskstate.Cause{Reason: v1alpha1.ReasonAccountMissing, Message: "missing", NeedsUser: true}
	w.q.limits.Admit = func(*v1alpha1.PrefetchTask) taskstate.Admission { return taskstate.Admission{Cause: missing} }
	w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 1)...))
	if s := w.statuses()["a"]; s.Reason != missing.Reason || s.Stalled {
		t.Errorf("at once: %+v", s)
	}
	w.now = w.now.Add(w.q.limits.StallAfter - time.Second)
	w.none()
	if s := w.statuses()["a"]; s.Task != nil {
		t.Errorf("again: %+v", s)
	}
	w.now = w.now.Add(time.Second)
	w.none()
	if s := w.statuses()["a"]; s.Reason != missing.Reason || !s.Stalled {
		t.Errorf("later: %+v", s)
	}
}

// The URLs of a planned call count twice while its claims are written.
func TestATaskThatWaitsForThePlannedCallsOfOthersDoesNotSayThatTheBudgetIsUsedUp(t *testing.T) {
	w := newWorld(t)
	w.readQuotaFirst()
	a := w.useAccount("a", "b")
	a.budget = 80
	w.set(taskstatetest.NewTask("a/1", taskstatetest.ListURLs("a", 40)...))
	call := w.expect(w.next(), "a/1")
	a.used = 40 // the claim is written
	w.set(taskstatetest.NewTask("b/2", taskstatetest.ListURLs("b", 40)...))
	w.edit("b/2", func(task *v1alpha1.PrefetchTask) { task.Generation++ })
	w.none()
	if due := w.statuses(); len(due) > 0 {
		t.Errorf("%+v is reported", due)
	}
	w.q.EndPlanning(call, w.now)
	w.q.RecordAccepted(call, w.newest(call), 40, w.now)
	w.delete("a/1")
	w.now = w.now.Add(readmitInterval)
	w.expect(w.next(), "b/2")
}

// After a restart, a new leader must not take back for a while what the statuses say.
func TestATaskOfAMissingAccountStaysStalledInANewProcess(t *testing.T) {
	w := newWorld(t)
	missing := taskstate.Cause{Reason: v1alpha1.ReasonAccountMissing, Message: "missing", NeedsUser: true}
	w.q.limits.Admit = func(*v1alpha1.PrefetchTask) taskstate.Admission { return taskstate.Admission{Cause: missing} }
	task := taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 1)...)
	taskstate.ReportWaiting(taskstate.WaitingStatus{Task: task, Cause: missing, Stalled: true}, w.now)(task)
	w.set(task)
	if due := w.statuses(); len(due) > 0 {
		t.Errorf("%+v is written", due)
	}
}

func TestWhatFitsABudgetGoesOutAndTheRestWaitsForTheNextDay(t *testing.T) {
	w := newWorld(t)
	w.q.limits.QuotaReset = 16 * time.Hour
	w.readQuotaFirst()
	a := w.useAccount("a", "b")
	a.budget, a.budgets["a"] = 100, 30
	w.set(taskstatetest.NewTask("a/1", taskstatetest.ListURLs("a", 50)...), taskstatetest.NewTask("b/2", taskstatetest.ListURLs("b", 90)...))
	call := w.expect(w.next(), "a/1 b/2")
	if n, m := len(call.Parts[0].Positions), len(call.Parts[1].Positions); n != 30 || m != 70 {
		t.Errorf("%d and %d URLs, want 30 and 70", n, m)
	}
	w.answer(call)
	w.none()
	due := w.statuses()
	for _, name := range []string{"1", "2"} {
		s := due[name]
		if s.Reason != v1alpha1.ReasonBudget || s.Stalled || !s.Quota || !s.NextAttempt.Equal(time.Date(2026, 7, 1, 16, 0, 0, 0, time.UTC)) {
			t.Errorf("%s: %+v", name, s)
		}
	}
	a.used, a.usedBy = 0, map[string]int{}
	w.now = w.now.Add(4*time.Hour - time.Second)
	w.none()
	w.now = w.now.Add(time.Second)
	w.answer(w.next()) // both tasks, in any order
	if w.now = w.now.Add(time.Second); w.get("a/1").Status.Jobs[1].Positions != "30-49" || w.get("b/2").Status.Jobs[1].Positions != "70-89" {
		t.Errorf("%+v, %+v", w.get("a/1").Status.Jobs, w.get("b/2").Status.Jobs)
	}
}

func TestAURLOfSeveralTasksUsesABudgetOnce(t *testing.T) {
	w := newWorld(t)
	w.readQuotaFirst()
	a := w.useAccount("a", "b")
	a.budget = 3
	w.set(taskstatetest.NewTask("a/1", taskstatetest.ListURLs("x", 3)...), taskstatetest.NewTask("b/2", taskstatetest.ListURLs("x", 3)...))
	w.answer(w.expect(w.next(), "a/1 b/2"))
	if a.used != 3 || a.usedBy["a"] != 3 {
		t.Errorf("used: %d, %v", a.used, a.usedBy)
	}
}

// Neither do URLs whose claims could not be written use up a budget, nor do those of a call that
// EdgeOne did not execute.
func TestABudgetThatIsNotUsedIsGivenBack(t *testing.T) {
	w := newWorld(t)
	w.readQuotaFirst()
	a := w.useAccount("a", "b")
	a.budget = 1
	w.set(taskstatetest.NewTask("a/1", taskstatetest.ListURLs("a", 1)...))
	call := w.expect(w.next(), "a/1")
	w.set(taskstatetest.NewTask("b/2", taskstatetest.ListURLs("b", 1)...))
	w.none()
	if s := w.statuses()["2"]; s.Task != nil {
		t.Errorf("at once: %+v", s)
	}
	w.now = w.now.Add(reportPatience)
	if s := w.statuses()["2"]; s.Reason != v1alpha1.ReasonBudget {
		t.Errorf("%+v", s)
	}
	w.q.EndPlanning(call, w.now)
	w.delete("a/1")
	w.q.RecordReleased(call, w.newest(call), w.now)
	w.now = w.now.Add(readmitInterval)
	w.expect(w.next(), "b/2")
}

// While the claims of a call are written, its URLs count both as planned and as claimed. A task
// that comes just then must not wait for the next day.
func TestATaskThatComesWhileClaimsAreWrittenGetsWhatTheBudgetLeaves(t *testing.T) {
	w := newWorld(t)
	w.readQuotaFirst()
	a := w.useAccount("a", "b")
	a.budget = 4
	w.set(taskstatetest.NewTask("a/1", taskstatetest.ListURLs("a", 2)...))
	call := w.expect(w.next(), "a/1")
	a.used = 2 // the claim is written
	w.set(taskstatetest.NewTask("b/2", taskstatetest.ListURLs("b", 2)...))
	w.q.EndPlanning(call, w.now)
	w.q.RecordAccepted(call, w.newest(call), 2, w.now)
	w.delete("a/1")
	w.now = w.now.Add(readmitInterval)
	w.expect(w.next(), "b/2")
}

func TestATaskThatGetsNothingOnTheNextDayReportsTheDayAfter(t *testing.T) {
	w := newWorld(t)
	w.q.limits.QuotaReset = 16 * time.Hour
	a := w.useAccount("a")
	a.budgets["a"] = 0
	w.set(taskstatetest.NewTask("a/1", taskstatetest.ListURLs("a", 1)...))
	for day := range 3 {
		w.none()
		reset := time.Date(2026, 7, 1+day, 16, 0, 0, 0, time.UTC)
		if s := w.statuses()["1"]; s.Reason != v1alpha1.ReasonBudget || !s.NextAttempt.Equal(reset) {
			t.Errorf("day %d: %+v", day, s)
		}
		w.now = reset
	}
}

// The budget of one namespace may keep thousands of tasks waiting, while each call of another
// namespace asks again.
func BenchmarkReadmission(b *testing.B) {
	w := newWorld(nil)
	a := w.useAccount("a", "b")
	a.budgets["a"] = 0
	for i := range 100_000 {
		w.set(taskstatetest.NewTask(fmt.Sprintf("a/%d", i), v1alpha1.Target("https://h/"+fmt.Sprint(i))))
	}
	for b.Loop() {
		w.q.readmitForBudget(w.now, false)
	}
}

// What is purged, or will be by a call that is planned, needs its part of the budgets.
func TestBudgetsLeaveRoomForWhatIsPurged(t *testing.T) {
	for _, isNamespaces := range []bool{false, true} {
		w := newWorld(t)
		a := w.useAccount("default")
		if a.budget = 10; isNamespaces {
			a.budget, a.budgets["default"] = -1, 10
		}
		purged := taskstatetest.NewTask("purged", taskstatetest.ListURLs("p", 6)...)
		purged.Spec.Purge.Type = v1alpha1.PurgeURL
		purge := &Call{Parts: []CallPart{{Task: purged, Positions: taskstate.AllPositions(6)}}}
		w.q.PromisePlanned(purge)
		w.set(taskstatetest.NewTask("plain", taskstatetest.ListURLs("b", 7)...))
		takes := func(want int) {
			t.Helper()
			call := w.next()
			if call == nil || len(call.URLs) != want {
				t.Fatalf("the next call is %+v, want one with %d URLs", call, want)
			}
			w.answer(call)
		}
		takes(4)
		w.none()
		taskstatetest.Begun("")(purged)
		purged.Status.Jobs = []v1alpha1.Job{{ID: "p", ClaimID: "c", Kind: v1alpha1.JobPurge, Positions: "0-5"}}
		w.set(purged)
		w.q.EndPromising(purge, w.now)
		w.now = w.now.Add(time.Minute)
		w.none() // now its status says that it needs them
		if total, own := w.q.TakenURLs("default"); total != 6 || own != 6 {
			t.Errorf("%d URLs are taken, %d of the namespace", total, own)
		}
		w.delete("purged") // nobody needs them any more
		w.now = w.now.Add(time.Minute)
		takes(3)
	}
}

// An item may be kept out for a moment when the account begins to back off. Then it reports the back-off.
func TestAnItemThatWaitsForOthersReportsABackOffOfTheAccount(t *testing.T) {
	w := newWorld(t)
	w.readQuotaFirst()
	a := w.useAccount("default")
	isKeptOut := true
	w.q.limits.Admit = func(task *v1alpha1.PrefetchTask) taskstate.Admission {
		if isKeptOut {
			return taskstate.Admission{Cause: taskstate.Cause{Reason: v1alpha1.ReasonWaiting, Message: "others first"}, Until: w.now.Add(time.Second)}
		}
		return a.admit(task)
	}
	w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 1)...))
	w.none()
	why := taskstate.Cause{Reason: v1alpha1.ReasonCredentialsRefused, Message: "wrong", NeedsUser: true}
	w.q.BackOffAccount(why, w.now, w.now.Add(10*time.Minute))
	isKeptOut = false
	for range 5 {
		w.q.PlanNext(w.now)
		w.now = w.now.Add(30 * time.Second)
	}
	if s := w.statuses()["a"]; s.Reason != v1alpha1.ReasonCredentialsRefused || !s.Stalled {
		t.Errorf("it reports %+v", s)
	}
}
