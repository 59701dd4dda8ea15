package queue

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate/taskstatetest"
)

func TestQuota(t *testing.T) {
	t.Run("it is read first, what fits is submitted, the rest held and resumed", func(t *testing.T) {
		w := newWorld(t)
		w.quota = 120
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 200)...))
		d := w.q.PlanNext(w.now)
		if d.ReadQuota != "zone-1" || w.q.PlanNext(w.now) != (Decision{}) {
			t.Fatalf("%+v", d)
		}
		w.readQuota("zone-1")
		call := w.next()
		if len(call.URLs) != 120 {
			t.Fatalf("%d URLs", len(call.URLs))
		}
		w.answer(call)
		w.drive(time.Hour)
		if w.calls != 1 || w.reads < 6 || w.reads > 8 {
			t.Errorf("%d calls and %d reads in an hour, want 1 and one in ten minutes", w.calls, w.reads)
		}
		w.quota = 1000
		w.drive(11 * time.Minute)
		if w.calls != 2 || w.open() != 0 {
			t.Errorf("%d calls, %d open", w.calls, w.open())
		}
	})
	t.Run("it is read again on the next day, once for both modes, and not at every call", func(t *testing.T) {
		w := newWorld(t) // the quota is expected to return at midnight
		w.now = time.Date(2026, 7, 1, 23, 0, 0, 0, time.UTC)
		w.quota = 100
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 80)...))
		w.drive(time.Minute)
		w.now, w.quota = w.now.Add(59*time.Minute), 100
		edgeTask := taskstatetest.NewTask("edge", taskstatetest.ListURLs("edge", 5)...)
		taskstatetest.UseEdgeMode(edgeTask)
		w.edgeQuota = 100
		w.set(taskstatetest.NewTask("b", taskstatetest.ListURLs("b", 80)...), edgeTask)
		if d := w.q.PlanNext(w.now); d.ReadQuota != "zone-1" || w.q.PlanNext(w.now) != (Decision{}) {
			t.Errorf("%+v, and the other mode does not wait for the answer", d)
		}
		w.readQuota("zone-1")
		w.drive(time.Minute)
		if w.calls != 3 || w.reads != 2 {
			t.Errorf("%d calls and %d reads, want one call a task and one read a day", w.calls, w.reads)
		}
		w.now = w.now.Add(12 * time.Hour)
		w.set(taskstatetest.NewTask("c", taskstatetest.ListURLs("c", 10)...))
		w.drive(time.Minute)
		if w.calls != 4 || w.reads != 2 {
			t.Errorf("%d calls and %d reads later that day", w.calls, w.reads)
		}
	})
	t.Run("a read that failed is made again after an interval, and calls do not wait for it", func(t *testing.T) {
		w := newWorld(t)
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 2)...))
		if d := w.q.PlanNext(w.now); d.ReadQuota != "zone-1" {
			t.Fatalf("%+v", d)
		}
		w.q.SetQuotaUnknown("zone-1", w.now)
		w.drive(time.Minute)
		w.set(taskstatetest.NewTask("b", taskstatetest.ListURLs("b", 2)...))
		w.drive(time.Minute)
		if w.calls != 2 || w.reads != 0 {
			t.Errorf("%d calls and %d more reads at once", w.calls, w.reads)
		}
		for _, name := range []string{"c", "d"} {
			w.now = w.now.Add(10 * time.Minute)
			w.set(taskstatetest.NewTask(name, taskstatetest.ListURLs(name, 2)...))
			w.drive(time.Minute)
		}
		if w.calls != 4 || w.reads != 1 {
			t.Errorf("%d calls and %d more reads later, want 4 and 1", w.calls, w.reads)
		}
	})
	t.Run("that others used up is noticed", func(t *testing.T) {
		w := newWorld(t)
		w.quota = 1000
		w.readQuotaFirst()
		w.now, w.quota = w.now.Add(time.Hour), 0
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 200)...))
		w.drive(time.Minute)
		if w.calls != 2 || w.reads != 2 {
			t.Errorf("%d calls and %d reads, want one refusal and one more look", w.calls-1, w.reads)
		}
	})
	t.Run("of mode edge is learned by halving", func(t *testing.T) {
		w := newWorld(t)
		w.edgeQuota = 300
		task := taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 1000)...)
		taskstatetest.UseEdgeMode(task)
		w.set(task)
		w.drive(time.Minute)
		if w.edgeQuota != 0 || w.calls > 30 {
			t.Errorf("%d left after %d calls", w.edgeQuota, w.calls)
		}
		before := w.calls
		w.drive(time.Hour)
		if n := w.calls - before; n > 7 {
			t.Errorf("%d probes in an hour", n)
		}
		before, w.edgeQuota = w.calls, -1
		w.drive(11 * time.Minute)
		if n := w.calls - before; n > 12 || w.open() != 0 {
			t.Errorf("%d calls once it returned, %d open", n, w.open())
		}
	})
	t.Run("the size of a call is learned", func(t *testing.T) {
		w := newWorld(t)
		w.unread, w.batch = true, 100
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 1000)...))
		w.drive(time.Minute)
		if w.open() != 0 || w.calls > 20 {
			t.Errorf("%d open after %d calls", w.open(), w.calls)
		}
	})
	t.Run("a size that was learned is doubled an hour later", func(t *testing.T) {
		w := newWorld(t)
		w.unread, w.batch = true, 100
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 1000)...))
		w.drive(time.Minute)
		w.batch = 0
		sizes := func(name string) (sizes []int) {
			w.set(taskstatetest.NewTask(name, taskstatetest.ListURLs(name, 300)...))
			for call := w.next(); call != nil; call = w.next() {
				sizes = append(sizes, len(call.URLs))
				w.answer(call)
			}
			return sizes
		}
		if got := sizes("b"); len(got) < 3 {
			t.Errorf("%d targets in a call, just after that was too many", got)
		}
		w.now = w.now.Add(2 * time.Hour)
		if got := sizes("c"); !slices.Equal(got, []int{248, 52}) {
			t.Errorf("calls hold %d targets, want four times 62, two hours later", got)
		}
		w.now = w.now.Add(time.Hour)
		if got := sizes("d"); len(got) != 1 {
			t.Errorf("calls hold %d targets once all has been forgotten", got)
		}
	})
	t.Run("a plan without any holds the zone until it has", func(t *testing.T) {
		w := newWorld(t)
		w.unread = true
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 1000)...))
		for range 20 {
			call := w.next()
			if call == nil {
				break
			}
			claimID, tasks := w.claim(call)
			w.settle(tasks, claimID, unchanged)
			w.q.ReleaseURLs(claimID, w.now)
			w.q.RecordTooLarge(call, w.now)
			w.q.RecordReleased(call, w.newest(call), w.now)
		}
		notes := w.notes()
		if len(notes) != 1 || notes[0].Reason != v1alpha1.ReasonBatchQuota || !notes[0].Stalled {
			t.Fatalf("%+v", notes)
		}
		w.now = w.now.Add(10 * time.Minute)
		w.drive(time.Minute)
		if w.open() != 0 || w.calls > 15 {
			t.Errorf("%d open after %d calls", w.open(), w.calls)
		}
	})
}

