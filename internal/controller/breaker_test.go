package controller

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/schedule"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

// What a write brings back is no larger in memory than what the watch brings.
func TestWhatAWriteBringsBackIsPruned(t *testing.T) {
	task := unitTask("a", 1)
	task.Annotations = map[string]string{"example.com/large": strings.Repeat("x", 200_000)}
	u := newUnit(t, nil, nil, task)
	u.versions.see(cached(slim(u.get("a"))))
	if _, err := u.store.write(t.Context(), u.versions.newest(client.ObjectKeyFromObject(task)), unknown("a change", false)); err != nil {
		t.Fatal(err)
	}
	if n := len(u.versions.newest(client.ObjectKeyFromObject(task)).Annotations["example.com/large"]); n > 0 {
		t.Errorf("after a status write, %d bytes of an annotation are kept", n)
	}
}

// No annotation and no labels of a task take more memory than the operator needs.
func TestALargeRetryAnnotationIsNotKeptAndCountsAllTheSame(t *testing.T) {
	task := unitTask("a", 1)
	task.Annotations = map[string]string{v1alpha1.RetryAnnotation: strings.Repeat("x", 200_000)}
	want := schedule.Retry(task)
	kept := slim(task.DeepCopy()).(*v1alpha1.PrefetchTask)
	if n := len(kept.Annotations[v1alpha1.RetryAnnotation]); n > maxAnnotation || schedule.Retry(kept) != want {
		t.Errorf("%d bytes are kept, retry %.20s", n, schedule.Retry(kept))
	}
}

func TestLabelsAreNotKept(t *testing.T) {
	task := unitTask("a", 1)
	task.Labels = map[string]string{"helm.toolkit.fluxcd.io/name": "r"}
	for i := range 10_000 {
		task.Labels[fmt.Sprintf("%s.example.com/%d", strings.Repeat("x", 50), i)] = "v"
	}
	kept := slim(task.DeepCopy()).(*v1alpha1.PrefetchTask)
	if len(kept.Labels) > 10 || madeAgainBy(kept) != "Flux" {
		t.Errorf("%d labels are kept", len(kept.Labels))
	}
}

// Small lists that make room do not let large ones take more than the budget.
func TestSmallListsThatMakeRoomDoNotLetLargeOnesExceedTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const small, large, size = 200, 100, 900 << 10
		u := newListUnit(t)
		for i := range small {
			u.put(fmt.Sprint("small-", i), fmt.Sprint("https://h/", i))
			u.versions.see(listTask(fmt.Sprint("small-", i), fmt.Sprint("small-", i)))
		}
		pass(40 * time.Second)
		for i := range large {
			var text strings.Builder
			for k := range size / 1000 {
				fmt.Fprintf(&text, "https://h/%d/%d/%s\n", i, k, strings.Repeat("x", 980))
			}
			u.put(fmt.Sprint("large-", i), text.String())
			u.versions.see(listTask(fmt.Sprint("large-", i), fmt.Sprint("large-", i)))
		}
		pass(25 * time.Second)
		kept := 0
		for _, task := range u.versions.all() {
			kept += listSize(task)
		}
		if kept > maxListed+readers*size {
			t.Errorf("lists of %d MiB are in memory, want %d", kept>>20, maxListed>>20)
		}
		u.removeAll()
	})
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
		quiet.Namespace, quiet.Spec.Targets = "quiet", longTargets("quiet", 2*maxList>>10)
		u := newUnit(t, nil, nil, append(tasks, quiet)...)
		leads := make(chan struct{})
		close(leads)
		newLoader(u.operator, u.store, leads)
		u.submitter()
		see := func(task *v1alpha1.PrefetchTask) {
			var stored v1alpha1.PrefetchTask
			if err := u.store.Get(t.Context(), client.ObjectKeyFromObject(task), &stored); err != nil {
				t.Fatal(err)
			}
			u.versions.see(cached(slim(&stored)))
		}
		for _, task := range tasks {
			see(task)
		}
		synctest.Wait()
		see(quiet)
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
				u.versions.see(cached(slim(&stored)))
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

