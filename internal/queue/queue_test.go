package queue

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"weak"

	"k8s.io/apimachinery/pkg/types"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate/taskstatetest"
)

func TestNamespacesAreTakenInTurnOldestFirst(t *testing.T) {
	w := newWorld(t)
	w.readQuotaFirst()
	a1, a2, b1, b2 := taskstatetest.NewTask("a/1", taskstatetest.ListURLs("1", 1)...), taskstatetest.NewTask("a/2", taskstatetest.ListURLs("2", 1)...), taskstatetest.NewTask("b/1", taskstatetest.ListURLs("3", 1)...), taskstatetest.NewTask("b/2", taskstatetest.ListURLs("4", 1)...)
	w.set(a2, b2, a1, b1)
	w.expect(w.next(), "a/1 b/1 a/2 b/2")
}

func TestLanesAreNotMixed(t *testing.T) {
	w := newWorld(t)
	a, b, c, d := taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 1)...), taskstatetest.NewTask("b", taskstatetest.ListURLs("b", 1)...), taskstatetest.NewTask("c", taskstatetest.ListURLs("c", 1)...), taskstatetest.NewTask("d", taskstatetest.ListURLs("d", 1)...)
	taskstatetest.UseEdgeMode(b)
	d.Spec.ZoneID = "zone-2"
	w.set(a, b, c, d)
	w.expect(w.next(), "a c")
	w.expect(w.next(), "b")
	w.expect(w.next(), "d")
	w.none()
}

func TestHeaderNamesHaveNoCase(t *testing.T) {
	w := newWorld(t)
	a, b, c := taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 1)...), taskstatetest.NewTask("b", taskstatetest.ListURLs("b", 1)...), taskstatetest.NewTask("c", taskstatetest.ListURLs("c", 1)...)
	a.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "x-b", Value: "1"}, {Name: "X-A", Value: "2"}}
	b.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "X-B", Value: "1"}, {Name: "x-a", Value: "2"}}
	c.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "X-B", Value: "1"}, {Name: "x-a", Value: "3"}}
	w.set(a, b, c)
	call := w.expect(w.next(), "a b")
	if got, want := call.Lane.Headers(), []v1alpha1.HTTPHeader{{Name: "X-A", Value: "2"}, {Name: "X-B", Value: "1"}}; !slices.Equal(got, want) {
		t.Errorf("the call carries %v, want %v", got, want)
	}
	w.expect(w.next(), "c")
	w.none()
}

func TestACallIsFull(t *testing.T) {
	t.Run("of URLs, and the rest follows in further calls of the task", func(t *testing.T) {
		w := newWorld(t)
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 1200)...))
		for _, want := range []string{"0-499", "500-999", "1000-1199"} {
			call := w.expect(w.next(), "a")
			if got := call.Parts[0].Positions.String(); got != want || len(call.URLs) != len(call.Parts[0].Positions) {
				t.Fatalf("the call has %s, want %s", got, want)
			}
			w.none()
			w.answer(call)
		}
		w.none()
		if w.q.Len() != 0 || len(w.q.lanes) != 0 {
			t.Errorf("%d tasks and %d lanes are left", w.q.Len(), len(w.q.lanes))
		}
	})
	t.Run("of tasks", func(t *testing.T) {
		w := newWorld(t)
		w.q.limits.TasksPerCall = 2
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 1)...), taskstatetest.NewTask("b", taskstatetest.ListURLs("b", 1)...), taskstatetest.NewTask("c", taskstatetest.ListURLs("c", 1)...))
		w.answer(w.expect(w.next(), "a b"))
		w.expect(w.next(), "c")
	})
	t.Run("by EdgeOne's own limit", func(t *testing.T) {
		w := newWorld(t)
		w.batch = 70
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 100)...))
		if n := len(w.next().URLs); n != 70 {
			t.Errorf("it has %d URLs", n)
		}
	})
}

