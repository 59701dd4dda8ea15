package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/schedule"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
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

// keptLists is how many bytes of long lists are in memory, and of which tasks.
func (u *unit) keptLists() (size int, names map[string]bool) {
	names = map[string]bool{}
	for _, task := range u.versions.all() {
		if n := listSize(task); n > maxList {
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
		l := newLoader(u.operator, u.store, leads)
		u.submitter()
		for _, task := range tasks {
			var stored v1alpha1.PrefetchTask
			if err := u.store.Get(t.Context(), client.ObjectKeyFromObject(task), &stored); err != nil {
				t.Fatal(err)
			}
			u.versions.see(cached(slim(&stored)))
		}
		synctest.Wait()
		if size, names := u.keptLists(); size > 0 {
			t.Errorf("before it leads, %d bytes of %d lists are in memory", size, len(names))
		}
		close(leads)
		l.next()
		synctest.Wait()
		size, first := u.keptLists()
		if size < maxLoaded || size > maxLoaded+loads*kib<<10 || !first["quiet/t99"] {
			t.Errorf("%d bytes of lists are in memory, want %d; of tasks %v", size, maxLoaded, first)
		}
		// Nothing happens to these: their zone is held, say. The others have their turn.
		seen := map[string]bool{}
		for range 5 {
			time.Sleep(maxLoadedIdle + time.Second)
			synctest.Wait()
			size, names := u.keptLists()
			if size > maxLoaded+loads*kib<<10 {
				t.Fatalf("%d bytes of lists are in memory", size)
			}
			for name := range names {
				seen[name] = true
			}
		}
		if len(seen) < many*3/4 {
			t.Errorf("%d of %d lists had a turn in %s", len(seen), many, 5*maxLoadedIdle)
		}
		// And what is gone leaves nothing.
		for _, task := range u.versions.all() {
			u.versions.remove(task)
		}
		time.Sleep(maxLoadedIdle + time.Second)
		synctest.Wait()
		if size, _ := u.keptLists(); size > 0 || l.loaded.size > 0 || len(l.loaded.list)+len(l.waiting.of)+len(l.queued) > 0 || !l.waiting.isEmpty() {
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
		if !w.await(10*time.Second, func() bool { return over(w.server.get(short)) }) {
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
		task.Spec.Targets = longTargets("a", 2*maxList>>10)
		u := newUnit(t, nil, nil, task)
		leads := make(chan struct{})
		close(leads)
		reader := &failingReader{Reader: u.store, fails: 3}
		newLoader(u.operator, reader, leads)
		_, line := u.submitter()
		u.versions.see(cached(slim(u.get("a"))))
		time.Sleep(2*3*loadAgain + time.Second)
		synctest.Wait()
		if reader.fails > 0 || line.queue.Len() != 1 {
			t.Fatalf("%d reads are to fail yet, %d tasks are in line", reader.fails, line.queue.Len())
		}
		call := u.planned(line)
		if got := len(call.URLs); got != 2*maxList>>10 || schedule.IsElided(call.Parts[0].Task) {
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
		reads := &countingReader{Reader: u.store.live}
		u.store.live = reads
		p := u.poller(schedule.Elide(u.get("a")))
		u.lookUntil(p, unitZone, time.Now().Add(9*time.Minute))
		if reads.n > 2 {
			t.Errorf("the list was read %d times while nothing had ended", reads.n)
		}
		u.lookUntil(p, unitZone, time.Now().Add(5*time.Minute))
		if now := u.get("a"); readyReason(now) != v1alpha1.ReasonSucceeded || reads.n > 6 {
			t.Errorf("the task is %s after %d reads", readyReason(now), reads.n)
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