func TestEditsOfATenantDoNotKeepOthersConfigMapsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many, size = 50, 900 << 10
		u := newListUnit(t)
		for i := range many {
			var text strings.Builder
			for k := range size / 1000 {
				fmt.Fprintf(&text, "https://h/%d/%d/%s\n", i, k, strings.Repeat("x", 980))
			}
			u.put(fmt.Sprint("list-", i), text.String())
			u.versions.see(listTask(fmt.Sprint("task-", i), fmt.Sprint("list-", i)))
		}
		pass(20 * time.Second)
		u.put("quiet", "https://h/quiet")
		quiet := listTask("quiet", "quiet")
		quiet.Namespace = "quiet"
		u.versions.see(quiet)
		version := 100
		for range 30 {
			for i := range many {
				version++
				edited := listTask(fmt.Sprint("task-", i), fmt.Sprint("list-", i))
				edited.ResourceVersion = fmt.Sprint(version)
				u.versions.see(edited)
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

// removeAll takes all tasks away and lets what is under way end.
func (u *unit) removeAll() {
	for _, task := range u.versions.all() {
		u.versions.remove(task)
	}
	pass(2 * time.Minute)
}

// Retries that cannot begin keep no long lists in memory.
func TestLongListsOfTasksThatAskForARetryTakeBoundedMemory(t *testing.T) {
	kept := 0
	for i := range 100 {
		task := unitTask(fmt.Sprint("t", i), 0)
		task.Spec.Targets = longTargets(task.Name, 1024)
		claimedAt(task, t0)
		record("job", nil, t0)(task)
		task.Status.Jobs[0].Failed = 1024
		sum(task, t0)
		task.Annotations = map[string]string{v1alpha1.RetryAnnotation: "1"}
		if !schedule.RetryDue(task) {
			t.Fatal("no retry is due")
		}
		kept += listSize(cached(slim(task)))
	}
	if kept > maxLoaded {
		t.Errorf("the cache keeps %d MiB of lists of 100 tasks", kept>>20)
	}
}

// A call that is looked for every 1.5 seconds does not cost a read of 1.5 MB each time.
func TestTheListOfATaskIsNotReadAtEachLookForItsCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(nil)
		task := unitTask("a", 0)
		task.Spec.Targets = longTargets("a", 2*maxList>>10)
		claimedAt(task, time.Now())
		u := newUnit(t, edgeOne.RoundTripper(), nil, task)
		newLoader(u.operator, u.store, make(chan struct{}))
		reads := &countingReader{Reader: u.store.live}
		u.store.live = reads
		p := u.poller(schedule.Elide(u.get("a")))
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
		p := u.poller(schedule.Elide(u.get("lost")))
		execute(t, edgeOne, schedule.Targets(lost)...)
		for range loads { // outcomes are being written, slowly
			_, done := p.borrowList(t.Context(), schedule.Elide(lost))
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
		l := newLoader(u.operator, u.store, make(chan struct{}))
		u.submitter()
		for i := range 5000 {
			task := unitTask(fmt.Sprint("t", i), 0)
			task.Spec.Targets, task.ResourceVersion = longTargets("x", 2*maxList>>10), fmt.Sprint(i+1)
			task = cached(slim(task))
			u.versions.see(task)
			u.versions.remove(task)
		}
		if n := len(l.queued) + len(l.waiting.of["default"]); n > 100 {
			t.Errorf("%d keys of tasks that are gone are kept", n)
		}
	})
}

// A task that is made again while the list of the one before is read gets its list.
func TestATaskMadeAgainWhileItsListIsReadGetsItsList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		task := unitTask("a", 0)
		task.Spec.Targets = longTargets("a", 2*maxList>>10)
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
			u.versions.remove(old)
			u.versions.see(cached(slim(u.get("a"))))
		}}
		newLoader(u.operator, reader, leads)
		_, line := u.submitter()
		old = cached(slim(u.get("a")))
		u.versions.see(old)
		time.Sleep(time.Minute)
		synctest.Wait()
		if newest := u.versions.newest(client.ObjectKeyFromObject(task)); newest == nil || schedule.IsElided(newest) || line.queue.Len() != 1 {
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

// What refuses a list is written beside the reading of other lists.
func TestTellingOfABadListKeepsNoReaderBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tasks []*v1alpha1.PrefetchTask
		for k := range readers {
			for i := range 300 {
				tasks = append(tasks, listTask(fmt.Sprintf("t-%d-%d", k, i), fmt.Sprint("bad-", k)))
			}
		}
		slow := newUnit(t, nil, func(write func() error) error { time.Sleep(time.Second); return write() }, tasks...)
		u := &listUnit{slow, &configMaps{texts: map[string]string{}}, map[string]*v1alpha1.PrefetchTask{}}
		u.lists = newLists(u.operator, u.configMaps, u.lists.leads)
		u.versions.lists = u.lists
		for k := range readers {
			u.put(fmt.Sprint("bad-", k), "no URL")
		}
		u.put("quiet", "https://h/quiet")
		for _, task := range tasks {
			u.versions.see(u.get(task.Name))
		}
		pass(2 * time.Second)
		quiet := listTask("quiet", "quiet")
		quiet.Namespace = "quiet"
		u.versions.see(quiet)
		pass(5 * time.Second)
		if schedule.Unresolved(u.versions.newest(client.ObjectKeyFromObject(quiet))) {
			t.Error("the list of another namespace waits for statuses to be written")
		}
		pass(10 * time.Minute)
		u.removeAll()
	})
}

