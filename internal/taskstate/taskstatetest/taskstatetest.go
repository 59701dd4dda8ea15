// Package taskstatetest creates tasks in the states that tests need.
package taskstatetest

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// ListURLs returns n distinct targets. Each path contains the prefix.
func ListURLs(prefix string, n int) []v1alpha1.Target {
	targets := make([]v1alpha1.Target, n)
	for i := range targets {
		targets[i] = v1alpha1.Target(fmt.Sprintf("https://a.example/%s/%d", prefix, i))
	}
	return targets
}

// serial makes the UID and the creation time of each task unique.
var serial int

// NewTask returns a newly created task with the given targets. The name may be
// NAMESPACE/NAME. The status has not observed any generation.
func NewTask(name string, targets ...v1alpha1.Target) *v1alpha1.PrefetchTask {
	serial++
	namespace, name, ok := strings.Cut(name, "/")
	if !ok {
		namespace, name = "default", namespace
	}
	task := &v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: name, UID: types.UID(strconv.Itoa(serial)), Generation: 1,
		CreationTimestamp: metav1.NewTime(time.Date(2026, 7, 1, 0, 0, 0, serial*1000, time.UTC)),
	}}
	task.Spec.ZoneID, task.Spec.Targets = "zone-1", targets
	task.Status.ObservedGeneration = -1
	return task
}

// Begun returns an edit that starts the task's run and hands over the targets at these
// positions.
func Begun(positions string) func(*v1alpha1.PrefetchTask) {
	return func(p *v1alpha1.PrefetchTask) {
		p.Status.Run, p.Status.ObservedGeneration = taskstate.RunHash(p), p.Generation
		if positions != "" {
			p.Status.Jobs = []v1alpha1.Job{{ID: "job", ClaimID: "old", Positions: positions}}
		}
	}
}

// WithLostCalls returns an edit that sets the number of the task's lost calls to n.
func WithLostCalls(n int32) func(*v1alpha1.PrefetchTask) {
	return func(p *v1alpha1.PrefetchTask) { p.Status.LostCalls = n }
}

// Finish marks the task's run as finished.
func Finish(p *v1alpha1.PrefetchTask) {
	meta.SetStatusCondition(&p.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionFinished, Status: metav1.ConditionTrue, Reason: "Succeeded"})
}

// Revise changes the revision, which asks for a new run.
func Revise(p *v1alpha1.PrefetchTask) { p.Spec.Revision += "+"; p.Generation++ }

// Suspend suspends the task. Like each change of the spec, it increments the generation.
func Suspend(p *v1alpha1.PrefetchTask) { p.Spec.Suspend = ptr.To(true); p.Generation++ }

// Resume ends the suspension of the task.
func Resume(p *v1alpha1.PrefetchTask) { p.Spec.Suspend = nil; p.Generation++ }

// UseEdgeMode changes the mode to edge, which also asks for a new run.
func UseEdgeMode(p *v1alpha1.PrefetchTask) { p.Spec.Mode = v1alpha1.ModeEdge; p.Generation++ }