func TestAURLOfSeveralTasksIsSentOnce(t *testing.T) {
	w := newWorld(t)
	w.q.limits.Batch = 3
	w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("x", 5)...), taskstatetest.NewTask("b", taskstatetest.ListURLs("x", 5)...), taskstatetest.NewTask("c", taskstatetest.ListURLs("y", 1)...))
	call := w.expect(w.next(), "a b") // b's next URLs are already in the full call
	if len(call.URLs) != 3 || call.Parts[1].Positions.String() != "0-2" {
		t.Errorf("%d URLs, b has %s", len(call.URLs), call.Parts[1].Positions)
	}
	w.answer(call)
	w.expect(w.next(), "c a b")
	w = newWorld(t)
	w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("x", 3)...), taskstatetest.NewTask("b", taskstatetest.ListURLs("x", 2)...))
	if call := w.expect(w.next(), "a b"); len(call.URLs) != 3 || call.Parts[1].Positions.String() != "0-1" {
		t.Errorf("%d URLs, b has %s", len(call.URLs), call.Parts[1].Positions)
	}
}

func TestWhatArrivesMeanwhileSharesTheNextCall(t *testing.T) {
	w := newWorld(t)
	w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 1)...))
	first := w.expect(w.next(), "a")
	for i := range 5 {
		w.set(taskstatetest.NewTask(fmt.Sprintf("b%d", i), taskstatetest.ListURLs(fmt.Sprint(i), 1)...))
		w.none()
	}
	w.answer(first)
	w.expect(w.next(), "b0 b1 b2 b3 b4")
}

func TestInFlight(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(w *world)
		then string
	}{
		{"nothing happens", func(*world) {}, ""},
		{"an edit is submitted afterwards", func(w *world) { w.edit("a", taskstatetest.Revise) }, "a"},
		{"a label is not", func(w *world) { w.edit("a", func(p *v1alpha1.PrefetchTask) { p.Labels = map[string]string{"a": "b"} }) }, ""},
		{"a deleted task is forgotten", func(w *world) { w.delete("a") }, ""},
		{"one made again is submitted", func(w *world) { w.delete("a"); w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("z", 1)...)) }, "a"},
		{"one that moved to another account and back stays", func(w *world) { w.q.RemoveTask(keyOf(w.get("a")), w.now); w.edit("a", taskstatetest.Revise) }, "a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 2)...))
			call := w.next()
			claimID, tasks := w.claim(call)
			c.do(w)
			w.none()
			w.settle(tasks, claimID, w.adopted(claimID))
			w.q.ReleaseURLs(claimID, w.now)
			w.q.RecordAccepted(call, w.newest(call), 2, w.now)
			if c.then == "" {
				w.none()
				for _, note := range w.notes() {
					w.set(w.get(note.Task.Name))
				}
			} else {
				w.answer(w.expect(w.next(), c.then))
			}
			if len(w.q.lanes) != 0 || len(w.q.reservations) != 0 {
				t.Errorf("%d tasks, %d lanes, %d claims are left", w.q.Len(), len(w.q.lanes), len(w.q.reservations))
			}
		})
	}
}

func (w *world) notes() []taskstate.WaitingStatus {
	notes, _ := w.q.WaitingStatuses(1<<20, w.now)
	return notes
}