// A look for lost calls holds a bounded part of a busy zone's history.
func TestALookForALostCallHoldsABoundedPartOfTheHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edgeOne := unitEdgeOne(func(c *simulator.Config) { c.Zones[0].Daily, c.Zones[0].Batch = 1<<30, 5000 })
		task := claimedAt(unitTask("a", 1), time.Now())
		u := newUnit(t, edgeOne.RoundTripper(), nil, task)
		p := u.poller(u.get("a"))
		for i := range 24 {
			time.Sleep(10 * time.Second)
			urls := make([]string, 5000)
			for k := range urls {
				urls[k] = fmt.Sprintf("https://h/other/%d/%d", i, k)
			}
			execute(t, edgeOne, urls...)
		}
		time.Sleep(5 * time.Minute)
		tasks, _ := settler{p}.claimsIn(zone{ID: unitZone})
		seen := p.plan(tasks)
		if !seen.fenced["claim of a"] {
			seen.fenced["claim of a"] = true
		}
		if err := p.lookForClaims(t.Context(), unitCreds, zone{ID: unitZone}, seen, true); err != nil {
			t.Fatal(err)
		}
		kept := 0
		for _, job := range seen.listing {
			kept += len(job)
		}
		if kept > 2*maxRecords {
			t.Errorf("%d records of others are in memory, for a call of one URL", kept)
		}
	})
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
		claim(v1alpha1.Submission{ClaimID: "c", ZoneID: "zone-a1", SignedAt: metav1.Now(), Targets: "0-99", Semantics: schedule.Semantics(task)}, time.Now())(task)
		record("job-1", nil, time.Now())(task)
		task.Status.Jobs[0].Failed = 100
		sum(task, time.Now())
		task.Annotations = map[string]string{v1alpha1.RetryAnnotation: "1"}
		if !schedule.RetryDue(task) {
			t.Fatal("no retry is due")
		}
		w.server.restore(task)
		w.start()
		if !w.await(10*time.Minute, func() bool { return readyReason(w.server.get(key)) == v1alpha1.ReasonSucceeded }) {
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
	newLoader(u.operator, u.store, leads)
	s, _ := u.submitter()
	task := unitTask("a", 0)
	task.ResourceVersion = "1"
	task.Spec.Targets = longTargets("a", 2*maxList>>10)
	task.Status.ObservedGeneration = task.Generation
	u.versions.see(cached(slim(task)))
	n := 0
	for _, line := range s.zones(time.Now())[unitZone].Waiting {
		n += line.Targets
	}
	if n != 2*maxList>>10 {
		t.Errorf("%d targets are said to wait, want %d", n, 2*maxList>>10)
	}
}

// An answer that is recorded late tells what EdgeOne refused, though the list was let go of.
func TestAnAnswerThatIsRecordedLateTellsWhatWasRefused(t *testing.T) {
	task := claimedAt(unitTask("a", 3), t0)
	u := newUnit(t, nil, nil, task)
	elided := schedule.Elide(u.get("a"))
	change := record("job", map[string]string{schedule.Targets(task)[1]: "no"}, t0)
	if _, err := u.store.settle(t.Context(), elided, "claim of a", change, fewTries); err != nil {
		t.Fatal(err)
	}
	if s := u.get("a").Status; s.RefusedTargets != "1" || len(s.FailedTargets) != 1 {
		t.Errorf("refused are %q, named %v; the job has %s", s.RefusedTargets, s.FailedTargets, s.Jobs[0].Targets)
	}
}
