package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/targetlist"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

func TestTasksOfOneListShareItsReadAndItsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := controllertest.NewListUnit(t)
		u.Put("list", "https://h/a\nhttps://h/b")
		var tasks []*v1alpha1.PrefetchTask
		for i := range 1000 {
			tasks = append(tasks, controllertest.ListTask(fmt.Sprint("task-", i), "list"))
			u.Tasks.ObserveTask(tasks[i])
		}
		controllertest.Pass(time.Minute)
		reads, fed := u.Seen()
		if reads > 2 || len(fed) != len(tasks) {
			t.Errorf("%d reads for %d tasks, %d of which have their targets", reads, len(tasks), len(fed))
		}
		first := fed["task-0"].Spec.Targets
		for name, task := range fed {
			if len(task.Spec.Targets) != 2 || &task.Spec.Targets[0] != &first[0] {
				t.Fatalf("%s has a list of its own", name)
			}
		}
		for _, task := range tasks {
			again := task.DeepCopy()
			again.ResourceVersion = "5000"
			u.Tasks.ObserveTask(again)
			if taskstate.IsUnresolved(u.Tasks.NewestVersion(client.ObjectKeyFromObject(task))) {
				t.Fatalf("%s has to be read again", task.Name)
			}
			u.Tasks.RemoveTask(task)
		}
		if !u.Lists.IsEmpty() {
			t.Errorf("lists, tasks or readers stay behind: %+v", u.Lists)
		}
	})
}

// longText returns a list of about size bytes. It is unique for each i.
func longText(i, size int) string {
	var text strings.Builder
	for k := range size / 1000 {
		fmt.Fprintf(&text, "https://h/%d/%d/%s\n", i, k, strings.Repeat("x", 980))
	}
	return text.String()
}

// Users can create any number of ConfigMaps. Only a few of their lists are in memory at once, and
// the namespaces take turns.
func TestListsFromConfigMapsTakeBoundedMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many, size = 60, 900 << 10
		u := controllertest.NewListUnit(t)
		for i := range many {
			u.Put(fmt.Sprint("list-", i), longText(i, size))
		}
		u.Texts["quiet"] = "https://h/quiet"
		for i := range many {
			u.Tasks.ObserveTask(controllertest.ListTask(fmt.Sprint("task-", i), fmt.Sprint("list-", i)))
		}
		quiet := controllertest.ListTask("quiet", "quiet")
		quiet.Namespace = "quiet"
		u.Tasks.ObserveTask(quiet)
		kept := func() (bytes int) {
			for _, task := range u.Tasks.AllTasks() {
				bytes += taskstate.TargetsSize(task)
			}
			return bytes
		}
		controllertest.Pass(5 * time.Second)
		if _, fed := u.Seen(); fed["quiet"] == nil {
			t.Error("a list of another namespace waits for all of one")
		}
		for range 2 {
			controllertest.Pass(targetlist.MaxLoadedIdle + 10*time.Second)
			if bytes := kept(); bytes < targetlist.MaxListed/2 || bytes > targetlist.MaxListed+targetlist.MaxReaders*size {
				t.Fatalf("lists of %d bytes are in memory, want %d", bytes, targetlist.MaxListed)
			}
		}
		if _, fed := u.Seen(); len(fed) < many*3/4 {
			t.Errorf("%d of %d lists were read", len(fed), many)
		}
		for _, task := range u.Tasks.AllTasks() {
			u.Tasks.RemoveTask(task)
		}
		controllertest.Pass(time.Minute)
		if !u.Lists.IsEmpty() {
			t.Errorf("lists, tasks or readers stay of tasks that are gone: %+v", u.Lists)
		}
	})
}

func TestAListIsReadAfterTheTaskWasSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := controllertest.NewListUnit(t)
		u.Put("list", "https://h/old")
		u.Tasks.ObserveTask(controllertest.ListTask("before", "list"))
		synctest.Wait() // the read is in progress
		u.Put("list", "https://h/new")
		u.Tasks.ObserveTask(controllertest.ListTask("after", "list"))
		controllertest.Pass(time.Minute)
		_, fed := u.Seen()
		for name, want := range map[string]string{"before": "https://h/old", "after": "https://h/new"} {
			if got := taskstate.DistinctTargets(fed[name]); !slices.Equal(got, []string{want}) {
				t.Errorf("%s has %q, want %s", name, got, want)
			}
		}
	})
}

