package controller

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// A task that fits into one call costs a share of a call, three status writes (claim, record,
// outcome), one Event and a share of the reads of the history. Once finished, it costs nothing,
// neither for hours nor across a restart.
func TestTasksShareCallsAndCostLittleAndNothingOnceFinished(t *testing.T) {
	const n = 900 // less than a page of the history
	// A prefetch takes at most half an hour. This duration causes the most reads.
	inCalm(t, simulator.Config{JobDuration: 30 * time.Minute}, func(t *testing.T, w *calm) {
		w.createMany("n", n, nil)
		process := w.start()
		w.awaitAll(time.Hour)
		if calls := len(w.submissions()); calls > n/500+1 {
			t.Errorf("%d tasks went out in %d calls, want %d of 500 tasks each", n, calls, n/500)
		}
		if executed := w.edgeOne.Stats().Targets; executed != n {
			t.Errorf("%d URLs were executed, want %d", executed, n)
		}
		if looks := len(w.calls(teo.ActionDescribePrefetchTasks)); looks > n/20 {
			t.Errorf("%d looks for %d tasks, want at most one for 20", looks, n)
		}
		for _, task := range w.server.list() {
			key := client.ObjectKeyFromObject(task)
			if writes := len(w.writes[key]); writes > 3 {
				t.Errorf("the status of %s was written %d times, want at most 3", key, writes)
			}
			if reasons := w.reported[key]; !slices.Equal(reasons, []string{v1alpha1.ReasonSucceeded}) && !slices.Equal(reasons, []string{v1alpha1.ReasonSubmitted, v1alpha1.ReasonSucceeded}) {
				t.Errorf("the Events of %s are %v, want that it was submitted, if few tasks were, and that it succeeded", key, reasons)
			}
		}

		calls, writes := len(w.edgeOne.Calls()), w.allWrites()
		time.Sleep(6 * time.Hour)
		w.stop(process)
		w.start()
		time.Sleep(6 * time.Hour)
		if more := len(w.edgeOne.Calls()) - calls; more > 0 {
			t.Errorf("%d calls for finished tasks", more)
		}
		if more := w.allWrites() - writes; more > 0 {
			t.Errorf("%d status writes of finished tasks", more)
		}
	})
}

func TestSharingCanBeTurnedOff(t *testing.T) {
	inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
		w.options.TasksPerCall = 1
		for i := range 60 {
			w.create("n", fmt.Sprint("t", i), urls(fmt.Sprint(i/2), 2)) // each pair has the same targets
		}
		w.start()
		w.awaitAll(5 * time.Minute)
		jobs := map[string]bool{}
		for _, task := range w.server.list() {
			for _, job := range task.Status.Jobs {
				jobs[job.ID] = true
			}
		}
		for _, call := range w.submissions() {
			if call.Targets != 2 {
				t.Errorf("a call has %d URLs, want the two of its task", call.Targets)
			}
		}
		if len(w.submissions()) != 60 || len(jobs) != 60 {
			t.Errorf("60 tasks went out in %d calls and recorded %d jobs", len(w.submissions()), len(jobs))
		}
	})
}

