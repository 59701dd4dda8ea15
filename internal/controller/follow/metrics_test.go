package follow

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"maps"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/metrics"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

func TestTasksAreCountedByTheirReasonAsTheyComeChangeAndGo(t *testing.T) {
	see := kube.CacheOptions(NewRecordedJobs()).DefaultTransform
	version := func(changes ...taskstate.Transition) client.Object {
		task := controllertest.NewTask("a", 1)
		for _, c := range changes {
			c(task)
		}
		kept, err := see(task)
		if err != nil {
			t.Fatal(err)
		}
		return kept.(client.Object)
	}
	now := time.Now()
	claimed := func(task *v1alpha1.PrefetchTask) { controllertest.ClaimedAt(task, now) }
	succeed := func(task *v1alpha1.PrefetchTask) {
		taskstate.RecordJob("job-1", nil, now)(task)
		task.Status.Jobs[0].Succeeded = 1
		taskstate.UpdateSummary(task, now)
	}
	fail := func(task *v1alpha1.PrefetchTask) {
		taskstate.RecordJob("", map[string]string{"https://h/0": "no"}, now)(task)
	}
	edited := func(task *v1alpha1.PrefetchTask) { task.Generation++; task.Spec.Revision = "2" }
	tasks := metrics.NewTaskCounter(kube.ReadyReasonOf)
	var last client.Object
	for _, step := range []struct {
		name string
		next client.Object
		want map[string]int
	}{
		{"it is new", version(), map[string]int{"Waiting": 1}},
		{"it is claimed", version(claimed), map[string]int{"Submitting": 1}},
		{"its answer is lost", version(claimed, taskstate.OutcomeUnknown("lost", false)), map[string]int{"OutcomeUnknown": 1}},
		{"it is followed", version(claimed, taskstate.RecordJob("job-1", nil, now)), map[string]int{"Submitted": 1}},
		{"it has succeeded, and is slimmed", version(claimed, succeed), map[string]int{"Succeeded": 1}},
		{"the same comes again", version(claimed, succeed), map[string]int{"Succeeded": 1}},
		{"it is edited", version(claimed, succeed, edited), map[string]int{"Waiting": 1}},
		{"it has failed", version(claimed, fail), map[string]int{"Failed": 1}},
		{"it is deleted", nil, map[string]int{}},
	} {
		tasks.CountTask(last, step.next)
		last = step.next
		if got := tasks.CountsByReason(); !maps.Equal(got, step.want) {
			t.Errorf("%s: %v, want %v", step.name, got, step.want)
		}
	}
}

// A claim in a status that a user edited by hand may have no time.
func TestAClaimWithoutATimeHasNoAge(t *testing.T) {
	task := controllertest.ClaimedAt(controllertest.NewTask("a", 1), time.Now())
	task.Status.Submission.SignedAt = metav1.Time{}
	u := controllertest.NewUnit(t, nil, nil, task)
	if ages := pollerOf(u, task).UnsettledAges(); len(ages) != 1 || ages[controllertest.Zone] != 0 {
		t.Errorf("the ages are %v", ages)
	}
}
