package taskstate

import (
	"fmt"
	"testing"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// A target is purged, EdgeOne reports that, and then it is prefetched. The next batch of a list is
// purged when all of the one before are handed over. A new run waits for purges of the one before.
func TestWhichTargetsMayBePurgedAndPrefetchedNext(t *testing.T) {
	purge := func(positions string, succeeded int32) v1alpha1.Job {
		job := v1alpha1.Job{ID: "p" + positions, ClaimID: "c" + positions, Kind: v1alpha1.JobPurge, Positions: positions, Succeeded: succeeded}
		if succeeded > 0 {
			job.PurgedPositions = positions
		}
		return job
	}
	prefetch := func(positions string) v1alpha1.Job {
		return v1alpha1.Job{ID: "f" + positions, ClaimID: "d" + positions, Positions: positions}
	}
	byURL := v1alpha1.Purge{Type: v1alpha1.PurgeURL}
	byHost := v1alpha1.Purge{Type: v1alpha1.PurgeHost, Targets: []v1alpha1.PurgeTarget{"a.example.com", "b.example.com"}}
	for _, tt := range []struct {
		name             string
		purge            v1alpha1.Purge
		jobs             []v1alpha1.Job
		edit             string // a new revision
		purged, prefetch string // the positions of the next calls
	}{
		{name: "nothing has happened", purge: byURL, purged: "0-3"},
		{name: "a batch is being purged", purge: byURL, jobs: []v1alpha1.Job{purge("0-1", 0)}},
		{name: "a batch is purged", purge: byURL, jobs: []v1alpha1.Job{purge("0-1", 2)}, prefetch: "0-1"},
		{name: "a part of it is handed over", purge: byURL, jobs: []v1alpha1.Job{purge("0-1", 2), prefetch("0")}, prefetch: "1"},
		{name: "all of it is handed over", purge: byURL, jobs: []v1alpha1.Job{purge("0-1", 2), prefetch("0-1")}, purged: "2-3"},
		{name: "everything is handed over", purge: byURL, jobs: []v1alpha1.Job{purge("0-3", 4), prefetch("0-3")}},
		{name: "one of two hosts is purged", purge: byHost, jobs: []v1alpha1.Job{purge("0", 1)}, purged: "1"},
		{name: "both hosts are purged", purge: byHost, jobs: []v1alpha1.Job{purge("0-1", 2)}, prefetch: "0-3"},
		{name: "a new run during a purge", purge: byURL, jobs: []v1alpha1.Job{purge("0-1", 0)}, edit: "2"},
		{name: "a new run without a purge during a purge", jobs: []v1alpha1.Job{purge("0-1", 0)}, edit: "2"},
		{name: "a new run without a purge after a purge", jobs: []v1alpha1.Job{purge("0-1", 2)}, edit: "2", prefetch: "0-3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			task := &v1alpha1.PrefetchTask{Spec: v1alpha1.PrefetchTaskSpec{ZoneID: "zone-1", Purge: tt.purge}}
			for i := range 4 {
				task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(fmt.Sprintf("https://a.example.com/%d", i)))
			}
			if len(tt.jobs) > 0 {
				BeginRun(task, time.Now())
				task.Status.Jobs = tt.jobs
			}
			task.Spec.Revision = tt.edit
			next := func(kind v1alpha1.JobKind) string {
				if !IsWaiting(task, kind) {
					return ""
				}
				return CallPositions(task, kind).String()
			}
			if purged, prefetch := next(v1alpha1.JobPurge), next(v1alpha1.JobPrefetch); purged != tt.purged || prefetch != tt.prefetch {
				t.Errorf("it may purge %q and prefetch %q next, want %q and %q", purged, prefetch, tt.purged, tt.prefetch)
			}
		})
	}
}

// A purge may succeed after its deadline. Its target has failed by then, and counts once.
func TestAPurgeThatSucceedsTooLateCountsAsFailed(t *testing.T) {
	task := &v1alpha1.PrefetchTask{Spec: v1alpha1.PrefetchTaskSpec{ZoneID: "zone-1", Purge: v1alpha1.Purge{Type: v1alpha1.PurgeURL}}}
	task.Spec.Targets = []v1alpha1.Target{"https://a.example.com/0", "https://a.example.com/1"}
	BeginRun(task, time.Now())
	task.Status.Jobs = []v1alpha1.Job{{ID: "p", ClaimID: "c", Kind: v1alpha1.JobPurge, Positions: "0-1", PurgedPositions: "0-1", Succeeded: 2}}
	task.Status.Purge.FailedPositions, task.Status.RefusedPositions = "0", "0"
	UpdateSummary(task, time.Now())
	if p := task.Status.Purge; *p.Submitted != 2 || *p.Succeeded != 1 || *p.Failed != 1 {
		t.Errorf("%d submitted, %d succeeded, %d failed", *p.Submitted, *p.Succeeded, *p.Failed)
	}
}
