package follow

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// If the targets of a task are not in memory, no transition changes which targets count as handed
// over, and none finishes the run.
func TestATaskWithoutItsTargetsKeepsWhatItsStatusSays(t *testing.T) {
	task := controllertest.ListTask("task", "list")
	task.Spec.Targets = []v1alpha1.Target{"https://h/a", "https://h/b", "https://h/c"}
	now := time.Now()
	controllertest.ClaimedAt(task, now)
	task.Status.Submission.Positions = "0-1"
	task.Spec.Targets = nil
	if taskstate.IsWaiting(task, v1alpha1.JobPrefetch) || !taskstate.NeedsTargetList(task) {
		t.Error("it is not waiting for its targets")
	}
	if _, open := (&Poller{}).openZone(task); open {
		t.Error("it is looked for")
	}
	taskstate.RecordJob("job-1", map[string]string{"https://h/a": "no"}, now)(task)
	if s := task.Status; len(s.Jobs) != 1 || s.Jobs[0].Positions != "0-1" || taskstate.IsRunOver(task) {
		t.Errorf("recorded: %+v", s)
	}
	controllertest.FollowJobs(taskstate.JobRecords{}, 0, now, now.Add(time.Hour))(task)
	if s := task.Status; s.Jobs[0].Failed != 0 || taskstate.IsRunOver(task) || !s.CompletionTime.IsZero() {
		t.Errorf("followed: %+v", s)
	}
	task.Status.Submission = &v1alpha1.Submission{ClaimID: "x", Positions: "2", SignedAt: metav1.NewTime(now)}
	taskstate.AdoptJobs([]taskstate.AdoptedJob{{JobID: "job-2", Positions: taskstate.Positions{2}}}, now)(task)
	if s := task.Status; len(s.Jobs) != 2 || s.Jobs[1].Positions != "2" || taskstate.IsRunOver(task) {
		t.Errorf("adopted: %+v", s)
	}
}
