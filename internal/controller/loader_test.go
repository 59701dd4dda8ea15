package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/targetlist"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// longTargets are targets of some KiB together, in the zone of unit tests.
func longTargets(prefix string, kib int) []v1alpha1.Target {
	targets := make([]v1alpha1.Target, kib)
	for i := range targets {
		u := fmt.Sprintf("https://h/%s/%d/", prefix, i)
		targets[i] = v1alpha1.Target(u + strings.Repeat("x", 1024-len(u)))
	}
	return targets
}

// watch brings a task as the API server has it.
func (u *unit) watch(task *v1alpha1.PrefetchTask) {
	u.t.Helper()
	var stored v1alpha1.PrefetchTask
	if err := u.store.Get(context.Background(), client.ObjectKeyFromObject(task), &stored); err != nil {
		u.t.Fatal(err)
	}
	u.versions.ObserveTask(kube.CachedTask(kube.PruneFinishedTask(&stored)))
}

// keptLists is how many bytes of long lists are in memory, and of which tasks.
func (u *unit) keptLists() (size int, names map[string]bool) {
	names = map[string]bool{}
	for _, task := range u.versions.AllTasks() {
		if n := taskstate.TargetsSize(task); n > taskstate.MaxCachedTargets {
			size += n
			names[task.Namespace+"/"+task.Name] = true
		}
	}
	return size, names
}

// Anybody can make any number of tasks with long lists. Those that can be called for
// are in memory, a few at a time and of all namespaces in turn.
func TestLongListsOfTasksThatWaitTakeBoundedMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many, kib = 100, 1024
		var tasks []*v1alpha1.PrefetchTask
		for i := range many {
			task := unitTask(fmt.Sprintf("t%02d", i), 0)
			task.Spec.Targets = longTargets(task.Name, kib)
			if i == many-1 {
				task.Namespace = "quiet"
			}
			tasks = append(tasks, task)
		}
		u := newUnit(t, nil, nil, tasks...)
		leads := make(chan struct{})
		l := targetlist.NewLoader(u.listConfig(u.store, leads))
		u.submitter()
		for _, task := range tasks {
			u.watch(task)
		}
		synctest.Wait()
		if size, names := u.keptLists(); size > 0 {
			t.Errorf("before it leads, %d bytes of %d lists are in memory", size, len(names))
		}
		close(leads)
		l.StartLoads()
		synctest.Wait()
		size, first := u.keptLists()
		if size < targetlist.MaxLoaded || size > targetlist.MaxLoaded+targetlist.MaxLoads*kib<<10 || !first["quiet/t99"] {
			t.Errorf("%d bytes of lists are in memory, want %d; of tasks %v", size, targetlist.MaxLoaded, first)
		}
		// Nothing happens to these: their zone is held, say. The others have their turn.
		seen := map[string]bool{}
		for range 5 {
			time.Sleep(targetlist.MaxLoadedIdle + time.Second)
			synctest.Wait()
			size, names := u.keptLists()
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
		// And what is gone leaves nothing.
		for _, task := range u.versions.AllTasks() {
			u.versions.RemoveTask(task)
		}
		time.Sleep(targetlist.MaxLoadedIdle + time.Second)
		synctest.Wait()
		if size, _ := u.keptLists(); size > 0 || !l.IsEmpty() {
			t.Errorf("of deleted tasks %d bytes are kept, %+v", size, l)
		}
	})
}

// Long lists go out once, whole, in several calls; tasks with short lists do not wait.
func TestLongListsAreSubmittedOnce(t *testing.T) {
	inCalm(t, simulator.Config{JobDuration: -1}, func(t *testing.T, w *calm) {
		long := func(name string, n int) (targets []v1alpha1.Target) {
			for _, u := range urls(name, n) {
				targets = append(targets, u+v1alpha1.Target("/"+strings.Repeat("x", 1000)))
			}
			return targets
		}
		w.start()
		var tasks [][]v1alpha1.Target
		for i := range 12 {
			tasks = append(tasks, long(fmt.Sprint("long", i), 700))
			w.create("long", fmt.Sprint("t", i), tasks[i])
		}
		short := w.create("short", "t", urls("short", 1))
		if !w.await(10*time.Second, func() bool { return taskstate.IsRunOver(w.server.get(short)) }) {
			t.Errorf("the short one is %s", statusLine(w.server.get(short)))
		}
		w.awaitAll(10 * time.Minute)
		for i, targets := range tasks {
			for _, u := range targets {
				if n := w.edgeOne.Executed(string(u)); n != 1 {
					t.Fatalf("a URL of task %d was executed %d times", i, n)
				}
			}
		}
		if calls := len(w.submissions()); calls > 12*700/500+10 {
			t.Errorf("%d calls were made for %d URLs", calls, 12*700+1)
		}
	})
}

