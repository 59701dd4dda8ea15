package queue

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate/taskstatetest"
)

// ahead returns what the tasks report that the queue reports as queued after a minute, by task.
func (w *world) ahead() map[string]taskstate.Ahead {
	w.now = w.now.Add(queuePatience)
	ahead := map[string]taskstate.Ahead{}
	for _, note := range w.notes() {
		ahead[note.Task.Namespace+"/"+note.Task.Name] = note.Ahead
	}
	return ahead
}

func TestWhatIsAheadOfATaskIsCalledForFirst(t *testing.T) {
	for _, tt := range []struct {
		name       string
		lanes      int
		namespaces map[string][]int // the sizes of their tasks
	}{
		{"namespaces take turns", 1, map[string][]int{"many": {3, 1, 700, 2, 1}, "one": {10}, "few": {1, 5}}},
		{"the oldest goes first in each lane", 3, map[string][]int{"many": {1, 2, 3, 900, 5, 6, 7}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.q.limits.TasksPerCall = 1
			newTasks := func(namespace string, sizes ...int) {
				for i, size := range sizes {
					name := fmt.Sprintf("%s/%d", namespace, i)
					task := taskstatetest.NewTask(name, taskstatetest.ListURLs(name, size)...)
					task.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "X-Lane", Value: fmt.Sprint(i % tt.lanes)}}
					w.set(task)
				}
			}
			newTasks("busy", 1, 1, 1, 1, 1, 1, 1, 1)
			for range 4 {
				call := w.next()
				w.q.MarkSent(call)
				w.answer(call)
			}
			waiting := 4
			for _, namespace := range slices.Sorted(maps.Keys(tt.namespaces)) {
				newTasks(namespace, tt.namespaces[namespace]...)
				waiting += len(tt.namespaces[namespace])
			}
			ahead := w.ahead()
			if len(ahead) != waiting {
				t.Fatalf("%d tasks say what is ahead of them, want %d", len(ahead), waiting)
			}
			tasks, targets, seen := 0, 0, map[string]bool{}
			for call := w.next(); call != nil; call = w.next() {
				w.answer(call)
				name := w.order[len(w.order)-1]
				if want := (taskstate.Ahead{Tasks: tasks, Targets: targets, Time: ahead[name].Time}); !seen[name] && ahead[name] != want {
					t.Errorf("%s says %+v, want %+v", name, ahead[name], want)
				}
				seen[name] = true
				tasks, targets = tasks+1, targets+len(call.URLs)
			}
			if tasks != waiting+1 { // one task needs two calls, and the second one goes last
				t.Errorf("%d calls, want %d", tasks, waiting+1)
			}
		})
	}
}

func TestANamespaceThatArrivesDuringACallHasNoTurnsToMakeUp(t *testing.T) {
	w := newWorld(t)
	w.q.limits.TasksPerCall = 1
	newTasks := func(namespace string, n int) {
		for i := range n {
			name := fmt.Sprintf("%s/%d", namespace, i)
			w.set(taskstatetest.NewTask(name, taskstatetest.ListURLs(name, 1)...))
		}
	}
	newTasks("first", 10)
	for range 5 {
		call := w.next()
		w.q.MarkSent(call)
		w.answer(call)
	}
	w.q.MarkSent(w.next()) // first/5, which is not answered: its lane is not ready
	newTasks("second", 4)
	if got := w.ahead(); len(got) != 8 || got["first/6"].Tasks > 2 || got["second/3"].Tasks < 5 { // they alternate
		t.Errorf("%+v", got)
	}
}

