package controller

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/targetlist"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

func TestTheCacheKeepsHardlyAnythingOfATaskThatIsOverAndAllOfOthers(t *testing.T) {
	finished := func() *v1alpha1.PrefetchTask {
		now := time.Now()
		task := claimedAt(unitTask("a", 2), now)
		taskstate.RecordJob("job-1", nil, now)(task)
		for i := range task.Status.Jobs {
			task.Status.Jobs[i].Succeeded = 2
		}
		taskstate.UpdateSummary(task, now)
		task.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
		task.Annotations = map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "all of it", "theirs": "too"}
		return task
	}
	for _, tt := range []struct {
		name   string
		change func(*v1alpha1.PrefetchTask)
		slim   bool
	}{
		{"finished", func(*v1alpha1.PrefetchTask) {}, true},
		{"finished and suspended", func(task *v1alpha1.PrefetchTask) { task.Spec.Suspend = new(bool); *task.Spec.Suspend = true }, true},
		{"changed to another run", func(task *v1alpha1.PrefetchTask) { task.Spec.Revision = "2" }, false},
		{"changed otherwise", func(task *v1alpha1.PrefetchTask) { task.Generation++ }, false},
		{"asking for a retry", func(task *v1alpha1.PrefetchTask) { task.Annotations[v1alpha1.RetryAnnotation] = "1" }, false},
		{"retried as it asks", func(task *v1alpha1.PrefetchTask) {
			task.Annotations[v1alpha1.RetryAnnotation], task.Status.LastHandledRetry = "1", "1"
		}, true},
		{"not finished", func(task *v1alpha1.PrefetchTask) { task.Status.Conditions = nil }, false},
		{"claimed again", func(task *v1alpha1.PrefetchTask) { claimedAt(task, time.Now()) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			task := finished()
			tt.change(task)
			want := task.DeepCopy()
			kept := kube.CachedTask(kube.PruneFinishedTask(task))
			if len(kept.ManagedFields) > 0 || kept.Annotations["kubectl.kubernetes.io/last-applied-configuration"] != "" {
				t.Error("what only others read is kept")
			}
			if slimmed := len(kept.Spec.Targets) == 0; slimmed != tt.slim || taskstate.IsSlimmed(kept) != tt.slim {
				t.Errorf("slimmed: %v, want %v", slimmed, tt.slim)
			}
			if kept.UID != want.UID || kept.ResourceVersion != want.ResourceVersion || kept.Generation != want.Generation || kept.Name != want.Name {
				t.Errorf("it is another one: %+v", kept.ObjectMeta)
			}
			if tt.slim && (taskstate.IsWaiting(kept) || taskstate.IsNewRun(kept) || taskstate.HasClaim(kept) || !taskstate.IsRunOver(kept)) {
				t.Error("something seems left to do")
			}
		})
	}
}

// Anybody can make any number of suspended tasks with long lists.
func TestLongListsOfSuspendedTasksAreNotKept(t *testing.T) {
	u := newUnit(t, nil, nil)
	s, l := u.submitter()
	heap := func() uint64 {
		runtime.GC()
		runtime.GC() // and what the first one has cleaned up
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	const n = 200
	before := heap()
	var cache []client.Object // as the informer keeps them
	for i := range n {
		task := unitTask(fmt.Sprint("t", i), 0)
		task.Spec.Suspend, task.ResourceVersion = ptr.To(true), fmt.Sprint(i+1)
		task.Annotations = map[string]string{"example.com/large": strings.Repeat("x", 100_000)}
		for k := range 2000 {
			task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(fmt.Sprintf("https://h/%d/%d/%s", i, k, strings.Repeat("x", 100))))
		}
		cache = append(cache, kube.PruneFinishedTask(task))
		s.versions.ObserveTask(kube.CachedTask(cache[i]))
	}
	if grown := int64(heap()) - int64(before); grown > n<<14 {
		t.Errorf("%d suspended tasks with 240 KB of URLs take %d KB each", n, grown/n>>10)
	}
	if l.queue.Len() != n {
		t.Errorf("%d of %d are told that they are suspended", l.queue.Len(), n)
	}
	runtime.KeepAlive(cache)
}