// A list that cannot be read now is read later; a task that was changed meanwhile is
// submitted as it is then.
func TestALongListThatCannotBeReadIsReadLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		task := unitTask("a", 0)
		task.Spec.Targets = longTargets("a", 2*taskstate.MaxCachedTargets>>10)
		u := newUnit(t, nil, nil, task)
		leads := make(chan struct{})
		close(leads)
		reader := &failingReader{Reader: u.store, fails: 3}
		targetlist.NewLoader(u.listConfig(reader, leads))
		_, line := u.submitter()
		u.versions.ObserveTask(kube.CachedTask(kube.PruneFinishedTask(u.get("a"))))
		time.Sleep(2*3*targetlist.LoadAgain + time.Second)
		synctest.Wait()
		if reader.fails > 0 || line.queue.Len() != 1 {
			t.Fatalf("%d reads are to fail yet, %d tasks are in line", reader.fails, line.queue.Len())
		}
		call := u.planned(line)
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

// What is handed over is followed without its list, which is read when there is news.
func TestTheListOfATaskIsReadOnlyWhenItsOutcomesAreNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(func(c *simulator.Config) { c.JobDuration = 10 * time.Minute })
		task := handedOver(t, edgeOne, "a", 50, 50)
		u := newUnit(t, edgeOne.RoundTripper(), nil, task)
		reads := &countingReader{Reader: u.store.Client}
		u.store = kube.NewStatusWriter(u.store.Client, reads, u.versions, u.WriteTimeout)
		p := u.poller(taskstate.ElideTargets(u.get("a")))
		u.lookUntil(p, unitZone, time.Now().Add(9*time.Minute))
		if reads.n > 2 {
			t.Errorf("the list was read %d times while nothing had ended", reads.n)
		}
		u.lookUntil(p, unitZone, time.Now().Add(5*time.Minute))
		if now := u.get("a"); taskstate.ReadyReason(now) != v1alpha1.ReasonSucceeded || reads.n > 6 {
			t.Errorf("the task is %s after %d reads", taskstate.ReadyReason(now), reads.n)
		}
	})
}

type countingReader struct {
	client.Reader
	n int
}

func (r *countingReader) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	r.n++

	return r.Reader.Get(ctx, key, obj, opts...)
}

// A tenant who edits tasks that wait for ever keeps nobody else's long list out.
func TestEditsOfATenantDoNotKeepOthersListsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many, kib = 40, 1024
		var tasks []*v1alpha1.PrefetchTask
		for i := range many {
			task := unitTask(fmt.Sprintf("t%02d", i), 0)
			task.Spec.Targets = longTargets(task.Name, kib)
			tasks = append(tasks, task)
		}
		quiet := unitTask("quiet", 0)
		quiet.Namespace, quiet.Spec.Targets = "quiet", longTargets("quiet", 2*taskstate.MaxCachedTargets>>10)
		u := newUnit(t, nil, nil, append(tasks, quiet)...)
		leads := make(chan struct{})
		close(leads)
		targetlist.NewLoader(u.listConfig(u.store, leads))
		u.submitter()
		for _, task := range tasks {
			u.watch(task)
		}
		synctest.Wait()
		u.watch(quiet)
		for round := range 30 {
			for _, task := range tasks {
				var stored v1alpha1.PrefetchTask
				if err := u.store.Get(t.Context(), client.ObjectKeyFromObject(task), &stored); err != nil {
					t.Fatal(err)
				}
				stored.Labels = map[string]string{"round": fmt.Sprint(round)}
				if err := u.store.Update(t.Context(), &stored); err != nil {
					t.Fatal(err)
				}
				u.versions.ObserveTask(kube.CachedTask(kube.PruneFinishedTask(&stored)))
			}
			time.Sleep(20 * time.Second)
			synctest.Wait()
			if _, names := u.keptLists(); names["quiet/quiet"] {
				u.removeAll()
				return
			}
		}
		t.Error("the list of another namespace was not read in 10 minutes")
		u.removeAll()
	})
}

// removeAll takes all tasks away and lets what is under way end.
func (u *unit) removeAll() {
	for _, task := range u.versions.AllTasks() {
		u.versions.RemoveTask(task)
	}
	pass(2 * time.Minute)
}

