package controller

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/metrics"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// followed returns a pass in which EdgeOne lists positions of a job in a status.
func followed(job, status string, positions ...int) taskstate.Transition {
	return controllertest.FollowJobs(controllertest.Listed(job, status, positions...), time.Hour, controllertest.T0, controllertest.T0)
}

// refusing returns the record of a call of which EdgeOne refuses positions.
func refusing(call, job string, positions ...int) taskstate.Transition {
	reasons := map[string]string{}
	for _, i := range positions {
		reasons[fmt.Sprintf("https://h/%d", i)] = "no"
	}
	return func(task *v1alpha1.PrefetchTask) {
		controllertest.Claiming(call)(task)
		taskstate.RecordJob(job, reasons, controllertest.T0)(task)
	}
}

func TestEachTargetCountsOnceWithItsOutcome(t *testing.T) {
	submitted, reopened := controllertest.Submitted, taskstate.ReopenFailed(nil, controllertest.T0)
	late := func(task *v1alpha1.PrefetchTask) {
		read := controllertest.ReadingOf(task, controllertest.Listed("j", teo.StatusSuccess, 0, 1), controllertest.T0)
		taskstate.ReopenFailed(map[string]taskstate.JobFailures{"j": taskstate.FailuresOf(task, &task.Status.Jobs[0], read)}, controllertest.T0)(task)
	}
	unnamed := func(task *v1alpha1.PrefetchTask) { task.Status.FailedTargets = nil }
	revised := func(task *v1alpha1.PrefetchTask) { task.Spec.Revision += "+" }
	noOutcome := controllertest.FollowJobs(nil, time.Hour, controllertest.T0, controllertest.T0.Add(2*time.Hour))
	all := taskstate.AllPositions(150)
	for _, c := range []struct {
		name    string
		targets int
		changes []taskstate.Transition
		want    map[string]int
	}{
		{"nothing is known", 3, []taskstate.Transition{submitted("0-2", "j")}, nil},
		{"success", 3, []taskstate.Transition{submitted("0-2", "j"), followed("j", teo.StatusSuccess, 0, 1, 2)}, map[string]int{"Succeeded": 3}},
		{"success in two passes", 3, []taskstate.Transition{
			submitted("0-2", "j"), followed("j", teo.StatusSuccess, 0), followed("j", teo.StatusSuccess, 0, 1, 2),
		}, map[string]int{"Succeeded": 3}},
		{"one failure in each of several jobs", 4, []taskstate.Transition{
			submitted("0", "a"), submitted("1", "b"), submitted("2", "c"), submitted("3", "d"),
			followed("a", teo.StatusFailed, 0), followed("b", teo.StatusTimeout, 1), followed("c", teo.StatusCanceled, 2), followed("d", teo.StatusInvalid, 3),
		}, map[string]int{"Failed": 1, "Timeout": 1, "Canceled": 1, "Invalid": 1}},
		{"the deadline passes", 2, []taskstate.Transition{submitted("0-1", "j"), noOutcome}, map[string]int{"NoOutcome": 2}},
		{"a refusal, and more in the next call", 4, []taskstate.Transition{refusing("0-1", "j", 0), refusing("2-3", "k", 2, 3)}, map[string]int{"Refused": 3}},
		{"more failures than the status names", 150, []taskstate.Transition{submitted("0-149", "j"), followed("j", teo.StatusTimeout, all...)},
			map[string]int{"Timeout": 100, taskstate.UnnamedFailure: 50}},
		{"more refusals than the status names", 150, []taskstate.Transition{refusing("0-149", "", all...)}, map[string]int{"Refused": 150}},
		{"failures after refusals that fill the names", 150, []taskstate.Transition{
			refusing("0-109", "", all[:110]...), submitted("110-149", "j"), followed("j", teo.StatusFailed, all[110:]...),
		}, map[string]int{"Refused": 110, taskstate.UnnamedFailure: 40}},
		{"names that an earlier write had no room for", 3, []taskstate.Transition{
			submitted("0-2", "j"), followed("j", teo.StatusFailed, 0, 1), unnamed, followed("j", teo.StatusFailed, 0, 1, 2),
		}, map[string]int{"Failed": 3}},
		{"a retry succeeds", 2, []taskstate.Transition{
			submitted("0-1", "j"), followed("j", teo.StatusFailed, 0, 1), controllertest.Asking("1"), reopened,
			submitted("0-1", "k"), followed("k", teo.StatusSuccess, 0, 1),
		}, map[string]int{"Failed": 2, "Succeeded": 2}},
		{"a refused target is retried and refused again", 2, []taskstate.Transition{
			refusing("0-1", "", 0, 1), controllertest.Asking("1"), reopened, refusing("0-1", "", 0, 1),
		}, map[string]int{"Refused": 4}},
		{"a retry finds that late targets have succeeded", 2, []taskstate.Transition{
			submitted("0-1", "j"), noOutcome, controllertest.Asking("1"), late,
		}, map[string]int{"NoOutcome": 2, "Succeeded": 2}},
		{"a new run", 2, []taskstate.Transition{
			submitted("0-1", "j"), followed("j", teo.StatusFailed, 0, 1), revised, submitted("0-1", "k"), followed("k", teo.StatusFailed, 0, 1),
		}, map[string]int{"Failed": 4}},
		{"a new run whose first write refuses", 2, []taskstate.Transition{
			refusing("0-1", "", 0, 1), revised, taskstate.RefuseTargets(v1alpha1.JobPrefetch, taskstate.AllPositions(2), "no", controllertest.T0),
		}, map[string]int{"Refused": 4}},
	} {
		t.Run(c.name, func(t *testing.T) {
			task, got := controllertest.TaskOf(c.targets), map[string]int{}
			count := func(before, after *v1alpha1.PrefetchTask) {
				for outcome, n := range taskstate.NewOutcomes(before, after) {
					got[outcome] += n
				}
			}
			for _, change := range c.changes {
				before := task.DeepCopy()
				change(task)
				count(before, task)
				count(task, task)
			}
			if !maps.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

// targetsCounted returns the counters of URLs that are not 0, without the zone's 90 seconds.
func targetsCounted(t *testing.T, u *controllertest.Unit) map[string]float64 {
	t.Helper()
	time.Sleep(90 * time.Second)
	return controllertest.Since(nil, controllertest.Series(t, u.Targets))
}

func TestAConflictOrARestartCountsNoTargetTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := controllertest.NewUnit(t, nil, nil, controllertest.NewTask("a", 3))
		write := func(task *v1alpha1.PrefetchTask, c taskstate.Transition) (*v1alpha1.PrefetchTask, error) {
			return u.Writer.WriteStatus(t.Context(), task, c)
		}
		task, err := write(u.ReadTask("a"), controllertest.Submitted("0-1", "j"))
		if err != nil {
			t.Fatal(err)
		}
		claimed, err := write(task, controllertest.Claiming("2"))
		if err != nil {
			t.Fatal(err)
		}
		pass := followed("j", teo.StatusSuccess, 0, 1)
		if _, err = write(claimed, pass); err != nil {
			t.Fatal(err)
		}
		if _, err = write(claimed, pass); !apierrors.IsConflict(err) {
			t.Errorf("a second write of the same version: %v", err)
		}
		// The record is based on the version before the pass.
		recorded, err := u.Writer.SettleClaim(t.Context(), claimed, "c-2", taskstate.RecordJob("", map[string]string{"https://h/2": "no"}, time.Now()), 3)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]float64{"targets_total Succeeded zone-1": 2, "targets_total Refused zone-1": 1}
		controllertest.WantSeries(t, "after a conflict", targetsCounted(t, u), want)

		again := controllertest.NewUnit(t, nil, nil, recorded)
		if _, err = again.Writer.WriteStatus(t.Context(), again.ReadTask("a"), pass); err != nil {
			t.Fatal(err)
		}
		controllertest.WantSeries(t, "after a restart", targetsCounted(t, again), map[string]float64{})
	})
}

func TestARefusalCountsInTheZoneOfItsCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		task := controllertest.ClaimedAt(controllertest.NewTask("a", 1), time.Now())
		task.Spec.ZoneID = "zone-2"
		u := controllertest.NewUnit(t, nil, nil, task)
		if _, err := u.Writer.WriteStatus(t.Context(), u.ReadTask("a"), taskstate.RecordJob("", nil, time.Now())); err != nil {
			t.Fatal(err)
		}
		controllertest.WantSeries(t, "the call was for zone-1", targetsCounted(t, u), map[string]float64{"targets_total Refused zone-1": 1})
	})
}

func TestANewZoneIsCountedFromZeroSoThatItsFirstOutcomesShow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := controllertest.NewUnit(t, nil, nil)
		before, after := controllertest.TaskOf(2), controllertest.TaskOf(2)
		refusing("0-1", "j", 0)(after)
		u.Targets.ObserveStatusWrite(before, after)
		for _, step := range []struct {
			wait time.Duration
			want float64
		}{{0, 0}, {89 * time.Second, 0}, {time.Second, 1}, {time.Hour, 1}} {
			time.Sleep(step.wait)
			got := controllertest.Series(t, u.Targets)
			if n, ok := got["targets_total Refused zone-1"]; !ok || n != step.want || len(got) != 11 {
				t.Errorf("%v later: %v, want %v", step.wait, got, step.want)
			}
		}
	})
}