func TestWhatBecomesOfASharedURLIsGivenToAllWhoWantIt(t *testing.T) {
	rules := []simulator.Rule{
		{URL: "/refused/", Refuse: "The resource is not allowed to be prefetched."},
		{URL: "/failed/", Status: "failed", FailType: "originPullFailed", FailMessage: "The origin did not answer."},
	}
	inCalm(t, simulator.Config{Rules: rules}, func(t *testing.T, w *calm) {
		good, refused, failed := urls("good", 1)[0], urls("refused", 1)[0], urls("failed", 1)[0]
		all := []v1alpha1.Target{good, refused, failed}
		wanted := map[string][]v1alpha1.Target{
			"all": all, "all-again": {failed, good, refused}, "good": {good}, "refused": {refused}, "failed": {failed}, "bad": {refused, failed},
		}
		for name, targets := range wanted {
			w.create("n", name, targets)
		}
		w.start()
		w.awaitAll(5 * time.Minute)
		if calls := w.submissions(); len(calls) != 1 || calls[0].Targets != len(all) {
			t.Fatalf("%d calls, the first of %d URLs; want one of %d", len(calls), calls[0].Targets, len(all))
		}
		want := map[v1alpha1.Target]v1alpha1.FailedTarget{
			refused: {URL: string(refused), Reason: v1alpha1.FailedRefused, Message: rules[0].Refuse},
			failed:  {URL: string(failed), Reason: "Failed", Message: rules[1].FailType + ": " + rules[1].FailMessage},
		}
		for name, targets := range wanted {
			status := w.server.get(client.ObjectKey{Namespace: "n", Name: name}).Status
			var bad []v1alpha1.FailedTarget
			for _, target := range targets {
				if f, ok := want[target]; ok {
					bad = append(bad, f)
				}
			}
			byURL := func(a, b v1alpha1.FailedTarget) int { return strings.Compare(a.URL, b.URL) }
			slices.SortFunc(bad, byURL)
			told := slices.SortedFunc(slices.Values(status.FailedTargets), byURL)
			if !slices.Equal(told, bad) || int(ptr.Deref(status.Targets.Failed, -1)) != len(bad) || int(ptr.Deref(status.Targets.Succeeded, -1)) != len(targets)-len(bad) {
				t.Errorf("%s counts %d succeeded and names %+v, want %d and %+v", name, ptr.Deref(status.Targets.Succeeded, -1), told, len(targets)-len(bad), bad)
			}
		}
	})
}

// rejects makes EdgeOne reject every call with a URL that contains the text.
func (w *calm) rejects(text string) {
	w.edgeOne.AddFault(simulator.Fault{
		Match:  simulator.Matcher{Action: teo.ActionCreatePrefetchTask, URL: text},
		Effect: simulator.Effect{Code: "InvalidParameter.Target", Message: "The target is not valid."},
	})
}

func TestOneBadURLCostsFewCallsAndNoNeighbour(t *testing.T) {
	const n = 2000
	for _, c := range []struct {
		name                string
		tasks, tasksPerCall int
	}{
		{"in one task of 2,000", 1, 500},
		{"in 2,000 tasks, 2,000 to a call", n, n},
		{"in 2,000 tasks, 500 to a call", n, 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
				w.options.TasksPerCall = c.tasksPerCall
				w.rejects("/bad/")
				targets := urls("x", n)
				bad := v1alpha1.Target("https://a1.example.com/bad/1")
				targets[1234] = bad
				for i := range c.tasks {
					w.create("n", fmt.Sprint("t", i), targets[i*n/c.tasks:(i+1)*n/c.tasks])
				}
				w.start()
				w.awaitAll(10 * time.Minute)
				needed := 1
				if c.tasks > 1 {
					needed = n / c.tasksPerCall
				}
				if extra, most := len(w.submissions())-needed, int(2*math.Log2(n))+2; extra > most {
					t.Errorf("%d calls beyond the %d that were needed, want at most %d", extra, needed, most)
				}
				var failed []v1alpha1.FailedTarget
				succeeded := 0
				for _, task := range w.server.list() {
					failed = append(failed, task.Status.FailedTargets...)
					succeeded += int(ptr.Deref(task.Status.Targets.Succeeded, 0))
				}
				if succeeded != n-1 || len(failed) != 1 || failed[0].URL != string(bad) || !strings.Contains(failed[0].Message, "The target is not valid.") {
					t.Errorf("%d succeeded and %+v failed, want %d and %s in EdgeOne's words", succeeded, failed, n-1, bad)
				}
			})
		})
	}
}

