package follow

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// Whatever is done to a task whose targets are not known, nothing is taken for
// handed over or for not handed over, and no run for finished.
func TestATaskWithoutItsTargetsKeepsWhatItsStatusSays(t *testing.T) {
	task := controllertest.ListTask("task", "list")
	task.Spec.Targets = []v1alpha1.Target{"https://h/a", "https://h/b", "https://h/c"}
	now := time.Now()
	controllertest.ClaimedAt(task, now)
	task.Status.Submission.Targets = "0-1"
	task.Spec.Targets = nil
	if taskstate.IsWaiting(task) || !taskstate.NeedsTargetList(task) {
		t.Error("it is not waiting for its targets")
	}
	if _, open := openZone(task); open {
		t.Error("it is looked for")
	}
	taskstate.RecordJob("job-1", map[string]string{"https://h/a": "no"}, now)(task)
	if s := task.Status; len(s.Jobs) != 1 || s.Jobs[0].Targets != "0-1" || taskstate.IsRunOver(task) {
		t.Errorf("recorded: %+v", s)
	}
	controllertest.FollowJobs(taskstate.JobRecords{}, 0, now, now.Add(time.Hour))(task)
	if s := task.Status; s.Jobs[0].Failed != 0 || taskstate.IsRunOver(task) || !s.CompletionTime.IsZero() {
		t.Errorf("followed: %+v", s)
	}
	task.Status.Submission = &v1alpha1.Submission{ClaimID: "x", Targets: "2", SignedAt: metav1.NewTime(now)}
	taskstate.AdoptJobs([]taskstate.AdoptedJob{{JobID: "job-2", Positions: taskstate.Positions{2}}}, now)(task)
	if s := task.Status; len(s.Jobs) != 2 || s.Jobs[1].Targets != "2" || taskstate.IsRunOver(task) {
		t.Errorf("adopted: %+v", s)
	}
}