func TestAWriteToATaskWhoseListIsNotKeptKnowsItsRun(t *testing.T) {
	task := unitTask("a", 3)
	u := newUnit(t, nil, nil, task)
	whole := u.get("a")
	elided := taskstate.ElideTargets(whole)
	written, err := u.store.WriteStatus(t.Context(), elided, taskstate.OutcomeUnknown("a change", false))
	if err != nil {
		t.Fatal(err)
	}
	if taskstate.RunHash(written) != taskstate.RunHash(whole) || taskstate.CountTargets(written) != 3 || len(taskstate.OpenPositions(written)) != 3 {
		t.Errorf("run %s of %d targets, want %s of 3", taskstate.RunHash(written), taskstate.CountTargets(written), taskstate.RunHash(whole))
	}
	if len(u.get("a").Spec.Targets) != 3 {
		t.Error("the write took the targets out of the spec")
	}
}

func TestAListThatIsNotKeptIsSubmittedOnceWhenTheTaskIsResumed(t *testing.T) {
	inCalm(t, simulator.Config{JobDuration: -1}, func(t *testing.T, w *calm) {
		long := make([]v1alpha1.Target, 200)
		for i := range long {
			long[i] = v1alpha1.Target(fmt.Sprintf("https://a1.example.com/%d/%s", i, strings.Repeat("x", 300)))
		}
		// One is suspended from the start; the other when some of its URLs are submitted.
		fresh := w.create("n", "fresh", long[:100], func(spec *v1alpha1.PrefetchTaskSpec) { spec.Suspend = ptr.To(true) })
		half := w.create("n", "half", long[100:], func(spec *v1alpha1.PrefetchTaskSpec) { spec.Suspend = ptr.To(true) })
		task := w.server.get(half).DeepCopy()
		taskstate.ClaimTargets(v1alpha1.Submission{ClaimID: "c", ZoneID: "zone-a1", SignedAt: metav1.Now(), Targets: "0-49", Semantics: taskstate.HashSemantics(task)}, time.Now())(task)
		taskstate.RecordJob("job-1", nil, time.Now())(task)
		task.Status.Jobs[0].Succeeded = 50
		taskstate.UpdateSummary(task, time.Now())
		w.server.restore(task)
		w.start()
		time.Sleep(10 * time.Minute)
		for key, submitted := range map[client.ObjectKey]int32{fresh: 0, half: 50} {
			task = w.server.get(key)
			if taskstate.ReadyReason(task) != v1alpha1.ReasonSuspended || ptr.Deref(task.Status.Targets.Submitted, 0) != submitted {
				t.Errorf("%s is %s with %+v", key, taskstate.ReadyReason(task), task.Status.Targets)
			}
			if writes := len(w.writes[key]); writes > 1 {
				t.Errorf("%s was written %d times", key, writes)
			}
		}
		for _, key := range []client.ObjectKey{fresh, half} {
			w.server.edit(key, func(spec *v1alpha1.PrefetchTaskSpec) { spec.Suspend = nil })
		}
		w.awaitAll(10 * time.Minute)
		for i, u := range long {
			want := 1
			if 100 <= i && i < 150 { // before it was suspended
				want = 0
			}
			if n := w.edgeOne.Executed(string(u)); n != want {
				t.Fatalf("URL %d was executed %d times, want %d", i, n, want)
			}
		}
	})
}