// A call that is looked for every 1.5 seconds does not cost a read of 1.5 MB each time.
func TestTheListOfATaskIsNotReadAtEachLookForItsCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(nil)
		task := unitTask("a", 0)
		task.Spec.Targets = longTargets("a", 2*taskstate.MaxCachedTargets>>10)
		claimedAt(task, time.Now())
		u := newUnit(t, edgeOne.RoundTripper(), nil, task)
		targetlist.NewLoader(u.listConfig(u.store, make(chan struct{})))
		reads := &countingReader{Reader: u.store.Client}
		u.store = kube.NewStatusWriter(u.store.Client, reads, u.versions, u.WriteTimeout)
		p := u.poller(taskstate.ElideTargets(u.get("a")))
		execute(t, edgeOne, "https://h/somebody-elses")
		u.lookUntil(p, unitZone, time.Now().Add(5*time.Minute))
		if reads.n > 5 {
			t.Errorf("the list was read %d times in 5 minutes in which nothing was to be seen", reads.n)
		}
		u.lookUntil(p, unitZone, time.Now().Add(time.Minute))
		if now := u.get("a"); now.Status.Submission != nil || now.Status.LostCalls != 1 {
			t.Errorf("the claim is not settled: %+v", now.Status)
		}
	})
}

// Writing what became of long lists does not keep lost calls of others waiting.
func TestOutcomesOfLongListsDoNotKeepLostCallsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(nil)
		lost := claimedAt(unitTask("lost", 50), time.Now())
		u := newUnit(t, edgeOne.RoundTripper(), nil, lost)
		p := u.poller(taskstate.ElideTargets(u.get("lost")))
		execute(t, edgeOne, taskstate.DistinctTargets(lost)...)
		for range maxLongLists { // outcomes are being written, slowly
			_, done := p.borrowList(t.Context(), taskstate.ElideTargets(lost))
			go func() { time.Sleep(time.Minute); done() }()
		}
		started := time.Now()
		u.lookUntil(p, unitZone, time.Now().Add(10*time.Second))
		if u.get("lost").Status.Submission != nil || time.Since(started) > 30*time.Second {
			t.Errorf("the lost call is settled after %s: %v", time.Since(started), u.get("lost").Status.Submission == nil)
		}
		time.Sleep(2 * time.Minute)
	})
}

// A process that stands by forgets what is gone as well.
func TestAProcessThatStandsByForgetsTasksWithLongListsThatAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUnit(t, nil, nil)
		l := targetlist.NewLoader(u.listConfig(u.store, make(chan struct{})))
		u.submitter()
		for i := range 5000 {
			task := unitTask(fmt.Sprint("t", i), 0)
			task.Spec.Targets, task.ResourceVersion = longTargets("x", 2*taskstate.MaxCachedTargets>>10), fmt.Sprint(i+1)
			task = kube.CachedTask(kube.PruneFinishedTask(task))
			u.versions.ObserveTask(task)
			u.versions.RemoveTask(task)
		}
		if !l.IsEmpty() {
			t.Error("keys of tasks that are gone are kept")
		}
	})
}

