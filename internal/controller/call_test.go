package controller

import (
	"testing"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

func TestAnAnswerThatComesAfterAnEditCountsIfTheEditIsTakenBack(t *testing.T) {
	task := controllertest.TaskOf(10)
	controllertest.Claiming("0-9")(task)
	before := task.Spec.DeepCopy()
	task.Spec.Targets = []v1alpha1.Target{"https://h/9", "https://h/8"}
	taskstate.RecordJob("job", map[string]string{"https://h/9": "no"}, controllertest.T0)(task)
	task.Spec = *before
	if open := taskstate.OpenPositions(task); len(open) > 0 {
		t.Errorf("targets %v would be submitted again", open)
	}
}
