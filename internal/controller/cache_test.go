package controller

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/targetlist"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

func TestTheCacheKeepsHardlyAnythingOfATaskThatIsOverAndAllOfOthers(t *testing.T) {
	finished := func() *v1alpha1.PrefetchTask {
		now := time.Now()
		task := controllertest.ClaimedAt(controllertest.NewTask("a", 2), now)
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
		{"claimed again", func(task *v1alpha1.PrefetchTask) { controllertest.ClaimedAt(task, time.Now()) }, false},
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
			if tt.slim && (taskstate.IsWaiting(kept, v1alpha1.JobPrefetch) || taskstate.IsNewRun(kept) || taskstate.HasClaim(kept) || !taskstate.IsRunOver(kept)) {
				t.Error("something seems left to do")
			}
		})
	}
}

func TestAWriteToATaskWhoseListIsNotKeptKnowsItsRun(t *testing.T) {
	task := controllertest.NewTask("a", 3)
	u := controllertest.NewUnit(t, nil, nil, task)
	whole := u.ReadTask("a")
	elided := taskstate.ElideTargets(whole)
	written, err := u.Writer.WriteStatus(t.Context(), elided, taskstate.OutcomeUnknown("a change", false))
	if err != nil {
		t.Fatal(err)
	}
	if taskstate.RunHash(written) != taskstate.RunHash(whole) || taskstate.CountTargets(written) != 3 || len(taskstate.OpenPositions(written)) != 3 {
		t.Errorf("run %s of %d targets, want %s of 3", taskstate.RunHash(written), taskstate.CountTargets(written), taskstate.RunHash(whole))
	}
	if len(u.ReadTask("a").Spec.Targets) != 3 {
		t.Error("the write took the targets out of the spec")
	}
}

func TestAListThatIsNotKeptIsSubmittedOnceWhenTheTaskIsResumed(t *testing.T) {
	inCalm(t, simulator.Config{JobDuration: -1}, func(t *testing.T, w *calm) {
		long := make([]v1alpha1.Target, 200)
		for i := range long {
			long[i] = v1alpha1.Target(fmt.Sprintf("https://a1.example.com/%d/%s", i, strings.Repeat("x", 300)))
		}
		// One task is suspended from the start. The other is suspended after some of its
		// URLs are submitted.
		fresh := w.create("n", "fresh", long[:100], func(spec *v1alpha1.PrefetchTaskSpec) { spec.Suspend = ptr.To(true) })
		half := w.create("n", "half", long[100:], func(spec *v1alpha1.PrefetchTaskSpec) { spec.Suspend = ptr.To(true) })
		task := w.server.get(half).DeepCopy()
		taskstate.ClaimTargets(v1alpha1.Submission{ClaimID: "c", ZoneID: "zone-a1", SignedAt: metav1.Now(), Positions: "0-49", Semantics: taskstate.HashSemantics(task)}, time.Now())(task)
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
			if 100 <= i && i < 150 { // submitted before the suspension
				want = 0
			}
			if n := w.edgeOne.Executed(string(u)); n != want {
				t.Fatalf("URL %d was executed %d times, want %d", i, n, want)
			}
		}
	})
}

// The object that a write returns takes no more memory than an object from the watch.
func TestWhatAWriteBringsBackIsPruned(t *testing.T) {
	task := controllertest.NewTask("a", 1)
	task.Annotations = map[string]string{"example.com/large": strings.Repeat("x", 200_000)}
	u := controllertest.NewUnit(t, nil, nil, task)
	u.Tasks.ObserveTask(kube.CachedTask(kube.PruneFinishedTask(u.ReadTask("a"))))
	if _, err := u.Writer.WriteStatus(t.Context(), u.Tasks.NewestVersion(client.ObjectKeyFromObject(task)), taskstate.OutcomeUnknown("a change", false)); err != nil {
		t.Fatal(err)
	}
	if n := len(u.Tasks.NewestVersion(client.ObjectKeyFromObject(task)).Annotations["example.com/large"]); n > 0 {
		t.Errorf("after a status write, %d bytes of an annotation are kept", n)
	}
}

// Annotations take no more memory than the operator needs. A large retry annotation still
// requests a retry.
func TestALargeRetryAnnotationIsNotKeptAndCountsAllTheSame(t *testing.T) {
	task := controllertest.NewTask("a", 1)
	task.Annotations = map[string]string{v1alpha1.RetryAnnotation: strings.Repeat("x", 200_000)}
	want := taskstate.RequestedRetry(task)
	kept := kube.PruneFinishedTask(task.DeepCopy()).(*v1alpha1.PrefetchTask)
	if n := len(kept.Annotations[v1alpha1.RetryAnnotation]); n > 1024 || taskstate.RequestedRetry(kept) != want {
		t.Errorf("%d bytes are kept, retry %.20s", n, taskstate.RequestedRetry(kept))
	}
}

func TestLabelsAreNotKept(t *testing.T) {
	task := controllertest.NewTask("a", 1)
	task.Labels = map[string]string{"helm.toolkit.fluxcd.io/name": "r"}
	for i := range 10_000 {
		task.Labels[fmt.Sprintf("%s.example.com/%d", strings.Repeat("x", 50), i)] = "v"
	}
	kept := kube.PruneFinishedTask(task.DeepCopy()).(*v1alpha1.PrefetchTask)
	if len(kept.Labels) > 10 || taskstate.RecreatedBy(kept) != "Flux" {
		t.Errorf("%d labels are kept", len(kept.Labels))
	}
}

// Retries that cannot start keep no long lists in memory.
func TestLongListsOfTasksThatAskForARetryTakeBoundedMemory(t *testing.T) {
	kept := 0
	for i := range 100 {
		task := controllertest.NewTask(fmt.Sprint("t", i), 0)
		task.Spec.Targets = controllertest.LongTargets(task.Name, 1024)
		controllertest.ClaimedAt(task, controllertest.T0)
		taskstate.RecordJob("job", nil, controllertest.T0)(task)
		task.Status.Jobs[0].Failed = 1024
		taskstate.UpdateSummary(task, controllertest.T0)
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