// A task that is made again while the list of the one before is read gets its list.
func TestATaskMadeAgainWhileItsListIsReadGetsItsList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		task := unitTask("a", 0)
		task.Spec.Targets = longTargets("a", 2*taskstate.MaxCachedTargets>>10)
		u := newUnit(t, nil, nil, task)
		leads := make(chan struct{})
		close(leads)
		var old *v1alpha1.PrefetchTask
		reader := &madeAgain{Reader: u.store, then: func() {
			again := unitTask("a", 0)
			again.UID, again.Spec.Targets, again.Status.ObservedGeneration = types.UID("again"), task.Spec.Targets, 1
			if err := u.store.Delete(t.Context(), u.get("a")); err != nil {
				t.Fatal(err)
			}
			if err := u.store.Create(t.Context(), again); err != nil {
				t.Fatal(err)
			}
			u.versions.RemoveTask(old)
			u.versions.ObserveTask(kube.CachedTask(kube.PruneFinishedTask(u.get("a"))))
		}}
		targetlist.NewLoader(u.listConfig(reader, leads))
		_, line := u.submitter()
		old = kube.CachedTask(kube.PruneFinishedTask(u.get("a")))
		u.versions.ObserveTask(old)
		time.Sleep(time.Minute)
		synctest.Wait()
		if newest := u.versions.NewestVersion(client.ObjectKeyFromObject(task)); newest == nil || taskstate.IsElided(newest) || line.queue.Len() != 1 {
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

// A retry of a task whose list is not kept submits what failed, once.
func TestARetryOfALongListIsSubmittedOnce(t *testing.T) {
	inCalm(t, simulator.Config{JobDuration: -1}, func(t *testing.T, w *calm) {
		long := make([]v1alpha1.Target, 100)
		for i := range long {
			long[i] = v1alpha1.Target(fmt.Sprintf("https://a1.example.com/%d/%s", i, strings.Repeat("x", 300)))
		}
		key := w.create("n", "a", long)
		task := w.server.get(key).DeepCopy()
		taskstate.ClaimTargets(v1alpha1.Submission{ClaimID: "c", ZoneID: "zone-a1", SignedAt: metav1.Now(), Targets: "0-99", Semantics: taskstate.HashSemantics(task)}, time.Now())(task)
		taskstate.RecordJob("job-1", nil, time.Now())(task)
		task.Status.Jobs[0].Failed = 100
		taskstate.UpdateSummary(task, time.Now())
		task.Annotations = map[string]string{v1alpha1.RetryAnnotation: "1"}
		if !taskstate.IsRetryDue(task) {
			t.Fatal("no retry is due")
		}
		w.server.restore(task)
		w.start()
		if !w.await(10*time.Minute, func() bool { return taskstate.ReadyReason(w.server.get(key)) == v1alpha1.ReasonSucceeded }) {
			t.Errorf("the task is %s", statusLine(w.server.get(key)))
		}
		for i, u := range long {
			if n := w.edgeOne.Executed(string(u)); n != 1 {
				t.Fatalf("URL %d was executed %d times", i, n)
			}
		}
	})
}

// A task with a long list costs as many writes as any other, and no delay.
func TestALongListCostsNoMoreWritesThanAShortOne(t *testing.T) {
	inCalm(t, simulator.Config{JobDuration: -1}, func(t *testing.T, w *calm) {
		long := make([]v1alpha1.Target, 100)
		for i := range long {
			long[i] = v1alpha1.Target(fmt.Sprintf("https://a1.example.com/%d/%s", i, strings.Repeat("x", 300)))
		}
		w.start()
		time.Sleep(time.Minute)
		for i := range 5 {
			key := w.create("n", fmt.Sprint("a", i), long)
			started := time.Now()
			w.await(time.Minute, func() bool { return len(w.server.get(key).Status.Jobs) > 0 })
			if took := time.Since(started); took > 1500*time.Millisecond { // the first waits for a slot
				t.Errorf("it is submitted after %s", took)
			}
			w.awaitAll(10 * time.Minute)
			w.mu.Lock()
			if n := len(w.writes[key]); n > 3 {
				t.Errorf("%d writes", n)
			}
			w.mu.Unlock()
		}
	})
}

// What waits is counted, whether its list is in memory or not.
func TestTasksWhoseListsAreAwayAreCountedAmongThoseThatWait(t *testing.T) {
	u := newUnit(t, nil, nil)
	leads := make(chan struct{})
	targetlist.NewLoader(u.listConfig(u.store, leads))
	s, _ := u.submitter()
	task := unitTask("a", 0)
	task.ResourceVersion = "1"
	task.Spec.Targets = longTargets("a", 2*taskstate.MaxCachedTargets>>10)
	task.Status.ObservedGeneration = task.Generation
	u.versions.ObserveTask(kube.CachedTask(kube.PruneFinishedTask(task)))
	n := 0
	for _, line := range s.statsByZone(time.Now())[unitZone].Waiting {
		n += line.Targets
	}
	if n != 2*taskstate.MaxCachedTargets>>10 {
		t.Errorf("%d targets are said to wait, want %d", n, 2*taskstate.MaxCachedTargets>>10)
	}
}

// An answer that is recorded late tells what EdgeOne refused, though the list was let go of.
func TestAnAnswerThatIsRecordedLateTellsWhatWasRefused(t *testing.T) {
	task := claimedAt(unitTask("a", 3), t0)
	u := newUnit(t, nil, nil, task)
	elided := taskstate.ElideTargets(u.get("a"))
	change := taskstate.RecordJob("job", map[string]string{taskstate.DistinctTargets(task)[1]: "no"}, t0)
	if _, err := u.store.SettleClaim(t.Context(), elided, "claim of a", change, maxSettleTries); err != nil {
		t.Fatal(err)
	}
	if s := u.get("a").Status; s.RefusedTargets != "1" || len(s.FailedTargets) != 1 {
		t.Errorf("refused are %q, named %v; the job has %s", s.RefusedTargets, s.FailedTargets, s.Jobs[0].Targets)
	}
}
