package taskstate

import (
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// HistoryRead is what one pass has read of EdgeOne's history.
type HistoryRead struct {
	At      time.Time // EdgeOne's time before the look
	Listing JobRecords
	// Whole has the jobs that were read by their ID. EdgeOne has nothing of them that
	// the listing lacks. A window may show only a part of other jobs.
	Whole map[string]bool
	// Rejected has the jobs that EdgeOne does not let us read, or not completely.
	Rejected map[string]error
	Records  int
}

// NewHistoryRead returns an empty read that began at EdgeOne's time at.
func NewHistoryRead(at time.Time) *HistoryRead {
	return &HistoryRead{At: at, Listing: JobRecords{}, Whole: map[string]bool{}, Rejected: map[string]error{}}
}

// AddTasks adds records to the listing and counts them.
func (r *HistoryRead) AddTasks(tasks []teo.PrefetchTask) {
	r.Listing.AddTasks(tasks)
	r.Records += len(tasks)
}

// AddWanted adds the jobs that have a URL for which isWanted. Others may be any number, and
// say nothing about it.
func (r *HistoryRead) AddWanted(tasks []teo.PrefetchTask, isWanted func(identity string) bool) {
	jobs := map[string]bool{}
	for _, task := range tasks {
		jobs[task.JobID] = jobs[task.JobID] || r.Listing[task.JobID] != nil || isWanted(target.Identity(task.Target))
	}
	r.AddTasks(slices.DeleteFunc(tasks, func(task teo.PrefetchTask) bool { return !jobs[task.JobID] }))
}

// HasJob says whether the look has anything to say about a job.
func (r *HistoryRead) HasJob(jobID string) bool {
	return r.Whole[jobID] || r.Listing[jobID] != nil || r.Rejected[jobID] != nil
}

// AreIdentical says whether all jobs that were rejected were rejected in the same words.
func (r *HistoryRead) AreIdentical() bool {
	words := map[string]bool{}
	for _, err := range r.Rejected {
		words[teo.Message(err)] = true
	}
	return len(words) == 1
}

// JobOutcome is what a read says about one target of a job.
type JobOutcome int

// The outcomes of a target.
const (
	TargetUnderWay  JobOutcome = iota // or not read
	TargetSucceeded                   // as EdgeOne lists it
	TargetFailed                      // as EdgeOne lists it
	TargetNoOutcome                   // it has not ended before the deadline
	TargetForgotten                   // EdgeOne's history does not go back to it any more
)

// OutcomeLimits are the times that decide about a job.
type OutcomeLimits struct {
	Deadline  time.Duration // from the call until a target must have ended
	Retention time.Duration // how long EdgeOne's history shows a call
}

// JudgeTarget is the only place that concludes an outcome. A target has ended if a listing
// says so. That it has not, or that it is not listed, counts only in a look that read
// that very job after the deadline: any other look may have missed it.
func (l OutcomeLimits) JudgeTarget(r *HistoryRead, job *v1alpha1.Job, identity string) JobOutcome {
	record, isListed := r.Listing[job.ID][identity]
	age := r.At.Sub(job.SubmitTime.Time)
	switch {
	case isListed && record.Status == teo.StatusSuccess:
		return TargetSucceeded
	case isListed && record.Ended():
		return TargetFailed
	case !r.Whole[job.ID] || age <= l.Deadline:
		return TargetUnderWay
	case !isListed && age > l.Retention:
		return TargetForgotten
	}
	return TargetNoOutcome
}
