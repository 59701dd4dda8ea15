package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/targetlist"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// configMaps is a reader of ConfigMaps that have one key each. A read takes a
// second, and answers what was there when it began.
type configMaps struct {
	client.Reader
	mu    sync.Mutex
	texts map[string]string
	reads int
}

func (c *configMaps) put(name, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.texts[name] = text
}

func (c *configMaps) Get(_ context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	c.mu.Lock()
	text, ok := c.texts[key.Name]
	c.reads++
	c.mu.Unlock()
	time.Sleep(time.Second)
	if !ok {
		return apierrors.NewNotFound(corev1.Resource("configmaps"), key.Name)
	}
	obj.(*corev1.ConfigMap).Data = map[string]string{"urls": text}
	return nil
}

// listUnit is an operator that takes targets from configMaps, and remembers which
// tasks came with their targets.
type listUnit struct {
	*unit
	*configMaps
	fed map[string]*v1alpha1.PrefetchTask
}

func newListUnit(t *testing.T, tasks ...*v1alpha1.PrefetchTask) *listUnit {
	lists := &configMaps{texts: map[string]string{}}
	u := &listUnit{newUnitWith(t, nil, nil, lists, tasks...), lists, map[string]*v1alpha1.PrefetchTask{}}
	u.versions.Subscribe(func(_, task *v1alpha1.PrefetchTask) {
		u.mu.Lock()
		defer u.mu.Unlock()
		if task != nil && !taskstate.IsUnresolved(task) {
			u.fed[task.Name] = task
		}
	})
	return u
}

// seen is how many reads there were, and which tasks have got their targets.
func (u *listUnit) seen() (reads int, fed map[string]*v1alpha1.PrefetchTask) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.reads, maps.Clone(u.fed)
}

// pass lets time pass, and what happens in it be over.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// listTask is a new task that takes its targets from a ConfigMap.
func listTask(name, configMap string) *v1alpha1.PrefetchTask {
	task := unitTask(name, 0)
	task.Generation = 1
	task.Spec.TargetsFrom.ConfigMapKeyRef = v1alpha1.ConfigMapKeyReference{Name: configMap, Key: "urls"}
	return task
}

func TestTasksOfOneListShareItsReadAndItsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newListUnit(t)
		u.put("list", "https://h/a\nhttps://h/b")
		var tasks []*v1alpha1.PrefetchTask
		for i := range 1000 {
			tasks = append(tasks, listTask(fmt.Sprint("task-", i), "list"))
			u.versions.ObserveTask(tasks[i])
		}
		pass(time.Minute)
		reads, fed := u.seen()
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
			u.versions.ObserveTask(again)
			if taskstate.IsUnresolved(u.versions.NewestVersion(client.ObjectKeyFromObject(task))) {
				t.Fatalf("%s has to be read again", task.Name)
			}
			u.versions.RemoveTask(task)
		}
		if !u.lists.IsEmpty() {
			t.Errorf("lists, tasks or readers stay behind: %+v", u.lists)
		}
	})
}

// longText is a list of about this many bytes, which no other ConfigMap has.
func longText(i, size int) string {
	var text strings.Builder
	for k := range size / 1000 {
		fmt.Fprintf(&text, "https://h/%d/%d/%s\n", i, k, strings.Repeat("x", 980))
	}
	return text.String()
}

