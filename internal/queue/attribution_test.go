package queue

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate/taskstatetest"
)

var denied = taskstate.Cause{Reason: v1alpha1.ReasonPermissionDenied, Message: "denied", NeedsUser: true}

// release simulates a call that EdgeOne certainly did not execute.
func (w *world) release(call *Call, tell func(tasks []*v1alpha1.PrefetchTask)) {
	claimID, tasks := w.claim(call)
	w.settle(tasks, claimID, unchanged)
	w.q.ReleaseURLs(claimID, w.now)
	tell(tasks)
}

// deny simulates a call that EdgeOne refuses for a missing permission.
func (w *world) deny(call *Call) {
	w.release(call, func(tasks []*v1alpha1.PrefetchTask) {
		reach, _ := w.q.AttributeDenial(call, "NoPermission", w.now)
		w.q.BackOffScope(reach, call, denied, w.now, w.now.Add(30*time.Second))
		w.q.RecordReleased(call, w.newest(call), w.now)
	})
}

func withHeader(value string) func(*v1alpha1.PrefetchTask) {
	return func(task *v1alpha1.PrefetchTask) {
		task.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "X-Lane", Value: value}}
	}
}

// add creates a task with a URL that no other task has.
func (w *world) add(name string, changes ...func(*v1alpha1.PrefetchTask)) {
	task := taskstatetest.NewTask(name, "https://a.example/"+v1alpha1.Target(name))
	for _, change := range changes {
		change(task)
	}
	w.set(task)
}

func TestARefusalHoldsWhatWasRefused(t *testing.T) {
	t.Run("the lane, if its headers may be the reason", func(t *testing.T) {
		w := newWorld(t)
		w.add("a/headers", withHeader("1"))
		w.deny(w.expect(w.next(), "a/headers"))
		w.add("b/plain")
		w.answer(w.expect(w.next(), "b/plain"))
		w.add("a/others", withHeader("2"))
		w.answer(w.expect(w.next(), "a/others"))
		w.none()
		w.now = w.now.Add(30 * time.Second)
		w.expect(w.next(), "a/headers")
	})
	t.Run("the mode, if nothing but the mode can be the reason", func(t *testing.T) {
		w := newWorld(t)
		w.add("a/edge", taskstatetest.UseEdgeMode)
		w.deny(w.expect(w.next(), "a/edge"))
		w.add("b/edge", taskstatetest.UseEdgeMode, withHeader("1"))
		w.add("b/default")
		w.answer(w.expect(w.next(), "b/default"))
		w.none()
	})
	t.Run("the mode, if two namespaces are refused with other headers each", func(t *testing.T) {
		w := newWorld(t)
		w.add("a/1", withHeader("1"))
		w.add("b/2", withHeader("2"))
		w.deny(w.next()) // the order does not matter
		w.deny(w.next())
		w.add("c/plain")
		w.add("c/edge", taskstatetest.UseEdgeMode)
		w.answer(w.expect(w.next(), "c/edge"))
		w.none()
	})
	t.Run("a namespace, if some of its lanes are refused, and no other namespace", func(t *testing.T) {
		w := newWorld(t)
		for i := range 1000 {
			w.add(fmt.Sprint("a/", i), withHeader(fmt.Sprint(i)))
		}
		refused := 0
		for call := w.next(); call != nil; call = w.next() {
			w.now = w.now.Add(time.Millisecond)
			w.deny(call)
			refused++
		}
		if refused > deniedLanes {
			t.Errorf("%d calls of 1,000 lanes were refused, want %d at most", refused, deniedLanes)
		}
		w.add("b/headers", withHeader("b"))
		w.answer(w.expect(w.next(), "b/headers"))
		w.add("b/plain")
		w.answer(w.expect(w.next(), "b/plain"))
		w.none()
	})
}

// The lost calls of a namespace make other namespaces wait only once, for a call that
// they shared, no matter how often its calls get lost.
func TestLostCallsOfANamespaceKeepOthersWaitingOnce(t *testing.T) {
	w := newWorld(t)
	w.add("quiet/0")
	w.add("poison/0")
	call := w.next()
	if got := names(call); got != "quiet/0 poison/0" {
		t.Fatalf("the first call is of %q", got)
	}
	w.lose(call)
	for i := 1; i < 50; i++ {
		w.add(fmt.Sprint("poison/", i))
		w.add(fmt.Sprint("quiet/", i))
		served := false
		for call := w.next(); call != nil; call = w.next() {
			switch call.Parts[0].Task.Namespace {
			case "poison":
				w.q.AttributeFailure(call, "no answer", w.now)
				w.lose(call)
			default:
				served = true
				w.answer(call)
			}
			for _, part := range call.Parts {
				if part.Task.Namespace != call.Parts[0].Task.Namespace {
					t.Fatalf("round %d: the namespaces share a call again: %s", i, names(call))
				}
			}
		}
		if !served {
			t.Fatalf("round %d: the quiet namespace has to wait", i)
		}
		w.now = w.now.Add(time.Second)
	}
}

