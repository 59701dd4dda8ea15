package queue

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate/taskstatetest"
)

func TestOneBadURLIn2000(t *testing.T) {
	for _, tasks := range []int{1, 2000} {
		for _, bad := range []int{0, 1234, 1999} {
			t.Run(fmt.Sprintf("of %d tasks, at %d", tasks, bad), func(t *testing.T) {
				w := newWorld(t)
				w.q.limits.Batch, w.q.limits.TasksPerCall = 2000, 2000
				all := taskstatetest.ListURLs("x", 2000)
				w.bad[string(all[bad])] = true
				for i := range tasks {
					w.set(taskstatetest.NewTask(fmt.Sprint("t", i), all[i*2000/tasks:(i+1)*2000/tasks]...))
				}
				w.drive(time.Minute)
				if most := int(2*math.Log2(2000)) + 2; w.extra > most {
					t.Errorf("%d extra calls, want at most %d", w.extra, most)
				}
				if len(w.accepted) != 1999 || w.open() != 0 || w.q.Len() != 0 || len(w.q.lanes) != 0 {
					t.Errorf("%d accepted, %d open, %d in the queue, %d lanes", len(w.accepted), w.open(), w.q.Len(), len(w.q.lanes))
				}
			})
		}
	}
}

// If the spellings of a URL were tested separately, one URL would take several calls.
func TestHalvesHaveAllSpellingsOfAURL(t *testing.T) {
	w := newWorld(t)
	w.set(taskstatetest.NewTask("a", "https://a.example/1", "https://a.example/x", "HTTPS://a.example/x", "https://A.example/x"))
	claimID, tasks := w.lose(w.next())
	w.find(tasks, claimID, false)
	sent := map[string]bool{}
	for range 60 {
		w.now = w.now.Add(time.Second)
		for call := w.next(); call != nil; call = w.next() {
			for _, u := range call.URLs {
				if u = strings.ToLower(u); sent[u] {
					t.Errorf("%s is sent twice", u)
				}
				sent[u] = true
			}
			w.answer(call)
		}
	}
	if w.open() != 0 || len(sent) != 2 {
		t.Errorf("%d targets are open, and %d URLs were sent", w.open(), len(sent))
	}
}

func TestAForeignHostCostsTensOfCalls(t *testing.T) {
	for _, tasks := range []int{1, 5000} {
		t.Run(fmt.Sprintf("%d tasks", tasks), func(t *testing.T) {
			w := newWorld(t)
			w.foreign = "foreign.example"
			for i := range tasks {
				task := taskstatetest.NewTask(fmt.Sprint("t", i))
				for j := range 5000 / tasks {
					task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(fmt.Sprintf("https://foreign.example/%d/%d", i, j)))
				}
				w.set(task)
			}
			w.drive(5 * time.Minute)
			if w.calls > 60 || w.open() != 0 || w.q.Len() != 0 {
				t.Errorf("%d calls, %d open, %d in the queue", w.calls, w.open(), w.q.Len())
			}
		})
	}
}

func TestIsolationTakesAQuarterOfTheSlots(t *testing.T) {
	w := newWorld(t)
	all := taskstatetest.ListURLs("x", 500)
	for _, u := range all {
		w.bad[string(u)] = true
	}
	w.set(taskstatetest.NewTask("guilty", all...))
	tests, start := 0, w.now
	for range 400 { // 20 seconds
		w.set(taskstatetest.NewTask("good/x", "https://a.example/good"))
		call := w.next()
		if call == nil {
			w.now = w.now.Add(50 * time.Millisecond)
			continue
		}
		if call.test {
			tests++
		}
		w.answer(call)
		w.now = w.now.Add(50 * time.Millisecond)
	}
	if most := int(w.now.Sub(start).Seconds()*5) + 1; tests > most || tests < most/2 {
		t.Errorf("%d tests, want about %d at most", tests, most)
	}
}

