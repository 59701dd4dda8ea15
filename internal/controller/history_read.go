package controller

import (
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// historyRead is what a look has read of EdgeOne's history.
type historyRead struct {
	at      time.Time // EdgeOne's time before the look
	listing jobRecords
	// whole has the jobs that were read by their ID: what their listing lacks, EdgeOne
	// did not have. Of other jobs a window may show only a part.
	whole map[string]bool
	// rejected has the jobs that EdgeOne does not let us read, or not completely.
	rejected map[string]error
	records  int
}

func newHistoryRead(at time.Time) *historyRead {
	return &historyRead{at: at, listing: jobRecords{}, whole: map[string]bool{}, rejected: map[string]error{}}
}

func (r *historyRead) addTasks(tasks []teo.PrefetchTask) {
	r.listing.addTasks(tasks)
	r.records += len(tasks)
}

// addWanted adds the jobs that have a URL for which isWanted. Others may be any number, and
// say nothing about it.
func (r *historyRead) addWanted(tasks []teo.PrefetchTask, isWanted func(identity string) bool) {
	jobs := map[string]bool{}
	for _, task := range tasks {
		jobs[task.JobID] = jobs[task.JobID] || r.listing[task.JobID] != nil || isWanted(target.Identity(task.Target))
	}
	r.addTasks(slices.DeleteFunc(tasks, func(task teo.PrefetchTask) bool { return !jobs[task.JobID] }))
}

// hasJob says whether the look has anything to say about a job.
func (r *historyRead) hasJob(jobID string) bool {
	return r.whole[jobID] || r.listing[jobID] != nil || r.rejected[jobID] != nil
}

// areIdentical says whether all jobs that were rejected were rejected in the same words.
func (r *historyRead) areIdentical() bool {
	words := map[string]bool{}
	for _, err := range r.rejected {
		words[teo.Message(err)] = true
	}
	return len(words) == 1
}

// jobOutcome is what a look has found out about a target of a job.
type jobOutcome int

const (
	targetUnderWay  jobOutcome = iota // or not read
	targetSucceeded                   // as EdgeOne lists it
	targetFailed                      // as EdgeOne lists it
	targetNoOutcome                   // it has not ended before the deadline
	targetForgotten                   // EdgeOne's history does not go back to it any more
)

// outcomeLimits are the times that decide about a job.
type outcomeLimits struct {
	deadline  time.Duration // from the call until a target must have ended
	retention time.Duration // how long EdgeOne's history shows a call
}

// judgeTarget is the only place that concludes an outcome. A target has ended if a listing
// says so. That it has not, or that it is not listed, counts only in a look that read
// that very job after the deadline: any other look may have missed it.
func (l outcomeLimits) judgeTarget(r *historyRead, job *v1alpha1.Job, identity string) jobOutcome {
	record, isListed := r.listing[job.ID][identity]
	age := r.at.Sub(job.SubmitTime.Time)
	switch {
	case isListed && record.Status == teo.StatusSuccess:
		return targetSucceeded
	case isListed && record.Ended():
		return targetFailed
	case !r.whole[job.ID] || age <= l.deadline:
		return targetUnderWay
	case !isListed && age > l.retention:
		return targetForgotten
	}
	return targetNoOutcome
}