// Anybody can make any number of ConfigMaps. A few of their lists are in memory, of all
// namespaces in turn.
func TestListsFromConfigMapsTakeBoundedMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many, size = 60, 900 << 10
		u := newListUnit(t)
		for i := range many {
			u.put(fmt.Sprint("list-", i), longText(i, size))
		}
		u.texts["quiet"] = "https://h/quiet"
		for i := range many {
			u.versions.ObserveTask(listTask(fmt.Sprint("task-", i), fmt.Sprint("list-", i)))
		}
		quiet := listTask("quiet", "quiet")
		quiet.Namespace = "quiet"
		u.versions.ObserveTask(quiet)
		kept := func() (bytes int) {
			for _, task := range u.versions.AllTasks() {
				bytes += taskstate.TargetsSize(task)
			}
			return bytes
		}
		pass(5 * time.Second)
		if _, fed := u.seen(); fed["quiet"] == nil {
			t.Error("a list of another namespace waits for all of one")
		}
		for range 2 {
			pass(targetlist.MaxLoadedIdle + 10*time.Second)
			if bytes := kept(); bytes < targetlist.MaxListed/2 || bytes > targetlist.MaxListed+targetlist.MaxReaders*size {
				t.Fatalf("lists of %d bytes are in memory, want %d", bytes, targetlist.MaxListed)
			}
		}
		if _, fed := u.seen(); len(fed) < many*3/4 {
			t.Errorf("%d of %d lists were read", len(fed), many)
		}
		for _, task := range u.versions.AllTasks() {
			u.versions.RemoveTask(task)
		}
		pass(time.Minute)
		if !u.lists.IsEmpty() {
			t.Errorf("lists, tasks or readers stay of tasks that are gone: %+v", u.lists)
		}
	})
}

func TestAListIsReadAfterTheTaskWasSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newListUnit(t)
		u.put("list", "https://h/old")
		u.versions.ObserveTask(listTask("before", "list"))
		synctest.Wait() // the read is under way
		u.put("list", "https://h/new")
		u.versions.ObserveTask(listTask("after", "list"))
		pass(time.Minute)
		_, fed := u.seen()
		for name, want := range map[string]string{"before": "https://h/old", "after": "https://h/new"} {
			if got := taskstate.DistinctTargets(fed[name]); !slices.Equal(got, []string{want}) {
				t.Errorf("%s has %q, want %s", name, got, want)
			}
		}
	})
}

func TestAFinishedOrSuspendedTaskReadsNoList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newListUnit(t)
		done := listTask("done", "list")
		done.Spec.Targets = []v1alpha1.Target{"https://h/a"}
		taskstate.RecordJob("job-1", nil, time.Now())(claimedAt(done, time.Now()))
		taskstate.FinishRun(done, 1, 0, time.Now())
		done.Spec.Targets = nil
		suspended := listTask("suspended", "list")
		suspended.Spec.Suspend = ptr.To(true)
		for _, task := range []*v1alpha1.PrefetchTask{done, suspended} {
			u.versions.ObserveTask(task)
			if u.fed[task.Name] != nil {
				t.Errorf("%s got targets", task.Name)
			}
		}
		pass(time.Hour)
		reads, _ := u.seen()
		if reads != 0 {
			t.Errorf("%d reads", reads)
		}
		again := done.DeepCopy()
		again.Spec.Revision, again.ResourceVersion = "v2", "1000"
		u.put("list", "https://h/b")
		u.versions.ObserveTask(again)
		pass(time.Minute)
		reads, fed := u.seen()
		if reads != 1 || fed["done"] == nil {
			t.Errorf("%d reads for a new run, which got %v", reads, fed["done"])
		}
	})
}

