package submit

import (
	"testing"
	"testing/synctest"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/targetlist"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// The read of a long list brings the whole task, with the status that a former version of the
// operator wrote.
func TestAFormerStatusIsUpgradedWhenALongListIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		task := controllertest.NewTask("a", 0)
		task.Spec.Targets = controllertest.LongTargets("a", 2*taskstate.MaxCachedTargets>>10)
		taskstate.UpdateSummary(task, controllertest.T0)
		task.Status.Run = taskstate.RunHash(task)
		task.Status.Jobs = []v1alpha1.Job{{ID: "job", ClaimID: "claim", FormerTargets: "0-9"}}
		u := controllertest.NewUnit(t, nil, nil, task)
		leads := make(chan struct{})
		close(leads)
		l := targetlist.NewLoader(u.ListConfig(u.Writer, leads))
		submitterOf(u)
		watchTask(u, task)
		l.StartLoads()
		synctest.Wait()
		now := u.Tasks.NewestVersion(client.ObjectKeyFromObject(task))
		if taskstate.LacksTargets(now) {
			t.Fatal("the list was not read")
		}
		if open := taskstate.OpenPositions(now); len(open) == 0 || open[0] != 10 {
			t.Errorf("%d targets are open, want all but the first ten: the job has %+v", len(open), now.Status.Jobs)
		}
	})
}
