package schedule

import (
	"fmt"
	"testing"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// A URL that the path never takes waits for itself. What its task has beyond the call
// that was cut off goes out.
func TestTheRestOfATaskGoesOnBesideAURLThatIsCutOff(t *testing.T) {
	for _, n := range []int{1, 3} { // URLs in a call
		w := newWorld(t)
		w.batch = n
		w.q.limits.Batch = n
		why := Why{Reason: v1alpha1.ReasonUnavailable, Message: "cut off"}
		w.set(newTask("a", append([]v1alpha1.Target{"https://a.example/never"}, urls("x", 10)...)...))
		for end := w.now.Add(2 * time.Hour); w.now.Before(end); {
			d := w.q.Next(w.now)
			switch {
			case d.ReadQuota != "":
				w.readQuota(d.ReadQuota)
				continue
			case d.Call == nil:
				w.now = w.now.Add(max(d.Wait, time.Second))
				continue
			}
			never := false
			for _, u := range d.Call.URLs {
				never = never || u == "https://a.example/never"
			}
			if !never {
				w.answer(d.Call)
				continue
			}
			w.release(d.Call, func(tasks []*v1alpha1.PrefetchTask) { w.q.CutOff(d.Call, tasks, why, w.now) })
			w.now = w.now.Add(10 * time.Millisecond)
		}
		if len(w.accepted) != 10 {
			t.Errorf("with %d URLs in a call, %d of 10 good URLs were accepted in 2 hours", n, len(w.accepted))
		}
	}
}

// A task whose list is out of memory when its lost call is settled is tried by halves all
// the same, once the list is here again.
func TestALostCallIsHalvedThoughTheListWasAwayWhenItWasSettled(t *testing.T) {
	for _, isAway := range []bool{false, true} {
		w := newWorld(t)
		const n, poison = 64, "https://a.example/x/0"
		w.set(newTask("a", urls("x", n)...))
		lost := 0
		for range 200 {
			call := w.next()
			if call == nil {
				w.now = w.now.Add(time.Minute)
				continue
			}
			isBad := false
			for _, u := range call.URLs {
				isBad = isBad || u == poison
			}
			if !isBad {
				w.answer(call)
				continue
			}
			lost++
			claimID, tasks := w.claim(call)
			w.q.Lost(call, claimID, w.newest(call), w.now)
			w.now = w.now.Add(330 * time.Second)
			if isAway {
				w.q.Set(Elide(w.get("a")), w.now)
				w.settle(tasks, claimID, func(task *v1alpha1.PrefetchTask) { task.Status.LostCalls++ })
				w.q.Set(Elide(w.get("a")), w.now)
				w.none()
				w.now = w.now.Add(time.Second)
				w.q.Set(w.get("a"), w.now)
			} else {
				w.find(tasks, claimID, false)
			}
		}
		if len(w.accepted) != n-1 {
			t.Errorf("away %v: %d of %d good URLs were accepted after %d lost calls", isAway, len(w.accepted), n-1, lost)
		}
	}
}

// Two bad URLs that stand beside each other are no evidence about URLs that were never
// asked for.
func TestTwoNeighboursThatAreBadDoNotFailTheRestUnasked(t *testing.T) {
	w := newWorld(t)
	const n = 64
	all := urls("x", n)
	isBad := map[string]bool{string(all[0]): true, string(all[1]): true}
	w.set(newTask("a", all...))
	for end := w.now.Add(time.Hour); w.now.Before(end); w.now = w.now.Add(200 * time.Millisecond) {
		call := w.next()
		if call == nil {
			break
		}
		if call.Refusal != "" {
			w.answer(call)
			continue
		}
		bad := false
		for _, u := range call.URLs {
			bad = bad || isBad[u]
		}
		claimID, tasks := w.claim(call)
		switch {
		case bad && len(call.URLs) == 1:
			w.settle(tasks, claimID, refusedAll)
			w.q.Settled(claimID, w.now)
			w.q.Refused(call, "InvalidParameter.ParameterError", "wrong", false)
			w.q.Accepted(call, tasks, 0, w.now)
		case bad:
			w.settle(tasks, claimID, unchanged)
			w.q.Settled(claimID, w.now)
			w.q.Rejected(call, w.newest(call), w.now)
		default:
			w.execute(call, claimID, tasks)
			w.settle(tasks, claimID, w.adopted(claimID))
			w.q.Settled(claimID, w.now)
			w.q.Accepted(call, tasks, len(call.URLs), w.now)
		}
	}
	if _, refused := HandedOver(w.get("a")); len(refused) != 2 {
		t.Errorf("%d URLs are refused, want the 2 that are bad", len(refused))
	}
}

// The queue of a process that stands by plans no calls. It forgets what is gone all the
// same, when it is asked whether it is idle.
func TestAQueueThatPlansNothingForgetsWhatIsGone(t *testing.T) {
	w := newWorld(t)
	w.set(newTask("stays", urls("stays", 1)...))
	for i := range 2000 {
		name := fmt.Sprintf("n%d/t", i)
		w.set(newTask(name, urls(name, 1)...))
		w.edit(name, func(task *v1alpha1.PrefetchTask) {
			task.Status.Run = Run(task)
			task.Status.Submission = &v1alpha1.Submission{ClaimID: name, ZoneID: task.Spec.ZoneID, Targets: "0", Semantics: Semantics(task)}
		})
		w.edit(name, func(task *v1alpha1.PrefetchTask) { task.Status.Submission = nil })
		w.delete(name)
		if w.now = w.now.Add(time.Second); i%100 == 0 {
			w.q.IsIdle(w.now)
		}
	}
	w.now = w.now.Add(time.Hour)
	w.q.IsIdle(w.now)
	if n := len(w.q.expiries) + len(w.q.idle) + len(w.q.namespaces) + len(w.q.claims) + len(w.q.wanted); n > 10 {
		t.Errorf("%d expiries, %d idle of %d namespaces, %d claims of %d URLs are kept",
			len(w.q.expiries), len(w.q.idle), len(w.q.namespaces), len(w.q.claims), len(w.q.wanted))
	}
}