// A run that has submitted something is tied to its list; one that has not may
// begin with another.
func TestARunIsTiedToItsListOnceSomethingIsSubmitted(t *testing.T) {
	claimed := func(task *v1alpha1.PrefetchTask) { claimedAt(task, time.Now()) }
	tests := []struct {
		name   string
		status func(*v1alpha1.PrefetchTask)
		tied   bool
	}{
		{"new", func(*v1alpha1.PrefetchTask) {}, false},
		{"claimed", claimed, true},
		{"released", func(task *v1alpha1.PrefetchTask) {
			claimed(task)
			taskstate.ReleaseClaim(taskstate.Cause{}, time.Now())(task)
		}, false},
		{"submitted in part", func(task *v1alpha1.PrefetchTask) {
			claimed(task)
			task.Status.Submission.Targets = "0"
			taskstate.RecordJob("job-1", nil, time.Now())(task)
		}, true},
		{"refused in part", func(task *v1alpha1.PrefetchTask) {
			taskstate.RefuseTargets(taskstate.Positions{0}, "no", time.Now())(task)
		}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				task := listTask("task", "list")
				task.Spec.Targets = []v1alpha1.Target{"https://h/a", "https://h/b"}
				tt.status(task)
				task.Spec.Targets = nil
				u := newListUnit(t, task)
				task = u.get("task")
				u.put("list", "https://h/b\nhttps://h/a")
				u.versions.ObserveTask(task)
				pass(time.Minute)
				_, fed := u.seen()
				ready := meta.FindStatusCondition(u.get("task").Status.Conditions, v1alpha1.ConditionReady)
				if changed := ready != nil && ready.Reason == v1alpha1.ReasonTargetsChanged; changed != tt.tied || (fed["task"] == nil) != tt.tied {
					t.Errorf("with another list: Ready %+v, fed %v; want tied: %v", ready, fed["task"], tt.tied)
				}
				if !tt.tied {
					taskstate.BeginRun(fed["task"], time.Now())
					if got := fed["task"].Status; got.TargetsHash != taskstate.HashTargets(fed["task"]) || got.LostCalls != 0 {
						t.Errorf("the run does not begin with the new list: %+v", got)
					}
					return
				}
				before := u.get("task").Status
				u.put("list", "# as it was\nhttps://h/a\nhttps://h/b")
				pass(time.Minute)
				_, fed = u.seen()
				if fed := fed["task"]; fed == nil || !slices.Equal(taskstate.DistinctTargets(fed), []string{"https://h/a", "https://h/b"}) {
					t.Errorf("with its list restored, fed %v", fed)
				}
				if after := u.get("task").Status; after.Run != before.Run || len(after.Jobs) != len(before.Jobs) || (after.Submission == nil) != (before.Submission == nil) {
					t.Errorf("what was known of the run is lost: %+v", after)
				}
			})
		})
	}
}

// That a retry waits for its list is said of the version that asks for it.
func TestARetryThatWaitsForItsListSpeaksOfTheNewestGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		task := listTask("task", "list")
		task.Spec.Targets = []v1alpha1.Target{"https://h/a", "https://h/b"}
		taskstate.RecordJob("job-1", nil, time.Now())(claimedAt(task, time.Now()))
		taskstate.FinishRun(task, 1, 1, time.Now())
		task.Spec.Targets = nil
		task.Annotations, task.Generation = map[string]string{v1alpha1.RetryAnnotation: "1"}, 2
		u := newListUnit(t, task)
		u.put("list", "https://h/other")
		u.versions.ObserveTask(u.get("task"))
		pass(time.Minute)
		status := u.get("task").Status
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
		u := newListUnit(t, listTask("task", "list"))
		feed := func() { u.versions.ObserveTask(u.get("task")) }
		feed()
		pass(10 * time.Second)
		first := u.get("task")
		feed()
		ready := meta.FindStatusCondition(first.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || ready.Reason != v1alpha1.ReasonTargetsMissing || first.Status.ObservedGeneration != 1 || taskstate.IsStalledFor(first, ready.Reason) {
			t.Fatalf("at first: %+v", first.Status)
		}
		for range 10 {
			pass(u.RecheckInterval)
			feed() // as its event would
		}
		reads, _ := u.seen()
		stalled := u.get("task")
		if !taskstate.IsStalledFor(stalled, v1alpha1.ReasonTargetsMissing) {
			t.Errorf("after a while: %+v", stalled.Status)
		}
		if reads < 10 || reads > 12 {
			t.Errorf("%d reads in 10 intervals", reads)
		}
		pass(time.Hour)
		if again := u.get("task"); again.ResourceVersion != stalled.ResourceVersion {
			t.Error("the same was written again")
		}
		reads, _ = u.seen()
		edited := stalled.DeepCopy()
		edited.Generation, edited.ResourceVersion = 2, "2000"
		u.put("list", "https://h/a")
		u.versions.ObserveTask(edited)
		pass(2 * time.Second)
		if after, fed := u.seen(); after != reads+1 || fed["task"] == nil {
			t.Errorf("after an edit: %d reads, fed %v", after-reads, fed["task"])
		}
	})
}

