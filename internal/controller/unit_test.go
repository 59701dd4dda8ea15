package controller

import (
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// reopen returns the transition of a retry for which EdgeOne lists these records. nil means that
// the history was not read.
func reopen(listed taskstate.JobRecords, now time.Time) taskstate.Transition {
	return func(task *v1alpha1.PrefetchTask) {
		read := map[string]taskstate.JobFailures{}
		for i := range task.Status.Jobs {
			if job := &task.Status.Jobs[i]; listed != nil && !taskstate.NamesAllFailures(task, job) {
				read[job.ID] = taskstate.FailuresOf(task, job, controllertest.ReadingOf(task, listed, now))
			}
		}
		taskstate.ReopenFailed(read, now)(task)
	}
}
