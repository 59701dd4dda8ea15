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

// T0 is a time at which things happen in tests that take time as an argument.
var T0 = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// TaskOf returns a task of n targets that nobody has seen yet.
func TaskOf(n int) *v1alpha1.PrefetchTask {
	task := &v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default", Generation: 1}}
	task.Spec.ZoneID = "zone-1"
	for i := range n {
		task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(fmt.Sprintf("https://h/%d", i)))
	}
	task.Status.ObservedGeneration = -1
	return task
}

// Claiming claims positions at T0.
func Claiming(positions string) taskstate.Transition {
	return taskstate.ClaimTargets(v1alpha1.Submission{ClaimID: "c-" + positions, ZoneID: "zone-1", Targets: positions, SignedAt: metav1.NewTime(T0)}, T0)
}

// Summary is the conditions of a task: "Ready=Reason" if True, "-Ready=Reason" if not.
func Summary(task *v1alpha1.PrefetchTask) string {
	var all []string
	for _, c := range task.Status.Conditions {
		text := map[metav1.ConditionStatus]string{"True": "", "False": "-", "Unknown": "?"}[c.Status] + c.Type + "=" + c.Reason
		all = append(all, text)
	}
	slices.SortFunc(all, func(a, b string) int { return strings.Compare(strings.TrimLeft(a, "-?"), strings.TrimLeft(b, "-?")) })
	return strings.Join(all, " ")
}

// Listed is a history in which EdgeOne lists targets of a job.
func Listed(id, status string, positions ...int) taskstate.JobRecords {
	l := taskstate.JobRecords{}
	for _, i := range positions {
		l.AddTasks([]teo.PrefetchTask{{JobID: id, Target: fmt.Sprintf("HTTPS://H:443/%d", i), Status: status, FailType: "originPullFailed"}})
	}
	return l
}

// ConditionOf returns "Status/Reason" of a condition, "" if the task has none.
func ConditionOf(task *v1alpha1.PrefetchTask, kind string) string {
	if c := meta.FindStatusCondition(task.Status.Conditions, kind); c != nil {
		return string(c.Status) + "/" + c.Reason
	}
	return ""
}

// Asking makes the task ask for a retry.
func Asking(value string) taskstate.Transition {
	return func(task *v1alpha1.PrefetchTask) {
		metav1.SetMetaDataAnnotation(&task.ObjectMeta, v1alpha1.RetryAnnotation, value)
	}
}

// Submitted hands positions over in a job.
func Submitted(positions, job string) taskstate.Transition {
	return func(task *v1alpha1.PrefetchTask) {
		Claiming(positions)(task)
		taskstate.RecordJob(job, nil, T0)(task)
	}
}

// LongTargets are targets of some KiB together, in the zone of unit tests.
func LongTargets(prefix string, kib int) []v1alpha1.Target {
	targets := make([]v1alpha1.Target, kib)
	for i := range targets {
		u := fmt.Sprintf("https://h/%s/%d/", prefix, i)
		targets[i] = v1alpha1.Target(u + strings.Repeat("x", 1024-len(u)))
	}
	return targets
}

// RemoveAll takes all tasks away and lets what is under way end.
func (u *Unit) RemoveAll() {
	for _, task := range u.Tasks.AllTasks() {
		u.Tasks.RemoveTask(task)
	}
	Pass(2 * time.Minute)
}