func TestAFinishedOrSuspendedTaskReadsNoList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := controllertest.NewListUnit(t)
		done := controllertest.ListTask("done", "list")
		done.Spec.Targets = []v1alpha1.Target{"https://h/a"}
		taskstate.RecordJob("job-1", nil, time.Now())(controllertest.ClaimedAt(done, time.Now()))
		taskstate.FinishRun(done, 1, 0, time.Now())
		done.Spec.Targets = nil
		suspended := controllertest.ListTask("suspended", "list")
		suspended.Spec.Suspend = ptr.To(true)
		for _, task := range []*v1alpha1.PrefetchTask{done, suspended} {
			u.Tasks.ObserveTask(task)
			if u.Fed[task.Name] != nil {
				t.Errorf("%s got targets", task.Name)
			}
		}
		controllertest.Pass(time.Hour)
		reads, _ := u.Seen()
		if reads != 0 {
			t.Errorf("%d reads", reads)
		}
		again := done.DeepCopy()
		again.Spec.Revision, again.ResourceVersion = "v2", "1000"
		u.Put("list", "https://h/b")
		u.Tasks.ObserveTask(again)
		controllertest.Pass(time.Minute)
		reads, fed := u.Seen()
		if reads != 1 || fed["done"] == nil {
			t.Errorf("%d reads for a new run, which got %v", reads, fed["done"])
		}
	})
}

// Whatever a run has submitted, it continues with an edited list: see TestAListThatChangesDuringARunHeals
// for what it keeps. While a call is open, its claim stays, and with the former list restored the run
// goes on as if nothing had happened. A run of a version that did not record its request waits for
// its list.
func TestARunGetsItsEditedListAndKeepsItsClaim(t *testing.T) {
	claimed := func(task *v1alpha1.PrefetchTask) { controllertest.ClaimedAt(task, time.Now()) }
	submitted := func(task *v1alpha1.PrefetchTask) {
		claimed(task)
		task.Status.Submission.Positions = "0"
		taskstate.RecordJob("job-1", nil, time.Now())(task)
	}
	tests := []struct {
		name   string
		status func(*v1alpha1.PrefetchTask)
		tied   bool
	}{
		{"new", func(*v1alpha1.PrefetchTask) {}, false},
		{"claimed", claimed, false},
		{"released", func(task *v1alpha1.PrefetchTask) {
			claimed(task)
			taskstate.ReleaseClaim(taskstate.Cause{}, time.Now())(task)
		}, false},
		{"submitted in part", submitted, false},
		{"refused in part", func(task *v1alpha1.PrefetchTask) {
			taskstate.RefuseTargets(v1alpha1.JobPrefetch, taskstate.Positions{0}, "no", time.Now())(task)
		}, false},
		{"submitted by an earlier version", func(task *v1alpha1.PrefetchTask) {
			submitted(task)
			task.Status.Request = ""
		}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				task := controllertest.ListTask("task", "list")
				task.Spec.Targets = []v1alpha1.Target{"https://h/a", "https://h/b"}
				tt.status(task)
				task.Spec.Targets = nil
				u := controllertest.NewListUnit(t, task)
				task = u.ReadTask("task")
				u.Put("list", "https://h/b\nhttps://h/a")
				u.Tasks.ObserveTask(task)
				controllertest.Pass(time.Minute)
				_, fed := u.Seen()
				before := u.ReadTask("task").Status
				ready := meta.FindStatusCondition(before.Conditions, v1alpha1.ConditionReady)
				if changed := ready != nil && ready.Reason == v1alpha1.ReasonTargetsChanged; changed != tt.tied || (fed["task"] == nil) != tt.tied {
					t.Errorf("with another list: Ready %+v, fed %v; want tied: %v", ready, fed["task"], tt.tied)
				}
				if (before.Submission == nil) != (task.Status.Submission == nil) || len(before.Jobs) != len(task.Status.Jobs) {
					t.Errorf("what was known of the run is lost: %+v", before)
				}
				if !tt.tied {
					if before.Submission == nil {
						taskstate.BeginRun(fed["task"], time.Now())
						if got := fed["task"].Status; got.TargetsHash != taskstate.HashTargets(fed["task"]) || got.LostCalls != 0 {
							t.Errorf("the run does not begin with the new list: %+v", got)
						}
					} else if taskstate.IsWaiting(fed["task"], v1alpha1.JobPrefetch) {
						t.Error("it does not wait for the call of the former list")
					}
					return
				}
				u.Put("list", "# as it was\nhttps://h/a\nhttps://h/b")
				controllertest.Pass(time.Minute)
				_, fed = u.Seen()
				if fed := fed["task"]; fed == nil || !slices.Equal(taskstate.DistinctTargets(fed), []string{"https://h/a", "https://h/b"}) {
					t.Errorf("with its list restored, fed %v", fed)
				}
			})
		})
	}
}

