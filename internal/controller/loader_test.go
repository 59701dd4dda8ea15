package controller

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// Long lists are submitted completely and once, in several calls. Tasks with short lists do not
// wait for them.
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

// A retry submits the failed targets once, although the task's list is not kept in memory.
func TestARetryOfALongListIsSubmittedOnce(t *testing.T) {
	inCalm(t, simulator.Config{JobDuration: -1}, func(t *testing.T, w *calm) {
		long := make([]v1alpha1.Target, 100)
		for i := range long {
			long[i] = v1alpha1.Target(fmt.Sprintf("https://a1.example.com/%d/%s", i, strings.Repeat("x", 300)))
		}
		key := w.create("n", "a", long)
		task := w.server.get(key).DeepCopy()
		taskstate.ClaimTargets(v1alpha1.Submission{ClaimID: "c", ZoneID: "zone-a1", SignedAt: metav1.Now(), Positions: "0-99", Semantics: taskstate.HashSemantics(task)}, time.Now())(task)
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

// A task with a long list costs as many writes as any other task, and waits no longer.
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
			if took := time.Since(started); took > 1500*time.Millisecond { // includes the wait for a slot
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