func TestOverlappingURLsWaitUntilAClaimIsSettled(t *testing.T) {
	t.Run("in a lane and across lanes, whatever their spelling", func(t *testing.T) {
		w := newWorld(t)
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("x", 1)...))
		claimID, tasks := w.lose(w.next())
		b, c, d, e := taskstatetest.NewTask("b", taskstatetest.ListURLs("x", 2)...), taskstatetest.NewTask("c", taskstatetest.ListURLs("x", 1)...), taskstatetest.NewTask("d", taskstatetest.ListURLs("other", 1)...), taskstatetest.NewTask("e", "HTTPS://A.example/x/0")
		taskstatetest.UseEdgeMode(c)
		w.set(b, c, d, e)
		w.answer(w.expect(w.next(), "b d")) // b's other URL goes out meanwhile
		w.none()
		w.find(tasks, claimID, true)
		w.answer(w.expect(w.next(), "c"))
		w.expect(w.next(), "e b")
	})
	t.Run("whole while the answer is due, as one call costs less than two", func(t *testing.T) {
		w := newWorld(t)
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("x", 1)...))
		call := w.next()
		claimID, tasks := w.claim(call)
		w.q.StartCall(call, claimID, w.now)
		b := taskstatetest.NewTask("b", taskstatetest.ListURLs("x", 2)...)
		taskstatetest.UseEdgeMode(b) // another lane, so that it does not wait for the call of its lane
		w.set(b)
		w.none()
		w.settle(tasks, claimID, w.adopted(claimID))
		w.q.ReleaseURLs(claimID, w.now)
		w.q.RecordAccepted(call, w.newest(call), 1, w.now)
		if call := w.expect(w.next(), "b"); len(call.URLs) != 2 {
			t.Errorf("the call has %v", call.URLs)
		}
	})
	t.Run("and shares the next call if the lost one was not executed", func(t *testing.T) {
		w := newWorld(t)
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("x", 1)...))
		claimID, tasks := w.lose(w.next())
		w.set(taskstatetest.NewTask("b", taskstatetest.ListURLs("x", 1)...), taskstatetest.NewTask("c", taskstatetest.ListURLs("x", 2)...))
		w.answer(w.expect(w.next(), "c")) // c's other URL
		w.none()
		w.find(tasks, claimID, false)
		w.none()
		w.now = w.now.Add(time.Second) // tests of suspects are spaced
		call := w.expect(w.next(), "a b c")
		if len(call.URLs) != 1 {
			t.Errorf("the call has %v", call.URLs)
		}
		w.answer(call)
		w.none()
	})
	t.Run("and says that it is queued once the look-up has ended", func(t *testing.T) {
		w := newWorld(t)
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("x", 1)...))
		claimID, tasks := w.lose(w.next())
		w.set(taskstatetest.NewTask("b", taskstatetest.ListURLs("x", 1)...))
		w.none()
		w.now = w.now.Add(10 * time.Second)
		if notes := w.notes(); len(notes) != 1 || notes[0].Task.Name != "b" {
			t.Fatalf("%+v, want one of b", notes)
		}
		w.find(tasks, claimID, false)
		w.none()
		w.now = w.now.Add(queuePatience) // other tests go first
		if notes := w.notes(); len(notes) != 1 || notes[0].Task.Name != "b" || notes[0].Message != taskstate.QueuedMessage {
			t.Errorf("%+v, want that b is queued", notes)
		}
	})
	t.Run("and does not keep the target list of the lost call's task in memory", func(t *testing.T) {
		w := newWorld(t)
		key, list := w.loseOf("a", 2)
		delete(w.live, key)
		for i := range 9 { // later work takes the place of finished work
			w.set(taskstatetest.NewTask(fmt.Sprint("other", i), taskstatetest.ListURLs(fmt.Sprint("other", i), 1)...))
			w.now = w.now.Add(queuePatience / 2)
			w.notes()
			w.next()
		}
		for range 10 {
			if runtime.GC(); list.Value() == nil {
				break
			}
		}
		if list.Value() != nil {
			t.Error("the task is still in memory")
		}
		runtime.KeepAlive(w)
	})
	t.Run("and does not name tasks of other namespaces", func(t *testing.T) {
		w := newWorld(t)
		w.set(taskstatetest.NewTask("theirs/a", taskstatetest.ListURLs("x", 1)...))
		w.lose(w.next())
		w.set(taskstatetest.NewTask("b", taskstatetest.ListURLs("x", 1)...))
		w.none()
		w.now = w.now.Add(10 * time.Second)
		want := "Waiting for the outcome of a call of a task in another namespace with the same URL"
		if notes := w.notes(); len(notes) != 1 || !strings.HasPrefix(notes[0].Message, want) {
			t.Errorf("%+v, want %q", notes, want)
		}
	})
	t.Run("and still shares it after a second loss", func(t *testing.T) {
		w := newWorld(t)
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("x", 1)...))
		claimID, tasks := w.lose(w.next())
		w.set(taskstatetest.NewTask("b", taskstatetest.ListURLs("x", 1)...))
		w.none()
		w.find(tasks, claimID, false)
		w.none()
		w.now = w.now.Add(time.Second)
		claimID, tasks = w.lose(w.expect(w.next(), "a b"))
		w.find(tasks, claimID, false)
		w.none()
		w.now = w.now.Add(time.Second)
		w.answer(w.expect(w.next(), "a b"))
		w.none()
	})
	t.Run("and says for which call", func(t *testing.T) {
		w := newWorld(t)
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("x", 1)...))
		w.lose(w.next())
		w.set(taskstatetest.NewTask("b", taskstatetest.ListURLs("x", 1)...))
		w.none()
		until := w.now.Add(w.q.limits.SettleTime).UTC().Format(time.RFC3339)
		w.now = w.now.Add(10 * time.Second)
		want := "Waiting for the outcome of a call of task a with the same URL https://a.example/x/0, until " + until + " at the latest"
		if notes := w.notes(); len(notes) != 1 || notes[0].Message != want {
			t.Errorf("%+v, want %q", notes, want)
		}
	})
	t.Run("also where it is tried by halves", func(t *testing.T) {
		w := newWorld(t)
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("x", 4)...))
		claimID, tasks := w.lose(w.next())
		w.find(tasks, claimID, false)
		b := taskstatetest.NewTask("b", "https://a.example/x/1", "https://a.example/y/1")
		taskstatetest.UseEdgeMode(b)
		w.set(b)
		theirs, others := w.lose(w.expect(w.next(), "b"))
		w.now = w.now.Add(time.Second)
		w.answer(w.expect(w.next(), "a")) // the half without the URL
		if open := taskstate.OpenPositions(w.get("a")); open.String() != "0-1" {
			t.Fatalf("a's open targets are %s, want those that share a URL with b", open)
		}
		w.none()
		w.find(others, theirs, true)
		w.drive(time.Minute)
		if w.open() != 0 {
			t.Errorf("%d targets are open", w.open())
		}
	})
	t.Run("of another process", func(t *testing.T) {
		w := newWorld(t)
		a := taskstatetest.NewTask("a", taskstatetest.ListURLs("x", 1)...)
		taskstatetest.Begun("")(a)
		a.Status.Submission = &v1alpha1.Submission{ClaimID: "theirs", ZoneID: "zone-1", Positions: "0", Semantics: taskstate.HashSemantics(a)}
		w.set(a, taskstatetest.NewTask("b", taskstatetest.ListURLs("x", 1)...))
		w.none()
		done := a.DeepCopy()
		w.adopted("theirs")(done)
		done.Status.Submission = nil
		if !w.q.UpsertTask(w.store(done), w.now) {
			t.Error("nobody is told that b may go")
		}
		w.expect(w.next(), "b")
	})
	t.Run("or cannot be settled any more, as its tasks are gone", func(t *testing.T) {
		w := newWorld(t)
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("x", 1)...))
		call := w.next()
		claimID, _ := w.claim(call)
		w.delete("a")
		w.q.TrackLostCall(call, claimID, w.newest(call), w.now)
		w.set(taskstatetest.NewTask("b", taskstatetest.ListURLs("x", 1)...))
		w.none()
		w.now = w.now.Add(w.q.limits.SettleTime)
		w.expect(w.next(), "b")
	})
	t.Run("also if its task is deleted after its answer was lost", func(t *testing.T) {
		w := newWorld(t)
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("x", 1)...))
		w.lose(w.next())
		w.delete("a")
		w.set(taskstatetest.NewTask("b", taskstatetest.ListURLs("x", 1)...))
		w.none()
		w.now = w.now.Add(w.q.limits.SettleTime)
		w.expect(w.next(), "b")
	})
	t.Run("but a new run does not wait for its own old claim", func(t *testing.T) {
		w := newWorld(t)
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("x", 1)...))
		w.lose(w.next())
		w.none()
		w.edit("a", taskstatetest.Revise)
		w.expect(w.next(), "a")
	})
	t.Run("unless it fetches in another way", func(t *testing.T) {
		w := newWorld(t)
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("x", 1)...))
		w.lose(w.next())
		w.edit("a", taskstatetest.UseEdgeMode)
		w.none()
		w.edit("a", func(p *v1alpha1.PrefetchTask) { p.Status.Submission.Expired = true })
		w.expect(w.next(), "a")
	})
}