func TestFailuresConcernTheAccountOnlyWhereUnrelatedOnesFailInTheSameWay(t *testing.T) {
	zone := func(id string) func(*v1alpha1.PrefetchTask) {
		return func(task *v1alpha1.PrefetchTask) { task.Spec.ZoneID = id }
	}
	for _, c := range []struct {
		name  string
		tasks func(w *world)
		ways  []string
		want  Scope
	}{
		{"one namespace in one lane", func(w *world) { w.add("a/1"); w.add("a/2") }, []string{"x"}, ScopeLane},
		{"one namespace in two lanes", func(w *world) { w.add("a/1"); w.add("a/2", withHeader("2")) }, []string{"x", "x"}, ScopeTenant},
		{"one namespace in two zones", func(w *world) { w.add("a/1"); w.add("a/2", zone("zone-2")) }, []string{"x", "x"}, ScopeLane},
		{"two namespaces in one zone", func(w *world) { w.add("a/1", withHeader("1")); w.add("b/2", withHeader("2")) }, []string{"x", "x"}, ScopeMode},
		{"two namespaces in two zones", func(w *world) { w.add("a/1"); w.add("b/2", zone("zone-2")) }, []string{"x", "x"}, ScopeAccount},
		{"two namespaces in two zones in different ways", func(w *world) { w.add("a/1"); w.add("b/2", zone("zone-2")) }, []string{"x", "y"}, ScopeLane},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.tasks(w)
			var reach Scope
			for _, way := range c.ways {
				call := w.next()
				w.now = w.now.Add(time.Millisecond)
				reach, _ = w.q.AttributeFailure(call, way, w.now)
			}
			if reach != c.want {
				t.Errorf("it concerns %d, want %d", reach, c.want)
			}
		})
	}
}

func TestAZoneAndAllZonesWaitForEachOthersLostCalls(t *testing.T) {
	for _, c := range []struct {
		lost, waits string
		both        bool
	}{{"zone-1", "*", true}, {"*", "zone-1", true}, {"zone-1", "zone-2", false}} {
		t.Run(c.lost+" and "+c.waits, func(t *testing.T) {
			w := newWorld(t)
			lost, waits := taskstatetest.NewTask("lost", taskstatetest.ListURLs("x", 1)...), taskstatetest.NewTask("waits", taskstatetest.ListURLs("x", 1)...)
			lost.Spec.ZoneID, waits.Spec.ZoneID = c.lost, c.waits
			taskstatetest.UseEdgeMode(lost)
			w.set(lost)
			claimID, tasks := w.lose(w.next())
			w.set(waits)
			if call := w.next(); (call == nil) != c.both {
				t.Fatalf("the other zone has the call %v", call)
			}
			if c.both {
				w.find(tasks, claimID, true)
				w.expect(w.next(), "waits")
			}
		})
	}
}

func TestACallThatThePathDoesNotTakeIsSentInParts(t *testing.T) {
	w := newWorld(t)
	const takes = 7
	why := taskstate.Cause{Reason: v1alpha1.ReasonUnavailable, Message: "cut off"}
	w.set(taskstatetest.NewTask("large", append(taskstatetest.ListURLs("x", 40), "https://a.example/never")...))
	w.set(taskstatetest.NewTask("small", taskstatetest.ListURLs("y", 1)...))
	tries, alone := 0, 0
	for end := w.now.Add(6 * time.Hour); w.now.Before(end); {
		d := w.q.PlanNext(w.now)
		switch {
		case d.ReadQuota != "":
			w.readQuota(d.ReadQuota)
			continue
		case d.Call == nil && d.Wait == 0:
			t.Fatal("nothing is tried any more")
		case d.Call == nil:
			w.now = w.now.Add(d.Wait)
			continue
		}
		never := false
		for _, u := range d.Call.URLs {
			never = never || u == "https://a.example/never"
		}
		if len(d.Call.URLs) <= takes && !never {
			w.answer(d.Call)
			continue
		}
		tries++
		if len(d.Call.URLs) == 1 {
			alone++
		}
		w.release(d.Call, func(tasks []*v1alpha1.PrefetchTask) { w.q.BisectCutOff(d.Call, tasks, why, w.now) })
		w.now = w.now.Add(10 * time.Millisecond)
	}
	if len(w.accepted) != 41 {
		t.Errorf("%d URLs were accepted, want 41", len(w.accepted))
	}
	if tries-alone > 20 || alone > 60 {
		t.Errorf("%d calls were cut off, and %d of the URL that is never taken, in 6 hours", tries-alone, alone)
	}
	said := ""
	for _, note := range w.notes() {
		said += note.Task.Name + " " + note.Reason
	}
	if said != "large Unavailable" {
		t.Errorf("says %q", said)
	}
}