func TestTheZonesOfTenantsDoNotDisplaceTheOperatorsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := controllertest.NewUnit(t, nil, nil)
		count := func(zone, secret string) {
			before, after := controllertest.TaskOf(1), controllertest.TaskOf(1)
			before.Spec.ZoneID, before.Spec.CredentialsSecretRef.Name = zone, secret
			refusing("0", "", 0)(after)
			u.Targets.ObserveStatusWrite(before, after)
		}
		const each = 500
		for i := range each {
			count(fmt.Sprint("zone-tenant-", i), "keys")
		}
		for i := range each {
			count(fmt.Sprint("zone-own-", i), "")
		}
		total, own, tenants, other := 0.0, 0, 0, 0.0
		for name, n := range targetsCounted(t, u) {
			total += n
			switch {
			case strings.HasPrefix(name, "targets_total Refused zone-own-"):
				own++
			case strings.HasPrefix(name, "targets_total Refused zone-tenant-"):
				tenants++
			case name == "targets_total Refused other":
				other = n
			}
		}
		if own != 50 || tenants != 50 || own+tenants != metrics.MaxZones || other != 2*each-metrics.MaxZones || total != 2*each {
			t.Errorf("%d own zones, %d of tenants, %v targets in others and %v in all", own, tenants, other, total)
		}
	})
}

func TestAZoneThatTheOperatorUsesTooIsNotATenantsAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := controllertest.NewUnit(t, nil, nil)
		count := func(zone, secret string) {
			before, after := controllertest.TaskOf(1), controllertest.TaskOf(1)
			before.Spec.ZoneID, before.Spec.CredentialsSecretRef.Name = zone, secret
			refusing("0", "", 0)(after)
			u.Targets.ObserveStatusWrite(before, after)
		}
		for i := range metrics.MaxZones / 2 {
			count(fmt.Sprint("zone-", i), "keys")
		}
		count("zone-late", "keys")
		count("zone-0", "")
		count("zone-later", "keys")
		got := targetsCounted(t, u)
		if got["targets_total Refused zone-0"] != 2 || got["targets_total Refused other"] != 1 || got["targets_total Refused zone-later"] != 1 {
			t.Errorf("%v", got)
		}
	})
}