func TestFourLostCallsHoldTheLane(t *testing.T) {
	w := newWorld(t)
	var claims []string
	var lost [][]*v1alpha1.PrefetchTask
	for i := range 5 {
		w.set(taskstatetest.NewTask(fmt.Sprint("t", i), taskstatetest.ListURLs(fmt.Sprint(i), 1)...))
		if i < 4 {
			claimID, tasks := w.lose(w.next())
			claims, lost = append(claims, claimID), append(lost, tasks)
		}
	}
	w.none()
	w.find(lost[0], claims[0], true)
	w.expect(w.next(), "t4")
}

// A lost call that needs user action does not block other tasks for longer than
// SettleTime.
func TestCallsThatAreNeverSettledDoNotHoldTheLaneForEver(t *testing.T) {
	w := newWorld(t)
	for i := range 4 {
		w.set(taskstatetest.NewTask(fmt.Sprint("t", i), taskstatetest.ListURLs(fmt.Sprint(i), 1)...))
		w.lose(w.next())
	}
	w.set(taskstatetest.NewTask("same", taskstatetest.ListURLs("0", 1)...), taskstatetest.NewTask("other", taskstatetest.ListURLs("x", 1)...))
	w.none()
	w.now = w.now.Add(w.q.PlanNext(w.now).Wait)
	w.expect(w.next(), "same other")
	w.none()
}

