package controller

import (
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// The statuses of queued tasks say what is ahead, and cost one write each, however long the tasks
// wait and however often the numbers change.
func TestAQueuedTaskSaysWhatIsAheadInOneWrite(t *testing.T) {
	zone := zoneA1
	zone.Batch = 1
	inCalm(t, simulator.Config{JobDuration: -1, Zones: []simulator.Zone{zone}}, func(t *testing.T, w *calm) {
		w.edgeOne.AddFault(simulator.Fault{
			Match:  simulator.Matcher{Action: teo.ActionCreatePrefetchTask},
			Effect: simulator.Effect{AnswerDelay: 2 * time.Second},
		})
		w.start()
		const tasks = 150 // for five minutes
		w.createMany("n", tasks, nil)
		said := map[client.ObjectKey]taskstate.Ahead{}
		look := func(task *v1alpha1.PrefetchTask) bool {
			if ahead := taskstate.AheadOf(task); !ahead.Time.IsZero() {
				said[client.ObjectKeyFromObject(task)] = ahead
			}
			return false
		}
		if !w.await(15*time.Minute, func() bool { w.countTasks(look); return w.unfinished() == 0 }) {
			t.Fatalf("%d tasks are not finished", w.unfinished())
		}
		if len(said) < tasks/2 {
			t.Errorf("%d of %d tasks say what is ahead of them", len(said), tasks)
		}
		for key, ahead := range said {
			if ahead.Targets != ahead.Tasks || ahead.Tasks >= tasks {
				t.Errorf("%s says %+v", key, ahead)
			}
		}
		for key, times := range w.writes {
			if len(times) > 4 { // queued, claimed, submitted, succeeded
				t.Errorf("%s was written %d times", key, len(times))
			}
		}
	})
}