// If EdgeOne's error is about the request and not about a target, the queue isolates the
// URLs of the task one by one. It refuses the rest only if EdgeOne refused two URLs alone
// in the same way and accepted none.
func TestGeneralWordsFailATaskOnlyOnTwoWitnesses(t *testing.T) {
	const n = 64
	for _, c := range []struct {
		name          string
		bad           func(i int) bool
		aboutTarget   bool
		refused, most int
	}{
		{"one bad URL", func(i int) bool { return i == 21 }, false, 1, 2*6 + 3},
		{"the first URL is bad", func(i int) bool { return i == 0 }, false, 1, 2*6 + 3},
		{"two neighbours are bad", func(i int) bool { return i < 2 }, false, 2, 2*6 + 5},
		{"all, as a header is wrong", func(int) bool { return true }, false, n, 1 + 2*6},
		{"all, each for itself", func(int) bool { return true }, true, n, 2 * n},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			all := taskstatetest.ListURLs("x", n)
			isBad := map[string]bool{}
			for i, u := range all {
				isBad[string(u)] = c.bad(i)
			}
			w.set(taskstatetest.NewTask("a", all...))
			calls := 0
			for end := w.now.Add(time.Hour); w.now.Before(end); w.now = w.now.Add(200 * time.Millisecond) {
				call := w.next()
				if call == nil {
					break
				}
				if call.Refusal != "" {
					w.answer(call)
					continue
				}
				calls++
				bad := false
				for _, u := range call.URLs {
					bad = bad || isBad[u]
				}
				claimID, tasks := w.claim(call)
				switch {
				case bad && len(call.URLs) == 1:
					w.settle(tasks, claimID, refusedAll)
					w.q.ReleaseURLs(claimID, w.now)
					w.q.RecordRejection(call, "ParameterError", "wrong", c.aboutTarget)
					w.q.RecordAccepted(call, tasks, 0, w.now)
				case bad:
					w.settle(tasks, claimID, unchanged)
					w.q.ReleaseURLs(claimID, w.now)
					w.q.BisectRejected(call, w.newest(call), w.now)
				default:
					w.execute(call, claimID, tasks)
					w.settle(tasks, claimID, w.adopted(claimID))
					w.q.ReleaseURLs(claimID, w.now)
					w.q.RecordAccepted(call, tasks, len(call.URLs), w.now)
				}
			}
			_, refused := taskstate.HandedOverPositions(w.get("a"))
			if len(refused) != c.refused || w.open() != 0 {
				t.Errorf("%d URLs are refused, want %d; %d open", len(refused), c.refused, w.open())
			}
			if calls > c.most {
				t.Errorf("%d calls, want at most %d (2·log2 of %d is %.0f)", calls, c.most, n, 2*math.Log2(n))
			}
		})
	}
}

func TestAHostIsRefusedUnaskedOnlyByItsExactName(t *testing.T) {
	for _, odd := range []string{"https://a.example:8443/x", "https://user@a.example/x", "https://A.EXAMPLE/x", "https://İ.example/x", "https://a_b.example/x"} {
		w := newWorld(t)
		w.add("a")
		w.q.zoneQuotaFor(zoneMode{zoneID: "zone-1"})
		w.q.RefuseHost("zone-1", odd, "not known", w.now.Add(time.Minute))
		if call := w.next(); call == nil || call.Refusal != "" {
			t.Errorf("after %s was refused, https://a.example is refused unasked", odd)
		}
		if n := len(w.q.zoneQuotaFor(zoneMode{zoneID: "zone-1"}).refusedHosts); n != 0 {
			t.Errorf("%d hosts are remembered for %s", n, odd)
		}
	}
	w := newWorld(t)
	p := w.q.zoneQuotaFor(zoneMode{zoneID: "zone-1"})
	for i := range 3 * maxRefusedHosts {
		w.q.RefuseHost("zone-1", fmt.Sprintf("https://h%d.example/x", i), "not known", w.now.Add(time.Duration(i)*time.Millisecond))
	}
	if n := len(p.refusedHosts); n > maxRefusedHosts {
		t.Errorf("%d hosts are remembered", n)
	}
}