func TestATaskThatTakesManyDaysKeepsNobodyWaitingForLongerThanOne(t *testing.T) {
	w := newWorld(t)
	w.quota, w.batch = 1000, 2000
	w.set(taskstatetest.NewTask("large", taskstatetest.ListURLs("large", 2500)...))
	day := func(arrive ...string) string {
		for _, name := range arrive {
			task := taskstatetest.NewTask(name, taskstatetest.ListURLs(name, 400)...)
			task.CreationTimestamp = metav1.NewTime(w.now)
			w.set(task)
		}
		w.order = nil
		w.drive(20 * time.Hour)
		w.quota = 1000
		w.now = w.now.Add(4 * time.Hour)
		return strings.ReplaceAll(strings.Join(w.order, " "), "default/", "")
	}
	for i, want := range []string{"large", "a b large", "c large", "d e large", "large"} {
		arrive := [][]string{{"a", "b"}, {"c"}, {"d", "e"}, {}, {}}[i]
		if got := day(arrive...); got != want {
			t.Errorf("on day %d calls are of %q, want %q", i+1, got, want)
		}
	}
	if w.open() != 0 {
		t.Errorf("%d tasks are open", w.open())
	}
}

func TestHoldsAndTheirProbe(t *testing.T) {
	trouble := taskstate.Cause{Reason: v1alpha1.ReasonUnavailable, Message: "trouble"}
	for _, c := range []struct {
		name  string
		hold  func(w *world, until time.Time)
		probe bool
		other bool // the other zone continues
	}{
		{"the account", func(w *world, until time.Time) { w.q.BackOffAccount(trouble, w.now, until) }, true, false},
		{"the zone", func(w *world, until time.Time) { w.q.BackOffZone("zone-1", trouble, w.now, until) }, true, true},
		{"the lane", func(w *world, until time.Time) { w.q.BackOffLane(w.q.batchKeyOf(w.get("a0")), trouble, w.now, until) }, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			for i := range 3 {
				w.set(taskstatetest.NewTask(fmt.Sprint("a", i), taskstatetest.ListURLs(fmt.Sprint("a", i), 2)...))
			}
			other := taskstatetest.NewTask("other", taskstatetest.ListURLs("other", 1)...)
			other.Spec.ZoneID = "zone-2"
			w.set(other)
			until := w.now.Add(time.Second)
			c.hold(w, until)
			if c.other {
				w.answer(w.expect(w.next(), "other"))
			} else {
				w.delete("other")
			}
			w.none()
			w.edit("a1", taskstatetest.Revise)
			w.none()
			if d := w.q.PlanNext(w.now); d.Wait != time.Second {
				t.Errorf("comes back in %v", d.Wait)
			}
			w.now = until
			if !c.probe {
				w.expect(w.next(), "a0 a1 a2")
				return
			}
			probe := w.expect(w.next(), "a0")
			w.none()
			w.answer(probe)
			w.expect(w.next(), "a1 a2")
		})
	}
	t.Run("an answer to an older call does not end a hold", func(t *testing.T) {
		w := newWorld(t)
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 1)...))
		call := w.next()
		w.set(taskstatetest.NewTask("b", taskstatetest.ListURLs("b", 1)...))
		w.q.BackOffAccount(trouble, w.now, w.now.Add(time.Minute))
		w.q.BackOffZone("zone-1", trouble, w.now, w.now.Add(time.Minute))
		w.answer(call)
		w.none()
		w.now = w.now.Add(time.Minute)
		w.expect(w.next(), "b")
	})
}

