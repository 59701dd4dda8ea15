package taskstate_test

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// Others may have prefetched each target with a call of its own.
func TestTheJobsThatARunAdoptsFitIntoAStatus(t *testing.T) {
	since := time.Date(2026, 11, 28, 14, 5, 0, 0, time.UTC)
	task := &v1alpha1.PrefetchTask{}
	task.Spec.ZoneID, task.Spec.FreshSince = "zone-1", metav1.NewTime(since)
	fresh, n := taskstate.FreshURLs{}, 0
	for job := range 5000 {
		size := 1
		if job == 4000 {
			size = 500
		}
		for range size {
			url := fmt.Sprint("https://a.example.com/", n)
			n++
			task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(url))
			fresh.AddRecords([]teo.Record{{JobID: fmt.Sprint("20261128140500-job-", job), Target: url, Status: teo.StatusSuccess, CreateTime: since}})
		}
	}
	kept := taskstate.KeepFromHistory(task, taskstate.NewHistoryRead(since), fresh, nil)
	taskstate.StartFromHistory(kept, since)(task)
	if size := taskstate.JSONSize(task.Status); size > taskstate.MaxStatus {
		t.Errorf("the status has %d bytes, with %d jobs", size, len(task.Status.Jobs))
	}
	if len(kept) != 1000 || kept.Count() != 1499 {
		t.Errorf("%d jobs with %d targets are kept", len(kept), kept.Count())
	}
}
