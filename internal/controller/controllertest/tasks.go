package controllertest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// T0 is the current time in tests of functions that take the time as an argument.
var T0 = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// TaskOf returns a task with n targets that the operator has not observed yet.
func TaskOf(n int) *v1alpha1.PrefetchTask {
	task := &v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default", Generation: 1}}
	task.Spec.ZoneID = "zone-1"
	for i := range n {
		task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(fmt.Sprintf("https://h/%d", i)))
	}
	task.Status.ObservedGeneration = -1
	return task
}

// Claiming returns a transition that claims positions at T0.
func Claiming(positions string) taskstate.Transition {
	return taskstate.ClaimTargets(v1alpha1.Submission{ClaimID: "c-" + positions, ZoneID: "zone-1", Positions: positions, SignedAt: metav1.NewTime(T0)}, T0)
}

// Summary returns the conditions of a task: "Ready=Reason" if True, "-Ready=Reason" if False,
// and "?Ready=Reason" if Unknown.
func Summary(task *v1alpha1.PrefetchTask) string {
	var all []string
	for _, c := range task.Status.Conditions {
		text := map[metav1.ConditionStatus]string{"True": "", "False": "-", "Unknown": "?"}[c.Status] + c.Type + "=" + c.Reason
		all = append(all, text)
	}
	slices.SortFunc(all, func(a, b string) int { return strings.Compare(strings.TrimLeft(a, "-?"), strings.TrimLeft(b, "-?")) })
	return strings.Join(all, " ")
}

// Listed returns a history in which EdgeOne lists targets of a job.
func Listed(id, status string, positions ...int) taskstate.JobRecords {
	l := taskstate.JobRecords{}
	for _, i := range positions {
		l.AddTasks([]teo.Record{{JobID: id, Target: fmt.Sprintf("HTTPS://H:443/%d", i), Status: status, FailType: "originPullFailed"}})
	}
	return l
}

// ConditionOf returns "Status/Reason" of a condition, or "" if the task does not have it.
func ConditionOf(task *v1alpha1.PrefetchTask, kind string) string {
	if c := meta.FindStatusCondition(task.Status.Conditions, kind); c != nil {
		return string(c.Status) + "/" + c.Reason
	}
	return ""
}

// Asking returns a transition that makes the task request a retry.
func Asking(value string) taskstate.Transition {
	return func(task *v1alpha1.PrefetchTask) {
		metav1.SetMetaDataAnnotation(&task.ObjectMeta, v1alpha1.RetryAnnotation, value)
	}
}

// Submitted returns a transition that hands positions over in a job.
func Submitted(positions, job string) taskstate.Transition {
	return func(task *v1alpha1.PrefetchTask) {
		Claiming(positions)(task)
		taskstate.RecordJob(job, nil, T0)(task)
	}
}

// LongTargets returns targets of 1 KiB each, kib KiB in total, in the zone of unit tests.
func LongTargets(prefix string, kib int) []v1alpha1.Target {
	targets := make([]v1alpha1.Target, kib)
	for i := range targets {
		u := fmt.Sprintf("https://h/%s/%d/", prefix, i)
		targets[i] = v1alpha1.Target(u + strings.Repeat("x", 1024-len(u)))
	}
	return targets
}

// RemoveAll removes all tasks, and waits until the work in progress has ended.
func (u *Unit) RemoveAll() {
	for _, task := range u.Tasks.AllTasks() {
		u.Tasks.RemoveTask(task)
	}
	Pass(2 * time.Minute)
}