func TestATaskWhoseCallsAreLostAgainAndAgainIsTriedSeldom(t *testing.T) {
	w := newWorld(t)
	w.set(taskstatetest.NewTask("poison", taskstatetest.ListURLs("x", 1)...))
	var lost time.Time
	for i := range 3 {
		claimID, tasks := w.lose(w.expect(w.next(), "poison"))
		lost = w.now
		w.find(tasks, claimID, false)
		w.none()
		w.now = w.now.Add(time.Second)
		if n := w.get("poison").Status.LostCalls; n != int32(i+1) {
			t.Fatalf("%d lost calls after %d", n, i+1)
		}
	}
	w.none()
	w.set(taskstatetest.NewTask("healthy", taskstatetest.ListURLs("y", 1)...))
	w.answer(w.expect(w.next(), "healthy"))
	w.none()
	var call *Call
	for call == nil {
		d := w.q.PlanNext(w.now)
		call, w.now = d.Call, w.now.Add(d.Wait)
	}
	if got, want := w.now.Sub(lost), 2*w.q.limits.SettleTime; got != want {
		t.Errorf("tried again after %s, want %s", got, want)
	}
	w.answer(w.expect(call, "poison"))
	w.set(taskstatetest.NewTask("next", taskstatetest.ListURLs("z", 1)...))
	w.expect(w.next(), "next")
}

func TestANamespaceWhoseCallsWereNotSentIsNotPutBehind(t *testing.T) {
	w := newWorld(t)
	add := func(namespace string) {
		for i := range 5 {
			task := taskstatetest.NewTask(fmt.Sprint(namespace, i), taskstatetest.ListURLs(fmt.Sprint(namespace, i), 1)...)
			task.Namespace = namespace
			task.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "X-Lane", Value: task.Name}}
			w.set(task)
		}
	}
	add("a")
	for range 20 {
		call := w.next()
		w.q.RecordReleased(call, []*v1alpha1.PrefetchTask{call.Parts[0].Task}, w.now)
	}
	add("b")
	order := ""
	for range 6 {
		order += w.next().Parts[0].Task.Namespace
	}
	if order != "ababab" && order != "bababa" {
		t.Errorf("the namespaces go in the order %s", order)
	}
}

// A process that is not the leader only receives task versions. Reports that it does not
// write must not accumulate.
func TestListeningAloneNeedsNoMemoryForWhatIsOver(t *testing.T) {
	w := newWorld(t)
	for i := range 10 * spareReports {
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("x", 1)...))
		w.edit("a", taskstatetest.Suspend)
		w.delete("a")
		if i == 0 {
			w.set(taskstatetest.NewTask("stays", taskstatetest.ListURLs("y", 1)...))
		}
		w.edit("stays", taskstatetest.Revise)
	}
	if soon, later := len(w.q.reportsDue), len(w.q.delayedReports); soon > 2*spareReports || later > 2*spareReports {
		t.Errorf("%d and %d things to tell of 1 task", soon, later)
	}
}

func TestLostTasksGoLastAndApart(t *testing.T) {
	w := newWorld(t)
	w.q.limits.TasksPerCall = 4
	for i := range 4 {
		w.set(taskstatetest.NewTask(fmt.Sprint("old", i), taskstatetest.ListURLs(fmt.Sprint(i), 1)...))
	}
	claimID, tasks := w.lose(w.next())
	w.find(tasks, claimID, false)
	w.set(taskstatetest.NewTask("new", taskstatetest.ListURLs("new", 1)...))
	w.answer(w.expect(w.next(), "new"))
	w.now = w.now.Add(time.Second)
	claimID, tasks = w.lose(w.expect(w.next(), "old0 old1"))
	w.now = w.now.Add(time.Second)
	w.answer(w.expect(w.next(), "old2 old3"))
	w.find(tasks, claimID, false)
	w.none()
	w.now = w.now.Add(time.Second)
	w.answer(w.expect(w.next(), "old0"))
	w.now = w.now.Add(time.Second)
	w.expect(w.next(), "old1")
}

