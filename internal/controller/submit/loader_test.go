package submit

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/targetlist"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// watchTask delivers the API server's version of a task, as the watch does.
func watchTask(u *controllertest.Unit, task *v1alpha1.PrefetchTask) {
	u.T.Helper()
	var stored v1alpha1.PrefetchTask
	if err := u.Writer.Get(context.Background(), client.ObjectKeyFromObject(task), &stored); err != nil {
		u.T.Fatal(err)
	}
	u.Tasks.ObserveTask(kube.CachedTask(kube.PruneFinishedTask(&stored)))
}

// keptLists returns how many bytes of long lists are in memory, and the names of their tasks.
func keptLists(u *controllertest.Unit) (size int, names map[string]bool) {
	names = map[string]bool{}
	for _, task := range u.Tasks.AllTasks() {
		if n := taskstate.TargetsSize(task); n > taskstate.MaxCachedTargets {
			size += n
			names[task.Namespace+"/"+task.Name] = true
		}
	}
	return size, names
}

// Users can create any number of tasks with long lists. Only the lists of tasks that are ready
// for a call are in memory, a few at a time, and the namespaces take turns.
func TestLongListsOfTasksThatWaitTakeBoundedMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many, kib = 100, 1024
		var tasks []*v1alpha1.PrefetchTask
		for i := range many {
			task := controllertest.NewTask(fmt.Sprintf("t%02d", i), 0)
			task.Spec.Targets = controllertest.LongTargets(task.Name, kib)
			if i == many-1 {
				task.Namespace = "quiet"
			}
			tasks = append(tasks, task)
		}
		u := controllertest.NewUnit(t, nil, nil, tasks...)
		leads := make(chan struct{})
		l := targetlist.NewLoader(u.ListConfig(u.Writer, leads))
		submitterOf(u)
		for _, task := range tasks {
			watchTask(u, task)
		}
		synctest.Wait()
		if size, names := keptLists(u); size > 0 {
			t.Errorf("before it leads, %d bytes of %d lists are in memory", size, len(names))
		}
		close(leads)
		l.StartLoads()
		synctest.Wait()
		size, first := keptLists(u)
		if size < targetlist.MaxLoaded || size > targetlist.MaxLoaded+targetlist.MaxLoads*kib<<10 || !first["quiet/t99"] {
			t.Errorf("%d bytes of lists are in memory, want %d; of tasks %v", size, targetlist.MaxLoaded, first)
		}
		// These tasks make no progress, for example because their zone is backed off. The
		// other tasks get their turn.
		seen := map[string]bool{}
		for range 5 {
			time.Sleep(targetlist.MaxLoadedIdle + time.Second)
			synctest.Wait()
			size, names := keptLists(u)
			if size > targetlist.MaxLoaded+targetlist.MaxLoads*kib<<10 {
				t.Fatalf("%d bytes of lists are in memory", size)
			}
			for name := range names {
				seen[name] = true
			}
		}
		if len(seen) < many*3/4 {
			t.Errorf("%d of %d lists had a turn in %s", len(seen), many, 5*targetlist.MaxLoadedIdle)
		}
		// Deleted tasks leave nothing behind.
		for _, task := range u.Tasks.AllTasks() {
			u.Tasks.RemoveTask(task)
		}
		time.Sleep(targetlist.MaxLoadedIdle + time.Second)
		synctest.Wait()
		if size, _ := keptLists(u); size > 0 || !l.IsEmpty() {
			t.Errorf("of deleted tasks %d bytes are kept, %+v", size, l)
		}
	})
}