func TestAFinishedTaskHasNoPlaceInMemory(t *testing.T) {
	u := newUnit(t, nil, nil, unitTask("a", 1))
	p := u.poller()
	s, l := u.submitter(u.get("a"))
	task := claimedAt(u.get("a"), time.Now())
	taskstate.RecordJob("job-1", map[string]string{taskstate.DistinctTargets(task)[0]: "no"}, time.Now())(task)
	task.Status.ObservedGeneration, task.ResourceVersion = task.Generation, "1000000"
	taskstate.UpdateSummary(task, time.Now())
	kept := kube.CachedTask(kube.PruneFinishedTask(task))
	s.versions.ObserveTask(kept)
	if len(s.versions.AllTasks()) != 0 || l.queue.Len() != 0 || len(p.places) != 0 {
		t.Errorf("it is kept as %v, stands at %v, in a line of %d", s.versions.AllTasks(), p.places, l.queue.Len())
	}
	accounts := priorityqueue.New[taskstate.AccountKey]("accounts")
	defer accounts.ShutDown()
	s.UseQueue(accounts)
	for accounts.Len() > 0 {
		account, _ := accounts.Get()
		accounts.Done(account)
	}
	s.versions.ObserveTask(kept)
	s.versions.RemoveTask(kept)
	if n := accounts.Len(); n > 0 {
		t.Errorf("that it is seen again and deleted makes %d accounts due", n)
	}
}