func TestNotes(t *testing.T) {
	say := func(w *world, want string) {
		w.Helper()
		got := ""
		for _, note := range w.notes() {
			got += note.Task.Name + " " + note.Reason
			if note.Stalled {
				got += " stalled"
			}
			got += ";"
			w.edit(note.Task.Name, told(note))
		}
		if got != want {
			w.Errorf("says %q, want %q", got, want)
		}
	}
	t.Run("who waits for its turn for a minute is told so, once", func(t *testing.T) {
		w := newWorld(t)
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 1)...))
		call := w.next()
		w.set(taskstatetest.NewTask("b", taskstatetest.ListURLs("b", 1)...))
		for range 5 {
			w.now = w.now.Add(10 * time.Second)
			say(w, "")
			if _, next := w.q.WaitingStatuses(1, w.now); !next.Equal(w.now.Add(10 * time.Second)) {
				t.Errorf("comes back at %v", next)
			}
		}
		w.now = w.now.Add(10 * time.Second)
		say(w, "b Waiting;")
		w.now = w.now.Add(time.Minute)
		say(w, "")
		w.answer(call)
	})
	t.Run("who waits for another's claim for ten seconds is told so", func(t *testing.T) {
		w := newWorld(t)
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 1)...))
		w.q.ReserveURLs("claim", w.q.batchKeyOf(taskstatetest.NewTask("a")).ZoneID, []string{string(taskstatetest.ListURLs("a", 1)[0])}, w.now)
		w.none()
		w.now = w.now.Add(10 * time.Second)
		say(w, "a Waiting;")
	})
	t.Run("who is kept from a call for ten seconds is told why, once", func(t *testing.T) {
		w := newWorld(t)
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 1)...))
		call := w.next()
		w.set(taskstatetest.NewTask("b", taskstatetest.ListURLs("b", 1)...))
		w.q.BackOffZone(call.Lane.ZoneID, taskstate.Cause{Reason: "Unavailable"}, w.now, w.now.Add(time.Hour))
		w.now = w.now.Add(9 * time.Second)
		say(w, "")
		w.now = w.now.Add(time.Second)
		say(w, "b Unavailable;")
		w.now = w.now.Add(time.Minute)
		say(w, "")
		w.answer(call)
	})
	t.Run("the quota is told at once, and once", func(t *testing.T) {
		w := newWorld(t)
		w.quota = 0
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 1)...))
		w.none()
		say(w, "a DailyQuota;")
		for range 5 {
			w.drive(time.Hour)
			say(w, "")
		}
	})
	t.Run("what needs a person stalls after a minute", func(t *testing.T) {
		w := newWorld(t)
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 1)...))
		why := taskstate.Cause{Reason: v1alpha1.ReasonCredentialsMissing, Message: "no Secret", NeedsUser: true}
		var got []string
		for range 10 {
			w.q.BackOffAccount(why, w.now, w.now.Add(30*time.Second))
			for _, wait := range []time.Duration{0, 10 * time.Second, 20 * time.Second} {
				w.now = w.now.Add(wait)
				for _, note := range w.notes() {
					got = append(got, fmt.Sprint(note.Reason, note.Stalled))
					w.edit("a", told(note))
				}
			}
		}
		if fmt.Sprint(got) != "[CredentialsMissingfalse CredentialsMissingtrue]" {
			t.Errorf("%v", got)
		}
	})
	t.Run("short trouble is not told", func(t *testing.T) {
		w := newWorld(t)
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 1)...))
		w.q.BackOffAccount(taskstate.Cause{Reason: v1alpha1.ReasonThrottled}, w.now, w.now.Add(time.Second))
		say(w, "")
		w.drive(time.Minute)
		say(w, "")
	})
	t.Run("a suspended task says so, once", func(t *testing.T) {
		w := newWorld(t)
		task := taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 1)...)
		taskstatetest.Suspend(task)
		w.set(task)
		say(w, "a Suspended;")
		say(w, "")
		w.edit("a", taskstatetest.Resume)
		w.expect(w.next(), "a")
	})
	t.Run("an edit that asks for nothing is acknowledged", func(t *testing.T) {
		w := newWorld(t)
		task := taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 1)...)
		taskstatetest.Begun("0")(task)
		task.Generation++
		w.set(task)
		say(w, "a ;")
		say(w, "")
	})
}

// told writes a waiting status as the controller does, as far as these tests need it.
func told(note taskstate.WaitingStatus) func(*v1alpha1.PrefetchTask) {
	return func(task *v1alpha1.PrefetchTask) { taskstate.ReportWaiting(note, time.Unix(0, 0))(task) }
}

func TestANoteThatCouldNotBeWrittenIsToldAgain(t *testing.T) {
	w := newWorld(t)
	w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("x", 1)...))
	w.edit("a", taskstatetest.Suspend)
	notes, _ := w.q.WaitingStatuses(10, w.now)
	if len(notes) != 1 {
		t.Fatalf("%d notes, want 1", len(notes))
	}
	w.q.RequeueStatus(notes[0], w.now)
	_, next := w.q.WaitingStatuses(10, w.now)
	if again, _ := w.q.WaitingStatuses(10, next); len(again) != 1 || again[0].Reason != v1alpha1.ReasonSuspended {
		t.Errorf("told again: %+v", again)
	}
}
