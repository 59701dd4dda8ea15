package taskstate_test

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate/taskstatetest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

func TestWhatCountsAsFresh(t *testing.T) {
	since := time.Unix(1e9, 0)
	const after, before = time.Minute, -time.Minute
	purgeURL := func(spec *v1alpha1.PrefetchTaskSpec) { spec.Purge.Type = v1alpha1.PurgeURL }
	for _, c := range []struct {
		name    string
		change  func(*v1alpha1.PrefetchTaskSpec)
		created time.Duration // when the prefetch was created, after freshSince
		status  string        // of the prefetch
		purged  time.Duration // when the target was purged, after freshSince; 0: never
		want    int
	}{
		{"a prefetch since then", nil, after, teo.StatusSuccess, 0, 1},
		{"a prefetch under way", nil, after, teo.StatusProcessing, 0, 1},
		{"a prefetch before", nil, before, teo.StatusSuccess, 0, 0},
		{"a prefetch that failed", nil, after, teo.StatusFailed, 0, 0},
		{"other headers are possible", func(spec *v1alpha1.PrefetchTaskSpec) {
			spec.Headers = []v1alpha1.HTTPHeader{{Name: "Accept-Encoding", Value: "br"}}
		}, after, teo.StatusSuccess, 0, 0},
		{"the edge mode", func(spec *v1alpha1.PrefetchTaskSpec) { spec.Mode = v1alpha1.ModeEdge }, after, teo.StatusSuccess, 0, 0},
		{"media segments", func(spec *v1alpha1.PrefetchTaskSpec) { spec.MediaSegments = v1alpha1.MediaSegmentsPrefetch }, after, teo.StatusSuccess, 0, 0},
		{"all zones", func(spec *v1alpha1.PrefetchTaskSpec) { spec.ZoneID = "*" }, after, teo.StatusSuccess, 0, 0},
		{"a purge, and then the prefetch", purgeURL, 2 * after, teo.StatusSuccess, after, 1},
		{"no purge", purgeURL, 2 * after, teo.StatusSuccess, 0, 0},
		{"a purge before", purgeURL, 2 * after, teo.StatusSuccess, before, 0},
		{"a purge after the prefetch", purgeURL, after, teo.StatusSuccess, 2 * after, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			task := taskstatetest.NewTask("a", taskstatetest.ListURLs("x", 1)...)
			task.Spec.FreshSince = metav1.NewTime(since)
			if c.change != nil {
				c.change(&task.Spec)
			}
			url := string(task.Spec.Targets[0])
			fresh, purges := taskstate.FreshURLs{}, taskstate.LastPurges{}
			fresh.AddRecords([]teo.Record{{JobID: "j", Target: url, Status: c.status, CreateTime: since.Add(c.created)}})
			if c.purged != 0 {
				at := since.Add(c.purged)
				purges.AddRecords([]teo.Record{{JobID: "p", Target: url, Type: teo.TypePurgeURL, Status: teo.StatusSuccess, CreateTime: at, UpdateTime: at}}, teo.TypePurgeURL)
			}
			if kept := taskstate.KeepFromHistory(task, taskstate.NewHistoryRead(since), fresh, purges); kept.Count() != c.want {
				t.Errorf("%d targets are kept, want %d", kept.Count(), c.want)
			}
		})
	}
}

func TestARunThatPurgesWaitsForThePrefetchesOfTheRunBefore(t *testing.T) {
	now := time.Unix(1e9, 0)
	task := taskstatetest.NewTask("a", taskstatetest.ListURLs("x", 2)...)
	taskstate.ClaimTargets(v1alpha1.Submission{ClaimID: "c", SignedAt: metav1.NewTime(now), Positions: "0-1"}, now)(task)
	taskstate.RecordJob("j", nil, now)(task)
	task.Spec.Revision, task.Spec.Purge.Type = "2", v1alpha1.PurgeURL
	if taskstate.IsWaiting(task, v1alpha1.JobPurge) {
		t.Error("it is purged although a prefetch is under way that could store an older copy afterwards")
	}
	task.Status.Jobs[0].Succeeded = 2
	if !taskstate.IsWaiting(task, v1alpha1.JobPurge) {
		t.Error("it is not purged although the prefetches have ended")
	}
}