func TestOnlyTasksThatCanBeCalledForAreAhead(t *testing.T) {
	t.Run("not those of a zone without quota", func(t *testing.T) {
		w := newWorld(t)
		held := taskstatetest.NewTask("held", taskstatetest.ListURLs("held", 7)...)
		held.Spec.ZoneID = "zone-2"
		w.set(held, taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 2)...), taskstatetest.NewTask("b", taskstatetest.ListURLs("b", 1)...))
		w.q.BackOffZone("zone-2", taskstate.Cause{Reason: v1alpha1.ReasonDailyQuota, Message: "no quota", Quota: true}, w.now, w.now.Add(time.Hour))
		if got := w.ahead(); got["default/a"].Tasks != 0 || got["default/a"].Time.IsZero() || got["default/b"].Tasks != 1 || got["default/b"].Targets != 2 || !got["default/held"].Time.IsZero() {
			t.Errorf("%+v", got)
		}
	})
	t.Run("not those in a call", func(t *testing.T) {
		w := newWorld(t)
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("a", 2)...))
		w.next()
		w.set(taskstatetest.NewTask("b", taskstatetest.ListURLs("b", 1)...))
		if got := w.ahead()["default/b"]; got.Tasks != 0 || got.Time.IsZero() {
			t.Errorf("%+v", got)
		}
	})
	t.Run("and those that purge count what they purge", func(t *testing.T) {
		w := newWorld(t)
		w.q = NewQueue(Limits{Kind: v1alpha1.JobPurge, Batch: 500, TasksPerCall: 500, StallAfter: time.Minute, Normalize: w.q.limits.Normalize})
		for name, purge := range map[string]v1alpha1.PurgeType{"a": v1alpha1.PurgeHost, "b": v1alpha1.PurgeURL} {
			task := taskstatetest.NewTask(name, taskstatetest.ListURLs(name, 4)...)
			task.Spec.Purge.Type = purge
			if purge == v1alpha1.PurgeHost {
				task.Spec.Purge.Targets = []v1alpha1.PurgeTarget{"a.example"}
			}
			task.CreationTimestamp.Time = w.now // the name decides
			w.set(task)
		}
		last := taskstatetest.NewTask("c", taskstatetest.ListURLs("c", 1)...)
		last.Spec.Purge.Type, last.CreationTimestamp.Time = v1alpha1.PurgeURL, w.now
		w.set(last, taskstatetest.NewTask("prefetch", taskstatetest.ListURLs("prefetch", 1)...))
		if got := w.ahead(); len(got) != 3 || got["default/b"].Targets != 1 || got["default/c"].Tasks != 2 || got["default/c"].Targets != 5 {
			t.Errorf("%+v", got)
		}
	})
}

// A queued task is written once, however often what is ahead of it changes, and once more when
// the rest of its targets waits for another call.
func TestWhatIsAheadCostsNoFurtherWrites(t *testing.T) {
	w := newWorld(t)
	w.q.limits.TasksPerCall = 1
	const tasks = 50
	for i := range tasks {
		name := fmt.Sprintf("ns%d/task%d", i%7, i)
		w.set(taskstatetest.NewTask(name, taskstatetest.ListURLs(name, 600)...)) // two calls
	}
	writes := map[string]int{}
	for call := w.next(); call != nil; call = w.next() {
		for range 3 {
			w.now = w.now.Add(queuePatience)
			for _, note := range w.notes() {
				name := note.Task.Namespace + "/" + note.Task.Name
				writes[name]++
				w.edit(name, told(note))
			}
		}
		w.answer(call)
		for _, part := range call.Parts {
			name := part.Task.Namespace + "/" + part.Task.Name
			w.edit(name, func(task *v1alpha1.PrefetchTask) { taskstate.UpdateSummary(task, w.now) })
		}
	}
	if len(writes) != tasks {
		t.Fatalf("%d tasks say that they are queued, want %d", len(writes), tasks)
	}
	for name, n := range writes {
		if n > 2 {
			t.Errorf("%s was written %d times while it waited for two calls", name, n)
		}
	}
}

// Thousands of tasks that wait at the same time share one count.
func TestTheTasksThatAreReportedTogetherShareACount(t *testing.T) {
	q := waitingBeside(2000, 0)
	now := time.Now().Add(2 * queuePatience)
	q.WaitingStatuses(0, now.Add(-time.Minute)) // they wait for longer than ten seconds
	for range 5 {
		notes, _ := q.WaitingStatuses(64, now)
		if len(notes) != 64 || !notes[0].Ahead.Time.Equal(notes[63].Ahead.Time) || now.Sub(notes[0].Ahead.Time) >= reportPatience {
			t.Fatalf("%d notes, of %v to %v", len(notes), notes[0].Ahead, notes[63].Ahead)
		}
		now = now.Add(time.Second)
	}
	counted := q.aheadCounted
	if now.Sub(counted) != 5*time.Second {
		t.Errorf("counted again after less than %s", reportPatience)
	}
	notes, _ := q.WaitingStatuses(64, now.Add(reportPatience))
	if !notes[0].Ahead.Time.Equal(now.Add(reportPatience)) {
		t.Errorf("not counted again after %s: %v", reportPatience, notes[0].Ahead)
	}
}
