package judge

import (
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// began is when the run of a refresh began. The origin published a new version before.
var began = time.Date(2026, 11, 28, 14, 5, 0, 0, time.UTC)

func second(n int) time.Time { return began.Add(time.Duration(n) * time.Second) }

// refreshedTask is a task that has purged and prefetched two URLs.
func refreshedTask() *v1alpha1.PrefetchTask {
	task := finishedTask(0, []string{a, b}, job("p1", "0-1"), job("j1", "0-1"))
	task.UID, task.Spec.Purge.Type = "uid", v1alpha1.PurgeURL
	task.Status.Jobs[0].Kind = v1alpha1.JobPurge
	task.Status.Run, task.Status.StartTime = taskstate.RunHash(&task), metav1.NewTime(began)
	task.Status.Conditions = append(task.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded})
	return &task
}

func refreshEvidence() RefreshEvidence {
	ledger := simulator.Ledger{
		{JobID: "p1", Action: "CreatePurgeTask", Type: "purge_url", Accepted: []string{a, b}},
		{JobID: "j1", Action: "CreatePrefetchTask", Accepted: []string{a, b}},
	}
	var events []simulator.CacheEvent
	for i, kind := range []simulator.CacheEventKind{simulator.Purged, simulator.HandedOver, simulator.Filled, simulator.Visited} {
		for _, u := range []string{a, b} {
			e := simulator.CacheEvent{Time: second(10 * (i + 1)), Kind: kind, URL: u, By: "j1"}
			if kind == simulator.Purged {
				e.By = "p1"
			}
			events = append(events, e)
		}
	}
	at := 35
	observer := NewObserver(func() time.Time { return second(at) }, 0)
	observer.Note(refreshedTask(), false)
	return RefreshEvidence{
		Ledger: ledger, Journal: simulator.Journal{Events: events, ReadAt: second(60)}, Sightings: observer.Sightings(), ColdLimit: 2 * time.Minute,
	}
}