func TestHeaderNamesThatDifferByCaseShareALane(t *testing.T) {
	w := newWorld(t)
	for i, name := range []string{"X-Token", "x-token", "X-TOKEN"} {
		w.add(fmt.Sprint("t", i), func(task *v1alpha1.PrefetchTask) {
			task.Spec.Headers = []v1alpha1.HTTPHeader{{Name: name, Value: "a"}}
		})
	}
	call := w.expect(w.next(), "t0 t1 t2")
	if headers := call.Lane.Headers(); len(headers) != 1 || headers[0].Name != "X-Token" {
		t.Errorf("the call carries %v", headers)
	}
}

func inZone(id string) func(*v1alpha1.PrefetchTask) {
	return func(task *v1alpha1.PrefetchTask) { task.Spec.ZoneID = id }
}

func TestQuotasAreReadAFewAtATimeNamespacesInTurn(t *testing.T) {
	w := newWorld(t)
	for i := range 2000 {
		w.add(fmt.Sprint("flood/", i), inZone(fmt.Sprint("invented-", i)))
	}
	var underWay []string
	read := func() {
		for d := w.q.PlanNext(w.now); d.ReadQuota != ""; d = w.q.PlanNext(w.now) {
			underWay = append(underWay, d.ReadQuota)
		}
	}
	read()
	if len(underWay) != maxQuotaReads {
		t.Fatalf("%d quotas are read at once, want %d", len(underWay), maxQuotaReads)
	}
	w.add("modest/a", inZone("real"))
	for reads := 0; ; reads++ {
		if reads > maxQuotaReads+2 {
			t.Fatalf("%d quotas are read before that of the other namespace's zone", reads)
		}
		zone := underWay[0]
		underWay = underWay[1:]
		if w.q.SetQuotaUnknown(zone, w.now); zone == "real" {
			break
		}
		w.q.BackOffZone(zone, denied, w.now, w.now.Add(time.Hour))
		read()
	}
}

// A key that has not yet worked is tried with a single task, unless a successful quota
// read has shown that it works.
func TestAKeyThatMayNotWorkIsTriedWithOneTask(t *testing.T) {
	for _, known := range []bool{false, true} {
		w := newWorld(t)
		for i := range 10 {
			w.add(fmt.Sprint("t", i))
		}
		w.q.PlanNext(w.now)
		if known {
			w.q.SetQuota("zone-1", 0, -1, w.now)
		} else {
			w.q.SetQuotaUnknown("zone-1", w.now)
		}
		call := w.next()
		if n := len(call.Parts); n != map[bool]int{false: 1, true: 10}[known] {
			t.Errorf("the first call has %d tasks where the key is known to work: %v", n, known)
		}
		if w.answer(call); !known {
			if n := len(w.next().Parts); n != 9 {
				t.Errorf("the call after an accepted one has %d tasks, want 9", n)
			}
		}
	}
}

func TestWhatIsKeyedByTenantsTextIsForgotten(t *testing.T) {
	w := newWorld(t)
	for i := range 500 {
		name := fmt.Sprintf("ns%d/a", i)
		w.add(name, inZone(fmt.Sprint("invented-", i)), withHeader(fmt.Sprint(i)))
		if call := w.next(); i%2 == 0 {
			w.deny(call)
		} else {
			w.lose(call)
			w.q.AttributeFailure(call, "no answer", w.now)
		}
		w.delete(name)
		w.now = w.now.Add(time.Millisecond)
	}
	for end := w.now.Add(3 * time.Hour); w.now.Before(end); w.now = w.now.Add(time.Minute) {
		w.none()
	}
	q := w.q
	if n := len(q.items) + len(q.lanes) + len(q.zoneQuotas) + len(q.reservations) + len(q.reservedURLs) + len(q.holders) + len(q.lostCalls) + len(q.returnedCalls) + len(q.timers); n != 0 {
		t.Errorf("%d lanes, %d pools, %d claims, %d lost calls, %d expiries are remembered", len(q.lanes), len(q.zoneQuotas), len(q.reservations), len(q.lostCalls), len(q.timers))
	}
	if n := len(q.namespaces); n > 1 {
		t.Errorf("%d namespaces are remembered", n)
	}
}