// If a retry waits for its list, the status reports it with the generation that requests the
// retry.
func TestARetryThatWaitsForItsListSpeaksOfTheNewestGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		task := controllertest.ListTask("task", "list")
		task.Spec.Targets = []v1alpha1.Target{"https://h/a", "https://h/b"}
		taskstate.RecordJob("job-1", nil, time.Now())(controllertest.ClaimedAt(task, time.Now()))
		taskstate.FinishRun(task, 1, 1, time.Now())
		task.Spec.Targets, task.Status.Request = nil, "" // of a version that did not record it
		task.Annotations, task.Generation = map[string]string{v1alpha1.RetryAnnotation: "1"}, 2
		u := controllertest.NewListUnit(t, task)
		u.Put("list", "https://h/other")
		u.Tasks.ObserveTask(u.ReadTask("task"))
		controllertest.Pass(time.Minute)
		status := u.ReadTask("task").Status
		ready := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || !strings.Contains(ready.Message, "has other URLs than when this run started") {
			t.Errorf("Ready %+v", ready)
		}
		if status.ObservedGeneration != 2 || ready.ObservedGeneration != 2 {
			t.Errorf("the status is of generation %d, Ready of %d, want 2", status.ObservedGeneration, ready.ObservedGeneration)
		}
	})
}

func TestAMissingListIsToldOnceAndLookedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := controllertest.NewListUnit(t, controllertest.ListTask("task", "list"))
		feed := func() { u.Tasks.ObserveTask(u.ReadTask("task")) }
		feed()
		controllertest.Pass(10 * time.Second)
		first := u.ReadTask("task")
		feed()
		ready := meta.FindStatusCondition(first.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || ready.Reason != v1alpha1.ReasonTargetsMissing || first.Status.ObservedGeneration != 1 || taskstate.IsStalledFor(first, ready.Reason) {
			t.Fatalf("at first: %+v", first.Status)
		}
		for range 10 {
			controllertest.Pass(u.RecheckInterval)
			feed() // as the event of the write does
		}
		reads, _ := u.Seen()
		stalled := u.ReadTask("task")
		if !taskstate.IsStalledFor(stalled, v1alpha1.ReasonTargetsMissing) {
			t.Errorf("after a while: %+v", stalled.Status)
		}
		if reads < 10 || reads > 12 {
			t.Errorf("%d reads in 10 intervals", reads)
		}
		controllertest.Pass(time.Hour)
		if again := u.ReadTask("task"); again.ResourceVersion != stalled.ResourceVersion {
			t.Error("the same was written again")
		}
		reads, _ = u.Seen()
		edited := stalled.DeepCopy()
		edited.Generation, edited.ResourceVersion = 2, "2000"
		u.Put("list", "https://h/a")
		u.Tasks.ObserveTask(edited)
		controllertest.Pass(2 * time.Second)
		if after, fed := u.Seen(); after != reads+1 || fed["task"] == nil {
			t.Errorf("after an edit: %d reads, fed %v", after-reads, fed["task"])
		}
	})
}

// Neither the response to a write nor a live read contains targets from a ConfigMap, so the
// operator adds the targets of the same run. It must not add them to another run.
func TestTargetsOutliveWritesAndReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stored := controllertest.ListTask("task", "list")
		u := controllertest.NewListUnit(t, stored)
		targets := []v1alpha1.Target{"https://h/a", "https://h/b"}
		task := taskstate.WithTargets(u.ReadTask("task"), targets)
		written, err := u.Writer.WriteStatus(context.Background(), task, func(task *v1alpha1.PrefetchTask) { controllertest.ClaimedAt(task, time.Now()) })
		if err != nil || !slices.Equal(written.Spec.Targets, targets) || written.Status.TargetsHash != taskstate.HashTargets(task) {
			t.Fatalf("written: %v, %+v", err, written)
		}
		if got := u.ReadTask("task"); len(got.Spec.Targets) != 0 || got.Status.TargetsHash == "" || *got.Status.Targets.Total != 2 {
			t.Errorf("the API server has %+v", got)
		}
		read, err := u.Writer.ReadTask(context.Background(), task)
		if err != nil || !slices.Equal(read.Spec.Targets, targets) {
			t.Errorf("read: %v, %+v", err, read)
		}
		other := taskstate.WithTargets(task, []v1alpha1.Target{"https://h/c"})
		if read, err := u.Writer.ReadTask(context.Background(), other); err != nil || len(read.Spec.Targets) != 0 {
			t.Errorf("a run with another list: %v, %+v", err, read)
		}
		edited := u.ReadTask("task")
		edited.Spec.Revision = "v2"
		if err := u.Writer.Update(context.Background(), edited); err != nil {
			t.Fatal(err)
		}
		if read, err := u.Writer.ReadTask(context.Background(), task); err != nil || len(read.Spec.Targets) != 0 {
			t.Errorf("a new run: %v, %+v", err, read)
		}
	})
}