func TestTheJudgeFindsWhatIsWrongWithARefresh(t *testing.T) {
	purgedAgain := func(e *RefreshEvidence, at time.Time) {
		e.Journal.Events = append(e.Journal.Events, simulator.CacheEvent{Time: at, Kind: simulator.Purged, URL: a, By: "p1"})
	}
	// longCold makes the URL a cold for ten minutes, while the status says something.
	longCold := func(reason, message string) func(*RefreshEvidence) {
		return func(e *RefreshEvidence) {
			e.Journal = simulator.Journal{ReadAt: second(600), Events: []simulator.CacheEvent{{Time: second(10), Kind: simulator.Purged, URL: a, By: "p1"}}}
			e.Sightings[0].IsReady, e.Sightings[0].IsFinished = false, false
			e.Sightings[0].Reason, e.Sightings[0].Message = reason, message
		}
	}
	for _, tt := range []struct {
		name  string
		spoil func(*RefreshEvidence)
		want  []Kind
	}{
		{"nothing", func(*RefreshEvidence) {}, nil},
		{"a URL purged twice in a run", func(e *RefreshEvidence) {
			e.Ledger = append(e.Ledger, simulator.Execution{JobID: "p2", Action: "CreatePurgeTask", Type: "purge_url", Accepted: []string{a}})
		}, []Kind{Repurge}},
		{"a URL prefetched before its purge", func(e *RefreshEvidence) { e.Journal.Events[0].Time = second(25) }, []Kind{Overtake, Overtake}},
		{"a URL prefetched without a purge", func(e *RefreshEvidence) { e.Journal.Events = e.Journal.Events[1:] }, []Kind{Overtake}},
		{"a URL purged after its prefetch too", func(e *RefreshEvidence) { purgedAgain(e, second(50)) }, []Kind{Overtake}},
		{"an older version after Ready", func(e *RefreshEvidence) { e.Journal.Events[6].Superseded = began.Add(-time.Hour) }, []Kind{Older}},
		{"an older version before Ready", func(e *RefreshEvidence) {
			e.Journal.Events[6].Superseded, e.Journal.Events[6].Time = began.Add(-time.Hour), second(30)
		}, nil},
		{"a version that was replaced during the run", func(e *RefreshEvidence) { e.Journal.Events[6].Superseded = second(5) }, nil},
		{"an adopted copy from before freshSince", func(e *RefreshEvidence) {
			e.Sightings[0].Jobs = []SeenJob{{ID: "j0", IsAdopted: true, URLs: []string{a}}}
			e.Sightings[0].FreshSince, e.Journal.Events[6].Superseded = began.Add(-time.Hour), began.Add(-2*time.Hour)
		}, []Kind{Older}},
		{"an adopted copy from after freshSince", func(e *RefreshEvidence) {
			e.Sightings[0].Jobs = []SeenJob{{ID: "j0", IsAdopted: true, URLs: []string{a}}}
			e.Sightings[0].FreshSince, e.Journal.Events[6].Superseded = began.Add(-time.Hour), began.Add(-time.Minute)
		}, nil},
		{"a URL cold for long, and the task waits", longCold(v1alpha1.ReasonWaiting, "Queued"), []Kind{Cold}},
		{"a URL cold for long, and the task says so", longCold(v1alpha1.ReasonWaiting, "1 target is purged and not prefetched yet. Queued"), nil},
		{"a URL cold for long, and the task is purging", longCold(v1alpha1.ReasonPurging, ""), nil},
		{"a URL cold for long that the task no longer has", func(e *RefreshEvidence) {
			longCold(v1alpha1.ReasonWaiting, "Queued")(e)
			e.Sightings[0].Targets, e.Asked = []string{b}, map[string]int{a: 1, b: 1}
		}, nil},
		{"a URL cold for long whose task is gone", func(e *RefreshEvidence) {
			longCold(v1alpha1.ReasonWaiting, "Queued")(e)
			e.Sightings[0].IsGone = true
		}, nil},
		{"a URL cold for a moment", func(e *RefreshEvidence) {
			longCold(v1alpha1.ReasonWaiting, "Queued")(e)
			e.Journal.ReadAt = second(100)
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := refreshEvidence()
			tt.spoil(&e)
			defects, counts := FindRefreshDefects(e)
			var got []Kind
			for _, d := range defects {
				got = append(got, d.Kind)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", defects, tt.want)
			}
			if n := counts.Older + counts.Repurged + counts.Overtook + counts.Cold; n != len(defects) {
				t.Errorf("%d defects are counted, and %d are found", n, len(defects))
			}
		})
	}
	_, counts := FindRefreshDefects(refreshEvidence())
	if want := (RefreshCounts{Runs: 1, URLs: 2, Purges: 2, Visitors: 2}); counts != want {
		t.Errorf("the counts are %+v, want %+v", counts, want)
	}
}

// A purge in the ledger or in a status is no prefetch.
func TestTheJudgeTellsPurgesFromPrefetches(t *testing.T) {
	e := refreshEvidence()
	evidence := Evidence{Ledger: e.Ledger, Tasks: []v1alpha1.PrefetchTask{*refreshedTask()}, Asked: map[string]int{a: 1, b: 1}}
	if defects := FindDefects(evidence); len(defects) > 0 {
		t.Errorf("got %v", defects)
	}
	evidence.Tasks[0].Status.Jobs[0].Kind = v1alpha1.JobPrefetch
	if defects := FindDefects(evidence); len(defects) != 1 || defects[0].Kind != Loss {
		t.Errorf("a purge that the status calls a prefetch: got %v", defects)
	}
	evidence.Tasks[0].Status.Jobs = append(evidence.Tasks[0].Status.Jobs[1:], v1alpha1.Job{ID: "of-another-program", Adopted: true, Positions: "0"})
	if defects := FindDefects(evidence); len(defects) > 0 {
		t.Errorf("an adopted job: got %v", defects)
	}
}