// If a list cannot be read, it is read later. A task that changes in the meantime is submitted in
// its newer version.
func TestALongListThatCannotBeReadIsReadLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		task := controllertest.NewTask("a", 0)
		task.Spec.Targets = controllertest.LongTargets("a", 2*taskstate.MaxCachedTargets>>10)
		u := controllertest.NewUnit(t, nil, nil, task)
		leads := make(chan struct{})
		close(leads)
		reader := &failingReader{Reader: u.Writer, fails: 3}
		targetlist.NewLoader(u.ListConfig(reader, leads))
		_, line := submitterOf(u)
		u.Tasks.ObserveTask(kube.CachedTask(kube.PruneFinishedTask(u.ReadTask("a"))))
		time.Sleep(2*3*targetlist.LoadAgain + time.Second)
		synctest.Wait()
		if reader.fails > 0 || line.queue.Len() != 1 {
			t.Fatalf("%d reads are to fail yet, %d tasks are in line", reader.fails, line.queue.Len())
		}
		call := planNext(u, line)
		if got := len(call.URLs); got != 2*taskstate.MaxCachedTargets>>10 || taskstate.IsElided(call.Parts[0].Task) {
			t.Errorf("the call has %d URLs", got)
		}
	})
}

type failingReader struct {
	client.Reader
	fails int
}

func (r *failingReader) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	if r.fails > 0 {
		r.fails--
		return errors.New("not now")
	}
	return r.Reader.Get(ctx, key, obj, opts...)
}

// A tenant who keeps editing tasks that can never be submitted does not keep the long lists of
// others out of memory.
func TestEditsOfATenantDoNotKeepOthersListsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many, kib = 40, 1024
		var tasks []*v1alpha1.PrefetchTask
		for i := range many {
			task := controllertest.NewTask(fmt.Sprintf("t%02d", i), 0)
			task.Spec.Targets = controllertest.LongTargets(task.Name, kib)
			tasks = append(tasks, task)
		}
		quiet := controllertest.NewTask("quiet", 0)
		quiet.Namespace, quiet.Spec.Targets = "quiet", controllertest.LongTargets("quiet", 2*taskstate.MaxCachedTargets>>10)
		u := controllertest.NewUnit(t, nil, nil, append(tasks, quiet)...)
		leads := make(chan struct{})
		close(leads)
		targetlist.NewLoader(u.ListConfig(u.Writer, leads))
		submitterOf(u)
		for _, task := range tasks {
			watchTask(u, task)
		}
		synctest.Wait()
		watchTask(u, quiet)
		for round := range 30 {
			for _, task := range tasks {
				var stored v1alpha1.PrefetchTask
				if err := u.Writer.Get(t.Context(), client.ObjectKeyFromObject(task), &stored); err != nil {
					t.Fatal(err)
				}
				stored.Labels = map[string]string{"round": fmt.Sprint(round)}
				if err := u.Writer.Update(t.Context(), &stored); err != nil {
					t.Fatal(err)
				}
				u.Tasks.ObserveTask(kube.CachedTask(kube.PruneFinishedTask(&stored)))
			}
			time.Sleep(20 * time.Second)
			synctest.Wait()
			if _, names := keptLists(u); names["quiet/quiet"] {
				u.RemoveAll()
				return
			}
		}
		t.Error("the list of another namespace was not read in 10 minutes")
		u.RemoveAll()
	})
}

// A replica that does not lead also drops deleted tasks.
func TestAProcessThatStandsByForgetsTasksWithLongListsThatAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := controllertest.NewUnit(t, nil, nil)
		l := targetlist.NewLoader(u.ListConfig(u.Writer, make(chan struct{})))
		submitterOf(u)
		for i := range 5000 {
			task := controllertest.NewTask(fmt.Sprint("t", i), 0)
			task.Spec.Targets, task.ResourceVersion = controllertest.LongTargets("x", 2*taskstate.MaxCachedTargets>>10), fmt.Sprint(i+1)
			task = kube.CachedTask(kube.PruneFinishedTask(task))
			u.Tasks.ObserveTask(task)
			u.Tasks.RemoveTask(task)
		}
		if !l.IsEmpty() {
			t.Error("keys of tasks that are gone are kept")
		}
	})
}

