package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// samples are the tasks of hack/demo/tasks, with their expected states.
var samples = []struct {
	name                         string
	reason                       string // of the condition Ready
	submitted, succeeded, failed int32
}{
	{"single-url", v1alpha1.ReasonSucceeded, 1, 1, 0},
	{"with-headers", v1alpha1.ReasonSucceeded, 4, 4, 0},
	{"edge-mode", v1alpha1.ReasonSucceeded, 2, 2, 0},
	{"refresh", v1alpha1.ReasonSucceeded, 2, 2, 0},
	{"some-bad-urls", v1alpha1.ReasonPartiallyFailed, 5, 2, 3},
	{"over-quota", v1alpha1.ReasonDailyQuota, 3, 3, 0},
	{"own-credentials", v1alpha1.ReasonSucceeded, 2, 2, 0},
	{"large-list", v1alpha1.ReasonSucceeded, 3, 3, 0},
}

// unreached returns the names of the samples that have not reached their expected states,
// and of tasks that are missing from the list above.
func unreached(tasks map[string]*v1alpha1.PrefetchTask) (names []string) {
	unknown := maps.Clone(tasks)
	for _, want := range samples {
		delete(unknown, want.name)
		task := tasks[want.name]
		if task == nil {
			names = append(names, want.name)
			continue
		}
		s := &task.Status
		held := want.reason == v1alpha1.ReasonDailyQuota
		if s.ObservedGeneration != task.Generation || condition(task, v1alpha1.ConditionReady).Reason != want.reason ||
			ptr.Deref(s.Targets.Submitted, 0) != want.submitted || ptr.Deref(s.Targets.Succeeded, 0) != want.succeeded ||
			ptr.Deref(s.Targets.Failed, 0) != want.failed || len(s.FailedTargets) != int(want.failed) ||
			meta.IsStatusConditionTrue(s.Conditions, v1alpha1.ConditionFinished) == held ||
			meta.IsStatusConditionTrue(s.Conditions, v1alpha1.ConditionQuotaExceeded) != held ||
			s.NextAttemptTime.IsZero() == held {
			names = append(names, want.name)
		}
	}
	return append(names, slices.Sorted(maps.Keys(unknown))...)
}

func condition(task *v1alpha1.PrefetchTask, conditionType string) metav1.Condition {
	if c := meta.FindStatusCondition(task.Status.Conditions, conditionType); c != nil {
		return *c
	}
	return metav1.Condition{}
}

// change is a task that has changed or was deleted.
type change struct {
	task    *v1alpha1.PrefetchTask
	deleted bool
	at      time.Time
}

// taskWatch watches all tasks and prints a line when one changes.
type taskWatch struct {
	stop    func()
	changes <-chan change
	start   time.Time // when the first task arrived; printed times are relative to it
	tasks   map[string]*v1alpha1.PrefetchTask
	printed map[string]string // the last printed line of each task
}

func watchTasks(ctx context.Context, kube *cluster.Cluster) (*taskWatch, error) {
	ctx, cancel := context.WithCancel(ctx)
	changes := make(chan change, 1000) // changes that wait here keep their time
	ended, err := kube.WatchTasks(ctx, func(task *v1alpha1.PrefetchTask, gone bool) {
		select {
		case changes <- change{task, gone, time.Now()}:
		case <-ctx.Done():
		}
	})
	if err != nil {
		cancel()
		return nil, err
	}
	return &taskWatch{
		stop:    func() { cancel(); <-ended },
		changes: changes,
		tasks:   map[string]*v1alpha1.PrefetchTask{},
		printed: map[string]string{},
	}, nil
}

const taskColumns = "%-20s  %7v  %9v  %9v  %6v  %-5s  %s"

func (w *taskWatch) printHeader() {
	fmt.Printf("%8s  "+taskColumns+"\n", "TIME", "NAME", "TARGETS", "SUBMITTED", "SUCCEEDED", "FAILED", "READY", "REASON")
}

// see processes a change, and prints the task's line if it differs from the last one.
func (w *taskWatch) see(c change) {
	if w.start.IsZero() {
		w.start = c.at
	}
	name := c.task.Name
	if c.task.Namespace != metav1.NamespaceDefault {
		name = c.task.Namespace + "/" + name
	}
	w.tasks[name] = c.task
	line := w.line(name, c.task)
	if c.deleted {
		delete(w.tasks, name)
		line = fmt.Sprintf("%-20s  deleted", name)
	}
	if line != w.printed[name] {
		w.printed[name] = line
		fmt.Printf("%8s  %s\n", seconds(c.at.Sub(w.start)), paintOutcomes(line))
	}
}

func (w *taskWatch) line(name string, task *v1alpha1.PrefetchTask) string {
	ready := condition(task, v1alpha1.ConditionReady)
	t := task.Status.Targets
	number := func(n *int32) any {
		if n == nil {
			return ""
		}
		return *n
	}
	return strings.TrimRight(fmt.Sprintf(taskColumns, name,
		number(t.Total), number(t.Submitted), number(t.Succeeded), number(t.Failed), ready.Status, ready.Reason), " ")
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }
