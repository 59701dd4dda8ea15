package controller

import (
	"fmt"
	"testing"
	"time"

	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// readsAtMost checks that a zone's quota is read at most once per QuotaInterval.
func (w *calm) readsAtMost(zoneID string) {
	w.t.Helper()
	var last time.Time
	for _, call := range w.calls(teo.ActionDescribeContentQuota) {
		if call.ZoneID != zoneID {
			continue
		}
		if since := call.Time.Sub(last); !last.IsZero() && since < w.options.QuotaInterval-time.Second {
			w.t.Errorf("the quota of %s was read %s after it was read, want once in %s at most", zoneID, since, w.options.QuotaInterval)
			return
		}
		last = call.Time
	}
}

// heldBy reports whether the status says that the task waits for the daily quota.
func heldBy(task *v1alpha1.PrefetchTask) bool {
	return controllertest.ConditionOf(task, v1alpha1.ConditionQuotaExceeded) == "True/"+v1alpha1.ReasonDailyQuota && !task.Status.NextAttemptTime.IsZero()
}

// A zone has daily quota for a quarter of the tasks. The operator does not know the hour of the
// reset. Another zone of the account continues in the meantime.
func TestTasksBeyondTheQuotaWaitAndGoOnWhenItReturns(t *testing.T) {
	const daily, n = 300, 1200
	zone := zoneA1
	zone.Daily = daily
	inCalm(t, simulator.Config{Zones: []simulator.Zone{zone, zoneA2}, QuotaResetAt: "05:37"}, func(t *testing.T, w *calm) {
		time.Sleep(9 * time.Hour)
		w.createMany("n", n, nil)
		w.start()
		time.Sleep(time.Minute)
		if left := w.edgeOne.Available(zone.ID); left > 0 {
			t.Errorf("%d URLs of the day's quota are left while tasks wait", left)
		}
		if held := w.countTasks(heldBy); held != n-daily {
			t.Errorf("%d tasks say that the quota holds them, want %d", held, n-daily)
		}
		for day := range 3 {
			for range 8 { // use the other zone every three hours
				key := w.create("other", fmt.Sprint(day, w.edgeOne.Now().Unix()), urls("x", 1), inZoneA2)
				if !w.await(time.Second, func() bool { return len(w.server.get(key).Status.Jobs) > 0 }) {
					t.Errorf("a task in another zone was kept waiting")
				}
				time.Sleep(3 * time.Hour)
			}
		}
		w.awaitAll(time.Hour)

		w.readsAtMost(zone.ID)
		byDay := map[int]int{}
		for _, execution := range w.edgeOne.Ledger() {
			if execution.ZoneID == zone.ID {
				reset := execution.Time.Add(-5*time.Hour - 37*time.Minute)
				byDay[reset.YearDay()] += len(execution.Accepted)
				if late := reset.Sub(reset.Truncate(24 * time.Hour)); len(byDay) > 1 && late > w.options.QuotaInterval+time.Minute {
					t.Errorf("a call was made %s after the quota had returned, want within %s", late, w.options.QuotaInterval)
				}
			}
		}
		for day, urls := range byDay {
			if urls != daily {
				t.Errorf("on day %d %d URLs were submitted, want all %d", day, urls, daily)
			}
		}
		for _, task := range w.server.list() {
			key := client.ObjectKeyFromObject(task)
			times := w.writes[key]
			if waited := times[len(times)-1].Sub(times[0]); len(times) > 3+2+int(waited/(24*time.Hour)) {
				// The status is written at once, and again each time the expected
				// hour of the reset passes.
				t.Errorf("the status of %s was written %d times in %s, want 3 and one for each day it was held", key, len(times), waited)
				break
			}
		}
	})
}

// Without quota for many days, the status of each task is written at most once a day.
func TestHoldingTasksWritesToEachOnceADayAtMost(t *testing.T) {
	const n, days = 1000, 5
	inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
		w.edgeOne.AddFault(simulator.Fault{ // other programs use it up each day
			Match:  simulator.Matcher{Action: teo.ActionDescribeContentQuota},
			Effect: simulator.Effect{Executed: true, Body: `{"Response":{"PrefetchQuota":[{"Type":"prefetch_url","Batch":500,"Daily":10000,"DailyAvailable":0}],"RequestId":"r"}}`},
		})
		time.Sleep(7*time.Hour + 11*time.Minute)
		w.createMany("n", n, nil)
		w.start()
		time.Sleep(days * 24 * time.Hour)
		for _, task := range w.server.list() {
			key := client.ObjectKeyFromObject(task)
			if writes := len(w.writes[key]); writes < 1 || writes > days+1 {
				t.Fatalf("the status of %s was written %d times in %d days", key, writes, days)
			}
			if next := task.Status.NextAttemptTime.Time; !heldBy(task) || next.Before(time.Now().Add(-w.options.QuotaInterval)) || next.After(time.Now().Add(25*time.Hour)) {
				t.Fatalf("%s says %v, and %s as the next attempt", key, task.Status.Conditions, next)
			}
		}
		if calls := len(w.submissions()); calls > 0 {
			t.Errorf("%d calls without quota", calls)
		}
		w.readsAtMost(zoneA1.ID)
	})
}

// However many tasks of both modes come and go, their zone has a single quota to read.
func TestTheQuotaOfAZoneIsReadOnceForBothModes(t *testing.T) {
	inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
		w.start()
		for i := range 40 {
			w.create("n", fmt.Sprint("t", i), urls(fmt.Sprint(i), 1), func(spec *v1alpha1.PrefetchTaskSpec) {
				if i%2 > 0 {
					spec.Mode = v1alpha1.ModeEdge
				}
			})
			time.Sleep(2 * time.Minute)
		}
		w.awaitAll(time.Minute)
		w.readsAtMost(zoneA1.ID)
	})
}

// Temporary errors pass, so the quota is read again. A key without the permission to read the
// quota does not change, so the quota is not read again.
func TestAQuotaThatCouldNotBeReadIsReadAgainUnlessTheKeyMayNot(t *testing.T) {
	for _, tt := range []struct {
		code  string
		reads int
	}{{"InternalError", 2}, {"UnauthorizedOperation.CamUnauthorized", 1}} {
		t.Run(tt.code, func(t *testing.T) {
			inCalm(t, simulator.Config{}, func(t *testing.T, w *calm) {
				w.edgeOne.AddFault(simulator.Fault{
					Match: simulator.Matcher{Action: teo.ActionDescribeContentQuota, Count: 1}, Effect: simulator.Effect{Code: tt.code},
				})
				w.start()
				for i := range 6 {
					w.create("n", fmt.Sprint("t", i), urls(fmt.Sprint(i), 1))
					time.Sleep(5 * time.Minute)
				}
				w.awaitAll(time.Minute)
				if reads := len(w.calls(teo.ActionDescribeContentQuota)); reads != tt.reads || len(w.submissions()) != 6 {
					t.Errorf("the quota was read %d times beside %d calls, want %d and 6", reads, len(w.submissions()), tt.reads)
				}
			})
		})
	}
}

// The quota of mode edge cannot be read. The operator learns it by halving, and uses it to the
// last URL. It probes rarely while the quota is used up, and detects when the quota returns.
func TestTheQuotaOfModeEdgeIsLearned(t *testing.T) {
	zone := zoneA1
	zone.EdgeDaily = 300
	inCalm(t, simulator.Config{Zones: []simulator.Zone{zone, zoneA2}, QuotaResetAt: "03:21"}, func(t *testing.T, w *calm) {
		edge := func(spec *v1alpha1.PrefetchTaskSpec) { spec.Mode = v1alpha1.ModeEdge }
		time.Sleep(4 * time.Hour)
		w.create("n", "large", urls("large", 400), edge)
		for i := range 200 {
			w.create("n", fmt.Sprint("small", i), urls(fmt.Sprint("small", i), 1), edge)
		}
		w.start()
		time.Sleep(time.Minute)
		first := len(w.submissions())
		if used := w.edgeOne.Stats().Targets; used != 300 || first > 30 {
			t.Errorf("%d URLs of 300 were submitted, in %d calls", used, first)
		}
		if held := w.countTasks(heldBy); held == 0 || held != w.countTasks(func(task *v1alpha1.PrefetchTask) bool {
			return task.Status.JobCount == 0 || int(ptr.Deref(task.Status.Targets.Submitted, 0)) < len(task.Spec.Targets)
		}) {
			t.Errorf("%d tasks say that the quota holds them", held)
		}
		time.Sleep(10 * time.Hour)
		if probes := len(w.submissions()) - first; probes > 61 {
			t.Errorf("%d probes in 10 hours, want one in %s at most", probes, w.options.QuotaInterval)
		}
		time.Sleep(13*time.Hour + 20*time.Minute + w.options.QuotaInterval) // at least 9 minutes after the quota returned
		before := len(w.submissions())
		w.awaitAll(time.Minute)
		if more := len(w.submissions()) - before; more > 20 {
			t.Errorf("%d calls once the quota was back", more)
		}
	})
}

// A large task and a stream of small tasks share a quota of 1,000 URLs a day. The small tasks
// use two thirds of it.
func TestSmallTasksAndALargeOneShareTheQuota(t *testing.T) {
	const days = 6
	zone := zoneA1
	zone.Daily = 1000
	inCalm(t, simulator.Config{Zones: []simulator.Zone{zone, zoneA2}, QuotaResetAt: "16:00"}, func(t *testing.T, w *calm) {
		w.options.PollInterval = time.Minute // writing 5,000 URLs takes a while
		large := w.create("n", "large", urls("large", 5000))
		w.start()
		time.Sleep(time.Minute)
		created := map[client.ObjectKey]time.Time{}
		waited := map[client.ObjectKey]time.Duration{}
		count := w.server.onStatus
		w.server.onStatus = func(before, after *v1alpha1.PrefetchTask) {
			count(before, after)
			key := client.ObjectKeyFromObject(after)
			if at, ok := created[key]; ok && len(after.Status.Jobs) > 0 && waited[key] == 0 {
				waited[key] = time.Since(at)
			}
		}
		progress := []int32{0}
		for hour := range days * 24 {
			if hour%24 == 23 {
				progress = append(progress, ptr.Deref(w.server.get(large).Status.Targets.Submitted, 0))
			}
			name := fmt.Sprint("small", hour)
			w.server.mu.Lock() // onStatus is called with this mutex held
			created[client.ObjectKey{Namespace: "n", Name: name}] = time.Now()
			w.server.mu.Unlock()
			w.create("n", name, urls(name, 28))
			time.Sleep(time.Hour)
		}
		time.Sleep(48 * time.Hour)
		worst := time.Duration(0)
		for key := range created {
			if waited[key] == 0 {
				t.Fatalf("%s was never submitted", key)
			}
			worst = max(worst, waited[key])
		}
		t.Logf("small tasks waited %s at most; the large one had submitted %v URLs by the end of each day", worst, progress)
		if worst > 24*time.Hour+w.options.QuotaInterval {
			t.Errorf("a small task waited %s behind the large one, want a day at most", worst)
		}
		for day := range days {
			if progress[day+1] <= progress[day] && progress[day] < 5000 {
				t.Errorf("the large task made no progress on day %d: %v", day, progress)
			}
		}
	})
}