func TestAForeignDomainCostsTensOfCallsAndHoldsUpNobody(t *testing.T) {
	for _, c := range []struct{ urls, tasks int }{{5000, 1}, {1500, 1500}} {
		t.Run(fmt.Sprintf("in %d tasks", c.tasks), func(t *testing.T) {
			inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
				n, tasks := c.urls, c.tasks
				targets := urls("x", n)
				for i := range targets {
					targets[i] = v1alpha1.Target(fmt.Sprintf("https://foreign.example.net/%d", i))
				}
				for i := range tasks {
					w.create("foreign", fmt.Sprint("t", i), targets[i*n/tasks:(i+1)*n/tasks])
				}
				w.create("n", "same-lane", urls("good", 1))
				w.create("n", "own-lane", urls("better", 1), func(spec *v1alpha1.PrefetchTaskSpec) { ownLane(1, spec) })
				w.start()
				if !w.await(10*time.Second, func() bool {
					return taskstate.IsRunOver(w.server.get(client.ObjectKey{Namespace: "n", Name: "own-lane"}))
				}) {
					t.Error("a task in another lane was kept waiting")
				}
				w.awaitAll(15 * time.Minute)
				if calls := len(w.submissions()); calls > 60 {
					t.Errorf("%d calls, want tens", calls)
				}
				for _, task := range w.server.list() {
					failed := int(ptr.Deref(task.Status.Targets.Failed, 0))
					if want := len(task.Spec.Targets); task.Namespace == "foreign" && (failed != want || !strings.Contains(task.Status.FailedTargets[0].Message, "DomainNotFound")) {
						t.Fatalf("%s counts %d failed, want %d; %+v", task.Name, failed, want, task.Status.FailedTargets[0])
					} else if task.Namespace == "n" && failed > 0 {
						t.Errorf("%s failed with its neighbours", task.Name)
					}
				}
			})
		})
	}
}

// It takes about 600 calls to isolate 300 bad URLs in 20 lanes. In the meantime, other tasks get
// three quarters of the slots.
func TestIsolatingTakesAQuarterOfTheCallsWhileOthersWait(t *testing.T) {
	inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
		w.rejects("/bad/")
		const guilty = 20
		for i := range guilty {
			w.create("guilty", fmt.Sprint("t", i), urls(fmt.Sprint("bad/", i), 15), func(spec *v1alpha1.PrefetchTaskSpec) { ownLane(1000+i, spec) })
		}
		w.createMany("n", 600, ownLane)
		w.start()
		w.awaitAll(10 * time.Minute)
		calls := w.submissions()
		last := 0 // last accepted call of the other tasks
		for i, call := range calls {
			if call.Outcome == "OK" {
				last = i
			}
		}
		busy := calls[:last+1]
		isolating := 0
		for _, call := range busy {
			if call.Outcome != "OK" {
				isolating++
			}
		}
		seconds := busy[last].Time.Sub(busy[0].Time).Seconds()
		if most := int(5*seconds) + guilty + 2; isolating > most || isolating < 20 {
			t.Errorf("%d calls of %d in %.1f s went to isolating bad URLs, want %d at most", isolating, len(busy), seconds, most)
		}
		if used := float64(len(busy)) / (20 * seconds); used < 0.95 {
			t.Errorf("%.0f %% of the slots were used", 100*used)
		}
	})
}