func TestSuspects(t *testing.T) {
	rejected := func(t *testing.T) *world {
		w := newWorld(t)
		w.bad["https://a.example/x/0"] = true
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("x", 4)...), taskstatetest.NewTask("b", taskstatetest.ListURLs("y", 4)...))
		w.answer(w.expect(w.next(), "a b"))
		return w
	}
	for _, c := range []struct {
		name     string
		do       func(w *world)
		accepted int
	}{
		{"are tried", func(*world) {}, 7},
		{"wait for the quota, and for its return", func(w *world) {
			w.q.SetQuota("zone-1", 0, 0, w.now)
			w.drive(30 * time.Minute)
		}, 7},
		{"are acquitted by an edit", func(w *world) {
			w.edit("a", func(p *v1alpha1.PrefetchTask) { p.Spec.Targets = taskstatetest.ListURLs("z", 4) })
		}, 8},
		{"are tried in smaller calls when the zone takes less", func(w *world) {
			w.q.zoneQuotaFor(zoneMode{zoneID: "zone-1"}).batch, w.batch = 3, 3
		}, 7},
		{"may be deleted", func(w *world) { w.delete("a") }, 4},
		{"may be suspended and resumed", func(w *world) {
			w.edit("a", taskstatetest.Suspend)
			w.drive(time.Minute)
			w.edit("a", taskstatetest.Resume)
		}, 7},
		{"that were not called stay suspects", func(w *world) {
			call := w.expect(w.next(), "a")
			claimID, tasks := w.claim(call)
			w.settle(tasks, claimID, unchanged)
			w.q.ReleaseURLs(claimID, w.now)
			w.q.RecordReleased(call, w.newest(call), w.now)
		}, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := rejected(t)
			c.do(w)
			w.drive(time.Hour)
			if len(w.accepted) != c.accepted || w.open() != 0 {
				t.Errorf("%d accepted, %d open", len(w.accepted), w.open())
			}
		})
	}
}

// A URL that the network path never transmits waits alone. The other targets of its task
// are submitted.
func TestTheRestOfATaskGoesOnBesideAURLThatIsCutOff(t *testing.T) {
	for _, n := range []int{1, 3} { // URLs in a call
		w := newWorld(t)
		w.batch = n
		w.q.limits.Batch = n
		why := taskstate.Cause{Reason: v1alpha1.ReasonUnavailable, Message: "cut off"}
		w.set(taskstatetest.NewTask("a", append([]v1alpha1.Target{"https://a.example/never"}, taskstatetest.ListURLs("x", 10)...)...))
		for end := w.now.Add(2 * time.Hour); w.now.Before(end); {
			d := w.q.PlanNext(w.now)
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
			w.release(d.Call, func(tasks []*v1alpha1.PrefetchTask) { w.q.BisectCutOff(d.Call, tasks, why, w.now) })
			w.now = w.now.Add(10 * time.Millisecond)
		}
		if len(w.accepted) != 10 {
			t.Errorf("with %d URLs in a call, %d of 10 good URLs were accepted in 2 hours", n, len(w.accepted))
		}
	}
}

// A task is bisected even if its target list is not in memory when its lost call is
// settled. The bisection starts when the list is in memory again.
func TestALostCallIsHalvedThoughTheListWasAwayWhenItWasSettled(t *testing.T) {
	for _, isAway := range []bool{false, true} {
		w := newWorld(t)
		const n, poison = 64, "https://a.example/x/0"
		w.set(taskstatetest.NewTask("a", taskstatetest.ListURLs("x", n)...))
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
			w.q.TrackLostCall(call, claimID, w.newest(call), w.now)
			w.now = w.now.Add(330 * time.Second)
			if isAway {
				w.q.UpsertTask(taskstate.ElideTargets(w.get("a")), w.now)
				w.settle(tasks, claimID, func(task *v1alpha1.PrefetchTask) { task.Status.LostCalls++ })
				w.q.UpsertTask(taskstate.ElideTargets(w.get("a")), w.now)
				w.none()
				w.now = w.now.Add(time.Second)
				w.q.UpsertTask(w.get("a"), w.now)
			} else {
				w.find(tasks, claimID, false)
			}
		}
		if len(w.accepted) != n-1 {
			t.Errorf("away %v: %d of %d good URLs were accepted after %d lost calls", isAway, len(w.accepted), n-1, lost)
		}
	}
}
