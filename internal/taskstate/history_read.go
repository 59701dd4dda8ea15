package taskstate

import (
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// HistoryRead holds the records that one pass has read of EdgeOne's history.
type HistoryRead struct {
	At      time.Time // EdgeOne's time before the pass
	Listing JobRecords
	// Whole contains the jobs that the pass read by their ID. The listing has all of
	// EdgeOne's records of these jobs. It may have only a part of other jobs, which a
	// window showed.
	Whole map[string]bool
	// Around contains rejected jobs that a window shows: it covers the time of their calls, and
	// the history of that time was complete.
	Around map[string]bool
	// Rejected contains the jobs that EdgeOne does not show, or not completely.
	Rejected map[string]error
	Records  int // number of records read
}

// NewHistoryRead returns an empty HistoryRead of a pass that starts at EdgeOne's time at.
func NewHistoryRead(at time.Time) *HistoryRead {
	return &HistoryRead{At: at, Listing: JobRecords{}, Whole: map[string]bool{}, Around: map[string]bool{}, Rejected: map[string]error{}}
}

// AddTasks adds records to the listing and counts them.
func (r *HistoryRead) AddTasks(tasks []teo.Record) {
	r.Listing.AddTasks(tasks)
	r.Records += len(tasks)
}

// AddWanted adds the jobs that have at least one wanted URL. It drops all other jobs:
// there may be any number of them, and they give no information about the wanted URLs.
func (r *HistoryRead) AddWanted(tasks []teo.Record, isWanted func(identity string) bool) {
	jobs := map[string]bool{}
	for _, task := range tasks {
		jobs[task.JobID] = jobs[task.JobID] || r.Listing[task.JobID] != nil || isWanted(task.Identity())
	}
	r.AddTasks(slices.DeleteFunc(tasks, func(task teo.Record) bool { return !jobs[task.JobID] }))
}

// HasJob reports whether the pass has a result for a job.
func (r *HistoryRead) HasJob(jobID string) bool {
	return r.Whole[jobID] || r.Listing[jobID] != nil || r.Rejected[jobID] != nil
}

// hasSucceeded reports whether the pass has read all of a job, and all of it has succeeded.
func (r *HistoryRead) hasSucceeded(jobID string) bool {
	for _, record := range r.Listing[jobID] {
		if record.Status != teo.StatusSuccess {
			return false
		}
	}
	return r.Whole[jobID] && len(r.Listing[jobID]) > 0
}

// AreIdentical reports whether EdgeOne rejected all rejected jobs with the same message.
func (r *HistoryRead) AreIdentical() bool {
	words := map[string]bool{}
	for _, err := range r.Rejected {
		words[teo.Message(err)] = true
	}
	return len(words) == 1
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// JobOutcome is the outcome of one target of a job.
type JobOutcome int

// The outcomes of a target.
const (
	TargetUnderWay  JobOutcome = iota // not ended, or not read
	TargetSucceeded                   // EdgeOne lists it as such
	TargetFailed                      // EdgeOne lists it as such
	TargetNoOutcome                   // the target did not end before the deadline
	TargetForgotten                   // EdgeOne's history no longer shows the target
)

// OutcomeLimits are the durations that decide the outcome of a target.
type OutcomeLimits struct {
	Deadline  time.Duration // from the call until a target must have ended
	Retention time.Duration // how long EdgeOne's history shows a call
	Settle    time.Duration // how long after its end a success counts
}

// JudgeTarget returns the outcome of a target. No other function concludes outcomes.
//
// A target has ended if a record shows it. The absence of a record, or a record of a
// target under way, counts only if the pass read this job by its ID after the deadline.
// Any other read may have missed the record.
func (l OutcomeLimits) JudgeTarget(r *HistoryRead, job *v1alpha1.Job, identity string) JobOutcome {
	record, isListed := r.Listing[job.ID][identity]
	age := r.At.Sub(job.SubmitTime.Time)
	switch {
	case isListed && record.Status == teo.StatusSuccess && l.Settle > 0 && r.At.Sub(latest(record.CreateTime, record.UpdateTime)) < l.Settle:
		return TargetUnderWay
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
