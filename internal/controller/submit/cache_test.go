package submit

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// Users can create any number of suspended tasks with long lists.
func TestLongListsOfSuspendedTasksAreNotKept(t *testing.T) {
	u := controllertest.NewUnit(t, nil, nil)
	s, l := submitterOf(u)
	heap := func() uint64 {
		runtime.GC()
		runtime.GC() // also frees objects that the first run has finalized
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	const n = 200
	before := heap()
	var cache []client.Object // the informer's cache
	for i := range n {
		task := controllertest.NewTask(fmt.Sprint("t", i), 0)
		task.Spec.Suspend, task.ResourceVersion = ptr.To(true), fmt.Sprint(i+1)
		task.Annotations = map[string]string{"example.com/large": strings.Repeat("x", 100_000)}
		for k := range 2000 {
			task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(fmt.Sprintf("https://h/%d/%d/%s", i, k, strings.Repeat("x", 100))))
		}
		cache = append(cache, kube.PruneFinishedTask(task))
		s.Tasks.ObserveTask(kube.CachedTask(cache[i]))
	}
	if grown := int64(heap()) - int64(before); grown > n<<14 {
		t.Errorf("%d suspended tasks with 240 KB of URLs take %d KB each", n, grown/n>>10)
	}
	if l.queue.Len() != n {
		t.Errorf("%d of %d are told that they are suspended", l.queue.Len(), n)
	}
	runtime.KeepAlive(cache)
}

func TestAFinishedTaskHasNoPlaceInMemory(t *testing.T) {
	u := controllertest.NewUnit(t, nil, nil, controllertest.NewTask("a", 1))
	p := pollerOf(u)
	s, l := submitterOf(u, u.ReadTask("a"))
	task := controllertest.ClaimedAt(u.ReadTask("a"), time.Now())
	taskstate.RecordJob("job-1", map[string]string{taskstate.DistinctTargets(task)[0]: "no"}, time.Now())(task)
	task.Status.ObservedGeneration, task.ResourceVersion = task.Generation, "1000000"
	taskstate.UpdateSummary(task, time.Now())
	kept := kube.CachedTask(kube.PruneFinishedTask(task))
	s.Tasks.ObserveTask(kept)
	if len(s.Tasks.AllTasks()) != 0 || l.queue.Len() != 0 || len(p.UnsettledAges()) != 0 {
		t.Errorf("it is kept as %v, stands at %v, in a line of %d", s.Tasks.AllTasks(), p.UnsettledAges(), l.queue.Len())
	}
	accounts := priorityqueue.New[taskstate.AccountKey]("accounts")
	defer accounts.ShutDown()
	s.UseQueue(accounts)
	for accounts.Len() > 0 {
		account, _ := accounts.Get()
		accounts.Done(account)
	}
	s.Tasks.ObserveTask(kept)
	s.Tasks.RemoveTask(kept)
	if n := accounts.Len(); n > 0 {
		t.Errorf("that it is seen again and deleted makes %d accounts due", n)
	}
}
