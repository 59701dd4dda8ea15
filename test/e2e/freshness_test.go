package e2e

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// A task with spec.freshSince is created again in the ways of GitOps tools and backups, and in
// another cluster. EdgeOne's history shows that everything is fresh.
func TestWhatIsFreshIsSubmittedOnceInAllClusters(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		act  func(r *refresh, p *cluster.Process, task *v1alpha1.PrefetchTask) (where *world)
	}{
		{"deleted and re-created", func(r *refresh, _ *cluster.Process, task *v1alpha1.PrefetchTask) *world {
			r.remove(task.Name)
			r.create(task)
			return r.world
		}},
		{"replaced", func(r *refresh, _ *cluster.Process, task *v1alpha1.PrefetchTask) *world {
			task.ResourceVersion = r.get(task.Name).ResourceVersion
			r.must(r.Update(r.t.Context(), task))
			return r.world
		}},
		{"restored without its status, while the manager was down", func(r *refresh, p *cluster.Process, task *v1alpha1.PrefetchTask) *world {
			p.Kill()
			r.remove(task.Name)
			r.create(task)
			r.must(p.Start(r.t.Context()))
			return r.world
		}},
		{"in a second cluster", func(r *refresh, _ *cluster.Process, task *v1alpha1.PrefetchTask) *world {
			other := r.elsewhere()
			task.Namespace = other.namespace
			other.create(task)
			other.manager("--allow-purge=URL")
			return other
		}},
	} {
		for name, purge := range map[string]v1alpha1.PurgeType{"with a purge": v1alpha1.PurgeURL, "without": ""} {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				r := newRefresh(t, refreshConfig())
				r.publish(r.list()...)
				task := r.task("list", r.list()...)
				task.Spec.Purge.Type, task.Spec.FreshSince = purge, metav1.NewTime(time.Now().Truncate(time.Second))
				r.create(task.DeepCopy())
				p := r.refresher()
				r.untilFinished("list", v1alpha1.ReasonSucceeded)
				before := r.edgeOne.Stats()
				if before.Targets != listURLs {
					t.Errorf("the first run prefetched %d URLs, want %d", before.Targets, listURLs)
				}
				where := tt.act(r, p, task)
				r.strikes(1)
				where.untilFinished("list", v1alpha1.ReasonSucceeded)
				r.judgeFresh()
				after := r.edgeOne.Stats()
				if again := fmt.Sprintf("%d prefetched, %d purged", after.Targets-before.Targets, after.PurgeTargets-before.PurgeTargets); again != "0 prefetched, 0 purged" {
					t.Errorf("sent again: %s", again)
				}
			})
		}
	}
}