func TestABatchThatEdgeOneRefusedIsRememberedAndProbed(t *testing.T) {
	const told, takes = 2000, 300
	inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
		zone := zoneA1
		zone.Batch = takes
		w.edgeOne.SetZone(zone)
		w.edgeOne.AddFault(simulator.Fault{
			Match: simulator.Matcher{Action: teo.ActionDescribeContentQuota},
			Effect: simulator.Effect{Executed: true, Body: fmt.Sprintf(
				`{"Response":{"PrefetchQuota":[{"Type":"prefetch_url","Batch":%d,"Daily":1000000,"DailyAvailable":1000000}],"RequestId":"r"}}`, told)},
		})
		w.start()
		refused := func(calls []simulator.Call) (n int) {
			for _, call := range calls {
				if call.Outcome == "LimitExceeded.BatchQuota" {
					n++
				}
			}
			return n
		}
		w.create("n", "first", urls("first", 6000))
		w.awaitAll(10 * time.Minute)
		before := len(w.submissions())
		if n := refused(w.submissions()); n == 0 || n > 5 {
			t.Errorf("%d calls of %d were refused, want the few that find out the size", n, before)
		}
		for i := range 6 { // the lanes change; the zone stays the same
			w.create("n", fmt.Sprint("next", i), urls(fmt.Sprint("next", i), 900), func(spec *v1alpha1.PrefetchTaskSpec) { ownLane(i, spec) })
		}
		w.awaitAll(10 * time.Minute)
		if n := refused(w.submissions()[before:]); n > 1 {
			t.Errorf("%d calls were refused though the size was known", n)
		}

		zone.Batch = told
		w.edgeOne.SetZone(zone)
		raised := w.edgeOne.Now()
		for i := range 16 {
			w.create("n", fmt.Sprint("later", i), urls(fmt.Sprint("later", i), 1000))
			time.Sleep(15 * time.Minute)
		}
		largest := func(within time.Duration) (most int) {
			for _, call := range w.submissions() {
				if since := call.Time.Sub(raised); since > 0 && since < within {
					most = max(most, call.Targets)
				}
			}
			return most
		}
		if soon, later := largest(80*time.Minute), largest(4*time.Hour); soon <= takes || later < 1000 {
			t.Errorf("after the limit was raised, calls have up to %d URLs within 80 minutes and %d within 4 hours, want more than %d and 1,000", soon, later, takes)
		}
	})
}

// A namespace that floods the account delays the single task of another namespace by at most two
// calls, whether its own tasks share calls or not. The order of planning counts: calls that are
// already being sent do not wait.
func TestAFloodDelaysAnotherNamespaceByTwoCalls(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(int, *v1alpha1.PrefetchTaskSpec)
		pause  time.Duration
	}{
		{"in one lane", nil, 10 * time.Millisecond},
		{"in as many lanes as tasks", ownLane, 270 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
				claimed := map[string]time.Time{} // time of the first write, by claim ID
				count := w.server.onStatus
				w.server.onStatus = func(before, after *v1alpha1.PrefetchTask) {
					count(before, after)
					w.mu.Lock()
					defer w.mu.Unlock()
					if claim := after.Status.Submission; claim != nil && claimed[claim.ClaimID].IsZero() {
						claimed[claim.ClaimID] = time.Now()
					}
				}
				w.options.TasksPerCall = 20 // so that a flood in one lane takes many calls too
				w.createMany("greedy", 2000, c.change)
				w.start()
				w.await(time.Minute, func() bool { return len(w.submissions()) > 0 })
				worst, worstSent := 0, 0
				for i := range 20 {
					created := time.Now()
					key := w.create("modest", fmt.Sprint("t", i), urls(fmt.Sprint("modest/", i), 1))
					if !w.await(time.Minute, func() bool { return len(w.server.get(key).Status.Jobs) > 0 }) {
						t.Fatalf("%s was not submitted", key)
					}
					job := w.server.get(key).Status.Jobs[0]
					ahead := 0
					w.mu.Lock()
					for _, at := range claimed {
						if at.After(created.Add(2*w.ways.api)) && at.Before(claimed[job.ClaimID]) {
							ahead++
						}
					}
					w.mu.Unlock()
					sent := w.submissions()
					own := slices.IndexFunc(sent, func(call simulator.Call) bool { return call.JobID == job.ID })
					first := slices.IndexFunc(sent, func(call simulator.Call) bool { return call.Time.After(created) })
					worst, worstSent = max(worst, ahead), max(worstSent, own-first)
					if w.countTasks(func(task *v1alpha1.PrefetchTask) bool {
						return task.Namespace == "greedy" && len(task.Status.Jobs) == 0
					}) == 0 {
						t.Fatalf("the flood was over before task %d", i)
					}
					time.Sleep(c.pause)
				}
				t.Logf("at most %d calls were claimed ahead of a modest task, %d sent", worst, worstSent)
				if worst > 2 {
					t.Errorf("%d calls were planned ahead of a modest task that was there, want 2 at most", worst)
				}
			})
		})
	}
}
