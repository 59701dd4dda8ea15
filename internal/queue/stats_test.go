package queue

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate/taskstatetest"
)

func TestWhatAQueueTellsOfAZone(t *testing.T) {
	w := newWorld(t)
	w.quota = 1000
	want := func(what, zoneID string, waiting, left int, age time.Duration) {
		t.Helper()
		zone, known := w.q.StatsByZone(w.now)[zoneID]
		if !known {
			zone.Left = -1
		}
		var all Backlog
		for _, line := range zone.Waiting {
			all = all.Merge(line)
		}
		got := time.Duration(0)
		if !all.Since.IsZero() {
			got = w.now.Sub(all.Since).Round(time.Second)
		}
		if all.Targets != waiting || zone.Left != left || got != age {
			t.Errorf("%s: %d targets wait in %s for %s, and %d are left of the day's; want %d, %s and %d", what, all.Targets, zoneID, got, zone.Left, waiting, age, left)
		}
	}
	wantReason := func(what, reason string) {
		t.Helper()
		if waiting := w.q.StatsByZone(w.now)["zone-1"].Waiting; len(waiting) != 1 || waiting[reason].Targets == 0 {
			t.Errorf("%s: it waits for %v, want %s", what, waiting, reason)
		}
	}
	small := taskstatetest.NewTask("small", taskstatetest.ListURLs("small", 10)...)
	small.CreationTimestamp = metav1.NewTime(w.now.Add(-5 * time.Minute))
	w.set(small)
	want("a task that was there before this process", "zone-1", 10, -1, 5*time.Minute)
	wantReason("nothing holds it", v1alpha1.ReasonWaiting)

	call := w.expect(w.next(), "small")
	want("it is called for", "zone-1", 0, 1000, 0)
	w.answer(call)
	want("it was accepted", "zone-1", 0, 990, 0)

	suspended := taskstatetest.NewTask("suspended", taskstatetest.ListURLs("suspended", 3)...)
	taskstatetest.Suspend(suspended)
	w.set(suspended)
	w.next()
	notes, _ := w.q.WaitingStatuses(10, w.now)
	for _, note := range notes {
		task := note.Task.DeepCopy()
		task.Status.ObservedGeneration = task.Generation
		task.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: note.Reason}}
		w.set(task)
	}
	want("a suspended task", "zone-1", 0, 990, 0)
	w.now = w.now.Add(time.Hour)
	w.edit("suspended", func(task *v1alpha1.PrefetchTask) { task.Spec.Suspend = nil; task.Generation++ })
	w.now = w.now.Add(time.Second)
	want("it waits since it was resumed, not since it was made", "zone-1", 3, 990, time.Second)
	w.answer(w.expect(w.next(), "suspended"))

	w.now = w.now.Add(time.Hour)
	w.edit("small", func(task *v1alpha1.PrefetchTask) { task.Spec.Revision = "2"; task.Generation++ })
	w.now = w.now.Add(time.Minute)
	want("a new run waits since it was asked for", "zone-1", 10, 987, time.Minute)
	w.answer(w.expect(w.next(), "small"))

	large := taskstatetest.NewTask("large", taskstatetest.ListURLs("large", 1200)...)
	large.CreationTimestamp = metav1.NewTime(w.now)
	w.set(large)
	for w.quota > 0 {
		w.answer(w.expect(w.next(), "large"))
	}
	w.edit("large", func(task *v1alpha1.PrefetchTask) {
		task.Status.Targets = v1alpha1.TargetCounts{Total: ptr.To[int32](1200), Submitted: ptr.To[int32](977)}
	})
	w.now = w.now.Add(10 * time.Minute)
	want("the rest of a large task waits for quota since its last call", "zone-1", 223, 0, 10*time.Minute)
	w.none()
	wantReason("nothing is left of the day's quota", v1alpha1.ReasonDailyQuota)
	w.now = w.now.Add(11 * time.Hour) // past midnight
	want("what was left yesterday says nothing", "zone-1", 223, -1, 11*time.Hour+10*time.Minute)
	wantReason("nobody has looked whether it is back", v1alpha1.ReasonDailyQuota)
	w.q.BackOffAccount(taskstate.Cause{Reason: v1alpha1.ReasonCredentialsRefused, NeedsUser: true}, w.now, w.now.Add(time.Minute))
	wantReason("all of the account are held", v1alpha1.ReasonCredentialsRefused)
	want("other zones", "zone-2", 0, -1, 0)
	w.delete("large")
	want("it is deleted", "zone-1", 0, -1, 0)
}

func TestTargetsThatWaitForAnotherTasksCallCountAsWaiting(t *testing.T) {
	w := newWorld(t)
	w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("same", 2)...))
	call := w.next()
	other := taskstatetest.NewTask("b", taskstatetest.ListURLs("same", 2)...)
	other.Spec.MediaSegments = v1alpha1.MediaSegmentsPrefetch // a separate lane
	w.set(other)
	w.lose(call)
	w.none()
	if zone := w.q.StatsByZone(w.now)["zone-1"]; zone.Waiting[v1alpha1.ReasonWaiting].Targets != 2 {
		t.Errorf("%v wait, want 2 targets", zone.Waiting)
	}
}
