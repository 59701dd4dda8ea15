package controller

import (
	"reflect"
	"testing"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/metrics"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

func TestTwoAccountsOfAZoneAreToldOfAsOne(t *testing.T) {
	early, late := time.Unix(100, 0), time.Unix(200, 0)
	use := func(left, daily int, waiting map[string]queue.Backlog) metrics.ZoneStats {
		return metrics.ZoneStats{ZoneStats: queue.ZoneStats{Waiting: waiting, Left: left}, Daily: daily}
	}
	one := use(-1, 10, map[string]queue.Backlog{v1alpha1.ReasonWaiting: {Targets: 1, Since: late}})
	two := use(5, 20, map[string]queue.Backlog{v1alpha1.ReasonWaiting: {Targets: 2, Since: early}, v1alpha1.ReasonThrottled: {Targets: 7, Since: late}})
	want := use(5, 20, map[string]queue.Backlog{v1alpha1.ReasonWaiting: {Targets: 3, Since: early}, v1alpha1.ReasonThrottled: {Targets: 7, Since: late}})
	for _, got := range []metrics.ZoneStats{one.MergeStats(two), two.MergeStats(one)} {
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%+v", got)
		}
	}
	one = use(3, 10, map[string]queue.Backlog{v1alpha1.ReasonWaiting: {}}) // no task waits
	want.Waiting[v1alpha1.ReasonWaiting], want.Left = queue.Backlog{Targets: 2, Since: early}, 3
	for _, got := range []metrics.ZoneStats{one.MergeStats(two), two.MergeStats(one)} {
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%+v", got)
		}
	}
}

func TestARunIsTimedToItsEndOnceAndNotAgainByARetry(t *testing.T) {
	u := controllertest.NewUnit(t, nil, nil)
	start := time.Now()
	task := controllertest.ClaimedAt(controllertest.NewTask("a", 2), start)
	taskstate.RecordJob("job-1", nil, start)(task)
	over := task.DeepCopy()
	over.Status.Jobs[0].Succeeded, over.Status.Jobs[0].Failed = 1, 1
	taskstate.UpdateSummary(over, start.Add(time.Minute))
	before := controllertest.Series(t, metrics.Counters...)
	u.Events.ReportChange(task, over)
	u.Events.ReportChange(over, over)
	controllertest.WantSeries(t, "a run", controllertest.Since(before, controllertest.Series(t, metrics.Counters...)), map[string]float64{"run_duration_seconds PartiallyFailed": 1})

	retried := over.DeepCopy()
	retried.Status.Jobs[0].RetriedPositions = "1"
	before = controllertest.Series(t, metrics.Counters...)
	u.Events.ReportChange(task, retried)
	controllertest.WantSeries(t, "its retry", controllertest.Since(before, controllertest.Series(t, metrics.Counters...)), map[string]float64{})
}