// If a task is recreated while the list of its predecessor is read, the new task gets its own
// list.
func TestATaskMadeAgainWhileItsListIsReadGetsItsList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		task := controllertest.NewTask("a", 0)
		task.Spec.Targets = controllertest.LongTargets("a", 2*taskstate.MaxCachedTargets>>10)
		u := controllertest.NewUnit(t, nil, nil, task)
		leads := make(chan struct{})
		close(leads)
		var old *v1alpha1.PrefetchTask
		reader := &madeAgain{Reader: u.Writer, then: func() {
			again := controllertest.NewTask("a", 0)
			again.UID, again.Spec.Targets, again.Status.ObservedGeneration = types.UID("again"), task.Spec.Targets, 1
			if err := u.Writer.Delete(t.Context(), u.ReadTask("a")); err != nil {
				t.Fatal(err)
			}
			if err := u.Writer.Create(t.Context(), again); err != nil {
				t.Fatal(err)
			}
			u.Tasks.RemoveTask(old)
			u.Tasks.ObserveTask(kube.CachedTask(kube.PruneFinishedTask(u.ReadTask("a"))))
		}}
		targetlist.NewLoader(u.ListConfig(reader, leads))
		_, line := submitterOf(u)
		old = kube.CachedTask(kube.PruneFinishedTask(u.ReadTask("a")))
		u.Tasks.ObserveTask(old)
		time.Sleep(time.Minute)
		synctest.Wait()
		if newest := u.Tasks.NewestVersion(client.ObjectKeyFromObject(task)); newest == nil || taskstate.IsElided(newest) || line.queue.Len() != 1 {
			t.Error("the list of the new task is not read")
		}
	})
}

type madeAgain struct {
	client.Reader
	then func()
}

func (r *madeAgain) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	if then := r.then; then != nil {
		r.then = nil
		then()
	}
	return r.Reader.Get(ctx, key, obj, opts...)
}

// Waiting targets are counted, whether their list is in memory or not.
func TestTasksWhoseListsAreAwayAreCountedAmongThoseThatWait(t *testing.T) {
	u := controllertest.NewUnit(t, nil, nil)
	leads := make(chan struct{})
	targetlist.NewLoader(u.ListConfig(u.Writer, leads))
	s, _ := submitterOf(u)
	task := controllertest.NewTask("a", 0)
	task.ResourceVersion = "1"
	task.Spec.Targets = controllertest.LongTargets("a", 2*taskstate.MaxCachedTargets>>10)
	task.Status.ObservedGeneration = task.Generation
	u.Tasks.ObserveTask(kube.CachedTask(kube.PruneFinishedTask(task)))
	n := 0
	for _, line := range s.StatsByZone(time.Now())[controllertest.Zone].Waiting {
		n += line.Targets
	}
	if n != 2*taskstate.MaxCachedTargets>>10 {
		t.Errorf("%d targets are said to wait, want %d", n, 2*taskstate.MaxCachedTargets>>10)
	}
}

// An answer that is recorded late names the targets that EdgeOne refused, although the list is no
// longer in memory.
func TestAnAnswerThatIsRecordedLateTellsWhatWasRefused(t *testing.T) {
	task := controllertest.ClaimedAt(controllertest.NewTask("a", 3), controllertest.T0)
	u := controllertest.NewUnit(t, nil, nil, task)
	elided := taskstate.ElideTargets(u.ReadTask("a"))
	change := taskstate.RecordJob("job", map[string]string{taskstate.DistinctTargets(task)[1]: "no"}, controllertest.T0)
	if _, err := u.Writer.SettleClaim(t.Context(), elided, "claim of a", change, maxSettleTries); err != nil {
		t.Fatal(err)
	}
	if s := u.ReadTask("a").Status; s.RefusedPositions != "1" || len(s.FailedTargets) != 1 {
		t.Errorf("refused are %q, named %v; the job has %s", s.RefusedPositions, s.FailedTargets, s.Jobs[0].Positions)
	}
}