// The API server's answer to a write has no targets from a ConfigMap, and neither
// has a live read. A read of another run must not get those of this one.
func TestTargetsOutliveWritesAndReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stored := listTask("task", "list")
		u := newListUnit(t, stored)
		targets := []v1alpha1.Target{"https://h/a", "https://h/b"}
		task := taskstate.WithTargets(u.get("task"), targets)
		written, err := u.store.WriteStatus(context.Background(), task, func(task *v1alpha1.PrefetchTask) { claimedAt(task, time.Now()) })
		if err != nil || !slices.Equal(written.Spec.Targets, targets) || written.Status.TargetsHash != taskstate.HashTargets(task) {
			t.Fatalf("written: %v, %+v", err, written)
		}
		if got := u.get("task"); len(got.Spec.Targets) != 0 || got.Status.TargetsHash == "" || *got.Status.Targets.Total != 2 {
			t.Errorf("the API server has %+v", got)
		}
		read, err := u.store.ReadTask(context.Background(), task)
		if err != nil || !slices.Equal(read.Spec.Targets, targets) {
			t.Errorf("read: %v, %+v", err, read)
		}
		other := taskstate.WithTargets(task, []v1alpha1.Target{"https://h/c"})
		if read, err := u.store.ReadTask(context.Background(), other); err != nil || len(read.Spec.Targets) != 0 {
			t.Errorf("a run with another list: %v, %+v", err, read)
		}
		edited := u.get("task")
		edited.Spec.Revision = "v2"
		if err := u.store.Update(context.Background(), edited); err != nil {
			t.Fatal(err)
		}
		if read, err := u.store.ReadTask(context.Background(), task); err != nil || len(read.Spec.Targets) != 0 {
			t.Errorf("a new run: %v, %+v", err, read)
		}
	})
}

// Whatever is done to a task whose targets are not known, nothing is taken for
// handed over or for not handed over, and no run for finished.
func TestATaskWithoutItsTargetsKeepsWhatItsStatusSays(t *testing.T) {
	task := listTask("task", "list")
	task.Spec.Targets = []v1alpha1.Target{"https://h/a", "https://h/b", "https://h/c"}
	now := time.Now()
	claimedAt(task, now)
	task.Status.Submission.Targets = "0-1"
	task.Spec.Targets = nil
	if taskstate.IsWaiting(task) || !taskstate.NeedsTargetList(task) {
		t.Error("it is not waiting for its targets")
	}
	if _, open := openZone(task); open {
		t.Error("it is looked for")
	}
	taskstate.RecordJob("job-1", map[string]string{"https://h/a": "no"}, now)(task)
	if s := task.Status; len(s.Jobs) != 1 || s.Jobs[0].Targets != "0-1" || taskstate.IsRunOver(task) {
		t.Errorf("recorded: %+v", s)
	}
	follow(taskstate.JobRecords{}, 0, now, now.Add(time.Hour))(task)
	if s := task.Status; s.Jobs[0].Failed != 0 || taskstate.IsRunOver(task) || !s.CompletionTime.IsZero() {
		t.Errorf("followed: %+v", s)
	}
	task.Status.Submission = &v1alpha1.Submission{ClaimID: "x", Targets: "2", SignedAt: metav1.NewTime(now)}
	taskstate.AdoptJobs([]taskstate.AdoptedJob{{JobID: "job-2", Positions: taskstate.Positions{2}}}, now)(task)
	if s := task.Status; len(s.Jobs) != 2 || s.Jobs[1].Targets != "2" || taskstate.IsRunOver(task) {
		t.Errorf("adopted: %+v", s)
	}
}

// A task may be held for hours after its list was read.
func TestARunStartsWithTheListThatTheConfigMapHasThen(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"the same", "https://h/first\n", []string{"https://h/first"}},
		{"corrected", "https://h/corrected\n", []string{"https://h/corrected"}},
		{"invalid by now", "no URL\n", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				edgeOne := unitEdgeOne(nil)
				defer edgeOne.Close()
				u := newListUnit(t, listTask("a", "urls"))
				u.edgeOne = newUnit(t, edgeOne.RoundTripper(), nil).edgeOne
				u.put("urls", "https://h/first\n")
				u.learnTime()
				s, l := u.submitter(u.get("a"))
				pass(time.Second)
				l.mu.Lock()
				l.queue.SetQuota(unitZone, 0, 0, time.Now())
				l.mu.Unlock()
				pass(12 * time.Hour)
				u.put("urls", tt.text)
				l.mu.Lock()
				l.queue.SetQuota(unitZone, 0, 100, time.Now())
				l.mu.Unlock()
				for range 20 {
					if _, err := s.Reconcile(t.Context(), taskstate.AccountKey{}); err != nil {
						t.Fatal(err)
					}
					pass(time.Second)
				}
				var executed []string
				for _, execution := range edgeOne.Ledger() {
					executed = append(executed, execution.Accepted...)
				}
				if !slices.Equal(executed, tt.want) {
					t.Errorf("executed is %v, want %v", executed, tt.want)
				}
				if reason := taskstate.ReadyReason(u.get("a")); tt.want == nil && reason != v1alpha1.ReasonTargetsInvalid {
					t.Errorf("the reason is %s", reason)
				}
			})
		})
	}
}

// Small lists that make room do not let large ones take more than the budget.
func TestSmallListsThatMakeRoomDoNotLetLargeOnesExceedTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const small, large, size = 200, 100, 900 << 10
		u := newListUnit(t)
		for i := range small {
			u.put(fmt.Sprint("small-", i), fmt.Sprint("https://h/", i))
			u.versions.ObserveTask(listTask(fmt.Sprint("small-", i), fmt.Sprint("small-", i)))
		}
		pass(40 * time.Second)
		for i := range large {
			u.put(fmt.Sprint("large-", i), longText(i, size))
			u.versions.ObserveTask(listTask(fmt.Sprint("large-", i), fmt.Sprint("large-", i)))
		}
		pass(25 * time.Second)
		kept := 0
		for _, task := range u.versions.AllTasks() {
			kept += taskstate.TargetsSize(task)
		}
		if kept > targetlist.MaxListed+targetlist.MaxReaders*size {
			t.Errorf("lists of %d MiB are in memory, want %d", kept>>20, targetlist.MaxListed>>20)
		}
		u.removeAll()
	})
}

func TestEditsOfATenantDoNotKeepOthersConfigMapsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many, size = 50, 900 << 10
		u := newListUnit(t)
		for i := range many {
			u.put(fmt.Sprint("list-", i), longText(i, size))
			u.versions.ObserveTask(listTask(fmt.Sprint("task-", i), fmt.Sprint("list-", i)))
		}
		pass(20 * time.Second)
		u.put("quiet", "https://h/quiet")
		quiet := listTask("quiet", "quiet")
		quiet.Namespace = "quiet"
		u.versions.ObserveTask(quiet)
		version := 100
		for range 30 {
			for i := range many {
				version++
				edited := listTask(fmt.Sprint("task-", i), fmt.Sprint("list-", i))
				edited.ResourceVersion = fmt.Sprint(version)
				u.versions.ObserveTask(edited)
			}
			pass(20 * time.Second)
			if _, fed := u.seen(); fed["quiet"] != nil {
				u.removeAll()
				return
			}
		}
		t.Error("the list of another namespace was not read in 10 minutes")
		u.removeAll()
	})
}

// What refuses a list is written beside the reading of other lists.
func TestTellingOfABadListKeepsNoReaderBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tasks []*v1alpha1.PrefetchTask
		for k := range targetlist.MaxReaders {
			for i := range 300 {
				tasks = append(tasks, listTask(fmt.Sprintf("t-%d-%d", k, i), fmt.Sprint("bad-", k)))
			}
		}
		lists := &configMaps{texts: map[string]string{}}
		slow := newUnitWith(t, nil, func(write func() error) error { time.Sleep(time.Second); return write() }, lists, tasks...)
		u := &listUnit{slow, lists, map[string]*v1alpha1.PrefetchTask{}}
		for k := range targetlist.MaxReaders {
			u.put(fmt.Sprint("bad-", k), "no URL")
		}
		u.put("quiet", "https://h/quiet")
		for _, task := range tasks {
			u.versions.ObserveTask(u.get(task.Name))
		}
		pass(2 * time.Second)
		quiet := listTask("quiet", "quiet")
		quiet.Namespace = "quiet"
		u.versions.ObserveTask(quiet)
		pass(5 * time.Second)
		if taskstate.IsUnresolved(u.versions.NewestVersion(client.ObjectKeyFromObject(quiet))) {
			t.Error("the list of another namespace waits for statuses to be written")
		}
		pass(10 * time.Minute)
		u.removeAll()
	})
}
