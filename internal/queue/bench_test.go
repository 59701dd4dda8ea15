package queue

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate/taskstatetest"
)

// waitingBeside returns a queue with a number of waiting tasks, in one lane and ten
// namespaces. The queue has also seen a number of finished tasks of the same lane.
func waitingBeside(waiting, finished int) *Queue {
	now := time.Now()
	q := NewQueue(newWorld(nil).q.limits)
	for i := range finished {
		task := taskstatetest.NewTask(fmt.Sprintf("ns%d/done%d", i%10, i), v1alpha1.Target(fmt.Sprintf("https://a.example/done/%d", i)))
		task.ResourceVersion = "1"
		taskstatetest.Begun("0")(task)
		taskstatetest.Finish(task)
		q.UpsertTask(task, now)
	}
	for i := range waiting {
		task := taskstatetest.NewTask(fmt.Sprintf("ns%d/%d", i%10, i), v1alpha1.Target(fmt.Sprintf("https://a.example/%d", i)))
		task.ResourceVersion = "1"
		q.UpsertTask(task, now)
	}
	q.SetQuota("zone-1", 500, 1<<30, now)
	return q
}

// planAll plans calls until no task waits, as if EdgeOne accepted each call.
func planAll(q *Queue, waiting int) (calls int) {
	now := time.Now()
	for planned := 0; planned < waiting; calls++ {
		call := q.PlanNext(now).Call
		planned += len(call.Parts)
		q.RecordAccepted(call, make([]*v1alpha1.PrefetchTask, len(call.Parts)), 0, now)
	}
	return calls
}

func TestPlanningCostsTheSameBesideFinishedTasks(t *testing.T) {
	const waiting = 2000
	allocs := map[int]float64{}
	for _, finished := range []int{0, 20000} {
		q := waitingBeside(waiting, finished)
		if q.Len() != waiting || len(q.lanes) != 1 || len(q.namespaces) != 10 {
			t.Fatalf("beside %d finished tasks the queue knows %d tasks, %d lanes and %d namespaces, want %d, 1 and 10", finished, q.Len(), len(q.lanes), len(q.namespaces), waiting)
		}
		queues := []*Queue{q, waitingBeside(waiting, finished)} // AllocsPerRun runs once more to warm up
		allocs[finished] = testing.AllocsPerRun(1, func() {
			planAll(queues[0], waiting)
			queues = queues[1:]
		})
	}
	if allocs[20000] > 1.01*allocs[0] {
		t.Errorf("planning allocates %.0f times beside finished tasks and %.0f times alone", allocs[20000], allocs[0])
	}
}

// BenchmarkPlan plans calls of 500 tasks until none of 10,000 waiting tasks is left.
func BenchmarkPlan(b *testing.B) {
	const waiting = 10000
	for _, finished := range []int{0, 100000} {
		b.Run(fmt.Sprintf("10,000 waiting beside %d finished", finished), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				q := waitingBeside(waiting, finished)
				runtime.GC() // collect the garbage of the setup outside of the measurement
				b.StartTimer()
				planAll(q, waiting)
			}
		})
	}
}

// BenchmarkPlanOneCall plans and accepts one call of 500 tasks, and puts the tasks back.
func BenchmarkPlanOneCall(b *testing.B) {
	for _, beside := range []struct{ waiting, finished int }{{500, 0}, {500, 100000}, {50000, 0}} {
		b.Run(fmt.Sprintf("beside %d waiting and %d finished", beside.waiting-500, beside.finished), func(b *testing.B) {
			q, now := waitingBeside(beside.waiting, beside.finished), time.Now()
			b.ReportAllocs()
			for b.Loop() {
				call := q.PlanNext(now).Call
				if len(call.Parts) != 500 {
					b.Fatal(len(call.Parts))
				}
				q.RecordReleased(call, make([]*v1alpha1.PrefetchTask, len(call.Parts)), now)
				b.StopTimer()
				q.SetQuota("zone-1", 500, 1<<30, now) // it is forgotten with the last task of the zone
				for _, part := range call.Parts {
					q.UpsertTask(part.Task, now)
				}
				b.StartTimer()
			}
		})
	}
}

// largeTask returns a task with 10,000 URLs of 100 bytes. A job covers the first half of
// them.
func largeTask() *v1alpha1.PrefetchTask {
	targets := make([]v1alpha1.Target, 10000)
	for i := range targets {
		targets[i] = v1alpha1.Target(fmt.Sprintf("https://a.example/%s/%05d?a=1&b=2", strings.Repeat("x", 67), i))
	}
	task := taskstatetest.NewTask("large", targets...)
	task.ResourceVersion = "1"
	taskstatetest.Begun("0-4999")(task)
	return task
}

// BenchmarkLargeTask measures the cost of reading the target list of a large task once.
func BenchmarkLargeTask(b *testing.B) {
	task, manyJobs := largeTask(), largeTask()
	for i := range 5000 {
		manyJobs.Status.Jobs = append(manyJobs.Status.Jobs, v1alpha1.Job{ID: fmt.Sprint(i), Positions: fmt.Sprintf("%d-%d", 2*i, 2*i+1)})
	}
	for _, c := range []struct {
		name string
		do   func()
	}{
		{"Targets", func() { taskstate.DistinctTargets(task) }},
		{"Run", func() { taskstate.RunHash(task) }},
		{"Open", func() { taskstate.OpenPositions(task) }},
		{"Waiting", func() { taskstate.IsWaiting(task, v1alpha1.JobPrefetch) }},
		{"HandedOver by 5000 jobs", func() { taskstate.HandedOverPositions(manyJobs) }},
		{"Set", func() { NewQueue(newWorld(nil).q.limits).UpsertTask(task, time.Now()) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.do()
			}
		})
	}
}
