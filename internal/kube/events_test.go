package kube

import (
	"fmt"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate/taskstatetest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// recordedEvents keeps Events as "reason: note".
type recordedEvents struct {
	events.EventRecorder
	all []string
}

func (r *recordedEvents) Eventf(_, _ runtime.Object, _, reason, _, note string, args ...any) {
	r.all = append(r.all, reason+": "+fmt.Sprintf(note, args...))
}

func TestTheEventOfARetryCountsWhatIsSubmittedAgain(t *testing.T) {
	now := time.Unix(1e9, 0)
	before := taskstatetest.NewTask("a", taskstatetest.ListURLs("x", 3)...)
	taskstate.ClaimTargets(v1alpha1.Submission{ClaimID: "c", SignedAt: metav1.NewTime(now), Positions: "0-2"}, now)(before)
	taskstate.RecordJob("job-1", nil, now)(before)
	before.Status.Jobs[0].Failed = 3
	for _, u := range taskstate.DistinctTargets(before) {
		before.Status.FailedTargets = append(before.Status.FailedTargets, v1alpha1.FailedTarget{URL: u, Reason: v1alpha1.FailedNoOutcome})
	}
	taskstate.UpdateSummary(before, now)
	metav1.SetMetaDataAnnotation(&before.ObjectMeta, v1alpha1.RetryAnnotation, "1")
	// EdgeOne's history shows that two of the three have succeeded since.
	seen := taskstate.NewHistoryRead(now)
	seen.Listing, seen.Whole["job-1"] = taskstate.JobRecords{}, true
	seen.Listing.AddTasks(successes("job-1", taskstate.DistinctTargets(before)[:2]))
	after := before.DeepCopy()
	job := &after.Status.Jobs[0]
	taskstate.ReopenFailed(map[string]taskstate.JobFailures{job.ID: taskstate.FailuresOf(after, job, seen)}, now)(after)

	recorder := &recordedEvents{}
	NewEventReporter(recorder, func(*v1alpha1.PrefetchTask, string) {}).ReportChange(before, after)
	if want := "Retried: Resubmitting 1 failed URL"; !slices.Contains(recorder.all, want) {
		t.Errorf("the Events are %q, want %q", recorder.all, want)
	}
}

// successes returns records of a job whose targets have succeeded.
func successes(jobID string, urls []string) (records []teo.Record) {
	for _, u := range urls {
		records = append(records, teo.Record{JobID: jobID, Target: u, Status: teo.StatusSuccess})
	}
	return records
}