func TestFairness(t *testing.T) {
	for _, many := range []bool{false, true} {
		t.Run(fmt.Sprintf("50,000 tasks of a namespace in many lanes %v", many), func(t *testing.T) {
			w := newWorld(t)
			w.readQuotaFirst()
			for i := range 50000 {
				task := taskstatetest.NewTask(fmt.Sprintf("greedy/%d", i), "https://a.example/x/"+v1alpha1.Target(fmt.Sprint(i)))
				if many {
					task.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "N", Value: fmt.Sprint(i)}}
				}
				w.set(task)
			}
			w.answer(w.next())
			w.set(taskstatetest.NewTask("modest/1", taskstatetest.ListURLs("y", 1)...))
			for i := range 2 {
				call := w.next()
				w.answer(call)
				for _, part := range call.Parts {
					if part.Task.Namespace == "modest" {
						return
					}
				}
				if i == 1 {
					t.Error("two calls went before it")
				}
			}
		})
	}
}

func (w *world) readQuotaFirst() {
	w.set(taskstatetest.NewTask("first", taskstatetest.ListURLs("first", 1)...))
	w.answer(w.next())
}

func TestALaneOfManyNamespacesIsNotSquare(t *testing.T) {
	w := newWorld(t)
	for i := range 20000 {
		w.set(taskstatetest.NewTask(fmt.Sprintf("ns%d/a", i), v1alpha1.Target(fmt.Sprintf("https://a.example/%d", i))))
	}
	for i := 0; i < 20000; i += 2 {
		w.delete(fmt.Sprintf("ns%d/a", i))
	}
	w.drive(time.Hour)
	if w.calls != 20 || w.open() != 0 {
		t.Errorf("%d calls, %d open", w.calls, w.open())
	}
}

// The queue of a standby process plans no calls. It releases what it no longer needs when
// IsIdle is called.
func TestAQueueThatPlansNothingForgetsWhatIsGone(t *testing.T) {
	w := newWorld(t)
	w.set(taskstatetest.NewTask("stays", taskstatetest.ListURLs("stays", 1)...))
	for i := range 2000 {
		name := fmt.Sprintf("n%d/t", i)
		w.set(taskstatetest.NewTask(name, taskstatetest.ListURLs(name, 1)...))
		w.edit(name, func(task *v1alpha1.PrefetchTask) {
			task.Status.Run = taskstate.RunHash(task)
			task.Status.Submission = &v1alpha1.Submission{ClaimID: name, ZoneID: task.Spec.ZoneID, Positions: "0", Semantics: taskstate.HashSemantics(task)}
		})
		w.edit(name, func(task *v1alpha1.PrefetchTask) { task.Status.Submission = nil })
		w.delete(name)
		if w.now = w.now.Add(time.Second); i%100 == 0 {
			w.q.IsIdle(w.now)
		}
	}
	w.now = w.now.Add(time.Hour)
	w.q.IsIdle(w.now)
	if n := len(w.q.timers) + len(w.q.idle) + len(w.q.namespaces) + len(w.q.reservations) + len(w.q.reservedURLs); n > 10 {
		t.Errorf("%d expiries, %d idle of %d namespaces, %d claims of %d URLs are kept",
			len(w.q.timers), len(w.q.idle), len(w.q.namespaces), len(w.q.reservations), len(w.q.reservedURLs))
	}
}

// loseOf loses the only call of a new task, and returns a weak reference to the claimed task.
func (w *world) loseOf(name string, urls int) (types.NamespacedName, weak.Pointer[v1alpha1.PrefetchTask]) {
	w.Helper()
	w.set(taskstatetest.NewTask(name, taskstatetest.ListURLs("x", urls)...))
	w.lose(w.next())
	task := w.get(name)
	w.q.UpsertTask(task, w.now)
	return keyOf(task), weak.Make(task)
}