// When small lists make room, large lists still stay within the memory budget.
func TestSmallListsThatMakeRoomDoNotLetLargeOnesExceedTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const small, large, size = 200, 100, 900 << 10
		u := controllertest.NewListUnit(t)
		for i := range small {
			u.Put(fmt.Sprint("small-", i), fmt.Sprint("https://h/", i))
			u.Tasks.ObserveTask(controllertest.ListTask(fmt.Sprint("small-", i), fmt.Sprint("small-", i)))
		}
		controllertest.Pass(40 * time.Second)
		for i := range large {
			u.Put(fmt.Sprint("large-", i), longText(i, size))
			u.Tasks.ObserveTask(controllertest.ListTask(fmt.Sprint("large-", i), fmt.Sprint("large-", i)))
		}
		controllertest.Pass(25 * time.Second)
		kept := 0
		for _, task := range u.Tasks.AllTasks() {
			kept += taskstate.TargetsSize(task)
		}
		if kept > targetlist.MaxListed+targetlist.MaxReaders*size {
			t.Errorf("lists of %d MiB are in memory, want %d", kept>>20, targetlist.MaxListed>>20)
		}
		u.RemoveAll()
	})
}

func TestEditsOfATenantDoNotKeepOthersConfigMapsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many, size = 50, 900 << 10
		u := controllertest.NewListUnit(t)
		for i := range many {
			u.Put(fmt.Sprint("list-", i), longText(i, size))
			u.Tasks.ObserveTask(controllertest.ListTask(fmt.Sprint("task-", i), fmt.Sprint("list-", i)))
		}
		controllertest.Pass(20 * time.Second)
		u.Put("quiet", "https://h/quiet")
		quiet := controllertest.ListTask("quiet", "quiet")
		quiet.Namespace = "quiet"
		u.Tasks.ObserveTask(quiet)
		version := 100
		for range 30 {
			for i := range many {
				version++
				edited := controllertest.ListTask(fmt.Sprint("task-", i), fmt.Sprint("list-", i))
				edited.ResourceVersion = fmt.Sprint(version)
				u.Tasks.ObserveTask(edited)
			}
			controllertest.Pass(20 * time.Second)
			if _, fed := u.Seen(); fed["quiet"] != nil {
				u.RemoveAll()
				return
			}
		}
		t.Error("the list of another namespace was not read in 10 minutes")
		u.RemoveAll()
	})
}

// The statuses that report a bad list are written while other lists are read.
func TestTellingOfABadListKeepsNoReaderBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tasks []*v1alpha1.PrefetchTask
		for k := range targetlist.MaxReaders {
			for i := range 300 {
				tasks = append(tasks, controllertest.ListTask(fmt.Sprintf("t-%d-%d", k, i), fmt.Sprint("bad-", k)))
			}
		}
		lists := &controllertest.ConfigMaps{Texts: map[string]string{}}
		slow := controllertest.NewUnitReading(t, nil, func(write func() error) error { time.Sleep(time.Second); return write() }, lists, tasks...)
		u := &controllertest.ListUnit{Unit: slow, ConfigMaps: lists, Fed: map[string]*v1alpha1.PrefetchTask{}}
		for k := range targetlist.MaxReaders {
			u.Put(fmt.Sprint("bad-", k), "no URL")
		}
		u.Put("quiet", "https://h/quiet")
		for _, task := range tasks {
			u.Tasks.ObserveTask(u.ReadTask(task.Name))
		}
		controllertest.Pass(2 * time.Second)
		quiet := controllertest.ListTask("quiet", "quiet")
		quiet.Namespace = "quiet"
		u.Tasks.ObserveTask(quiet)
		controllertest.Pass(5 * time.Second)
		if taskstate.IsUnresolved(u.Tasks.NewestVersion(client.ObjectKeyFromObject(quiet))) {
			t.Error("the list of another namespace waits for statuses to be written")
		}
		controllertest.Pass(10 * time.Minute)
		u.RemoveAll()
	})
}
