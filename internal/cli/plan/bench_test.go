package plan_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/plan"
)

// BenchmarkMake makes plans that need many calls: of the longest list with small calls, and of a task behind
// many that wait.
func BenchmarkMake(b *testing.B) {
	const batch = 20
	later := func(task *v1alpha1.PrefetchTask) { task.CreationTimestamp.Time = time.Now() }
	for _, bm := range []struct {
		name    string
		world   func() plan.World
		waiting int
	}{
		{"list", func() plan.World { return world(500_000, 500_000, newTask("a", 10_000)) }, 0},
		{"purged list", func() plan.World { return world(500_000, 500_000, newTask("a", 10_000, purged)) }, 0},
		{"behind 10,000 tasks", func() plan.World { return world(500_000, 500_000, newTask("z", 20, later)) }, 10_000},
	} {
		b.Run(bm.name, func(b *testing.B) {
			w := bm.world()
			w.Batch, w.Accounts[0].Status.Zones[0].Purges[0].Left = batch, nil
			w.Accounts[0].Status.Zones[0].Purges[0].Daily = nil
			for i := range bm.waiting {
				w.Waiting = append(w.Waiting, newTask(fmt.Sprint("a", i), 20).PrefetchTask)
			}
			for b.Loop() {
				if p := makePlans(b, w)[0]; !p.Fits() {
					b.Fatalf("%+v", p)
				}
			}
		})
	}
}