func TestWhoRecordedAJobIsRememberedForAsLongAsAClaimMayAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUnit(t, unitEdgeOne(nil).RoundTripper(), nil)
		p := u.poller()
		see := kube.CacheOptions(p.jobs).DefaultTransform
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- stateCollector{p, func(context.Context) error { return nil }, func() {}}.Start(ctx) }()
		finish := func(name string) {
			task := claimedAt(unitTask(name, 1), time.Now())
			taskstate.RecordJob("job of "+name, nil, time.Now())(task)
			task.Status.Jobs[0].Succeeded = 1
			taskstate.UpdateSummary(task, time.Now())
			if kept, err := see(task); err != nil || !taskstate.IsSlimmed(kube.CachedTask(kept.(client.Object))) {
				t.Errorf("the cache keeps %v (%v)", kept, err)
			}
		}
		finish("old")
		time.Sleep(time.Hour)
		claimed := claimedAt(unitTask("claimed", 1), time.Now())
		p.versions.ObserveTask(claimed)
		finish("beside")
		time.Sleep(time.Hour)
		if p.jobs.ownerOf("job of old", "") != "" || p.jobs.ownerOf("job of beside", "") != "claim of beside" {
			t.Errorf("remembered: %v", p.jobs.claims)
		}
		p.versions.RemoveTask(claimed)
		time.Sleep(time.Hour)
		if p.jobs.ownerOf("job of beside", "") != "" {
			t.Errorf("remembered, though nobody can ask: %v", p.jobs.claims)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestAnOldClaimKeepsTheJobsOfItsWindowInMemoryAndNoOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUnit(t, unitEdgeOne(nil).RoundTripper(), nil)
		stuck := claimedAt(unitTask("stuck", 1), time.Now())
		p := u.poller(stuck)
		u.learnTime()
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- stateCollector{p, func(context.Context) error { return nil }, func() {}}.Start(ctx) }()
		begin := time.Now()
		record := func(id string) {
			other := unitTask("other", 1)
			other.Status.Jobs = []v1alpha1.Job{{ID: id, ClaimID: "claim of " + id, SubmitTime: metav1.Now()}}
			p.jobs.ObserveTask(other)
		}
		record("at once")
		time.Sleep(p.SignatureValidity + p.SettleMargin)
		record("at the end of the window")
		for hour := range 48 {
			time.Sleep(time.Hour)
			record(fmt.Sprint("after hours: ", hour))
		}
		time.Sleep(time.Minute)
		for id, want := range map[string]bool{"at once": true, "at the end of the window": true, "after hours: 1": false, "after hours: 46": false, "after hours: 47": true} {
			if kept := p.jobs.ownerOf(id, "") != ""; kept != want {
				t.Errorf("a job recorded %s is kept: %v", id, kept)
			}
		}
		pass(time.Until(begin.Add(p.HistoryRetention + time.Hour)))
		if n := len(p.jobs.claims); n != 0 {
			t.Errorf("%d jobs are kept for a claim that EdgeOne has forgotten", n)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestTheOldestRecordedJobsAreForgottenWhereThereAreTooMany(t *testing.T) {
	jobs := NewRecordedJobs()
	for i := range 5 {
		task := unitTask("a", 1)
		task.Status.Jobs = []v1alpha1.Job{{ID: fmt.Sprint(i), ClaimID: "c", SubmitTime: metav1.NewTime(t0.Add(time.Duration(i) * time.Second))}}
		jobs.ObserveTask(task)
	}
	jobs.collectGarbage(func(time.Time) bool { return true }, 3)
	for i := range 5 {
		if kept := jobs.ownerOf(fmt.Sprint(i), "") != ""; kept != (i >= 2) {
			t.Errorf("job %d is kept: %v", i, kept)
		}
	}
}

// What a write brings back is no larger in memory than what the watch brings.
func TestWhatAWriteBringsBackIsPruned(t *testing.T) {
	task := unitTask("a", 1)
	task.Annotations = map[string]string{"example.com/large": strings.Repeat("x", 200_000)}
	u := newUnit(t, nil, nil, task)
	u.versions.ObserveTask(kube.CachedTask(kube.PruneFinishedTask(u.get("a"))))
	if _, err := u.store.WriteStatus(t.Context(), u.versions.NewestVersion(client.ObjectKeyFromObject(task)), taskstate.OutcomeUnknown("a change", false)); err != nil {
		t.Fatal(err)
	}
	if n := len(u.versions.NewestVersion(client.ObjectKeyFromObject(task)).Annotations["example.com/large"]); n > 0 {
		t.Errorf("after a status write, %d bytes of an annotation are kept", n)
	}
}

// No annotation and no labels of a task take more memory than the operator needs.
func TestALargeRetryAnnotationIsNotKeptAndCountsAllTheSame(t *testing.T) {
	task := unitTask("a", 1)
	task.Annotations = map[string]string{v1alpha1.RetryAnnotation: strings.Repeat("x", 200_000)}
	want := taskstate.RequestedRetry(task)
	kept := kube.PruneFinishedTask(task.DeepCopy()).(*v1alpha1.PrefetchTask)
	if n := len(kept.Annotations[v1alpha1.RetryAnnotation]); n > 1024 || taskstate.RequestedRetry(kept) != want {
		t.Errorf("%d bytes are kept, retry %.20s", n, taskstate.RequestedRetry(kept))
	}
}

func TestLabelsAreNotKept(t *testing.T) {
	task := unitTask("a", 1)
	task.Labels = map[string]string{"helm.toolkit.fluxcd.io/name": "r"}
	for i := range 10_000 {
		task.Labels[fmt.Sprintf("%s.example.com/%d", strings.Repeat("x", 50), i)] = "v"
	}
	kept := kube.PruneFinishedTask(task.DeepCopy()).(*v1alpha1.PrefetchTask)
	if len(kept.Labels) > 10 || taskstate.RecreatedBy(kept) != "Flux" {
		t.Errorf("%d labels are kept", len(kept.Labels))
	}
}

// Retries that cannot begin keep no long lists in memory.
func TestLongListsOfTasksThatAskForARetryTakeBoundedMemory(t *testing.T) {
	kept := 0
	for i := range 100 {
		task := unitTask(fmt.Sprint("t", i), 0)
		task.Spec.Targets = longTargets(task.Name, 1024)
		claimedAt(task, t0)
		taskstate.RecordJob("job", nil, t0)(task)
		task.Status.Jobs[0].Failed = 1024
		taskstate.UpdateSummary(task, t0)
		task.Annotations = map[string]string{v1alpha1.RetryAnnotation: "1"}
		if !taskstate.IsRetryDue(task) {
			t.Fatal("no retry is due")
		}
		kept += taskstate.TargetsSize(kube.CachedTask(kube.PruneFinishedTask(task)))
	}
	if kept > targetlist.MaxLoaded {
		t.Errorf("the cache keeps %d MiB of lists of 100 tasks", kept>>20)
	}
}
